//! Applications that replace `threading`, start threads while they are imported, or leave none to be had.
//!
//! Responsible for: requests being answered under gevent's and eventlet's patches, `atexit` at every end whatever threads there are, and
//! workers without threads never being ready. Called by: `main.rs`.
use crate::harness::{Request, Site};

/// What an application does that trusts the library `@library@` to make everything cooperative.
const GREEN: &str = r#"
import @library@
@patch@
import json, os, queue, socket, sys, threading, time
import gate

def application(environ, start_response):
    if environ["PATH_INFO"] == "/meet":
        gate.reach("met")
        gate.wait("go")
    time.sleep(0.01)
    with threading.Lock():
        a, b = socket.socketpair()
        a.sendall(b"x")
        got = b.recv(1).decode()
        a.close(), b.close()
    answers = queue.Queue()
    threading.Thread(target=lambda: answers.put(7)).start()
    me = threading.current_thread()
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(map(str, (got, answers.get(timeout=30), len(body), me.name[:-1], me.daemon, me.is_alive()))).encode()]
"#;

fn green(site: Site, library: &str, patch: &str) {
    let text = GREEN.replace("@library@", library).replace("@patch@", patch);
    let site = site.script("green.wsgi", &text).daemon("processes=1 threads=4 python-home=@venv@").app("/", "green.wsgi").allow_output();
    let (met, go) = (site.gate("met"), site.gate("go"));
    let httpd = site.start();
    let port = httpd.site.port;
    let large = httpd.request("POST", "/").body("z".repeat(300_000)).send();
    assert_eq!(large.text(), "x 7 300000 mod_drover- True True");
    let all: Vec<_> = (0..4).map(|_| std::thread::spawn(move || Request::new(port, "GET", "/meet").send())).collect();
    // All four run at once.
    (0..4).for_each(|_| assert_ne!(met.reached(), 0));
    go.open(4);
    for one in all {
        assert_eq!(one.join().expect("thread").text(), "x 7 0 mod_drover- True True");
    }
    httpd.finish();
}

mpm_test!(gevent_patches, |site| {
    green(site, "gevent.monkey", "gevent.monkey.patch_all()");
});

mpm_test!(eventlet_patches, |site| {
    green(site, "eventlet", "eventlet.monkey_patch()");
});

/// Threads of every kind that never end, but for the one that the function registered with atexit stops.
const BUSY: &str = r#"
import atexit, concurrent.futures, os, sys, threading
never, stop = threading.Event(), threading.Event()
threading.Thread(target=never.wait).start()
threading.Thread(target=never.wait, daemon=False).start()
threading.Timer(3600, never.set).start()
pool = concurrent.futures.ThreadPoolExecutor(2)

def again():
    threading.Timer(0.01, again).start()

again()

def work():
    stop.wait()
    print("END stopped", os.getpid(), flush=True)

background = threading.Thread(target=work)
background.start()

@atexit.register
def end():
    print("END atexit", os.getpid(), flush=True)
    stop.set()
    background.join()

def application(environ, start_response):
    pool.submit(int).result()
    threading.Thread(target=never.wait).start()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"#;

mpm_test!(atexit_runs_whatever_threads_were_started_at_import, |site| {
    // The verdict of the harness finds a process that was killed, or that gave up (DROVER0236, DROVER0406).
    let mut httpd = site.script("busy.wsgi", BUSY).app("/", "busy.wsgi").allow_log("END ").start();
    let first = httpd.ok("/");
    httpd.graceful();
    httpd.wait_log(&format!("END atexit {first}"));
    httpd.wait_log(&format!("END stopped {first}"));
    let mut second = httpd.ok("/");
    while second == first {
        second = httpd.ok("/");
    }
    httpd.stop();
    let log = httpd.log();
    assert!(log.contains(&format!("END atexit {second}")) && log.contains(&format!("END stopped {second}")), "{log}");
    assert!(!log.contains("DROVER0405") && !log.contains("DROVER0406") && !log.contains("DROVER0236"), "{log}");
    httpd.finish();
});

/// Leaves no address space for a thread's stack.
const NO_ROOM: &str = "
import resource
pages = int(open('/proc/self/statm').read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (4 << 20), resource.RLIM_INFINITY))
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'']
";

mpm_test!(a_worker_without_threads_is_never_ready, |site| {
    let site = site.script("no_room.wsgi", NO_ROOM).app("/", "no_room.wsgi");
    let httpd = site.expect_log("cannot start the worker's thread").allow_log("DROVER02").allow_log("DROVER00").start();
    assert_eq!(httpd.get("/").status, 503);
    assert!(!httpd.log().contains(" serves"), "{}", httpd.log());
    httpd.finish();
});
