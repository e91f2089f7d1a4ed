//! Applications that replace `threading`, start threads while they are imported, or use up all threads.
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

/// What such an application answers with; the name is that of the thread, without its number.
fn answer(length: usize, name: &str) -> String {
    format!("x 7 {length} {name}- True True")
}

fn green(site: Site, patch: &str, options: &str) {
    let library = patch.rsplit_once('.').expect("a module's function").0;
    let site = site.script("green.wsgi", &GREEN.replace("@library@", library).replace("@patch@", patch)).allow_output();
    serves(site.daemon(&format!("processes=1 threads=4 python-home=@venv@{options}")).app("/", "green.wsgi"), "", "mod_drover");
}

fn serves(site: Site, at: &'static str, name: &str) {
    let (met, go) = (site.gate("met"), site.gate("go"));
    let httpd = site.start();
    let port = httpd.site.port;
    if !at.is_empty() {
        httpd.ok("/hello"); // so the worker runs before the script is known
    }
    let large = httpd.request("POST", &format!("{at}/")).body("z".repeat(300_000)).send();
    assert_eq!(large.text(), answer(300_000, name));
    let all: Vec<_> = (0..4).map(|_| std::thread::spawn(move || Request::new(port, "GET", &format!("{at}/meet")).send())).collect();
    // All four run at once.
    (0..4).for_each(|_| assert_ne!(met.reached(), 0));
    go.open(4);
    for one in all {
        assert_eq!(one.join().expect("thread").text(), answer(0, name));
    }
    httpd.finish();
}

mpm_test!(gevent_patches, |site| {
    green(site, "gevent.monkey.patch_all()", "");
});

mpm_test!(eventlet_patches, |site| {
    green(site, "eventlet.monkey_patch()", "");
});

mpm_test!(gevent_patches_in_forked_workers, |site| {
    green(site, "gevent.monkey.patch_all()", " preload=On");
});

mpm_test!(eventlet_patches_in_forked_workers, |site| {
    green(site, "eventlet.monkey_patch()", " preload=On");
});

mpm_test!(gevent_patches_with_the_first_request, |site| {
    let site = site.script("green.wsgi", &GREEN.replace("@library@", "gevent.monkey").replace("@patch@", "gevent.monkey.patch_all()"));
    // httpd learns which script the pattern means with the first request, so it is imported by a request thread. `threading` knows that one by another number from then on.
    let site = site.daemon("processes=1 threads=4 python-home=@venv@").config("WSGIScriptAliasMatch ^/(green)(/.*) @apps@/$1.wsgi$2\n");
    serves(site.app("/hello", "hello.wsgi").allow_output(), "/green", "Dummy");
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
