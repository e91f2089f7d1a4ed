//! `drover serve` from its start to its end: signals, kills, process 1.
//!
//! Responsible for: no request being lost by a stop, and no process being left, however drover ends. Called by: `main.rs`.
use crate::harness::processes::{self, Process};
use crate::harness::wait::poll;
use crate::harness::{Request, Response, Site, paths, site::free_port, until};
use crate::tools::drover;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

/// A `drover serve` that has said that it serves.
pub struct Serving {
    pub child: Child,
    pub port: u16,
    pub said: String,
    id: String,
}

/// Starts `drover serve` with these arguments.
pub fn serve(site: &Site, arguments: &[&str]) -> Serving {
    start(site, drover(site, &["serve"]), arguments)
}

/// Starts a command that is, or becomes, a `drover serve`.
fn start(site: &Site, mut command: Command, arguments: &[&str]) -> Serving {
    let port = free_port();
    let log = std::fs::File::create(site.dir().join("logs/serve.log")).expect("log");
    command.args(["--port", &port.to_string()]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("drover");
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().expect("stdout"));
    lines.read_line(&mut said).expect("read");
    let text = site.logs().file("serve.log");
    let serving = Serving { child, port, said, id: site.id.clone() };
    assert!(serving.said.starts_with("drover: serving ") && serving.said.contains("http://"), "{}{text}", serving.said);
    serving
}

impl Drop for Serving {
    /// For a test that failed: nothing of it may stay.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let family = self.family();
            let _ = kill_process(self.pid(), Signal::TERM);
            let _ = poll(|| self.child.try_wait().ok().flatten());
            for p in family.iter().filter(|p| processes::is_alive(p)) {
                let _ = Pid::from_raw(p.pid).map(|p| kill_process(p, Signal::KILL));
            }
            let _ = self.child.wait();
        }
    }
}

impl Serving {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn get(&self, path: &str) -> Response {
        Request::new(self.port, "GET", path).send()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("kill");
    }

    fn family(&self) -> Vec<Process> {
        processes::family(self.child.id() as i32, &self.id)
    }

    /// httpd's parent: the child of `of`.
    fn httpd(&self, of: i32) -> i32 {
        self.family().iter().find(|p| p.parent == of && p.command.contains("httpd.conf")).expect("httpd").pid
    }

    /// Waits for the end, after which nothing may be left.
    fn wait(&mut self, site: &Site) -> ExitStatus {
        let status = poll(|| self.child.try_wait().expect("wait"));
        let status = status.unwrap_or_else(|| panic!("drover does not end: {}", site.logs().file("serve.log")));
        until("no process is left", || self.family().is_empty());
        status
    }

    /// Sends the signal and asserts that all is gone then.
    pub fn end(mut self, site: &Site, signal: Signal) {
        assert!(!self.family().is_empty());
        self.signal(signal);
        let status = self.wait(site);
        let log = site.logs().file("serve.log");
        assert!(status.success(), "{status}: {log}");
        let directory = log.split("-f ").nth(1).and_then(|t| t.split("/httpd.conf").next()).expect("command line in the log");
        assert!(!std::path::Path::new(directory).exists(), "{directory} is left");
    }
}

event_test!(signals_are_watched_from_the_first_moment_and_whatever_was_blocked, |site| {
    // Becomes drover with all signals blocked, and with one waiting.
    let blocked = "import os, signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n\
                 os.kill(os.getpid(), signal.SIGUSR1)\nos.execv(sys.argv[1], sys.argv[1:])";
    let drover = drover(&site, &["serve"]);
    let mut command = Command::new("python3");
    command.args(["-c", blocked]).arg(drover.get_program()).args(drover.get_args());
    for (name, value) in drover.get_envs() {
        command.env(name, value.expect("value"));
    }
    command.current_dir(site.apps()).stdin(Stdio::null());
    let serving = start(&site, command, &["hello.wsgi"]);
    assert_eq!(serving.get("/").status, 200);
    serving.end(&site, Signal::TERM);
});

/// An application whose `/slow` waits for a gate.
fn slow(site: Site) -> Site {
    site.script(
        "slow.wsgi",
        "import gate, os\ndef application(environ, start_response):\n    if environ['PATH_INFO'] == '/slow':\n        gate.reach('in')\n        \
         gate.wait('out')\n    body = str(os.getpid()).encode()\n    start_response('200 OK', [('Content-Length', str(len(body)))])\n    return [body]\n",
    )
}

/// A request for `/slow`, in a thread of its own.
fn running(port: u16) -> JoinHandle<std::io::Result<Response>> {
    std::thread::spawn(move || Request::new(port, "GET", "/slow").attempt())
}

/// Waits until httpd accepts no connection.
fn no_connection(port: u16) {
    until("no new connections", || TcpStream::connect(("127.0.0.1", port)).is_err());
}

mpm_test!(a_running_request_is_finished_before_the_end, |site| {
    let site = slow(site);
    let (inside, out) = (site.gate("in"), site.gate("out"));
    for (signal, whole_group) in [(Signal::TERM, false), (Signal::INT, false), (Signal::INT, true)] {
        let mut command = drover(&site, &["serve", "slow.wsgi", "--mpm", site.mpm.name()]);
        command.process_group(0);
        let mut serving = start(&site, command, &[]);
        let running = running(serving.port);
        inside.reached();
        if whole_group {
            kill_process_group(serving.pid(), signal).expect("kill")
        } else {
            serving.signal(signal)
        }
        no_connection(serving.port);
        out.open(1);
        let response = running.join().expect("client").expect("an answer");
        assert!(response.status == 200 && response.complete, "{signal:?} {whole_group}: {response:?}");
        let status = serving.wait(&site);
        assert!(status.success(), "{status}: {}", site.logs().file("serve.log"));
    }
});

mpm_test!(the_grace_has_an_end, |site| {
    let site = slow(site);
    let (inside, _out) = (site.gate("in"), site.gate("out"));
    let mut serving = serve(&site, &["slow.wsgi", "--mpm", site.mpm.name(), "--grace", "1s"]);
    let running = running(serving.port);
    inside.reached();
    serving.signal(Signal::TERM);
    let status = serving.wait(&site);
    assert!(status.success(), "{status}: {}", site.logs().file("serve.log"));
    assert!(running.join().expect("client").map_or(true, |r| r.status != 200), "it was cut off");
});

event_test!(a_second_signal_does_not_wait_for_requests, |site| {
    let site = slow(site);
    let (inside, _out) = (site.gate("in"), site.gate("out"));
    let mut serving = serve(&site, &["slow.wsgi", "--grace", "1h"]);
    let running = running(serving.port);
    inside.reached();
    serving.signal(Signal::TERM);
    no_connection(serving.port);
    until("the end", || {
        let _ = kill_process(serving.pid(), Signal::TERM);
        serving.child.try_wait().expect("wait").is_some()
    });
    assert!(serving.wait(&site).success());
    assert!(running.join().expect("client").map_or(true, |r| r.status != 200), "it was cut off");
});

mpm_test!(nothing_outlives_a_killed_drover, |site| {
    let mut users = vec![None];
    if crate::harness::site::is_root() {
        users.push(Some(65534));
    }
    for user in users {
        let mut command = drover(&site, &["serve", "hello.wsgi", "--mpm", site.mpm.name()]);
        let scratch = tempfile::tempdir_in(site.dir()).expect("directory");
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).expect("mode");
        command.env("TMPDIR", scratch.path());
        if let Some(id) = user {
            command.uid(id).gid(id);
        }
        let mut serving = start(&site, command, &[]);
        assert_eq!(serving.get("/").status, 200);
        serving.signal(Signal::KILL);
        serving.wait(&site);
    }
});

mpm_test!(nothing_outlives_a_killed_httpd, |site| {
    for signal in [Signal::KILL, Signal::TERM] {
        let mut serving = serve(&site, &["hello.wsgi", "--mpm", site.mpm.name()]);
        let httpd = serving.httpd(serving.child.id() as i32);
        kill_process(Pid::from_raw(httpd).expect("pid"), signal).expect("kill");
        let status = serving.wait(&site);
        let log = site.logs().file("serve.log");
        assert!(status.code() == Some(1) && log.contains("drover: httpd: exited by itself"), "{signal:?}: {status}: {log}");
    }
});

event_test!(an_application_that_cannot_be_loaded_is_told_once, |site| {
    let site = site.script("broken.wsgi", "import nosuchmodule\n").script("webshop.py", "import nosuchmodule\n");
    let python = paths::system_python().display().to_string();
    for (application, cause) in
        [("broken.wsgi", "No module named 'nosuchmodule'"), ("webshop:application", "No module named 'nosuchmodule'")]
    {
        let port = free_port().to_string();
        let output = drover(&site, &["serve", application, "--python", &python, "--port", &port]).output().expect("drover");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty(), "it does not say that it serves: {output:?}");
        let told: Vec<&str> = said.lines().filter(|l| l.starts_with("drover: ")).collect();
        let [told] = told.as_slice() else { panic!("{said}") };
        assert!(told.contains(&format!("{application} cannot be loaded by the interpreter {python}: ")) && told.contains(cause), "{said}");
        assert!(said.contains("--python VENV/bin/python3"), "{said}");
        assert!(said.matches("DROVER0225").count() <= 1 && said.matches("Traceback").count() <= 1, "{said}");
        until("no process is left", || processes::family(0, &site.id).is_empty());
    }
});

event_test!(a_hang_up_without_a_terminal_is_a_reload, |site| {
    let site = slow(site);
    let extra = site.dir().join("extra.conf");
    std::fs::write(&extra, "").expect("configuration");
    // In a session of its own: no terminal. The tests may run under nohup, which `drover` respects.
    let mut command = Command::new("setsid");
    command.args(["env", "--default-signal=HUP"]).arg(paths::drover()).args(["serve", "slow.wsgi", "--include"]).arg(&extra);
    command.env(processes::MARK, &site.id).current_dir(site.apps()).stdin(Stdio::null());
    let serving = start(&site, command, &[]);
    let mut before = serving.get("/").text();
    for signal in [Signal::HUP, Signal::USR1] {
        serving.signal(signal);
        until("new processes", || serving.get("/").text() != before);
        before = serving.get("/").text();
    }
    std::fs::write(&extra, "NoSuchDirective\n").expect("configuration");
    serving.signal(Signal::HUP);
    until("a refusal", || site.logs().file("serve.log").contains("drover: not reloaded: httpd refuses its configuration"));
    assert_eq!(serving.get("/").status, 200);
    serving.end(&site, Signal::TERM);
});

event_test!(the_end_of_the_terminal_is_a_stop, |site| {
    // The terminal is gone when this program closes its end.
    let program = "import os, pty, signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\npid, terminal = pty.fork()\nif pid == 0:\n    os.execv(sys.argv[1], sys.argv[1:])\nsaid = b''\n\
                   while b'drover: serving' not in said:\n    said += os.read(terminal, 4096)\nos.close(terminal)\n\
                   sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n";
    let mut command = Command::new(paths::system_python());
    command.args(["-c", program]).arg(paths::drover()).args(["serve", "hello.wsgi", "--port", &free_port().to_string()]);
    command.env(processes::MARK, &site.id).current_dir(site.apps()).stdin(Stdio::null());
    let output = command.output().expect("python");
    assert!(output.status.success(), "{output:?}");
    until("no process is left", || processes::family(0, &site.id).is_empty());
});

event_test!(as_process_1_it_reaps_orphans_and_drains, |site| {
    if !crate::harness::site::is_root() {
        // Only root may make a process namespace in which there is a user for the workers.
        return;
    }
    let site = slow(site);
    let (inside, out, orphan) = (site.gate("in"), site.gate("out"), site.gate("orphan"));
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(paths::drover()).args(["serve", "slow.wsgi"]);
    command.env(processes::MARK, &site.id).current_dir(site.apps()).stdin(Stdio::null());
    let mut serving = start(&site, command, &[]);
    let outside = serving.child.id() as i32;
    let one = serving.family().into_iter().find(|p| p.parent == outside).expect("process 1");
    // A shell that ends leaves a child behind, which waits for the gate.
    let script = format!("(head -c 1 <'{}' >/dev/null) & exit 0", site.dir().join("gates/orphan").display());
    let entered = Command::new("nsenter").args(["-t", &one.pid.to_string(), "-p", "-m", "sh", "-c", &script]).stdin(Stdio::null()).status();
    assert!(entered.expect("nsenter").success());
    let children = |state: fn(char) -> bool| {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let of_one = |p: &Process| p.parent == one.pid && !p.command.contains("httpd.conf") && state(p.state);
        all.filter_map(processes::process).filter(of_one).count()
    };
    until("the orphan is a child of process 1", || children(|state| state != 'Z') == 1);
    orphan.open(1);
    until("the orphan is reaped", || children(|_| true) == 0);
    let running = running(serving.port);
    inside.reached();
    kill_process(Pid::from_raw(one.pid).expect("pid"), Signal::TERM).expect("kill");
    no_connection(serving.port);
    out.open(1);
    let response = running.join().expect("client").expect("an answer");
    assert!(response.status == 200 && response.complete, "{response:?}");
    let status = serving.wait(&site);
    assert!(status.success(), "{status}: {}", site.logs().file("serve.log"));
});

event_test!(a_host_may_be_a_name, |site| {
    let serving = serve(&site, &["hello.wsgi", "--host", "localhost"]);
    assert!(serving.said.contains(&format!("http://localhost:{}/", serving.port)), "{}", serving.said);
    assert_eq!(serving.get("/").status, 200, "127.0.0.1 is one of its addresses");
    serving.end(&site, Signal::TERM);
});
