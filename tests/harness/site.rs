//! The site of a test: modules, directives, applications.
//!
//! Responsible for: the scratch directory and the private configuration in it. Must never: start a
//! process except `httpd -t`. Called by: tests; [`Site::start`] passes it to `httpd.rs`.
//!
//! In every text of a test, `@dir@` is the scratch directory, `@apps@` that of the applications,
//! `@logs@` that of the logs, `@gates@` that of the FIFOs, `@port@` the port, `@venv@` the
//! virtualenv with Django and Flask.
use super::log::{Foreseen, Logs};
use super::{Httpd, gate::Gate, paths};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};

/// The module that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// mod_drover, as `make stage` installed it.
    Ours,
    /// mod_wsgi from PyPI.
    Theirs,
}

/// httpd's multi-processing modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mpm {
    /// One process for each connection.
    Prefork,
    /// Threads.
    Worker,
    /// Threads, and a listener for idle connections.
    Event,
}

impl Mpm {
    /// As in `mod_mpm_NAME.so`.
    pub fn name(self) -> &'static str {
        match self {
            Mpm::Prefork => "prefork",
            Mpm::Worker => "worker",
            Mpm::Event => "event",
        }
    }

    fn sizes(self) -> &'static str {
        match self {
            Mpm::Prefork => "StartServers 8\nMinSpareServers 8\nMaxSpareServers 64\nMaxRequestWorkers 64\n",
            _ => {
                "StartServers 1\nServerLimit 4\nThreadsPerChild 32\nThreadLimit 32\nMaxRequestWorkers 128\nMinSpareThreads 1\nMaxSpareThreads 128\n"
            }
        }
    }
}

/// The description of one httpd.
pub struct Site {
    /// The module that it loads.
    pub subject: Subject,
    /// Its MPM.
    pub mpm: Mpm,
    /// The mark of its processes.
    pub id: String,
    /// Its port.
    pub port: u16,
    pub(super) scratch: tempfile::TempDir,
    pub(super) foreseen: Foreseen,
    pub(super) environment: Vec<(String, String)>,
    pub(super) leftovers: bool,
    pub(super) single: bool,
    pub(super) directory: PathBuf,
    modules: BTreeSet<String>,
    head: String,
    daemon: Option<String>,
    config: String,
    aliases: String,
    load: Option<String>,
}

/// Whether the tests run as root, so that httpd changes its user.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user of httpd's child processes and of the workers.
pub fn user() -> &'static str {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["www-data", "apache", "daemon"].into_iter().find(|u| passwd.lines().any(|l| l.starts_with(&format!("{u}:")))).unwrap_or("nobody")
}

/// A free port on 127.0.0.1 that the kernel does not assign to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    loop {
        let port = 10_500 + ((start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))) % 21_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Site {
    /// An empty site.
    pub fn new(subject: Subject, mpm: Mpm, test: &str) -> Site {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = test.rsplit("::").next().unwrap_or(test);
        let id = format!("{}-{}-{name}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = tempfile::Builder::new().prefix(&format!("drover-{name}-")).tempdir_in("/tmp").expect("scratch directory");
        let site = Site {
            subject,
            mpm,
            id,
            port: free_port(),
            scratch,
            foreseen: Foreseen::default(),
            environment: Vec::new(),
            leftovers: false,
            single: false,
            directory: "/".into(),
            modules: ["authz_core", "unixd", "log_config"].map(String::from).into(),
            head: String::new(),
            daemon: Some("processes=1 threads=4".into()),
            config: String::new(),
            aliases: String::new(),
            load: None,
        };
        for dir in ["", "apps", "logs", "run", "gates", "htdocs"] {
            let path = site.dir().join(dir);
            std::fs::create_dir_all(&path).expect("directory in scratch");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("mode of scratch");
        }
        copy_tree(&paths::repository().join("tests/apps"), &site.apps());
        site
    }

    /// The scratch directory.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The directory of the applications.
    pub fn apps(&self) -> PathBuf {
        self.dir().join("apps")
    }

    /// Whether mod_wsgi serves.
    pub fn theirs(&self) -> bool {
        self.subject == Subject::Theirs
    }

    /// Loads more of httpd's own modules: names as in `mod_NAME.so`.
    pub fn modules(mut self, names: &str) -> Site {
        self.modules.extend(names.split_whitespace().map(String::from));
        self
    }

    /// Adds directives of the main server, after the daemon group and before the aliases of
    /// [`Site::app`].
    pub fn config(mut self, text: &str) -> Site {
        self.config.push_str(text);
        self.config.push('\n');
        self
    }

    /// Adds directives before those of the harness.
    pub fn head(mut self, text: &str) -> Site {
        self.head.push_str(text);
        self.head.push('\n');
        self
    }

    /// Sets the options of the daemon group `app` that the harness defines; default `processes=1
    /// threads=4`.
    pub fn daemon(mut self, options: &str) -> Site {
        self.daemon = Some(options.into());
        self
    }

    /// Omits the daemon group and the WSGIProcessGroup of the harness: the test writes its own.
    pub fn bare(mut self) -> Site {
        self.daemon = None;
        self
    }

    /// Replaces the LoadModule line of the harness.
    pub fn load(mut self, line: &str) -> Site {
        self.load = Some(line.into());
        self
    }

    /// `WSGIScriptAlias URL FILE`, with a file of tests/apps.
    pub fn app(mut self, url: &str, file: &str) -> Site {
        let _ = writeln!(self.aliases, "WSGIScriptAlias {url} @apps@/{file}");
        self
    }

    /// Writes an application (or any other file) below `@apps@`.
    pub fn script(self, name: &str, text: &str) -> Site {
        self.write(name, text);
        self
    }

    /// As [`Site::script`], without consuming.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.apps().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        std::fs::write(path, self.fill(text)).expect("script");
    }

    /// Sets a variable in httpd's environment.
    pub fn environment(mut self, name: &str, value: &str) -> Site {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// A line that must occur in a log, and may be loud; `*` matches anything, `|` separates
    /// alternatives.
    pub fn expect_log(mut self, pattern: &str) -> Site {
        self.foreseen.expected.push(self.fill(pattern));
        self
    }

    /// A loud line that may occur. A crash must be expected, not allowed.
    pub fn allow_log(mut self, pattern: &str) -> Site {
        self.foreseen.allowed.push(self.fill(pattern));
        self
    }

    /// Allows output of the application: tracebacks, stacks, prints; not a line with a code.
    pub fn allow_output(mut self) -> Site {
        self.foreseen.output = true;
        self
    }

    /// Allows files in the runtime directory afterwards: the test kills httpd's parent.
    pub fn allow_leftovers(mut self) -> Site {
        self.leftovers = true;
        self
    }

    /// `httpd -X`: one process.
    pub fn single(mut self) -> Site {
        self.single = true;
        self
    }

    /// Sets the directory in which httpd starts; default `/`.
    pub fn directory(mut self, path: &str) -> Site {
        self.directory = self.fill(path).into();
        self
    }

    /// A FIFO between test and application.
    pub fn gate(&self, name: &str) -> Gate {
        Gate::new(&self.dir().join("gates"), name)
    }

    /// The logs.
    pub fn logs(&self) -> Logs {
        Logs::new(&self.dir().join("logs"))
    }

    /// Replaces `@…@` by the real names.
    pub fn fill(&self, text: &str) -> String {
        let dir = self.dir().display().to_string();
        let mut text = text.replace("@dir@", &dir).replace("@port@", &self.port.to_string());
        for part in ["apps", "logs", "gates", "htdocs"] {
            text = text.replace(&format!("@{part}@"), &format!("{dir}/{part}"));
        }
        if text.contains("@venv@") {
            text = text.replace("@venv@", &paths::apps_venv().display().to_string());
        }
        text
    }

    /// The LoadModule line of the module under test.
    pub fn load_line(&self) -> String {
        let path = if self.theirs() { paths::their_module() } else { paths::our_module() };
        format!("LoadModule wsgi_module {}", path.display())
    }

    /// The whole configuration.
    pub fn text(&self) -> String {
        let mut out =
            String::from("ServerRoot @dir@\nDefaultRuntimeDir @dir@/run\nPidFile @dir@/run/httpd.pid\nErrorLog @logs@/error.log\n");
        out.push_str("ServerName localhost\nListen 127.0.0.1:@port@\nDocumentRoot @htdocs@\nLogLevel info\n");
        if is_root() {
            let _ = writeln!(out, "User {0}\nGroup {0}", user());
        }
        for module in [format!("mpm_{}", self.mpm.name())].iter().chain(&self.modules).filter(|m| !paths::is_static(m)) {
            let _ = writeln!(out, "LoadModule {module}_module {}/mod_{module}.so", paths::modules().display());
        }
        out.push_str(self.mpm.sizes());
        out.push_str(&self.head);
        out.push_str(self.load.as_deref().unwrap_or(&self.load_line()));
        out.push_str("\nWSGIChunkedRequest On\n");
        out.push_str(if self.theirs() { "WSGISocketPrefix @dir@/run/wsgi\n" } else { "DroverSessionDirectory @dir@/sessions\n" });
        if let Some(options) = &self.daemon {
            let path = if options.contains("python-path=") { "" } else { " python-path=@apps@" };
            let _ = writeln!(out, "WSGIDaemonProcess app {options}{path}\nWSGIProcessGroup app\nWSGIApplicationGroup %{{GLOBAL}}");
        }
        out.push_str(&self.config);
        out.push_str(&self.aliases);
        self.fill(&out)
    }

    /// Writes the configuration and returns its path.
    pub fn write_config(&self) -> PathBuf {
        let path = self.dir().join("httpd.conf");
        std::fs::write(&path, self.text()).expect("configuration");
        path
    }

    /// `httpd -t`: exit status and output.
    pub fn configtest(&self) -> Output {
        let config = self.write_config();
        let mut command = std::process::Command::new(paths::httpd());
        command.arg("-t").arg("-f").arg(config).env_clear().envs(super::httpd::environment(self)).output().expect("httpd -t")
    }

    /// Asserts that `httpd -t` refuses the configuration, with each of `parts` in its output.
    #[track_caller]
    pub fn refused(&self, parts: &[&str]) {
        let output = self.configtest();
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &self.logs().all();
        assert!(!output.status.success(), "accepted, but should be refused with {parts:?}:\n{}\n{text}", self.text());
        for part in parts {
            assert!(text.contains(&self.fill(part)), "no {part:?} in the output of httpd -t:\n{text}");
        }
    }

    /// Asserts that `httpd -t` accepts the configuration; returns its output.
    #[track_caller]
    pub fn accepted(&self) -> String {
        let output = self.configtest();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "refused:\n{}\n{text}", self.text());
        text + &self.logs().all()
    }

    /// Starts httpd; returns when it serves.
    #[track_caller]
    pub fn start(self) -> Httpd {
        Httpd::start(self)
    }
}

/// Copies a directory's files, readable by every user.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory");
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755)).expect("mode");
    for entry in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())).flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target);
        } else {
            std::fs::copy(&source, &target).expect("copy");
            let mode = source.metadata().expect("metadata").permissions().mode() | 0o444;
            std::fs::set_permissions(&target, PermissionsExt::from_mode(mode)).expect("mode");
        }
    }
}
