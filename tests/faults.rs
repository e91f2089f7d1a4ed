//! Faults of the system at chosen points: interrupted calls, short writes, no descriptors, no memory, sudden deaths.
//!
//! Responsible for: no answer that is cut looking whole, no cut body taken for a whole one, nothing run twice, and the service going on
//! when the fault is over. Which call fails is counted, not timed. Called by: `main.rs`.
//!
//! What is injected must be possible. strace leaves a failing call out, so `error=` is truthful wherever the kernel may give that error;
//! `retval=` claims bytes to be sent that nobody will ever get, which no kernel does on a Unix socket: it is used only where the lost
//! bytes are a message's first, so that the receiver can know. Short writes are made for real, by sockets with the smallest buffer.
use crate::harness::inject::{Injection, Lowered, Scope, lowest_free, shrink_buffers};
use crate::harness::{Httpd, Mpm, Request, Site, processes, until};
use rustix::process::{Resource, Signal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
    let Ok(answer) = request.attempt() else { return (Outcome::Nothing, None) };
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
        (status @ 500.., _) => Outcome::Refused(status),
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
    site.script("a.wsgi", APP).daemon("processes=2 threads=4").config(hasty).app("/", "a.wsgi")
}

/// Every upload that the application took for whole was whole, and no request was run twice.
#[track_caller]
fn check_journal(httpd: &Httpd) {
    let text = std::fs::read_to_string(httpd.site.dir().join("journal")).expect("journal");
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        assert!(line.ends_with(" True"), "the application took a cut or wrong body for a whole one: {line}");
        assert!(seen.insert(line), "run twice: {line}");
    }
}

/// The service is as before: soon an answer, and then every answer right.
#[track_caller]
fn goes_on(httpd: &Httpd, after: &str) {
    for mount in ["", "/hasty"] {
        until(&format!("an answer after {after}"), || ask(httpd.site.port, mount, Kind::Small) == Outcome::Right);
    }
    let bad: Vec<_> = mix(httpd.site.port, "", ALL).into_iter().filter(|(_, outcome)| *outcome != Outcome::Right).collect();
    assert!(bad.is_empty(), "after {after}: {bad:?}");
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
            Outcome::Refused(_) | Outcome::Cut => may != May::Nothing,
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
const EPOLL: &str = "?epoll_wait,epoll_pwait";

/// Runs one row after the other, with something that `meanwhile` does besides the requests.
fn run(httpd: &Httpd, victim: Victim, rows: &[Row], meanwhile: impl Fn(&Httpd) + Sync) {
    for Row { calls, how, mount, kinds, may } in rows {
        let what = format!("{calls}:{how} in {victim:?} at '{mount}'");
        let started = std::time::Instant::now();
        let injection = Injection::attach(httpd.site.dir(), &victim.pids(httpd), victim.scope(), calls, how);
        let outcomes = std::thread::scope(|scope| {
            let other = scope.spawn(|| meanwhile(httpd));
            let outcomes = mix(httpd.site.port, mount, kinds);
            other.join().expect("what is done besides");
            outcomes
        });
        let count = injection.detach();
        eprintln!("{what}: {count} injected, {:?}, {:?}", started.elapsed(), tally(&outcomes));
        check(&outcomes, *may, &what);
        assert!(count > 0, "{what}: nothing was injected");
        goes_on(httpd, &what);
        check_journal(httpd);
    }
}

/// How many requests had which outcome.
fn tally(outcomes: &[(Kind, Outcome)]) -> BTreeMap<String, usize> {
    outcomes.iter().fold(BTreeMap::new(), |mut all, (_, outcome)| {
        *all.entry(format!("{outcome:?}")).or_default() += 1;
        all
    })
}

const CHILDREN: &[Row] = &[
    row("sendmsg", "error=EINTR:when=3+7", May::Nothing),
    row("recvmsg", "error=EINTR:when=3+7", May::Nothing),
    row(POLL, "error=EINTR:when=2+3", May::Nothing),
    row("sendmsg,recvmsg", "error=EAGAIN:when=3+7", May::Nothing),
    row("read,readv,write,writev", "error=EINTR:when=2+3", May::Nothing),
];

mpm_test!(a_child_of_httpd_has_faults, |site| {
    let httpd = self::site(site).start();
    run(&httpd, Victim::Children, CHILDREN, |_| ());
});

const WORKERS: &[Row] = &[
    row("sendmsg", "error=EINTR:when=3+7", May::Nothing),
    row("recvmsg", "error=EINTR:when=3+7", May::Nothing),
];

mpm_test!(a_worker_has_faults, |site| {
    let httpd = self::site(site).start();
    run(&httpd, Victim::Workers, WORKERS, |_| ());
});
