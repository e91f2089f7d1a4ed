//! Paths and accounts on this machine.
//!
//! Responsible for: finding mod_drover's other parts (relative to this executable), httpd, its
//! modules, the interpreter, and the user to run as. Must never: guess silently; a missing part is
//! an [`Error::Missing`] that names what to install. Called by: `serve.rs`, `check.rs`.
use crate::arguments::Options;
use crate::error::Error;
use drover_sys::reach::{self, Need, Who};
use drover_sys::spawn::supplementary_groups;
use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The other parts of mod_drover, which are in one directory.
pub struct Companions {
    pub module: PathBuf,
    pub droverd: PathBuf,
    pub extension: PathBuf,
    pub python: PathBuf,
}

/// httpd and its modules.
pub struct Httpd {
    pub program: PathBuf,
    pub modules: PathBuf,
    compiled_in: String,
}

/// The other parts of mod_drover: in `../lib/mod_drover`, relative to this executable's directory.
pub fn companions() -> Result<Companions, Error> {
    let own = std::env::current_exe().and_then(|p| p.canonicalize()).map_err(|e| Error::io("/proc/self/exe", e))?;
    let dir = own.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join("lib/mod_drover");
    let find = |name: &str, what| {
        let path = dir.join(name);
        if path.exists() { Ok(path) } else { Err(Error::Missing(what, format!("no {}; run `make install`", path.display()))) }
    };
    Ok(Companions {
        module: find("mod_drover.so", "the module mod_drover.so")?,
        droverd: find("droverd", "the supervisor droverd")?,
        extension: find("_drover.abi3.so", "the worker's extension")?,
        python: find("python", "the Python packages")?,
    })
}

/// The first of these programs that is on PATH or in one of the usual directories of daemons.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let well_known = ["/usr/sbin", "/usr/local/sbin", "/usr/local/apache2/bin", "/usr/bin"].map(PathBuf::from);
    let directories: Vec<PathBuf> = std::env::split_paths(&path).chain(well_known).collect();
    names.iter().find_map(|name| directories.iter().map(|d| d.join(name)).find(|p| is_executable(p)))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0)
}

fn output(program: &Path, arguments: &[&str]) -> Result<String, Error> {
    let result = Command::new(program).args(arguments).output().map_err(|e| Error::io(program.display(), e))?;
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

impl Httpd {
    /// Finds httpd, or checks the one of the options.
    pub fn find(options: &Options) -> Result<Httpd, Error> {
        let missing = || Error::Missing("Apache httpd", "install it (Debian: apt install apache2), or name it with --httpd".into());
        let found = match &options.httpd {
            Some(path) if is_executable(path) => path.clone(),
            Some(path) => return Err(Error::Missing("the httpd of --httpd", format!("no program {}", path.display()))),
            None => program(&["apache2", "httpd"]).ok_or_else(missing)?,
        };
        let modules =
            modules_of(&found).ok_or(Error::Missing("the directory of httpd's modules", "install apxs (Debian: apache2-dev)".into()))?;
        Ok(Httpd { compiled_in: output(&found, &["-l"])?, program: found, modules })
    }

    /// The version that it prints.
    pub fn version(&self) -> Result<String, Error> {
        let text = output(&self.program, &["-v"])?;
        Ok(text.lines().next().unwrap_or_default().trim_start_matches("Server version:").trim().to_string())
    }

    /// Whether a module is compiled in.
    pub fn has_compiled_in(&self, name: &str) -> bool {
        self.compiled_in.lines().any(|l| l.trim() == format!("mod_{name}.c") || l.trim() == format!("{name}.c"))
    }

    /// Whether a module can be loaded.
    pub fn has_file(&self, name: &str) -> bool {
        self.modules.join(format!("mod_{name}.so")).exists()
    }

    /// The MPM to use: the requested one, or the best available.
    pub fn mpm(&self, asked: Option<&str>) -> Result<String, Error> {
        let mut names = match asked {
            Some(name) => vec![name],
            None => vec!["event", "worker", "prefork"],
        };
        names.retain(|n| self.has_file(&format!("mpm_{n}")) || self.has_compiled_in(n));
        let hint = || {
            let name = asked.unwrap_or("*");
            Error::Missing("an MPM", format!("no mod_mpm_{name}.so in {}; install it, or choose another --mpm", self.modules.display()))
        };
        names.first().map(|n| n.to_string()).ok_or_else(hint)
    }
}

fn modules_of(httpd: &Path) -> Option<PathBuf> {
    let beside = httpd.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join("modules");
    let asked = program(&["apxs", "apxs2"]).and_then(|apxs| output(&apxs, &["-q", "LIBEXECDIR"]).ok()).map(|t| PathBuf::from(t.trim()));
    let well_known = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules", "/usr/lib64/apache2"];
    asked.into_iter().chain(well_known.map(PathBuf::from)).chain([beside]).find(|d| d.join("mod_authz_core.so").exists())
}

/// The interpreter: the requested one, or python3. For root, one that other users may run, which a
/// pyenv shim in /root is not.
pub fn python(options: &Options) -> Result<PathBuf, Error> {
    let missing = |name: &Path| {
        Error::Missing("the Python interpreter", format!("no program {}; install it, or name another one with --python", name.display()))
    };
    match &options.python {
        Some(path) => {
            let path = std::env::current_dir().map_err(|e| Error::io("the current directory", e))?.join(path);
            if is_executable(&path) { Ok(path) } else { Err(missing(&path)) }
        }
        None if rustix::process::geteuid().is_root() && is_executable(Path::new("/usr/bin/python3")) => Ok("/usr/bin/python3".into()),
        None => program(&["python3"]).ok_or_else(|| missing(Path::new("python3"))),
    }
}

/// User and group of httpd's child processes and of the workers when root runs drover.
pub struct Account {
    pub user: String,
    pub group: String,
    pub uid: u32,
    pub gid: u32,
}

/// The account, if root runs drover; else `None`.
pub fn account(options: &Options) -> Result<Option<Account>, Error> {
    if !rustix::process::geteuid().is_root() {
        return match options.user.as_ref().or(options.group.as_ref()) {
            Some(_) => Err(Error::Usage("--user and --group need drover to run as root".into())),
            None => Ok(None),
        };
    }
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|e| Error::io("/etc/passwd", e))?;
    let groups = std::fs::read_to_string("/etc/group").map_err(|e| Error::io("/etc/group", e))?;
    let asked = options.user.as_deref();
    let names = asked.map_or(vec!["www-data", "apache", "daemon", "nobody"], |u| vec![u]);
    let fields = |text: &str, name: &str| {
        text.lines().map(|l| l.split(':').map(String::from).collect::<Vec<_>>()).find(|f| f.first().is_some_and(|n| n == name))
    };
    let number = |f: &[String], at: usize| f.get(at).and_then(|n| n.parse::<u32>().ok());
    let entry = names
        .iter()
        .find_map(|n| fields(&passwd, n))
        .ok_or_else(|| Error::Usage(format!("no user {}: choose another --user", names.join(" or "))))?;
    let (uid, mut gid) = (number(&entry, 2).unwrap_or(0), number(&entry, 3).unwrap_or(0));
    let group = match &options.group {
        Some(name) => {
            let entry = fields(&groups, name).ok_or_else(|| Error::Usage(format!("no group {name}: choose another --group")))?;
            gid = number(&entry, 2).unwrap_or(0);
            name.clone()
        }
        None => format!("#{gid}"),
    };
    if uid == 0 {
        return Err(Error::Usage("--user: an application must not run as root; choose another user".into()));
    }
    Ok(Some(Account { user: entry.into_iter().next().unwrap_or_default(), group, uid, gid }))
}

impl Account {
    /// Refuses a path that this account cannot read; the error names the directory whose mode is
    /// the reason.
    pub fn must_read(&self, path: &Path) -> Result<(), Error> {
        let absolute = std::path::absolute(path).map_err(|e| Error::io(path.display(), e))?;
        absolute.metadata().map_err(|e| Error::io(path.display(), e))?;
        let groups = CString::new(self.user.as_str()).map(|user| supplementary_groups(&user, self.gid)).unwrap_or_default();
        let who = Who { uid: self.uid, gid: self.gid, groups };
        match reach::barrier(&who, &absolute, Need::Use) {
            Some(barrier) => Err(Error::Unreadable { user: self.user.clone(), path: path.into(), barrier: barrier.path }),
            None => Ok(()),
        }
    }
}
