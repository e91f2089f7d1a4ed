//! Tests droverd through its interface to httpd: a test holds httpd's ends of the sockets, and
//! `fake_worker` replaces Python.
//!
//! Every wait is for an event: a log line, a response, the exit of a process. The only time limit
//! makes a failing test end.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // clippy does not recognise helpers of tests
use drover_sys::channel::{packet_pair, receive, send, stream_pair};
use drover_sys::wait::{PollFd, PollFlags, poll_until, refuses_now};
use drover_sys::{clock, memfile};
use drover_wire::VERSION;
use drover_wire::control::{
    Configuration, GroupSpec, Identity, OpenQueue, OpenReply, Preload, Program, Script, Target, ToSupervisor, decode, encode,
};
use drover_wire::frame::{Deframer, Event, Failure, Kind};
use drover_wire::request::{Builder, Prefix};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

const LIMIT_NS: u64 = 60_000_000_000;

/// Locked while descriptors are inheritable, so that no test's droverd inherits another's.
static SPAWNING: Mutex<()> = Mutex::new(());
static NEXT: AtomicU32 = AtomicU32::new(1);

fn wait_readable(fd: impl AsFd, what: &str) {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    assert!(poll_until(&mut fds, Some(clock::monotonic_ns() + LIMIT_NS)).unwrap() > 0, "timed out waiting for {what}");
}

/// httpd's parent and child processes.
struct Httpd {
    droverd: Child,
    control: Option<OwnedFd>,
    broker: OwnedFd,
    store: (OwnedFd, OwnedFd),
    log: OwnedFd,
    log_writer: OwnedFd,
    unread: Vec<u8>,
    read: String,
    directory: PathBuf,
    generation: u64,
}

fn start(store: &(OwnedFd, OwnedFd), log_writer: &OwnedFd, version: &str) -> (Child, OwnedFd, OwnedFd) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_droverd"));
    command.args(["--version-of-module", version, "--parent", &std::process::id().to_string()]);
    start_with(command, store, log_writer)
}

fn start_with(mut command: Command, store: &(OwnedFd, OwnedFd), log_writer: &OwnedFd) -> (Child, OwnedFd, OwnedFd) {
    let ((control, theirs), (broker, broker_theirs)) = (packet_pair().unwrap(), packet_pair().unwrap());
    let given = [&theirs, &broker_theirs, &store.0, &store.1];
    let lock = SPAWNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for fd in given {
        fcntl_setfd(fd, FdFlags::empty()).unwrap();
    }
    for (name, fd) in ["--control", "--broker", "--store", "--store-write"].into_iter().zip(given) {
        command.args([name, &fd.as_raw_fd().to_string()]);
    }
    let droverd = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_writer.try_clone().unwrap()).spawn().unwrap();
    for fd in given {
        fcntl_setfd(fd, FdFlags::CLOEXEC).unwrap();
    }
    drop(lock);
    (droverd, control, broker)
}

impl Httpd {
    fn new() -> Self {
        Self::started_by(|store, log_writer| start(store, log_writer, VERSION))
    }

    fn started_by(start: impl FnOnce(&(OwnedFd, OwnedFd), &OwnedFd) -> (Child, OwnedFd, OwnedFd)) -> Self {
        let (write, read) = packet_pair().unwrap();
        let store = (read, write);
        let (log, log_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (droverd, control, broker) = start(&store, &log_writer);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("droverd-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let control = Some(control);
        Self { droverd, control, broker, store, log, log_writer, unread: vec![], read: String::new(), directory, generation: 0 }
    }

    /// Writes a script with the file time `seconds`.
    fn script(&self, name: &str, text: &str, seconds: u64) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    }

    /// Makes every script of the test the target of an alias.
    fn targets(&self) -> Vec<Target> {
        use std::os::unix::ffi::OsStrExt;
        let paths = std::fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| Target { path: path.as_os_str().as_bytes().to_vec(), group: None, application_group: None }).collect()
    }

    fn configure(&mut self, groups: Vec<GroupSpec>) {
        self.generation += 1;
        let configuration = Configuration {
            version: VERSION.to_owned(),
            generation: self.generation,
            log_level: 7,
            control_socket: None,
            sessions: Vec::new(),
            groups,
            targets: self.targets(),
        };
        let bytes = encode(&configuration).unwrap();
        let file = memfile::create(&bytes).unwrap();
        let message = encode(&ToSupervisor::Configure { len: u32::try_from(bytes.len()).unwrap() }).unwrap();
        send(self.control.as_ref().unwrap(), &[&message], &[file.as_fd(), self.log_writer.as_fd()], true).unwrap();
    }

    fn open(&self, group: &str, application: &str, script: &Path) -> Result<OwnedFd, OpenReply> {
        use std::os::unix::ffi::OsStrExt;
        let (ours, theirs) = packet_pair().unwrap();
        let script = Script { path: script.as_os_str().as_bytes().to_vec(), callable: b"application".to_vec() };
        let open = OpenQueue { version: VERSION.to_owned(), group: group.into(), application_group: application.into(), script };
        send(&self.broker, &[&encode(&open).unwrap()], &[theirs.as_fd()], true).unwrap();
        drop(theirs);
        wait_readable(&ours, "the reply to OpenQueue");
        let (mut buffer, mut fds) = (vec![0; 10_000], Vec::new());
        let n = receive(&ours, &mut buffer, &mut fds, true).unwrap();
        match decode(&buffer[..n]).unwrap() {
            OpenReply::Opened { .. } => Ok(fds.remove(0)),
            other => Err(other),
        }
    }

    /// Reads the log up to a line that contains this text.
    fn expect(&mut self, text: &str) -> String {
        loop {
            while let Some(at) = self.unread.iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&self.unread[..at]).into_owned();
                self.unread.drain(..=at);
                self.read.push_str(&line);
                self.read.push('\n');
                if line.contains(text) {
                    return line;
                }
            }
            let mut fds = [PollFd::new(&self.log, PollFlags::IN)];
            let ready = poll_until(&mut fds, Some(clock::monotonic_ns() + LIMIT_NS)).unwrap();
            assert!(ready > 0, "{text} was not logged; the log:\n{}", self.read);
            let mut buffer = [0; 4096];
            let n = rustix::io::read(&self.log, &mut buffer).unwrap();
            self.unread.extend_from_slice(&buffer[..n]);
        }
    }

    fn end(&mut self) -> ExitStatus {
        self.droverd.wait().unwrap()
    }

    fn kill_droverd(&mut self) {
        self.droverd.kill().unwrap();
        self.droverd.wait().unwrap();
    }
}

impl Drop for Httpd {
    fn drop(&mut self) {
        self.control = None;
        let _ = self.droverd.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
        if std::thread::panicking() {
            rustix::fs::fcntl_setfl(&self.log, rustix::fs::OFlags::NONBLOCK).unwrap();
            let mut rest = vec![0; 1 << 16];
            let n = rustix::io::read(&self.log, &mut rest).unwrap_or(0);
            eprintln!("the log:\n{}{}{}", self.read, String::from_utf8_lossy(&self.unread), String::from_utf8_lossy(&rest[..n]));
        }
    }
}

fn group(name: &str) -> GroupSpec {
    GroupSpec {
        name: name.into(),
        log_level: 7,
        processes: 1,
        least_processes: 1,
        threads: 1,
        program: Program::python(env!("CARGO_BIN_EXE_fake_worker")),
        max_application_groups: 4,
        startup_timeout_ms: Some(30_000),
        graceful_timeout_ms: Some(30_000),
        shutdown_timeout_ms: 5_000,
        ..GroupSpec::default()
    }
}

/// A request in progress.
struct Request {
    near: OwnedFd,
    number: u32,
}

fn request(queue: &OwnedFd, script: &Path, callable: &str, mtime_s: u64) -> Request {
    use std::os::unix::ffi::OsStrExt;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (near, far) = stream_pair().unwrap();
    let mut builder = Builder::default();
    builder.begin(script.as_os_str().as_bytes(), callable.as_bytes()).unwrap();
    builder.pair(b"REQUEST_METHOD", b"GET").unwrap();
    let prefix = Prefix { number, script_mtime_us: mtime_s * 1_000_000, ..Prefix::default() };
    send(queue, &[builder.finish(prefix, b"", b"").unwrap()], &[far.as_fd()], true).unwrap();
    Request { near, number }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Text(String),
    Failed(Failure, String),
    Cut,
}

impl Request {
    fn release(&self) {
        send(&self.near, &[b"x"], &[], true).unwrap();
    }

    fn answer(self) -> Answer {
        let (mut deframer, mut buffer, mut body) = (Deframer::new(self.number), Vec::new(), Vec::new());
        loop {
            match deframer.next(&buffer).unwrap() {
                Some((Event::Body(b), n)) => {
                    body.extend_from_slice(b);
                    buffer.drain(..n);
                }
                Some((Event::Frame(h, text), _)) if h.kind == Kind::Fail => {
                    return Answer::Failed(Failure::from_code(h.code), String::from_utf8_lossy(text).into_owned());
                }
                Some((other @ (Event::Oversized(..) | Event::Skipped), _)) => panic!("{other:?}"),
                Some((Event::Frame(..), _)) => return Answer::Text(String::from_utf8(body).unwrap()),
                None => {
                    wait_readable(&self.near, "an answer");
                    let mut piece = [0; 1000];
                    match receive(&self.near, &mut piece, &mut Vec::new(), true) {
                        Ok(0) | Err(rustix::io::Errno::CONNRESET) => return Answer::Cut,
                        Ok(n) => buffer.extend_from_slice(&piece[..n]),
                        Err(e) => panic!("{e}"),
                    }
                }
            }
        }
    }

    /// The script's text and the process that answered.
    fn served(self) -> (String, i32) {
        let Answer::Text(text) = self.answer() else { panic!("no text") };
        let mut words = text.split(' ');
        (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap())
    }
}

fn alive(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

#[test]
fn a_request_passes_through() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let (text, pid) = request(&queue, &script, "application", 1000).served();
    assert_eq!(text, "one");
    // A worker's output and its messages use different channels, so the order of the two lines
    // varies.
    let printed = format!("[wsgi:error] [pid {pid}:tid {pid}] (group 'shop'): loading for generation 1");
    for line in [printed.as_str(), "DROVER0231"] {
        if !httpd.read.contains(line) {
            httpd.expect(line);
        }
    }
    assert_eq!(httpd.open("none", "", &script).unwrap_err(), OpenReply::UnknownGroup);
    let again = httpd.open("shop", "", &script).unwrap();
    assert_eq!(request(&again, &script, "application", 1000).served().1, pid, "it is the same queue");
}

#[test]
fn the_application_group_that_nobody_uses_makes_room() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    let first = httpd.open("shop", "", &script).unwrap();
    request(&first, &script, "application", 1000).served();
    let others: Vec<_> = ["b", "c", "d"].iter().map(|name| httpd.open("shop", name, &script).unwrap()).collect();
    for queue in &others {
        request(queue, &script, "application", 1000).served();
    }
    // An application group that was just used is not evicted.
    let fifth = loop {
        match httpd.open("shop", "e", &script) {
            Ok(queue) => break queue,
            Err(refused) => assert_eq!(refused, OpenReply::TooManyApplications { limit: 4 }),
        }
    };
    request(&fifth, &script, "application", 1000).served();
    httpd.expect("DROVER0212");
    assert!(refuses_now(&first), "the oldest is evicted, and holders of its queue see it");
    assert!(others.iter().all(|queue| !refuses_now(queue)), "the others are still in use");
    // With another configuration of httpd, application groups unused under the last one start
    // again.
    httpd.configure(vec![group("shop")]);
    httpd.expect("generation 2 serves");
    httpd.configure(vec![group("shop")]);
    request(&httpd.open("shop", "x", &script).unwrap(), &script, "application", 1000).served();
}

#[test]
fn a_message_without_bytes_is_not_the_end_of_httpds_children() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    send(&httpd.broker, &[b""], &[], true).unwrap();
    httpd.expect("DROVER0209");
    let queue = httpd.open("shop", "", &script).unwrap();
    send(&queue, &[b""], &[], true).unwrap();
    assert_eq!(request(&queue, &script, "application", 1000).served().0, "one");
}

#[test]
fn preloads_start_at_once_and_load_each_in_its_application() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    let mut spec = group("shop");
    let script_of = Script { path: script.to_str().unwrap().into(), callable: b"application".to_vec() };
    spec.preload = vec![Preload { application_group: b"x".to_vec(), script: script_of }];
    (spec.processes, spec.least_processes) = (3, 3);
    httpd.configure(vec![spec]);
    for _ in 0..3 {
        httpd.expect("DROVER0230");
    }
}

#[test]
fn what_cannot_be_spawned_is_answered_and_explained() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    let mut spec = group("shop");
    spec.program = Program::python(b"/no/such/python");
    let mut homeless = group("wiki");
    homeless.home = Some(b"/no/such/home".to_vec());
    httpd.configure(vec![spec.clone(), homeless]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let Answer::Failed(Failure::CannotStart, why) = request(&queue, &script, "application", 1000).answer() else { panic!() };
    assert!(why.contains("cannot run /no/such/python (python="), "{why}");
    assert!(httpd.expect("DROVER0220").contains("(group 'shop'): cannot run /no/such/python"));
    httpd.expect("DROVER0227");
    let wiki = httpd.open("wiki", "", &script).unwrap();
    let Answer::Failed(Failure::CannotStart, why) = request(&wiki, &script, "application", 1000).answer() else { panic!() };
    assert!(why.contains("/no/such/home (home=)"), "{why}");
    // A correct configuration ends it at once, whatever the back-off was.
    spec.program = group("shop").program;
    httpd.configure(vec![spec]);
    httpd.expect("DROVER0231");
    assert_eq!(request(&queue, &script, "application", 1000).served().0, "one");
}

#[test]
fn a_process_that_ends_while_starting_is_a_failed_start() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "exit", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let answer = request(&queue, &script, "application", 1000).answer();
    assert_eq!(
        answer,
        Answer::Failed(
            Failure::CannotStart,
            "a worker exited with status 3 before it was ready; standard error: loading for generation 1".into()
        )
    );
    // After the back-off it is tried again, and succeeds.
    httpd.script("a.wsgi", "two", 1001);
    httpd.expect("DROVER0231");
    assert_eq!(request(&queue, &script, "application", 1001).served().0, "two");
}

#[test]
fn startup_timeout_is_a_failed_start() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "hang", 1000);
    let spec = GroupSpec { startup_timeout_ms: Some(300), ..group("shop") };
    httpd.configure(vec![spec]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let answer = request(&queue, &script, "application", 1000).answer();
    assert_eq!(answer, Answer::Failed(Failure::CannotStart, "startup-timeout".into()));
    httpd.expect("DROVER0222");
}

#[test]
fn a_new_droverd_takes_the_queue_over_with_what_waits_in_it() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop"), group("gone")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    httpd.open("gone", "", &script).unwrap();
    let first = request(&queue, &script, "application", 1000).served().1;
    let held = request(&queue, &script, "hold", 1000);
    httpd.expect("holding a request");
    let waiting = request(&queue, &script, "application", 1000);
    httpd.kill_droverd();
    let (droverd, control, broker) = start(&httpd.store, &httpd.log_writer, VERSION);
    (httpd.droverd, httpd.control, httpd.broker) = (droverd, Some(control), broker);
    assert!(httpd.expect("DROVER0208").contains("took over 2 queues"));
    httpd.configure(vec![group("shop")]);
    let second = waiting.served().1;
    assert_ne!(first, second, "a new process took the waiting request");
    held.release();
    assert_eq!(held.served().1, first, "the old one finished its requests");
    let again = httpd.open("shop", "", &script).unwrap();
    assert_eq!(request(&again, &script, "application", 1000).served().1, second);
    assert_eq!(request(&queue, &script, "application", 1000).served().1, second);
}

#[test]
fn a_queue_that_a_worker_shuts_down_is_replaced() {
    for spec in [group("shop"), forking(2)] {
        let mut httpd = Httpd::new();
        let script = httpd.script("a.wsgi", "one", 1000);
        httpd.configure(vec![spec.clone()]);
        let queue = httpd.open("shop", "", &script).unwrap();
        let old = request(&queue, &script, "shut", 1000).served().1;
        let refused = send(&queue, &[b"x"], &[], false);
        assert_eq!(refused, Err(rustix::io::Errno::PIPE), "httpd's child sees this before it asks again");
        let new = httpd.open("shop", "", &script).unwrap();
        let (text, pid) = request(&new, &script, "application", 1000).served();
        assert!(text == "one" && pid != old);
        httpd.expect("DROVER0252");
        // The next droverd finds the new queue.
        httpd.kill_droverd();
        let (droverd, control, broker) = start(&httpd.store, &httpd.log_writer, VERSION);
        (httpd.droverd, httpd.control, httpd.broker) = (droverd, Some(control), broker);
        assert!(httpd.expect("DROVER0208").contains("took over 1 queues"));
        httpd.configure(vec![spec]);
        assert_eq!(request(&new, &script, "application", 1000).served().0, "one");
        // Detection does not need a request.
        let last = request(&new, &script, "shut", 1000).served().1;
        kill_process(Pid::from_raw(last).unwrap(), Signal::KILL).unwrap();
        httpd.expect("DROVER0252");
        let newest = httpd.open("shop", "", &script).unwrap();
        assert_eq!(request(&newest, &script, "application", 1000).served().0, "one");
    }
}

#[test]
fn a_worker_that_talks_nonsense_is_replaced_and_costs_one_line() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let mut last = 0;
    for (round, callable) in ["garbage", "again"].into_iter().enumerate() {
        let (text, pid) = request(&queue, &script, callable, 1000).served();
        assert!(text == "one" && pid != last, "{callable}");
        last = pid;
        httpd.expect(&format!("worker {pid} exited with status 0"));
        assert_eq!(httpd.read.matches("DROVER0209").count(), round + 1, "{callable}");
        assert!(!httpd.read.contains("DROVER0221"), "{callable}");
    }
    assert_ne!(request(&queue, &script, "application", 1000).served().1, last);
}

#[test]
fn too_few_descriptors_are_told_with_what_to_raise() {
    let mut httpd = Httpd::started_by(|store, log_writer| {
        let mut limited = Command::new("sh");
        let parent = std::process::id().to_string();
        let droverd = env!("CARGO_BIN_EXE_droverd");
        limited.args(["-c", "ulimit -n 60; exec \"$0\" \"$@\"", droverd, "--version-of-module", VERSION, "--parent", &parent]);
        start_with(limited, store, log_writer)
    });
    httpd.configure(vec![group("shop"), GroupSpec { processes: 20, least_processes: 20, ..group("wiki") }]);
    httpd.expect("DROVER0253: the limit of open files is 60, but all groups at full size need up to ");
    // It also reports this when its descriptors are used up.
    let script = httpd.script("a.wsgi", "it", 1000);
    httpd.open("wiki", "", &script).unwrap();
    httpd.expect("Too many open files (os error 24); raise LimitNOFILE=");
}

#[test]
fn a_worker_is_as_large_as_it_says() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "it", 1000);
    httpd.configure(vec![GroupSpec { memory_soft: Some(1 << 30), ..group("shop") }]);
    let queue = httpd.open("shop", "", &script).unwrap();
    request(&queue, &script, "large", 1000).served();
    httpd.expect("memory-soft: it uses 1048576 MiB");
}

#[test]
fn descriptors_with_a_message_that_has_no_use_for_them_are_nonsense() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "it", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    request(&queue, &script, "descriptors", 1000).served();
    httpd.expect("descriptors came with a message that may not carry them");
    request(&queue, &script, "application", 1000).served();
}

#[test]
fn new_processes_get_a_queue_that_takes_something() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let pid = request(&queue, &script, "deafen", 1000).served().1;
    httpd.configure(vec![group("shop")]);
    httpd.expect("DROVER0252");
    // The old process has the old queue until it exits.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while send(&queue, &[b"x"], &[], false) != Err(rustix::io::Errno::PIPE) {
        assert!(std::time::Instant::now() < end, "senders must ask again");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let new = httpd.open("shop", "", &script).unwrap();
    let (text, next) = request(&new, &script, "application", 1000).served();
    assert!(text == "one" && next != pid);
}

#[test]
fn when_httpds_parent_is_gone_everything_goes() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let pid = request(&queue, &script, "application", 1000).served().1;
    let held = request(&queue, &script, "hold", 1000);
    httpd.expect("holding a request");
    httpd.control = None;
    httpd.expect("DROVER0203");
    httpd.expect("DROVER0236");
    assert!(httpd.end().success());
    assert!(!alive(pid));
    assert_eq!(held.answer(), Answer::Cut);
}

/// `kill -9` of httpd's parent: its children still hold the sockets, so droverd sees no
/// end-of-file.
#[test]
fn when_httpds_parent_is_killed_everything_goes() {
    let mut httpd = Httpd::started_by(|store, log_writer| {
        let mut parent = Command::new("sh");
        parent.args(["-c", "\"$0\" \"$@\" --parent $$ & wait", env!("CARGO_BIN_EXE_droverd"), "--version-of-module", VERSION]);
        start_with(parent, store, log_writer)
    });
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let pid = request(&queue, &script, "application", 1000).served().1;
    let held = request(&queue, &script, "hold", 1000);
    httpd.expect("holding a request");
    httpd.kill_droverd(); // here this is the shell
    httpd.expect("DROVER0203");
    assert_eq!(held.answer(), Answer::Cut);
    wait_readable(&httpd.broker, "the exit of droverd");
    assert!(!alive(pid));
}

#[test]
fn graceful_starts_the_new_before_it_ends_the_old() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    let spec = GroupSpec { processes: 2, least_processes: 2, ..group("shop") };
    httpd.configure(vec![spec.clone()]);
    let queue = httpd.open("shop", "", &script).unwrap();
    httpd.expect("DROVER0230");
    httpd.expect("DROVER0230");
    let old = request(&queue, &script, "application", 1000).served().1;
    let held: Vec<_> = (0..2).map(|_| request(&queue, &script, "hold", 1000)).collect();
    httpd.expect("holding a request");
    httpd.expect("holding a request");
    httpd.script("a.wsgi", "two", 1001);
    httpd.configure(vec![spec]);
    httpd.expect("DROVER0231: (group 'shop'): generation 2");
    let (text, new) = request(&queue, &script, "application", 1001).served();
    assert_eq!(text, "two");
    assert_ne!(old, new);
    for held in held {
        held.release();
        assert_eq!(held.served().0, "one");
    }
    httpd.expect("exited with status 0");
    httpd.expect("exited with status 0");
    assert!(!alive(old));
    assert!(!httpd.read.contains("DROVER0235"));
}

#[test]
fn a_group_that_is_gone_finishes_what_it_has() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop"), group("wiki")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let pid = request(&queue, &script, "application", 1000).served().1;
    httpd.configure(vec![group("wiki")]);
    httpd.open("wiki", "", &script).unwrap();
    assert_eq!(httpd.open("shop", "", &script).unwrap_err(), OpenReply::UnknownGroup);
    assert_eq!(request(&queue, &script, "application", 1000).served().1, pid, "old children of httpd are still served");
    drop(queue);
    assert!(httpd.expect("exited with status 0").contains(&pid.to_string()), "it exits when its queue has ended");
}

#[test]
fn broken_new_code_leaves_the_old_serving() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let old = request(&queue, &script, "application", 1000).served();
    httpd.script("a.wsgi", "fail", 1001);
    assert_eq!(request(&queue, &script, "application", 1001).served(), old, "returned, tried, and served by the old one");
    httpd.expect("DROVER0225");
    httpd.expect("SyntaxError: it says fail");
    httpd.expect("DROVER0226");
    assert_eq!(request(&queue, &script, "application", 1001).served(), old);
    // Also through a configuration.
    httpd.configure(vec![group("shop")]);
    httpd.expect("DROVER0226");
    assert_eq!(request(&queue, &script, "application", 1001).served(), old);
    httpd.script("a.wsgi", "exit", 1002);
    assert_eq!(request(&queue, &script, "application", 1002).served(), old);
    // Corrected: no back-off delays it.
    httpd.script("a.wsgi", "two", 1003);
    assert_eq!(request(&queue, &script, "application", 1003).served().0, "two");
    httpd.expect("DROVER0231");
}

/// A program used as the interpreter.
fn program(httpd: &Httpd, text: &str) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    let path = httpd.directory.join("program");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.as_os_str().as_bytes().to_vec()
}

#[test]
fn the_last_words_of_a_process_that_could_not_start_are_told() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    let mut spec = group("shop");
    let text =
        "#!/bin/sh\nfor n in 1 2 3 4 5 6 7 8 9; do echo line $n >&2; done\necho cause: none >&2\necho frame >&2\necho not this\nexit 3\n";
    spec.program = Program::python(program(&httpd, text));
    httpd.configure(vec![spec]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let Answer::Failed(Failure::CannotStart, why) = request(&queue, &script, "application", 1000).answer() else { panic!() };
    assert_eq!(why, "a worker exited with status 3 before it was ready; standard error: cause: none");
    let line = httpd.expect("DROVER0227");
    assert!(line.ends_with("a worker exited with status 3 before it was ready; standard error: cause: none"), "{line}");
    for wanted in (2..10).map(|n| format!("line {n}")).chain(["cause: none".to_owned(), "frame".to_owned()]) {
        let line = httpd.expect(&wanted);
        assert!(line.ends_with(&format!("(group 'shop'): {wanted}")), "{line}");
    }
}

#[test]
fn one_broken_script_does_not_keep_another_from_serving() {
    let mut httpd = Httpd::new();
    let (bad, good) = (httpd.script("bad.wsgi", "fail", 1000), httpd.script("good.wsgi", "fine", 1000));
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &bad).unwrap();
    assert!(matches!(request(&queue, &bad, "application", 1000).answer(), Answer::Failed(Failure::Import, _)));
    httpd.expect("DROVER0227");
    assert_eq!(request(&queue, &good, "application", 1000).served().0, "fine");
    httpd.script("bad.wsgi", "mended", 1001);
    assert_eq!(request(&queue, &bad, "application", 1001).served().0, "mended");
}

#[test]
fn a_crash_is_logged_and_the_worker_replaced() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let old = request(&queue, &script, "application", 1000).served().1;
    assert_eq!(request(&queue, &script, "crash", 1000).answer(), Answer::Cut);
    let line = httpd.expect("DROVER0232");
    assert!(line.contains(&format!("worker {old} was killed by signal 6")), "{line}");
    assert_ne!(request(&queue, &script, "application", 1000).served().1, old);
}

#[test]
fn stop_and_start_again() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![group("shop")]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let old = request(&queue, &script, "application", 1000).served().1;
    send(httpd.control.as_ref().unwrap(), &[&encode(&ToSupervisor::StopAll).unwrap()], &[], true).unwrap();
    httpd.expect("exited with status 0");
    assert!(!alive(old));
    let waiting = request(&queue, &script, "application", 1000);
    httpd.configure(vec![group("shop")]);
    assert_ne!(waiting.served().1, old);
    kill_process(Pid::from_raw(i32::try_from(httpd.droverd.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert!(httpd.end().success());
}

/// The parent of a process.
fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A group whose workers are forked from a fork server.
fn forking(processes: u32) -> GroupSpec {
    GroupSpec { preload_fork: true, processes, least_processes: processes, ..group("shop") }
}

#[test]
fn workers_come_from_one_template_and_are_droverds_children() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    httpd.configure(vec![forking(3)]);
    let queue = httpd.open("shop", "", &script).unwrap();
    httpd.expect("DROVER0246");
    for _ in 0..3 {
        httpd.expect("DROVER0230");
    }
    let (text, pid) = request(&queue, &script, "application", 1000).served();
    assert_eq!((text.as_str(), parent(pid)), ("one", i32::try_from(httpd.droverd.id()).unwrap()));
    // An exited worker is replaced from the same fork server.
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    httpd.expect("DROVER0232");
    httpd.expect("DROVER0230");
    assert_eq!(httpd.read.matches("DROVER0246").count(), 1);
    // New code has its own fork server, and the old one exits.
    httpd.script("a.wsgi", "two", 1001);
    assert_eq!(request(&queue, &script, "application", 1001).served().0, "two");
    assert_eq!(httpd.read.matches("DROVER0249").count(), 1);
    for code in ["DROVER0249", "DROVER0246"] {
        if httpd.read.matches(code).count() < 2 {
            httpd.expect(code);
        }
    }
}

#[test]
fn a_template_that_cannot_be_one_is_a_failed_start() {
    for (text, reason) in [
        ("refuse", "it has threads"),
        ("exit", "the template process exited with status 3"),
        ("drop", "a worker exited before its first message"),
        ("forge", "the process that sent Hello was not forked by the template"),
        ("keep", "the process that sent Hello was not forked by the template"),
    ] {
        let mut httpd = Httpd::new();
        let script = httpd.script("a.wsgi", text, 1000);
        httpd.configure(vec![forking(2)]);
        let queue = httpd.open("shop", "", &script).unwrap();
        let answer = request(&queue, &script, "application", 1000).answer();
        assert_eq!(answer, Answer::Failed(Failure::CannotStart, reason.into()), "{text}");
        httpd.script("a.wsgi", "mended", 1001);
        assert_eq!(request(&queue, &script, "application", 1001).served().0, "mended", "{text}");
    }
}

#[test]
fn startup_timeout_counts_while_a_template_imports() {
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "hang", 1000);
    httpd.configure(vec![GroupSpec { startup_timeout_ms: Some(300), ..forking(2) }]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let answer = request(&queue, &script, "application", 1000).answer();
    assert_eq!(answer, Answer::Failed(Failure::CannotStart, "startup-timeout".into()));
    httpd.control = None;
    assert!(httpd.end().success(), "and droverd ends although the template hangs");
}

#[test]
fn a_worker_is_who_its_group_says() {
    if !rustix::process::getuid().is_root() {
        eprintln!("not root: nothing to see");
        return;
    }
    let mut httpd = Httpd::new();
    let script = httpd.script("a.wsgi", "one", 1000);
    let python = httpd.directory.join("worker");
    std::fs::copy(env!("CARGO_BIN_EXE_fake_worker"), &python).unwrap();
    let mut spec = group("shop");
    spec.program = Program::python(python.to_str().unwrap());
    spec.identity = Some(Identity {
        uid: 65534,
        gid: 65534,
        user: b"nobody".to_vec(),
        home: b"/nonexistent".to_vec(),
        differs: true,
        supplementary: None,
    });
    httpd.configure(vec![spec]);
    let queue = httpd.open("shop", "", &script).unwrap();
    let Answer::Text(text) = request(&queue, &script, "application", 1000).answer() else { panic!() };
    assert!(text.ends_with(" 65534"), "{text}");
}

#[test]
fn versions_must_agree() {
    let mut httpd = Httpd::new();
    let (mut other, _control, _broker) = start(&httpd.store, &httpd.log_writer, "0.0.0");
    assert_eq!(other.wait().unwrap().code(), Some(78));
    assert!(httpd.expect("DROVER0201").contains("mod_drover.so is version 0.0.0"));
    let out = Command::new(env!("CARGO_BIN_EXE_droverd")).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), format!("droverd {VERSION}\n"));
}
