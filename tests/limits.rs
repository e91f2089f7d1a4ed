//! The limits of WSGIDaemonProcess on a real server.
//!
//! Responsible for: what happens to a process that exceeds one, and that nobody else notices. Called by: `main.rs`.
use crate::harness::{Httpd, Site, Subject, processes, until};
use crate::lifecycle::under_load;
use rustix::process::Signal;

/// Lines of the stacks that a process writes before it is ended.
const STACKS: &str = "DROVER0403";

const APP: &str = r#"
import ctypes, os, time
import gate

KEEP = []

def pid(environ):
    return str(os.getpid())

def spin(environ):
    while True:
        sum(range(100))

def hold_the_lock(environ):
    gate.reach("holding")
    ctypes.PyDLL(None).sleep(3600)

def grow(environ):
    KEEP.append(bytearray(os.urandom(1) * (64 << 20)))
    return pid(environ)

def burn(environ):
    until = time.process_time() + 0.6
    while time.process_time() < until:
        sum(range(1000))
    return pid(environ)

def hang(environ):
    gate.reach("hanging")
    gate.wait("go-on")
    return pid(environ)

def application(environ, start_response):
    body = globals()[environ["PATH_INFO"].strip("/") or "pid"](environ).encode()
    start_response("200 OK", [])
    return [body]
"#;

fn site(site: Site, options: &str) -> Site {
    site.script("limits.wsgi", APP).app("/", "limits.wsgi").daemon(options)
}

/// Asks until another process answers; every answer must be good.
fn until_replaced(httpd: &Httpd, path: &str) {
    let before = httpd.ok(path);
    until("another process answers", || httpd.ok(path) != before);
}

both_test!(interrupt_timeout_is_504_and_the_process_stays, |site| {
    let site = self::site(site, "processes=1 threads=1 request-timeout=1 interrupt-timeout=20");
    let httpd = site.allow_log("DROVER0054").allow_output().start();
    let pid = httpd.ok("/pid");
    assert_eq!(httpd.get("/spin").status, 504);
    assert_eq!(httpd.ok("/pid"), pid);
    assert!(httpd.site.subject != Subject::Ours || httpd.log().contains("DROVER0402: "), "{}", httpd.log());
});

mpm_test!(a_process_that_holds_the_lock_is_killed_after_deadlock_timeout, |site| {
    let site = self::site(site, "processes=2 threads=2 deadlock-timeout=1 shutdown-timeout=1");
    let site = site.expect_log("DROVER0234*Python's lock").expect_log("in hold_the_lock").expect_log("DROVER0054*deadlock-timeout");
    let site = site.allow_output().allow_log(STACKS).allow_log("DROVER0236");
    let holding = site.gate("holding");
    let httpd = site.start();
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| httpd.get("/hold_the_lock").status);
        holding.reached();
        until("answers by the other", || httpd.get("/pid").status == 200);
        assert_eq!(stuck.join().expect("thread"), 504);
    });
    until("two again", || httpd.workers().len() == 2);
    let log = httpd.log();
    assert_eq!(log.matches("in hold_the_lock").count(), 1, "the stacks stand there once");
    // Below the innermost frame of a thread that has nothing to do there is only threading.Thread.run. (The main thread may still start others.)
    let is_idle = |(head, next): &(&str, &str)| head.contains("hread 0x") && next.ends_with(" in run");
    assert!(!log.lines().zip(log.lines().skip(1)).any(|two| is_idle(&two)), "and idle threads are left out");
});

mpm_test!(request_timeout_shows_the_stack_of_that_request_once, |site| {
    let site = self::site(site, "processes=1 threads=8 request-timeout=1 graceful-timeout=1 shutdown-timeout=1");
    let site = site
        .expect_log("DROVER0234*/hang")
        .expect_log("DROVER0403")
        .expect_log("DROVER0235")
        .allow_output()
        .allow_log(STACKS)
        .allow_log("DROVER0054|DROVER0236");
    let (_hanging, _go_on) = (site.gate("hanging"), site.gate("go-on"));
    let httpd = site.start();
    httpd.ok("/pid");
    assert_eq!(httpd.get("/hang").status, 504);
    httpd.wait_log("DROVER0235");
    until("another process", || httpd.workers().len() == 1);
    let log = httpd.log();
    assert_eq!((log.matches("in hang").count(), log.matches("hread 0x").count(), log.matches("DROVER0403").count()), (1, 1, 1), "{log}");
});

mpm_test!(an_idle_process_is_replaced_by_a_fresh_one, |site| {
    let httpd = self::site(site, "processes=1 threads=2 inactivity-timeout=1").start();
    let first = httpd.ok("/pid");
    httpd.wait_log("DROVER0233*inactivity-timeout");
    until("the old one is gone", || httpd.workers().iter().all(|p| p.pid.to_string() != first) && httpd.workers().len() == 1);
    httpd.ok("/pid");
});

mpm_test!(requests_that_do_not_count_leave_a_process_idle, |site| {
    let site = self::site(site, "processes=1 threads=2 inactivity-timeout=2");
    let httpd = site.config("<Location /pid>\nWSGIIgnoreActivity On\n</Location>").start();
    let first = httpd.ok("/burn");
    until("another process", || httpd.ok("/pid") != first);
});

mpm_test!(restart_interval_replaces_and_loses_nothing, |site| {
    let mut httpd = self::site(site, "processes=2 threads=2 restart-interval=2").start();
    httpd.ok("/");
    let old = httpd.workers();
    let (good, bad) = under_load(&mut httpd, 2, |_| until("all are new", || old.iter().all(|p| !processes::is_alive(p))));
    assert!(bad.is_empty(), "{good} good, {} lost: {bad:?}", bad.len());
});

mpm_test!(memory_soft_replaces_and_loses_nothing, |site| {
    let httpd = self::site(site, "processes=1 threads=2 memory-soft=60000000").start();
    until_replaced(&httpd, "/grow");
    httpd.wait_log("DROVER0233*memory-soft");
});

mpm_test!(memory_limit_is_an_exception_of_the_application, |site| {
    let site = self::site(site, "processes=1 threads=2 memory-limit=150000000").expect_log("MemoryError");
    let httpd = site.allow_log("DROVER0060").allow_output().start();
    let pid = httpd.ok("/pid");
    until("no more memory", || httpd.get("/grow").status == 500);
    assert_eq!(httpd.ok("/pid"), pid);
});

mpm_test!(cpu_time_limit_replaces_and_loses_nothing, |site| {
    let httpd = self::site(site, "processes=1 threads=2 cpu-time-limit=1").start();
    until_replaced(&httpd, "/burn");
    httpd.wait_log("DROVER0233*cpu-time-limit");
});

mpm_test!(a_signal_ends_a_process_after_its_requests, |site| {
    for (options, signal) in [("", Signal::TERM), ("", Signal::INT), (" eviction-timeout=30", Signal::USR1)] {
        let site = Site::new(site.subject, site.mpm, &format!("signal-{}", signal.as_raw()));
        let site = self::site(site, &format!("processes=1 threads=2{options}"));
        let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
        let httpd = site.start();
        let pid = httpd.ok("/pid");
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| httpd.ok("/hang"));
            hanging.reached();
            httpd.signal(pid.parse().expect("pid"), signal);
            until("a successor", || httpd.ok("/pid") != pid);
            go_on.open(1);
            assert_eq!(slow.join().expect("thread"), pid, "it finished what it had");
        });
        until("it is gone", || httpd.workers().iter().all(|p| p.pid.to_string() != pid));
    }
});

mpm_test!(eviction_timeout_bounds_the_wait_of_a_signalled_process, |site| {
    let site = self::site(site, "processes=1 threads=2 graceful-timeout=60 eviction-timeout=1 shutdown-timeout=1");
    let site = site
        .expect_log("DROVER0235")
        .expect_log("in hang")
        .expect_log("DROVER0054*shutdown-timeout")
        .allow_output()
        .allow_log(STACKS)
        .allow_log("DROVER0236");
    let (hanging, _go_on) = (site.gate("hanging"), site.gate("go-on"));
    let httpd = site.start();
    let pid = httpd.ok("/pid");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| httpd.get("/hang").status);
        hanging.reached();
        httpd.signal(pid.parse().expect("pid"), Signal::USR1);
        assert_eq!(slow.join().expect("thread"), 504);
    });
    until("served again", || httpd.get("/pid").status == 200);
});

mpm_test!(maximum_requests_under_load_loses_nothing, |site| {
    let mut httpd = self::site(site, "processes=2 threads=2 maximum-requests=40").start();
    httpd.ok("/");
    let old = httpd.workers();
    let (good, bad) = under_load(&mut httpd, 3, |_| until("all are new", || old.iter().all(|p| !processes::is_alive(p))));
    assert!(bad.is_empty(), "{good} good, {} lost: {bad:?}", bad.len());
});
