//! Plays droverd and httpd to one real worker process.
//!
//! Responsible for: a worker started as droverd starts it, and every wait having a limit. Called by: the tests beside it.
#![allow(dead_code)]
use drover_sys::token::{self, Board, Token};
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_sys::{Errno, channel, clock, memfile};
use drover_wire::control::{Activity, FromWorker, Loaded, Script, ToWorker, WorkerConfig, WorkerOptions, decode, encode};
use drover_wire::frame::{BodyFailure, Deframer, Event, Failure, Header, Kind};
use drover_wire::head::Head;
use drover_wire::request::{BODY_FOLLOWS, Builder, EXTERNAL, PREFIX, Prefix};
use drover_wire::session::Status;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

/// No event takes so long.
const LIMIT_NS: u64 = 60_000_000_000;

pub fn soon() -> Option<u64> {
    Some(clock::monotonic_ns() + LIMIT_NS)
}

fn readable(fd: impl AsFd) {
    assert_eq!(poll_until(&mut [PollFd::new(&fd, PollFlags::IN)], soon()), Ok(1), "nothing came in time");
}

/// The interpreter under test.
pub fn python() -> String {
    std::env::var("DROVER_TEST_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".to_owned())
}

/// The extension that belongs to this test program.
fn extension() -> PathBuf {
    static BUILT: Once = Once::new();
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf();
    // cargo does not build a shared object that nothing links to for the sake of a test.
    BUILT.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "drover-worker", "--target-dir"]).arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    });
    profile.join("lib_drover.so")
}

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A directory that goes with its owner.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("drover-worker-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Lays out an installation as `make install` does, on links.
fn install(at: &Path) -> PathBuf {
    let lib = at.join("lib/mod_drover");
    std::fs::create_dir_all(&lib).unwrap();
    std::os::unix::fs::symlink(extension(), lib.join("_drover.abi3.so")).unwrap();
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    std::os::unix::fs::symlink(packages.canonicalize().unwrap(), lib.join("python")).unwrap();
    lib.join("python/mod_drover/boot.py")
}

pub fn app(name: &str) -> Vec<u8> {
    format!("{}/tests/apps/{name}", env!("CARGO_MANIFEST_DIR")).into_bytes()
}

pub fn config(threads: u32, scripts: &[&[u8]]) -> WorkerConfig {
    WorkerConfig {
        is_template: false,
        version: drover_wire::VERSION.to_owned(),
        group: b"shop".to_vec(),
        application_group: Vec::new(),
        generation: 1,
        processes: 2,
        multiprocess: true,
        threads,
        has_memory_soft: false,
        home: None,
        options: WorkerOptions::default(),
        scripts: scripts.iter().map(|path| Script { path: path.to_vec(), callable: b"application".to_vec() }).collect(),
        optional: Vec::new(),
    }
}

/// One worker, and what droverd holds of it.
pub struct Worker {
    child: Child,
    control: Option<OwnedFd>,
    pub queue: OwnedFd,
    receiving: OwnedFd,
    pub tokens: Board,
    printed: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
    pub scratch: Scratch,
    /// Heard already, but not asked for.
    pending: std::cell::RefCell<Option<(FromWorker, Vec<OwnedFd>)>>,
}

impl Worker {
    /// Execs the interpreter; nothing has been said yet.
    pub fn spawn() -> Self {
        Self::spawn_on(channel::packet_pair().unwrap())
    }

    /// With these two ends of the control socket, the second of them being the worker's.
    fn spawn_on((control, theirs): (OwnedFd, OwnedFd)) -> Self {
        let scratch = Scratch::new();
        let boot = install(&scratch.0);
        let (queue, receiving) = channel::packet_pair().unwrap();
        channel::set_send_buffer(&queue, 4 << 20);
        let tokens = token::create().unwrap();
        // Above the numbers that the shell gives, and not close-on-exec.
        let inherited = rustix::io::fcntl_dupfd_cloexec(&tokens, 64).unwrap();
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
        let mut child = Command::new("/bin/sh")
            .args(["-c", "exec 3<&0 4<&1 </dev/null >&2; exec \"$@\" --control 3 --queue 4", "sh"])
            .arg(python())
            .arg(boot)
            .args(["--tokens", &inherited.as_raw_fd().to_string()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(receiving.try_clone().unwrap()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let (mut pipe, text) = (child.stderr.take().unwrap(), Arc::clone(&printed));
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut piece) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..n]));
            }
        });
        Self {
            child,
            control: Some(control),
            queue,
            receiving,
            tokens: Board::map(&tokens).unwrap(),
            printed,
            reader: Some(reader),
            scratch,
            pending: std::cell::RefCell::default(),
        }
    }

    /// Hello and Start, then what the worker says of its scripts.
    pub fn start(config: WorkerConfig) -> (Self, Vec<Loaded>) {
        let worker = Self::spawn();
        let loaded = worker.load(config);
        (worker, loaded)
    }

    fn load(&self, config: WorkerConfig) -> Vec<Loaded> {
        let FromWorker::Hello { version, python } = self.hear() else { panic!("no Hello") };
        assert_eq!(version, drover_wire::VERSION);
        assert!(python.starts_with('3'), "{python}");
        self.say(&ToWorker::Start(Box::new(config)));
        match self.hear() {
            FromWorker::Loaded(loaded) => loaded,
            other => panic!("{other:?}, printed: {}", self.printed()),
        }
    }

    /// One that serves `script` with `threads`.
    pub fn serving(threads: u32, script: &str) -> Self {
        Self::serving_with(config(threads, &[&app(script)]))
    }

    pub fn serving_with(config: WorkerConfig) -> Self {
        let (worker, loaded) = Self::start(config);
        worker.serve(loaded);
        worker
    }

    fn serve(&self, loaded: Vec<Loaded>) {
        for script in loaded {
            assert_eq!(script.failure, None);
        }
        self.say(&ToWorker::Serve);
    }

    /// One that serves, and to which droverd does not listen: whatever it says finds no room, until the test begins to read. Gives
    /// how many reports of nothing stand before what it says then.
    pub fn unheard(config: WorkerConfig) -> (Self, usize) {
        let (control, theirs) = channel::packet_pair().unwrap();
        let same = theirs.try_clone().unwrap();
        let worker = Self::spawn_on((control, theirs));
        worker.serve(worker.load(config));
        let nothing = encode(&FromWorker::Activity(Activity { taken: 0, counted: 0, waited_us: 0, running: 0 })).unwrap();
        let filled = (0..1_000_000).take_while(|_| channel::send(&same, &[&nothing], &[], false).is_ok()).count();
        (worker, filled)
    }

    pub fn say(&self, message: &ToWorker) {
        channel::send(self.control.as_ref().unwrap(), &[&encode(message).unwrap()], &[], true).unwrap();
    }

    pub fn say_raw(&self, bytes: &[u8]) {
        channel::send(self.control.as_ref().unwrap(), &[bytes], &[], true).unwrap();
    }

    /// The end of the queue from which workers take; droverd keeps one as well.
    pub fn receiving(&self) -> &OwnedFd {
        &self.receiving
    }

    pub fn receiving_end(&self) -> OwnedFd {
        self.receiving.try_clone().unwrap()
    }

    /// Waits until the worker says something to droverd or answers; true: it is the former.
    pub fn speaks_before(&self, exchange: &Exchange) -> bool {
        let control = self.control.as_ref().unwrap();
        let mut fds = [PollFd::new(control, PollFlags::IN), PollFd::new(&exchange.near, PollFlags::IN)];
        loop {
            assert!(poll_until(&mut fds, soon()).unwrap() > 0, "nothing came in time");
            if fds[0].revents().is_empty() {
                // HELD goes out before the word to droverd.
                let held = Header { len: 0, number: exchange.number, kind: Kind::Held, code: 0 }.encode();
                let mut first = held.map(|_| 0);
                let peeked = drover_sys::peek::peek(&exchange.near, &mut first, &mut Vec::new());
                if peeked != Ok(held.len()) || first != held {
                    return false;
                }
                readable(control);
            }
            let message = self.receive();
            if !matches!(message.0, FromWorker::Activity(_) | FromWorker::Memory(_)) {
                *self.pending.borrow_mut() = Some(message);
                return true;
            }
        }
    }

    pub fn hear(&self) -> FromWorker {
        self.hear_with_fds().0
    }

    /// The next message that is not a report of what was done.
    pub fn hear_with_fds(&self) -> (FromWorker, Vec<OwnedFd>) {
        if let Some(message) = self.pending.borrow_mut().take() {
            return message;
        }
        loop {
            let message = self.receive();
            if !matches!(message.0, FromWorker::Activity(_) | FromWorker::Memory(_)) {
                return message;
            }
        }
    }

    /// The next report of what was done.
    pub fn activity(&self) -> Activity {
        loop {
            if let (FromWorker::Activity(activity), _) = self.receive() {
                return activity;
            }
        }
    }

    /// The next message, whatever it is.
    pub fn hear_any(&self) -> FromWorker {
        self.receive().0
    }

    fn receive(&self) -> (FromWorker, Vec<OwnedFd>) {
        let (mut buffer, mut fds) = (vec![0; 200_000], Vec::new());
        let control = self.control.as_ref().unwrap();
        readable(control);
        let n = channel::receive(control, &mut buffer, &mut fds, false).unwrap();
        assert_ne!(n, 0, "the worker has closed its control socket; printed: {}", self.printed());
        (decode(&buffer[..n]).unwrap(), fds)
    }

    /// As if droverd had died.
    pub fn forsake(&mut self) {
        self.control = None;
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// Waits for the process's end; gives its status and all it printed.
    pub fn end(mut self) -> (ExitStatus, String) {
        let child = rustix::process::pidfd_open(self.pid(), rustix::process::PidfdFlags::empty()).unwrap();
        readable(&child);
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status, self.printed())
    }

    /// Drains, and the process must end well.
    pub fn drain(self) -> String {
        self.say(&ToWorker::Drain);
        let (status, printed) = self.end();
        assert!(status.success(), "{status}, printed: {printed}");
        printed
    }

    pub fn request(&self, request: &Request) -> Exchange {
        Exchange::send(self, request)
    }

    /// One that nobody waits for any more.
    pub fn request_of_nobody(&self, request: &Request) {
        let (near, far) = channel::stream_pair().unwrap();
        let (other, _) = channel::stream_pair().unwrap();
        drop(near);
        Exchange::send_on(self, request, other, far);
    }

    /// GET, answered.
    pub fn get(&self, path: &str) -> Answer {
        self.request(&Request::get(path)).answer()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What is put on the queue.
#[derive(Clone)]
pub struct Request {
    pub script: Vec<u8>,
    pub callable: &'static str,
    pub pairs: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub prefix: Prefix,
    /// The session sent ahead, and the token of its lock.
    pub ahead: Vec<u8>,
    pub token: Option<Token>,
}

impl Request {
    pub fn get(path: &str) -> Self {
        let pair = |k: &str, v: &str| (k.to_owned(), v.as_bytes().to_vec());
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Self {
            script: app("app.wsgi"),
            callable: "application",
            pairs: vec![
                pair("REQUEST_METHOD", "GET"),
                pair("SCRIPT_NAME", ""),
                pair("PATH_INFO", path),
                pair("QUERY_STRING", query),
                pair("SERVER_NAME", "localhost"),
                pair("SERVER_PORT", "80"),
                pair("SERVER_PROTOCOL", "HTTP/1.1"),
                pair("wsgi.url_scheme", "http"),
                pair("apache.version", "2.4.65"),
                pair("HTTP_HOST", "localhost"),
            ],
            body: Vec::new(),
            prefix: Prefix { log_level: 4, started_us: clock::realtime_ns() / 1000, queued_at: clock::monotonic_ns(), ..Prefix::default() },
            ahead: Vec::new(),
            token: None,
        }
    }

    pub fn post(path: &str, body: &[u8]) -> Self {
        let mut request = Self::get(path);
        request.set("REQUEST_METHOD", b"POST");
        request.set("CONTENT_LENGTH", body.len().to_string().as_bytes());
        request.body = body.to_vec();
        request
    }

    /// With a body that follows, `len` bytes of it.
    pub fn upload(path: &str, len: usize, flags: u16) -> Self {
        let mut request = Self::post(path, b"");
        request.set("CONTENT_LENGTH", len.to_string().as_bytes());
        request.prefix.flags = BODY_FOLLOWS | flags;
        request
    }

    pub fn set(&mut self, key: &str, value: &[u8]) {
        match self.pairs.iter_mut().find(|(k, _)| k == key) {
            Some((_, v)) => *v = value.to_vec(),
            None => self.pairs.push((key.to_owned(), value.to_vec())),
        }
    }
}

/// What httpd does when the session asks something; `None`: no answer.
pub type Sessions<'a> = dyn FnMut(u16, &[u8]) -> Option<(Status, Vec<u8>)> + 'a;

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// END; whether the pair came back.
    End(bool),
    Fail(Failure, String),
    Closed,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub reason: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub log: Vec<(u16, String)>,
    /// The last thing said was that nobody runs the request.
    pub held: bool,
    pub ending: Ending,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Complete, with the pair given back; its body.
    pub fn good(self) -> String {
        assert_eq!(self.ending, Ending::End(true), "{self:?}");
        self.text()
    }

    pub fn logged(&self) -> String {
        self.log.iter().map(|(_, text)| format!("{text}\n")).collect()
    }
}

/// httpd's side of a request.
pub struct Exchange {
    near: OwnedFd,
    cookie: u64,
    pub number: u32,
    deframer: Deframer,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A frame, whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Got {
    Frame(Kind, u16, Vec<u8>),
    Body(Vec<u8>),
    Closed,
}

impl Exchange {
    fn send(worker: &Worker, request: &Request) -> Self {
        let (near, far) = channel::stream_pair().unwrap();
        Self::send_on(worker, request, near, far)
    }

    fn send_on(worker: &Worker, request: &Request, near: OwnedFd, far: OwnedFd) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut builder = Builder::default();
        builder.begin(&request.script, request.callable.as_bytes()).unwrap();
        for (key, value) in &request.pairs {
            builder.pair(key.as_bytes(), value).unwrap();
        }
        let (token_place, token) = request.token.map_or((0, 0), |token| (token.place, token.number));
        let prefix = Prefix { number, token_place, token, ..request.prefix };
        let message = builder.finish(prefix, &request.ahead, &request.body).unwrap();
        let prefix = Prefix::decode(message).unwrap();
        let cookie = channel::cookie(&far).unwrap();
        if prefix.flags & EXTERNAL != 0 {
            let file = memfile::create(&message[PREFIX..]).unwrap();
            channel::send(&worker.queue, &[&message[..PREFIX]], &[far.as_fd(), file.as_fd()], true).unwrap();
        } else {
            channel::send(&worker.queue, &[message], &[far.as_fd()], true).unwrap();
        }
        Self { near, cookie, number, deframer: Deframer::new(number), bytes: Vec::new(), fds: Vec::new() }
    }

    fn step(&mut self) -> Option<Got> {
        let (got, used) = match self.deframer.next(&self.bytes).unwrap()? {
            (Event::Body(piece), used) => (Got::Body(piece.to_vec()), used),
            (Event::Frame(header, payload), used) => (Got::Frame(header.kind, header.code, payload.to_vec()), used),
            (other, _) => panic!("{other:?}"),
        };
        self.bytes.drain(..used);
        Some(got)
    }

    fn receive(&mut self) -> bool {
        let mut buffer = vec![0; 1 << 16];
        match channel::receive(&self.near, &mut buffer, &mut self.fds, false) {
            Ok(0) | Err(Errno::CONNRESET) => false,
            Ok(n) => {
                self.bytes.extend_from_slice(&buffer[..n]);
                true
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// The next frame, or piece of a body.
    pub fn next(&mut self) -> Got {
        loop {
            if let Some(got) = self.step() {
                return got;
            }
            readable(&self.near);
            if !self.receive() {
                return Got::Closed;
            }
        }
    }

    /// The next piece of body, whatever stands before it.
    pub fn body(&mut self) -> Vec<u8> {
        loop {
            match self.next() {
                Got::Body(piece) => return piece,
                Got::Frame(Kind::Head | Kind::Log, ..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn frame(&mut self, kind: Kind, code: u16, data: &[u8]) {
        let header = Header { len: data.len() as u32, number: self.number, kind, code }.encode();
        self.raw(&[&header, data].concat());
    }

    /// Sends without waiting for the worker: what does not fit at once is sent as room comes, answers being read meanwhile.
    pub fn raw(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            match channel::send(&self.near, &[data], &[], false) {
                Ok(n) => data = &data[n..],
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::new(&self.near, PollFlags::IN | PollFlags::OUT)];
                    assert_ne!(poll_until(&mut fds, soon()), Ok(0));
                    if fds[0].revents().contains(PollFlags::IN) && !self.receive() {
                        return;
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return,
                Err(e) => panic!("{e}"),
            }
        }
    }

    pub fn upload(&mut self, data: &[u8]) {
        for piece in data.chunks(60_000) {
            self.frame(Kind::Body, 0, piece);
        }
        self.frame(Kind::End, 0, b"");
    }

    pub fn fail(&mut self, why: BodyFailure) {
        self.frame(Kind::Fail, why as u16, b"");
    }

    /// Everything up to the end.
    pub fn answer(self) -> Answer {
        self.answer_asked(&mut |op, payload| panic!("unexpected {op} {payload:?}"))
    }

    /// Everything up to the end. Questions of the session go to `httpd`, which may answer them.
    pub fn answer_asked(mut self, httpd: &mut Sessions<'_>) -> Answer {
        let mut answer = Answer {
            status: 0,
            reason: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
            log: Vec::new(),
            held: false,
            ending: Ending::Closed,
        };
        loop {
            let got = self.next();
            if got != Got::Closed {
                answer.held = matches!(got, Got::Frame(Kind::Held, ..));
            }
            match got {
                Got::Frame(Kind::Held | Kind::Taken, ..) => {}
                Got::Body(piece) => {
                    assert_ne!(answer.status, 0, "body before head");
                    answer.body.extend(piece);
                }
                Got::Frame(Kind::Head, _, payload) => {
                    assert_eq!(answer.status, 0, "a second head");
                    let head = Head::decode(&payload).unwrap();
                    answer.status = head.status;
                    answer.reason = String::from_utf8_lossy(head.reason).into_owned();
                    let text = |b: &[u8]| b.iter().map(|&b| char::from(b)).collect::<String>();
                    answer.headers = head.fields.map(|f| f.map(|(n, v)| (text(n), text(v))).unwrap()).collect();
                }
                Got::Frame(Kind::Log, level, payload) => answer.log.push((level, String::from_utf8_lossy(&payload).into_owned())),
                Got::Frame(Kind::End, ..) => {
                    assert!(self.bytes.is_empty(), "bytes behind END");
                    let back = self.fds.pop().is_some_and(|fd| channel::cookie(&fd) == Ok(self.cookie));
                    answer.ending = Ending::End(back);
                    return answer;
                }
                Got::Frame(Kind::Fail, code, payload) => {
                    answer.ending = Ending::Fail(Failure::from_code(code), String::from_utf8_lossy(&payload).into_owned());
                    return answer;
                }
                Got::Frame(Kind::Session, op, payload) => {
                    if let Some((status, reply)) = httpd(op, &payload) {
                        self.frame(Kind::Session, status as u16, &reply);
                    }
                }
                Got::Frame(kind, ..) => panic!("unexpected {kind:?}"),
                Got::Closed => return answer,
            }
        }
    }

    /// Stops reading, like an httpd whose client has gone.
    pub fn hang_up(self) {}

    pub fn near(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }
}

/// Polls a condition that has no descriptor of its own.
pub fn until(mut condition: impl FnMut() -> bool) {
    let end = clock::monotonic_ns() + LIMIT_NS;
    while !condition() {
        assert!(clock::monotonic_ns() < end, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}
