//! Faults of the system at chosen points: interrupted calls, short writes, no descriptors, no memory, sudden deaths.
//!
//! Responsible for: no answer that is cut looking whole, no cut body taken for a whole one, nothing run twice, and the service going on
//! when the fault is over. Which call fails is counted, not timed. Called by: `main.rs`.
//!
//! What is injected must be possible. strace leaves a failing call out, so `error=` is truthful wherever the kernel may give that error;
//! `retval=` claims bytes to be sent that nobody will ever get, which no kernel does on a Unix socket: it is used only where the lost
//! bytes are a message's first, so that the receiver can know. Short writes are made for real, by sockets with the smallest buffer.
use crate::harness::inject::{Injection, Limit, Lowered, Scope, lowest_free, shrink_buffers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Httpd, Mpm, Request, Site, processes, until};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const APP: &str = r#"
import os

PAGE = bytes((i * 7 + i // 251) % 256 for i in range(4088))
PATTERN = b"".join(n.to_bytes(8, "little") + PAGE for n in range(2064))

def note(line):
    """Into the journal, or an OSError."""
    fd = os.open("@dir@/journal", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)

def upload(environ, start, size):
    have, right = 0, True
    note(f"begin {environ['PATH_INFO']}\n")
    while True:
        piece = environ["wsgi.input"].read(100000)
        if not piece:
            break
        right = right and piece == PATTERN[start + have:start + have + len(piece)]
        have += len(piece)
    line = f"{environ['PATH_INFO']} {have == size and right}\n"
    note(line)
    return line.encode()

def application(environ, start_response):
    what, size, number = environ["PATH_INFO"].strip("/").split("/")
    size, number = int(size), int(number)
    start = number * 977 % 65536
    headers = []
    try:
        if what == "small":
            body = [b"small %d" % number]
        elif what == "headers":
            body = ["".join(environ[f"HTTP_X_{i}"] for i in range(size)).encode()]
        elif what == "upload":
            body = [upload(environ, start, size)]
        elif what == "session":
            session = environ["mod_drover.session"]
            session["n"] = session.get("n", 0) + 1
            body = [str(session["n"]).encode()]
        elif what == "memory":
            body = [b"%d" % len(bytes(size))]
        else:
            if what == "length":
                headers = [("Content-Length", str(size))]
            body = (PATTERN[start + i:start + min(i + 100000, size)] for i in range(0, size, 100000))
    except (OSError, MemoryError) as e:
        start_response("500 Fault", [("Content-Type", "text/plain")])
        return [type(e).__name__.encode()]
    start_response("200 OK", headers)
    return body
"#;

const MIB: usize = 1 << 20;
/// Of both groups.
const WORKERS_IN_ALL: usize = 4;
const CLIENTS: usize = 4;

/// The bytes that bodies are made of; as in [`APP`].
fn pattern() -> &'static [u8] {
    static PATTERN: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    PATTERN.get_or_init(|| {
        let page: Vec<u8> = (0..4088usize).map(|i| ((i * 7 + i / 251) % 256) as u8).collect();
        (0..2064u64).flat_map(|n| n.to_le_bytes().into_iter().chain(page.iter().copied())).collect()
    })
}

fn bytes(number: usize, size: usize) -> &'static [u8] {
    let start = number * 977 % 65536;
    &pattern()[start..start + size]
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Small,
    /// So many fields of 7 KB.
    Headers(usize),
    Upload {
        size: usize,
        chunked: bool,
    },
    Download {
        size: usize,
        chunked: bool,
    },
    /// A new session, and a second request with it.
    Session,
    /// The application wants so much memory.
    Memory(usize),
}

/// What came of one.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// 200, every byte.
    Right,
    /// Another status.
    Refused(u16),
    /// 200, but anybody can see that the end is missing; what came is right.
    Cut,
    /// No answer: the connection was closed.
    Nothing,
    /// What must never be.
    Wrong(String),
}

/// All of them, the large ones first.
const ALL: &[Kind] = &[
    Kind::Upload { size: 8 * MIB, chunked: false },
    Kind::Upload { size: 8 * MIB, chunked: true },
    Kind::Download { size: 8 * MIB, chunked: false },
    Kind::Download { size: 8 * MIB, chunked: true },
    Kind::Headers(30),
    Kind::Upload { size: 65_536, chunked: false },
    Kind::Upload { size: 65_536, chunked: true },
    Kind::Upload { size: 100_000, chunked: false },
    Kind::Session,
    Kind::Headers(3),
    Kind::Session,
    Kind::Small,
    Kind::Headers(30),
    Kind::Small,
    Kind::Headers(3),
    Kind::Small,
    Kind::Upload { size: 10, chunked: false },
    Kind::Small,
];

/// Those that are one message.
const SMALL: &[Kind] = &[
    Kind::Small,
    Kind::Upload { size: 10, chunked: false },
    Kind::Headers(3),
    Kind::Small,
    Kind::Upload { size: 1000, chunked: false },
    Kind::Headers(30),
    Kind::Small,
    Kind::Small,
    Kind::Upload { size: 1000, chunked: true },
    Kind::Small,
    Kind::Small,
    Kind::Small,
];

/// More than any allocator has at hand.
const MEMORY: &[Kind] = &[Kind::Memory(64 * MIB), Kind::Small, Kind::Memory(64 * MIB), Kind::Upload { size: 100_000, chunked: true }];

fn field(number: usize, i: usize) -> String {
    char::from(b'a' + ((number + i) % 26) as u8).to_string().repeat(7000)
}

/// Sends it once and judges what comes.
fn ask(port: u16, mount: &str, kind: Kind) -> Outcome {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let n = NUMBER.fetch_add(1, Ordering::Relaxed);
    let get = |path: String| Request::new(port, "GET", &format!("{mount}{path}/{n}"));
    match kind {
        Kind::Small => judge(get("/small/0".into()), format!("small {n}").as_bytes()).0,
        Kind::Headers(count) => {
            let request = (0..count).fold(get(format!("/headers/{count}")), |r, i| r.header(&format!("X-{i}"), field(n, i)));
            judge(request, (0..count).map(|i| field(n, i)).collect::<String>().as_bytes()).0
        }
        Kind::Upload { size, chunked } => {
            let path = format!("/upload/{size}/{n}");
            let request = Request::new(port, "POST", &format!("{mount}{path}"));
            let request = if chunked { request.chunked(bytes(n, size).chunks(50_000)) } else { request.body(bytes(n, size)) };
            judge(request, format!("{path} True\n").as_bytes()).0
        }
        Kind::Download { size, chunked } => {
            let path = format!("/{}/{size}", if chunked { "chunked" } else { "length" });
            judge(get(path), bytes(n, size)).0
        }
        Kind::Memory(size) => judge(get(format!("/memory/{size}")), size.to_string().as_bytes()).0,
        Kind::Session => {
            let (first, cookie) = judge(get("/session/0".into()), b"1");
            match cookie {
                Some(cookie) => judge(get("/session/0".into()).header("Cookie", cookie), b"2").0,
                None => first,
            }
        }
    }
}

/// The outcome, and the session's cookie if all is right.
fn judge(request: Request, expected: &[u8]) -> (Outcome, Option<String>) {
    let started = Instant::now();
    let answer = request.attempt();
    if started.elapsed() >= PATIENCE {
        return (Outcome::Wrong(format!("the client waited {PATIENCE:?} in vain, for what or for more of {answer:?}")), None);
    }
    let Ok(answer) = answer else { return (Outcome::Nothing, None) };
    let bounded = answer.header("Content-Length").is_some() || answer.header("Transfer-Encoding").is_some();
    let outcome = match (answer.status, answer.complete) {
        (200, true) if bounded && answer.body == expected => Outcome::Right,
        (200, false) if bounded && expected.starts_with(&answer.body) => Outcome::Cut,
        (200, complete) => {
            let same = answer.body.iter().zip(expected).take_while(|(a, b)| a == b).count();
            let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(80)]).into_owned();
            let (have, want) = (answer.body.len(), expected.len());
            Outcome::Wrong(format!("complete: {complete}, {have} bytes of {want}, the first {same} are right: {text}"))
        }
        (status @ 400.., _) => Outcome::Refused(status),
        (status, _) => Outcome::Wrong(format!("{status} {}", answer.text())),
    };
    let cookie = answer.header("Set-Cookie").filter(|_| outcome == Outcome::Right);
    (outcome.clone(), cookie.and_then(|c| c.split(';').next()).map(String::from))
}

/// Sends all of `kinds`, some at a time.
fn mix(port: u16, mount: &str, kinds: &[Kind]) -> Vec<(Kind, Outcome)> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while let Some(kind) = kinds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = ask(port, mount, *kind);
                    outcomes.lock().expect("lock").push((*kind, outcome));
                }
            });
        }
    });
    outcomes.into_inner().expect("lock")
}

/// `app` at `/`; `hasty`, which soon gives up on an application that says nothing, at `/hasty`.
fn site(site: Site) -> Site {
    let journal = site.dir().join("journal");
    std::fs::write(&journal, "").expect("journal");
    std::fs::set_permissions(&journal, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("mode");
    let hasty = "WSGIDaemonProcess hasty processes=2 threads=4 socket-timeout=3 python-path=@apps@\n\
                 WSGIScriptAlias /hasty @apps@/a.wsgi process-group=hasty application-group=%{GLOBAL}\nDroverSession disk";
    let site = site.head("<Directory />\nAllowOverride None\n</Directory>"); // else httpd looks for .htaccess
    site.script("a.wsgi", APP).daemon("processes=2 threads=4").config(hasty).app("/", "a.wsgi")
}

/// Every upload that the application took for whole was whole, and no request was run twice.
#[track_caller]
fn check_journal(httpd: &Httpd) {
    let text = std::fs::read_to_string(httpd.site.dir().join("journal")).expect("journal");
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        assert!(line.starts_with("begin ") || line.ends_with(" True"), "the application took a cut or wrong body for a whole one: {line}");
        assert!(seen.insert(line), "run twice: {line}");
    }
}

#[track_caller]
fn all_are_ready(httpd: &Httpd, after: &str) {
    until(&format!("all workers after {after}"), || {
        let (workers, log) = (httpd.workers(), httpd.log());
        // A generation in each of the two groups: none of them is on its way to another.
        let of = |pid: i32| log.lines().rfind(|line| line.contains(&format!("worker {pid} is ready"))).map(group_and_generation);
        let all: Option<BTreeSet<_>> = workers.iter().map(|w| of(w.pid)).collect();
        workers.len() == WORKERS_IN_ALL && all.is_some_and(|all| all.len() == 2)
    });
}

fn group_and_generation(line: &str) -> (String, String) {
    let part = |from: &str, to: char| line.split_once(from).and_then(|(_, rest)| rest.split(to).next()).unwrap_or_default().to_string();
    (part("(group '", '\''), part("(generation ", ')'))
}

/// The service is as before: soon all processes and an answer, and then every answer right.
#[track_caller]
fn goes_on(httpd: &Httpd, after: &str) {
    all_are_ready(httpd, after);
    for mount in ["", "/hasty"] {
        until(&format!("an answer after {after}"), || ask(httpd.site.port, mount, Kind::Small) == Outcome::Right);
    }
    let bad: Vec<_> = mix(httpd.site.port, "", ALL).into_iter().filter(|(_, outcome)| *outcome != Outcome::Right).collect();
    assert!(bad.is_empty(), "after {after}: {bad:?}");
    check_journal(httpd);
}

/// Into whom a fault is injected.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Children,
    Droverd,
    Workers,
}

impl Victim {
    fn pids(self, httpd: &Httpd) -> Vec<i32> {
        let droverd = httpd.droverd().pid;
        match self {
            Victim::Children => {
                processes::all().into_iter().filter(|p| p.parent == httpd.pid() && p.pid != droverd).map(|p| p.pid).collect()
            }
            Victim::Droverd => vec![droverd],
            Victim::Workers => httpd.workers().into_iter().map(|p| p.pid).collect(),
        }
    }

    fn scope(self) -> Scope {
        if self == Victim::Droverd { Scope::Alone } else { Scope::Threads }
    }
}

/// What may become of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
enum May {
    /// Nothing is to be noticed.
    Nothing,
    /// Clear errors and visible cuts.
    Fail,
    /// Also connections that are closed without an answer: the process that has them is in need.
    Vanish,
}

#[track_caller]
fn check(outcomes: &[(Kind, Outcome)], may: May, what: &str) {
    for (kind, outcome) in outcomes {
        let fine = match outcome {
            Outcome::Right => true,
            Outcome::Refused(500..) | Outcome::Cut => may != May::Nothing,
            // httpd could not read the client's request, or not look for .htaccess.
            Outcome::Refused(status) => may == May::Vanish && matches!(status, 400 | 403),
            Outcome::Nothing => may == May::Vanish,
            Outcome::Wrong(_) => false,
        };
        assert!(fine, "{what}: {kind:?} became {outcome:?}");
    }
}

/// One injection: the calls, what becomes of them, where and what is asked meanwhile, and what may come of it.
struct Row {
    calls: &'static str,
    how: &'static str,
    mount: &'static str,
    kinds: &'static [Kind],
    may: May,
}

const fn row(calls: &'static str, how: &'static str, may: May) -> Row {
    Row { calls, how, mount: "", kinds: ALL, may }
}

const POLL: &str = "?poll,ppoll";
const WAITS: &str = "?poll,ppoll,?epoll_wait,epoll_pwait";

/// Sends the requests while the victims suffer from what `fault` returns, and has droverd do something if it is the victim.
fn suffer<F: Sync>(
    httpd: &Httpd,
    victim: Victim,
    (mount, kinds): (&str, &[Kind]),
    fault: impl FnOnce() -> F,
    met: impl Fn(&F) -> bool + Sync,
) -> (F, Vec<(Kind, Outcome)>) {
    let fault = fault();
    let outcomes = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            if victim == Victim::Droverd {
                churn(httpd);
                until("droverd has met the fault", || met(&fault));
            }
        });
        let outcomes = mix(httpd.site.port, mount, kinds);
        other.join().expect("what is done besides");
        outcomes
    });
    (fault, outcomes)
}

/// Gives droverd something to do: a new generation, and a worker that leaves.
fn churn(httpd: &Httpd) {
    let mut reload = crate::control::drover(httpd, &["reload", "app"]);
    let mut reload = reload.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("drover");
    if let Some(worker) = httpd.workers().first() {
        kill(worker, Signal::TERM);
        until("its end", || !processes::is_alive(worker));
    }
    // It waits until the new processes serve, which they may not do before the fault is over; droverd may be killed meanwhile.
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end && matches!(reload.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = reload.kill();
    let _ = reload.wait();
}

fn kill(process: &processes::Process, signal: Signal) {
    let _ = rustix::process::Pid::from_raw(process.pid).map(|p| rustix::process::kill_process(p, signal));
}

/// httpd's children and the workers anew: none has memory, descriptors or queues from earlier requests.
fn fresh(httpd: &mut Httpd, children: usize) {
    let old: Vec<_> =
        processes::all().into_iter().filter(|p| Victim::Children.pids(httpd).contains(&p.pid)).chain(httpd.workers()).collect();
    httpd.graceful();
    until("the end of the old ones", || !old.iter().any(processes::is_alive));
    until("the new ones", || Victim::Children.pids(httpd).len() >= children);
    all_are_ready(httpd, "graceful");
}

/// Ends httpd's children, which have nothing to do, and waits for others.
fn renew_children(httpd: &Httpd) {
    let children = || Victim::Children.pids(httpd);
    let old = children();
    until("their rest", || old.iter().all(|pid| processes::is_at_rest(*pid)));
    for pid in &old {
        httpd.signal(*pid, Signal::KILL);
    }
    until("others", || children().iter().any(|pid| !old.contains(pid)) && !children().iter().any(|pid| old.contains(pid)));
}

/// Runs one row after the other. A session outlives them all.
fn run(httpd: &Httpd, victim: Victim, rows: &[Row]) {
    goes_on(httpd, "the start");
    let session = || httpd.request("GET", "/session/0/0");
    let (_, cookie) = judge(session(), b"1");
    let (cookie, mut count) = (cookie.expect("a session"), 1);
    for Row { calls, how, mount, kinds, may } in rows {
        let what = format!("{calls}:{how} in {victim:?} at '{mount}'");
        let inject = || Injection::attach(httpd.site.dir(), &victim.pids(httpd), victim.scope(), calls, how);
        let (injection, outcomes) = suffer(httpd, victim, (mount, kinds), inject, |i| i.count() > 0);
        let injected = injection.detach();
        check(&outcomes, *may, &what);
        assert!(injected > 0, "{what}: nothing was injected");
        goes_on(httpd, &what);
        count += 1;
        assert_eq!(judge(session().header("Cookie", &cookie), count.to_string().as_bytes()).0, Outcome::Right, "the session after {what}");
    }
}

/// Interrupted, or told to come again: nobody notices, but that it takes longer.
const CHILDREN: &[Row] = &[
    row("sendmsg", "error=EINTR:when=3+7", May::Nothing),
    row("recvmsg", "error=EINTR:when=3+7", May::Nothing),
    row(WAITS, "error=EINTR:when=2+3", May::Nothing),
    row("accept4", "error=EINTR:when=1+2", May::Nothing),
    row("read,readv,write,writev", "error=EINTR:when=2+3", May::Nothing),
    row("sendmsg,recvmsg", "error=EAGAIN:when=3+7", May::Nothing),
    // To clients. Not read(2), which the session store uses too: a file is never to be waited for.
    // The session store writes files with writev(2), which knows no EAGAIN: to it that is an error.
    row("writev", "error=EAGAIN:when=2+5", May::Fail),
    row("sendmsg", "error=ENOBUFS:when=4+9", May::Fail),
    Row { mount: "/hasty", ..row("sendmsg", "error=EPIPE:when=4+9", May::Fail) },
    Row { kinds: SMALL, ..row("sendmsg", "retval=10:when=1+3", May::Fail) },
    row("recvmsg", "error=ECONNRESET:when=4+9", May::Fail),
    row("recvmsg", "error=ENOMEM:when=4+9", May::Fail),
    row("memfd_create", "error=EMFILE:when=1+2", May::Fail),
    row("pwrite64", "error=ENOSPC:when=1+2", May::Fail),
    row(POLL, "error=ENOMEM:when=3+7", May::Vanish),
    row("read", "error=ECONNRESET:when=4+9", May::Vanish),
    row("writev", "error=ECONNRESET:when=2+5", May::Vanish),
    row("accept4", "error=EMFILE:when=2+5", May::Vanish),
];

mpm_test!(a_child_of_httpd_has_faults, |site| {
    let httpd = self::site(site)
        .allow_log("DROVER0053|DROVER0055|DROVER0057|DROVER0059|DROVER0066|DROVER0070")
        .allow_log("AH02179|Memory allocation failed")
        .start();
    run(&httpd, Victim::Children, CHILDREN);
});

const DROVERD: &[Row] = &[
    row("sendmsg", "error=EINTR:when=1+2", May::Nothing),
    row("recvmsg", "error=EINTR:when=1+2", May::Nothing),
    row(WAITS, "error=EINTR:when=1+2", May::Nothing),
    row("read,write,wait4,waitid", "error=EINTR:when=1+2", May::Nothing),
    row("recvmsg", "error=EAGAIN:when=2+3", May::Nothing),
    row("read", "error=EAGAIN:when=2+3", May::Nothing),
    row("socketpair", "error=EMFILE:when=1+2", May::Nothing),
    row("pipe2", "error=EMFILE:when=1+2", May::Nothing),
    row("?fork,?vfork,clone,?clone3", "error=EAGAIN:when=1+2", May::Nothing),
    row("epoll_ctl", "error=ENOMEM:when=2+3", May::Nothing),
    row("sendmsg", "error=EPIPE:when=1+2", May::Fail),
    row("sendmsg", "error=ENOBUFS:when=1+2", May::Fail),
    row("recvmsg", "error=ENOMEM:when=1+2", May::Fail),
];

// Not named after droverd: by this word the harness knows it, and a test's name is part of each command line.
mpm_test!(the_supervisor_has_faults, |site| {
    let httpd = self::site(site).allow_log("DROVER0051|DROVER0206|DROVER0209|DROVER0220|DROVER0221|DROVER0226|DROVER0232").start();
    run(&httpd, Victim::Droverd, DROVERD);
});

const WORKERS: &[Row] = &[
    row("sendmsg", "error=EINTR:when=3+7", May::Nothing),
    row("recvmsg", "error=EINTR:when=3+7", May::Nothing),
    row(WAITS, "error=EINTR:when=2+3", May::Nothing),
    row("read,write", "error=EINTR:when=1+2", May::Nothing),
    row("sendmsg,recvmsg", "error=EAGAIN:when=3+7", May::Nothing),
    row("sendmsg", "error=EPIPE:when=4+9", May::Fail),
    row("sendmsg", "error=ENOBUFS:when=4+9", May::Fail),
    Row { kinds: SMALL, ..row("sendmsg", "retval=10:when=2+3", May::Fail) },
    row("recvmsg", "error=ECONNRESET:when=5+11", May::Fail),
    row("recvmsg", "error=ENOMEM:when=5+11", May::Fail),
    row("pread64", "error=EIO:when=1+2", May::Fail),
    row("openat", "error=EMFILE:when=1+2", May::Fail),
    Row { kinds: MEMORY, ..row("mmap", "error=ENOMEM:when=1+2", May::Fail) },
];

mpm_test!(a_worker_has_faults, |site| {
    let httpd = self::site(site)
        .allow_log("DROVER0053|DROVER0056|DROVER0059|DROVER0066|DROVER0070|DROVER0232|DROVER0241")
        .allow_log("DROVER0401*cannot read the queue|DROVER0401*a request could not be decoded")
        .start();
    run(&httpd, Victim::Workers, WORKERS);
});

mpm_test!(short_writes_are_not_noticed, |site| {
    let httpd = self::site(site).start();
    check(&mix(httpd.site.port, "", ALL), May::Nothing, "as it comes");
    // The pairs that lie there between two requests, both ends of each: every later request uses them again.
    assert!(shrink_buffers(&Victim::Children.pids(&httpd)) >= 2, "there are pairs");
    check(&mix(httpd.site.port, "", ALL), May::Nothing, "with small buffers");
    goes_on(&httpd, "small buffers");
});

mpm_test!(descriptors_run_out, |site| {
    let children = if site.mpm == Mpm::Prefork { 8 } else { 1 };
    let mut httpd = self::site(site)
        .allow_log("AH00161")
        .allow_log("DROVER0053|DROVER0057|DROVER0059|DROVER0066|DROVER0070|DROVER0220|DROVER0226")
        .allow_log("AH02179|DROVER0401*a request was lost: its descriptors could not be received")
        .start();
    goes_on(&httpd, "the start");
    let refused = |httpd: &Httpd| {
        ["Too many open files", "did not fit", "DROVER0401"].map(|text| httpd.log().matches(text).count()).iter().sum::<usize>()
    };
    let cases = [
        (Victim::Children, May::Vanish, &[0, 1, 3][..]),
        (Victim::Workers, May::Fail, &[0, 1, 2]),
        (Victim::Droverd, May::Nothing, &[0, 3]),
    ];
    for (victim, may, numbers) in cases {
        for &more in numbers {
            if victim == Victim::Children {
                fresh(&mut httpd, children);
            }
            let (what, before) = (format!("{more} more descriptors for {victim:?}"), refused(&httpd));
            let lower = || {
                let lowered = Lowered::new(&victim.pids(&httpd), Limit::OpenFiles, |pid| lowest_free(pid) + more);
                if victim == Victim::Droverd {
                    renew_children(&httpd); // who ask droverd for their queues
                }
                lowered
            };
            let (lowered, outcomes) = suffer(&httpd, victim, ("", ALL), lower, |_| true);
            drop(lowered);
            check(&outcomes, may, &what);
            goes_on(&httpd, &what);
            assert!(more > 0 || refused(&httpd) > before, "{what}: nobody needs one");
        }
    }
});

fn address_space(pid: i32) -> u64 {
    let size = processes::status(pid, "VmSize");
    size.trim_end_matches("kB").trim().parse::<u64>().expect("VmSize") << 10
}

mpm_test!(memory_runs_out, |site| {
    let children = if site.mpm == Mpm::Prefork { 8 } else { 1 };
    let mut httpd = self::site(site)
        .allow_log("DROVER0011|DROVER0053|DROVER0057|DROVER0066|DROVER0070")
        .allow_log("memory allocation of|bytes failed|stack backtrace:|note: |skipping backtrace|Memory allocation failed")
        // Neither APR nor Rust goes on without memory.
        .expect_log("AH00052: child pid * exit signal Abort|AH00052: child pid * exit signal Segmentation fault")
        .start();
    goes_on(&httpd, "the start");
    check(&mix(httpd.site.port, "", MEMORY), May::Nothing, "with memory");
    let before = Victim::Workers.pids(&httpd);
    let lowered = Lowered::new(&before, Limit::AddressSpace, |pid| address_space(pid) + 24 * MIB as u64);
    for (kind, outcome) in mix(httpd.site.port, "", MEMORY) {
        assert_eq!(outcome, if matches!(kind, Kind::Memory(_)) { Outcome::Refused(500) } else { Outcome::Right }, "{kind:?}");
    }
    assert_eq!(Victim::Workers.pids(&httpd), before, "a MemoryError ends nobody");
    drop(lowered);
    goes_on(&httpd, "MemoryError");
    // Not of droverd: its workers would inherit it.
    for (victim, may, numbers) in [(Victim::Workers, May::Fail, &[0][..]), (Victim::Children, May::Vanish, &[0, 256])] {
        for kib in numbers {
            fresh(&mut httpd, children);
            let what = format!("{kib} KiB more for {victim:?}");
            let lower = || Lowered::new(&victim.pids(&httpd), Limit::AddressSpace, |pid| address_space(pid) + (kib << 10));
            let (lowered, outcomes) = suffer(&httpd, victim, ("", ALL), lower, |_| true);
            drop(lowered);
            check(&outcomes, may, &what);
            goes_on(&httpd, &what);
        }
    }
});

/// Who is killed, entering which call, for the how many-th time.
const DEATHS: &[(Victim, &str, &[usize], May)] = &[
    (Victim::Workers, "recvmsg", &[1, 2, 5], May::Fail),
    (Victim::Workers, "sendmsg", &[1, 2, 4], May::Fail),
    (Victim::Workers, WAITS, &[1], May::Fail),
    (Victim::Children, "accept4", &[1], May::Vanish),
    (Victim::Children, "sendmsg", &[1, 3], May::Vanish),
    (Victim::Children, "recvmsg", &[1, 3], May::Vanish),
    (Victim::Children, "writev", &[1, 2], May::Vanish),
    // Three times: from the fourth quick death on httpd's parent takes its time to start another.
    (Victim::Droverd, "sendmsg", &[1], May::Nothing),
    (Victim::Droverd, "recvmsg", &[2], May::Nothing),
    (Victim::Droverd, "?fork,?vfork,clone,?clone3", &[1], May::Nothing),
];

mpm_test!(death_comes_at_every_point, |site| {
    let httpd = self::site(site).allow_log("DROVER0007|DROVER0053|DROVER0059|DROVER0066|DROVER0221|DROVER0232").start();
    goes_on(&httpd, "the start");
    for (victim, calls, times, may) in DEATHS {
        for n in *times {
            let what = format!("SIGKILL at {calls} number {n} of {victim:?}");
            let victims: Vec<_> = victim.pids(&httpd).into_iter().filter_map(processes::process).collect();
            let pids: Vec<_> = victims.iter().map(|p| p.pid).collect();
            let dead = || victims.iter().any(|p| !processes::is_alive(p));
            let inject = || Injection::attach(httpd.site.dir(), &pids, victim.scope(), calls, &format!("signal=KILL:when={n}"));
            let (injection, outcomes) = suffer(&httpd, *victim, ("", ALL), inject, |_| dead());
            injection.detach();
            check(&outcomes, *may, &what);
            assert!(dead(), "{what}: nobody was killed");
            goes_on(&httpd, &what);
        }
    }
});

/// Numbers that look random (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % sides
    }
}

const MODERATE: &[Kind] = &[
    Kind::Small,
    Kind::Upload { size: 10, chunked: false },
    Kind::Download { size: MIB, chunked: true },
    Kind::Upload { size: MIB, chunked: true },
    Kind::Session,
    Kind::Headers(30),
    Kind::Upload { size: MIB, chunked: false },
    Kind::Download { size: MIB, chunked: false },
];

const KILLS: usize = 15;

mpm_test!(random_kills_under_load, |site| {
    let httpd = self::site(site)
        .allow_log("DROVER0007|DROVER0053|DROVER0059|DROVER0065|DROVER0066|DROVER0221|DROVER0226|DROVER0227|DROVER0232")
        .start();
    let seed = std::env::var("DROVER_FAULTS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("DROVER_FAULTS_SEED={seed}");
    let mut left = 3;
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (stop, outcomes) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let some = mix(httpd.site.port, "", MODERATE);
                outcomes.lock().expect("lock").extend(some);
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..KILLS {
                // Not droverd for a fourth time, as above.
                let victims = [Victim::Workers, Victim::Children, Victim::Droverd];
                let victim = victims[dice.roll(if left > 0 { 3 } else { 2 })];
                left -= usize::from(victim == Victim::Droverd);
                let pids = victim.pids(&httpd);
                let Some(victim) = pids.get(dice.roll(pids.len().max(1))).and_then(|pid| processes::process(*pid)) else { continue };
                kill(&victim, Signal::KILL);
                until("its end", || !processes::is_alive(&victim));
                until("an answer", || ask(httpd.site.port, "", Kind::Small) == Outcome::Right);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let outcomes = outcomes.into_inner().expect("lock");
    check(&outcomes, May::Vanish, &format!("DROVER_FAULTS_SEED={seed}"));
    goes_on(&httpd, "the kills");
});
