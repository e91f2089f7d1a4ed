//! A running httpd, and the checks after it has exited.
//!
//! Responsible for: start, signals, stop, and the verdict on logs, processes, sockets and files.
//! Must never: signal a process that this httpd does not own. Called by: tests, through
//! [`Site::start`].
use super::client::{Conn, Request, Response};
use super::gate::Gate;
use super::log::Logs;
use super::processes::{self, MARK, Process};
use super::wait::{poll, until};
use super::{Site, paths};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, ExitStatus, Stdio};

/// What httpd logs when a generation serves.
const READY: &str = "resuming normal operations";

/// A started httpd. Dropping it stops httpd and runs the checks.
pub struct Httpd {
    /// Its site.
    pub site: Site,
    child: Child,
    seen: Vec<Process>,
    exit: Option<ExitStatus>,
    finished: bool,
    killed: bool,
}

/// The environment of httpd: a short one, as from an init system, with the mark.
pub fn environment(site: &Site) -> Vec<(String, String)> {
    let mut all = vec![
        ("PATH".to_string(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string()),
        ("LANG".to_string(), "C".to_string()),
        (MARK.to_string(), site.id.clone()),
    ];
    all.extend(std::env::var("RUST_BACKTRACE").map(|v| ("RUST_BACKTRACE".to_string(), v)));
    all.extend(site.environment.clone());
    all
}

impl Httpd {
    /// Starts httpd on the site's configuration and waits until it serves.
    #[track_caller]
    pub fn start(site: Site) -> Httpd {
        let config = site.write_config();
        let stderr = std::fs::File::create(site.dir().join("logs/0-stderr.log")).expect("stderr file");
        let mut command = Command::new(paths::httpd());
        command.arg("-f").arg(config).arg(if site.single { "-X" } else { "-DFOREGROUND" }).env_clear().envs(environment(&site));
        command.stdin(Stdio::null()).stdout(stderr.try_clone().expect("dup")).stderr(stderr).current_dir(&site.directory);
        let child = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().expect("httpd");
        let mut httpd = Httpd { site, child, seen: Vec::new(), exit: None, finished: false, killed: false };
        let ready = poll(|| {
            if let Some(status) = httpd.child.try_wait().expect("wait") {
                httpd.exit = Some(status);
                return Some(false);
            }
            ((httpd.site.single || httpd.log().contains(READY)) && std::net::TcpStream::connect(("127.0.0.1", httpd.site.port)).is_ok())
                .then_some(true)
        });
        if ready != Some(true) {
            panic!("httpd did not start: {:?}", httpd.exit);
        }
        httpd.look();
        httpd
    }

    /// The logs so far.
    pub fn log(&self) -> String {
        self.logs().all()
    }

    /// The log files.
    pub fn logs(&self) -> Logs {
        self.site.logs()
    }

    /// The faults in the logs so far.
    pub fn verdict(&self) -> Vec<String> {
        self.logs().verdict(&self.site.foreseen)
    }

    /// Waits for a line in any log.
    #[track_caller]
    pub fn wait_log(&self, pattern: &str) {
        until(&format!("a line like {pattern:?} in the log"), || self.log().lines().any(|l| super::log::matches(l, pattern)));
    }

    /// Expects one more line; see [`Site::expect_log`].
    pub fn expect_log(&mut self, pattern: &str) {
        self.site.foreseen.expected.push(self.site.fill(pattern));
    }

    /// A FIFO between test and application.
    pub fn gate(&self, name: &str) -> Gate {
        self.site.gate(name)
    }

    /// A GET with any response.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.request("GET", target).send()
    }

    /// A GET whose response must be 200; its body as text.
    #[track_caller]
    pub fn ok(&self, target: &str) -> String {
        let response = self.get(target);
        assert_eq!(response.status, 200, "GET {target}: {}\n{}", response.text(), self.log());
        response.text()
    }

    /// A request to this httpd.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.site.port, method, target)
    }

    /// A connection.
    #[track_caller]
    pub fn connect(&self) -> Conn {
        Conn::open(self.site.port)
    }

    /// Process id of the parent.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// All processes of this httpd now.
    pub fn family(&self) -> Vec<Process> {
        processes::family(self.pid(), &self.site.id)
    }

    /// The droverd process.
    #[track_caller]
    pub fn droverd(&self) -> Process {
        poll(|| self.family().into_iter().find(is_droverd)).expect("no droverd process")
    }

    /// The worker processes: droverd's children.
    pub fn workers(&self) -> Vec<Process> {
        let family = self.family();
        let Some(droverd) = family.iter().find(|p| is_droverd(p)).cloned() else { return Vec::new() };
        family.into_iter().filter(|p| p.parent == droverd.pid).collect()
    }

    /// Records the current processes, so that none is missed after it loses the mark.
    pub fn look(&mut self) {
        for p in self.family() {
            if !self.seen.contains(&p) {
                self.seen.push(p);
            }
        }
    }

    /// Sends a signal to a process of this httpd.
    #[track_caller]
    pub fn signal(&self, pid: i32, signal: Signal) {
        assert!(self.family().iter().any(|p| p.pid == pid), "{pid} is not a process of this httpd");
        kill_process(Pid::from_raw(pid).expect("pid"), signal).expect("kill");
    }

    #[track_caller]
    fn cycle(&mut self, signal: Signal) {
        self.look();
        let generations = self.log().matches(READY).count();
        self.signal(self.pid(), signal);
        until("the next generation", || self.log().matches(READY).count() > generations);
        until("connections again", || std::net::TcpStream::connect(("127.0.0.1", self.site.port)).is_ok());
    }

    /// `apachectl graceful`, until the next generation serves.
    #[track_caller]
    pub fn graceful(&mut self) {
        self.cycle(Signal::USR1);
    }

    /// `apachectl restart`, until the next generation serves.
    #[track_caller]
    pub fn restart(&mut self) {
        self.rest();
        self.cycle(Signal::HUP);
    }

    /// Writes the configuration again, from the site as the test has changed it.
    pub fn reconfigure(&mut self, change: impl FnOnce(Site) -> Site) {
        let empty = Site::new(self.site.subject, self.site.mpm, "spare");
        self.site = change(std::mem::replace(&mut self.site, empty));
        self.site.write_config();
    }

    /// kill -9 of the parent.
    pub fn kill_parent(&mut self) {
        self.look();
        self.killed = true;
        self.child.kill().expect("kill");
        self.exit = Some(self.child.wait().expect("wait"));
    }

    /// `apachectl stop`; the checks come with [`Httpd::finish`].
    #[track_caller]
    pub fn stop(&mut self) {
        if self.exit.is_some() {
            return;
        }
        self.look();
        self.rest();
        kill_process(Pid::from_raw(self.pid()).expect("pid"), Signal::TERM).expect("kill");
        self.exit = poll(|| self.child.try_wait().expect("wait"));
        assert!(self.exit.is_some(), "httpd did not exit after SIGTERM");
    }

    /// Waits until httpd's child processes sleep. SIGTERM can crash one that does not, with any
    /// modules: in mod_mpm_event when a thread has just finished a connection whose socket the main
    /// thread still knows (`close_worker_sockets`); in mod_mpm_prefork during malloc(3), as the
    /// signal handler destroys its pools (`just_die`).
    fn rest(&self) {
        let program = paths::httpd().display().to_string();
        let children = || processes::all().into_iter().filter(|p| p.parent == self.pid() && p.command.starts_with(&program));
        let _ = poll(|| children().all(|p| processes::is_at_rest(p.pid)).then_some(()));
    }

    /// Waits until httpd exits after a signal that the test has sent.
    #[track_caller]
    pub fn ended(&mut self) {
        self.exit = poll(|| self.child.try_wait().expect("wait"));
        assert!(self.exit.is_some(), "httpd did not exit");
    }

    /// Stops httpd and runs all checks.
    #[track_caller]
    pub fn finish(mut self) {
        self.finished = true;
        self.judge();
    }

    fn end_orphaned_children(&self) {
        let program = paths::httpd();
        for p in self.family().iter().filter(|p| p.command.starts_with(&program.display().to_string())) {
            let _ = Pid::from_raw(p.pid).map(|p| kill_process(p, Signal::KILL));
        }
    }

    #[track_caller]
    fn judge(&mut self) {
        self.stop();
        let mut faults = Vec::new();
        if !self.killed && self.exit.is_none_or(|s| !s.success()) {
            faults.push(format!("httpd ended with {:?}", self.exit));
        }
        if self.killed {
            // When httpd's parent is killed, its child processes stay; that is httpd's behaviour,
            // and not under test.
            self.end_orphaned_children();
        }
        let alive = || {
            let marked = processes::family(self.pid(), &self.site.id);
            self.seen.iter().filter(|p| processes::is_alive(p)).cloned().chain(marked).collect::<Vec<_>>()
        };
        if poll(|| alive().is_empty().then_some(())).is_none() {
            faults.push(format!("processes are left: {:#?}", alive()));
            for p in alive() {
                let _ = Pid::from_raw(p.pid).map(|p| kill_process(p, Signal::KILL));
            }
        }
        if !self.site.theirs() {
            let sockets = processes::sockets_below(self.site.dir());
            if !sockets.is_empty() {
                faults.push(format!("sockets are left: {sockets:?}"));
            }
            let files: Vec<_> = std::fs::read_dir(self.site.dir().join("run")).expect("run").flatten().map(|e| e.file_name()).collect();
            if !self.site.leftovers && !files.is_empty() {
                faults.push(format!("files are left in the runtime directory: {files:?}"));
            }
        }
        faults.extend(self.verdict());
        assert!(faults.is_empty(), "{}\n--- logs\n{}", faults.join("\n"), self.log());
    }
}

impl Drop for Httpd {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if !std::thread::panicking() {
            return self.judge();
        }
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- {:?} {:?}, the last lines of its logs", self.site.subject, self.site.mpm);
        eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        let family = self.family();
        if self.exit.is_none() {
            let _ = Pid::from_raw(self.pid()).map(|p| kill_process(p, Signal::TERM));
            if poll(|| self.child.try_wait().ok().flatten()).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        for p in family.iter().filter(|p| processes::is_alive(p)) {
            let _ = Pid::from_raw(p.pid).map(|p| kill_process(p, Signal::KILL));
        }
        if std::env::var_os("DROVER_KEEP").is_some() {
            eprintln!("--- kept: {}", self.site.dir().display());
            self.site.scratch.disable_cleanup(true);
        }
    }
}

/// Compares the program's name: a path or a test may contain the same text.
fn is_droverd(process: &Process) -> bool {
    process.command.split(' ').next().is_some_and(|program| program.rsplit('/').next() == Some("droverd"))
}
