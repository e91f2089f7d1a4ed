//! Children that an application forks: they end, and say nothing in their parent's name.
//!
//! Responsible for: a child never waiting for what a thread of its parent holds; a child that comes out of the application's code; what
//! a child has of our descriptors. Called by: `main.rs`.
use crate::harness::until;
use std::sync::atomic::{AtomicBool, Ordering};

const STRESS: &str = "from forks import application\n";

/// As many children of each kind, `times` in a request; an executor makes four each time.
const KINDS: [(&str, usize, usize); 5] =
    [("fork", 20, 40), ("forkpty", 6, 20), ("preexec", 12, 25), ("multiprocessing", 12, 25), ("executor", 10, 12)];

mpm_test!(two_thousand_children_end_while_all_threads_of_the_worker_are_busy, |site| {
    assert!(KINDS.iter().map(|(kind, requests, times)| requests * times * if *kind == "executor" { 4 } else { 1 }).sum::<usize>() >= 2000);
    let site = site.daemon("processes=1 threads=8 request-timeout=600 deadlock-timeout=30 queue-timeout=40").script("stress.wsgi", STRESS);
    let httpd = site.app("/", "stress.wsgi").config("DroverSession disk").allow_output().start();
    let over = AtomicBool::new(false);
    let worker = httpd.request("POST", "/noise").body("all of the body").send().json()[0].clone();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answer = httpd.request("GET", "/noise").send();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
        let forking: Vec<_> = KINDS
            .iter()
            .map(|&(kind, requests, times)| {
                let (httpd, worker) = (&httpd, &worker);
                scope.spawn(move || {
                    for _ in 0..requests {
                        let answer = httpd.request("POST", &format!("/{kind}?{times}")).body("all of the body").send();
                        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
                        assert_eq!(answer.json(), serde_json::json!([worker, vec![0; times]]), "{kind}");
                    }
                })
            })
            .collect();
        let ended: Vec<_> = forking.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a child hung, or failed");
    });
});

/// Each way in which a child can come out of the application's code; the parent says how its child ended.
const RETURNS: &str = r#"
import json, os, signal, sys, time

def fork(environ):
    environ["status"] = None
    environ["child"] = os.fork()
    if environ["child"] == 0:
        signal.alarm(30)
        return True
    environ["status"] = os.waitstatus_to_exitcode(os.waitpid(environ["child"], 0)[1])
    return False

def answer(environ):
    return json.dumps([os.getpid(), environ["child"], environ["status"]]).encode()

def application(environ, start_response):
    how = environ["PATH_INFO"].strip("/")
    write = start_response("200 OK", [("Content-Type", "application/json")])
    if how == "generator":
        return generate(environ)
    if how == "end":
        return end(environ)
    if how == "close":
        return Closed(environ)
    if how == "after-write":
        write(b" " * 100)
    child = fork(environ)
    if child and how == "exit":
        sys.exit()
    if child and how == "exit-3":
        sys.exit(3)
    if child and how == "exit-text":
        sys.exit("the child has something to say")
    if child and how == "raise":
        raise ValueError("raised in a child")
    if child and how == "write":
        write(b"from the child")
    if child and how == "start":
        start_response("500 Wrong", [("Content-Length", "1")], None)
        return iter([b"x"])
    return [answer(environ)]

def generate(environ):
    yield b" "
    child = fork(environ)
    yield answer(environ) if not child else b"from the child"

def end(environ):
    yield b"[]"
    fork(environ)

class Closed:
    def __init__(self, environ):
        self.environ = environ

    def __iter__(self):
        return iter([b"[]"])

    def close(self):
        fork(self.environ)
"#;

/// The path, how the child must end, and whether the parent's response can say so.
const HOW: [(&str, i64, bool); 11] = [
    ("return", 0, true),
    ("start", 0, true),
    ("after-write", 0, true),
    ("generator", 0, true),
    ("end", 0, false),
    ("close", 0, false),
    ("exit", 0, true),
    ("exit-3", 3, true),
    ("exit-text", 1, true),
    ("raise", 1, true),
    ("write", 1, true),
];

mpm_test!(a_child_that_comes_out_of_the_application_ends_and_its_parent_alone_responds, |site| {
    let site = site.script("returns.wsgi", RETURNS).app("/", "returns.wsgi").daemon("processes=1 threads=2").allow_output();
    let site = site.expect_log("DROVER0410: *a child process*was ended").expect_log("the child has something to say");
    let site = site.expect_log("ValueError: raised in a child").expect_log("RuntimeError: write() called in a forked child process");
    let httpd = site.start();
    let mut workers = std::collections::BTreeSet::new();
    for round in 0..3 {
        for (how, status, says) in HOW {
            let answer = httpd.get(&format!("/{how}"));
            assert_eq!((answer.status, answer.complete), (200, true), "{how}: {}\n{}", answer.text(), httpd.log());
            let told = answer.json();
            if says {
                assert_eq!(told[2], status, "{how}, round {round}\n{}", httpd.log());
                workers.insert(told[0].as_i64());
            } else {
                assert_eq!(told, serde_json::json!([]), "{how}");
            }
        }
    }
    assert_eq!(workers.len(), 1, "no worker was replaced");
    let returned = ["return", "start", "after-write", "generator", "end", "close"].len();
    until("each child that returned is told", || httpd.log().matches("DROVER0410").count() == 3 * returned);
});

/// A child that lives on while its parent responds and serves others. It must be waited for, or it is no child any more.
const LATE: &str = r#"
import os, gate
CHILDREN = []

def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/fork":
        child = os.fork()
        if child:
            CHILDREN.append(child)
        else:
            gate.wait("go")
        return [b"forked" if child else b"from the child"]
    if environ["PATH_INFO"] == "/wait":
        return [str(os.waitpid(CHILDREN.pop(), 0)[1]).encode()]
    return [environ["PATH_INFO"].encode()]
"#;

mpm_test!(a_child_that_returns_late_disturbs_no_later_request, |site| {
    let go = site.gate("go");
    let site = site.script("late.wsgi", LATE).app("/", "late.wsgi").daemon("processes=1 threads=3").expect_log("DROVER0410");
    let httpd = site.start();
    for _ in 0..3 {
        assert_eq!(httpd.ok("/fork"), "forked");
        // httpd uses the socket of that request again.
        for path in ["/a", "/b", "/c"] {
            assert_eq!(httpd.ok(path), path);
        }
        go.open(1);
        assert_eq!(httpd.ok("/wait"), "0");
        assert_eq!(httpd.ok("/d"), "/d");
    }
});

/// A script whose import forks, as its child comes out of the import.
const IMPORT: &str = "import os\nchild = os.fork()\nSTATUS = os.waitpid(child, 0)[1] if child else None\n\
    def application(environ, start_response):\n    start_response('200 OK', [])\n    return [str(STATUS).encode()]\n";

mpm_test!(a_child_that_comes_out_of_an_import_ends, |bare| {
    let text = "WSGIDaemonProcess early processes=1 threads=2\nWSGIDaemonProcess forks preload=On processes=1 threads=2\n\
        WSGIScriptAlias /early @apps@/early.wsgi process-group=early application-group=%{GLOBAL}\n\
        WSGIScriptAlias /forks @apps@/forks.wsgi process-group=forks application-group=%{GLOBAL}\n\
        WSGIScriptAliasMatch ^/late/(.*) @apps@/$1.wsgi process-group=early application-group=%{GLOBAL}\n";
    let site = bare.bare().config(text).script("early.wsgi", IMPORT).script("forks.wsgi", IMPORT).script("late.wsgi", IMPORT);
    let httpd = site.expect_log("DROVER0410").start();
    for path in ["/early", "/forks", "/late/late"] {
        assert_eq!(httpd.ok(path), "0");
    }
});

/// What a child has, counted in the child: sockets, epoll sets and event counters. The application has none of its own.
const DESCRIPTORS: &str = r#"
import ctypes, gate, json, os

def links():
    links = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            links[int(fd)] = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            pass
    return links

def ours():
    return [link for link in links().values() if link.startswith("socket:") or "eventpoll" in link or "eventfd" in link]

def told_by(fork, tell):
    read, write = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            os.write(write, json.dumps(tell()).encode())
        finally:
            os._exit(0)
    os.close(write)
    text = b""
    while piece := os.read(read, 65536):
        text += piece
    os.close(read)
    os.waitpid(pid, 0)
    return json.loads(text)

def daemon():
    """As a daemon may: gives the numbers to a file of its own, and forks again. Says what the second child has lost."""
    mine = [fd for fd, link in links().items() if fd > 2 and (link == "/dev/null" or "nowhere" in link)]
    file = os.open("/etc/passwd", os.O_RDONLY)
    for fd in mine:
        os.dup2(file, fd)
    return [len(mine) > 4, told_by(os.fork, lambda: [fd for fd in mine if links().get(fd) != "/etc/passwd"])]

def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/hold":
        gate.reach("held")
        gate.wait("go")
        return [b"held"]
    c_fork = ctypes.PyDLL(None).fork
    return [json.dumps([told_by(os.fork, ours), told_by(c_fork, ours), told_by(os.fork, daemon), len(ours()) > 4]).encode()]
"#;

mpm_test!(a_child_has_none_of_the_workers_sockets_while_other_requests_run, |site| {
    let (held, go) = (site.gate("held"), site.gate("go"));
    let site = site.script("descriptors.wsgi", DESCRIPTORS).app("/", "descriptors.wsgi").daemon("processes=1 threads=4");
    let httpd = site.start();
    std::thread::scope(|scope| {
        let holding: Vec<_> = (0..3).map(|_| scope.spawn(|| httpd.ok("/hold"))).collect();
        for _ in 0..3 {
            held.reached();
        }
        let told = httpd.get("/").json();
        go.open(3);
        assert_eq!(told, serde_json::json!([[], [], [true, []], true]), "os.fork, fork() of C code, a child's child, the worker");
        for thread in holding {
            assert_eq!(thread.join().expect("client"), "held");
        }
    });
});
