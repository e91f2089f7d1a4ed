//! Processes that die in the middle.
//!
//! Responsible for: which requests run again, which never do, and that nobody else loses anything. Called by: `main.rs`.
use crate::harness::{Httpd, Site, processes, until};
use rustix::process::Signal;

const APP: &str = r#"
import os
import gate

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/hold"):
        gate.reach("holding")
        if path == "/hold-head":
            start_response("200 OK", [])(b"part")
        gate.wait("go-on")
    elif path == "/die":
        gate.reach("dying")
        os.kill(os.getpid(), 9)
    elif path == "/segfault":
        gate.reach("dying")
        import ctypes
        ctypes.string_at(0)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"#;

fn site(site: Site, options: &str) -> Site {
    site.daemon(options).script("a.wsgi", APP).app("/", "a.wsgi")
}

fn kill_the_worker(httpd: &Httpd) {
    let [worker] = httpd.workers().try_into().expect("one worker");
    httpd.signal(worker.pid, Signal::KILL);
}

const DIED: &str = "DROVER02*signal 9";

mpm_test!(a_get_runs_once_more, |site| {
    let site = self::site(site, "processes=1 threads=2").expect_log("DROVER0059").expect_log(DIED);
    let (holding, go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    for method in ["GET", "OPTIONS"] {
        std::thread::scope(|scope| {
            let held = scope.spawn(|| httpd.request(method, "/hold").send());
            holding.reached();
            let before = httpd.workers();
            kill_the_worker(&httpd);
            holding.reached(); // in another process
            go_on.open(1);
            let answer = held.join().expect("client");
            assert_eq!(answer.status, 200);
            assert_ne!(answer.text(), before[0].pid.to_string());
        });
    }
});

/// Whatever kills processes that start, an administrator or a kernel short of memory, requests wait for the next one.
fn killed_while_importing(site: Site, options: &str) {
    let app = format!("import gate\ngate.reach('importing')\ngate.wait('import')\n{APP}");
    let site = site.daemon(options).script("a.wsgi", &app).app("/", "a.wsgi").expect_log("DROVER02*signal 9");
    let (importing, import) = (site.gate("importing"), site.gate("import"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| httpd.get("/"));
        for _ in 0..3 {
            importing.reached();
            kill_the_worker(&httpd);
        }
        importing.reached();
        import.open(1);
        assert_eq!(waiting.join().expect("client").status, 200);
    });
}

mpm_test!(requests_wait_when_the_starting_process_is_killed, |site| {
    killed_while_importing(site, "processes=1");
});

mpm_test!(requests_wait_when_the_importing_template_is_killed, |site| {
    killed_while_importing(site, "processes=1 preload=On");
});

mpm_test!(a_post_never_runs_twice, |site| {
    let site = self::site(site, "processes=1 threads=2").expect_log("DROVER0053").expect_log(DIED);
    let (holding, _go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    for (method, body) in [("POST", "x"), ("POST", ""), ("PUT", "x"), ("DELETE", ""), ("GET", "x")] {
        std::thread::scope(|scope| {
            let held = scope.spawn(|| httpd.request(method, "/hold").body(body).send());
            holding.reached();
            kill_the_worker(&httpd);
            assert_eq!(held.join().expect("client").status, 502, "{method}");
        });
        assert_eq!(httpd.get("/").status, 200);
    }
});

mpm_test!(retry_can_be_left_out, |site| {
    let site = self::site(site, "processes=1 threads=2").config("<Location /hold>\nDroverRetry off\n</Location>");
    let site = site.expect_log("DROVER0053").expect_log(DIED);
    let (holding, _go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| httpd.get("/hold").status);
        holding.reached();
        kill_the_worker(&httpd);
        assert_eq!(held.join().expect("client"), 502);
    });
});

mpm_test!(a_request_that_kills_its_process_kills_two, |site| {
    let site = self::site(site, "processes=1 threads=2").expect_log("DROVER0059").expect_log("DROVER0053").expect_log(DIED);
    let site = site.expect_log("DROVER0232*signal 11").expect_log("Fatal Python error: Segmentation fault").allow_output();
    let dying = site.gate("dying");
    let httpd = site.start();
    for path in ["/die", "/segfault"] {
        assert_eq!(httpd.get(path).status, 502);
        dying.reached();
        dying.reached();
    }
    until("answers", || httpd.get("/").status == 200);
});

mpm_test!(an_answer_that_has_begun_is_cut_and_not_run_again, |site| {
    let site = self::site(site, "processes=1 threads=2").expect_log("DROVER0066*DROVER0053").expect_log(DIED);
    let (holding, _go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    let mut incoming = std::thread::scope(|scope| {
        let opened = scope.spawn(|| httpd.request("GET", "/hold-head").open());
        holding.reached();
        opened.join().expect("client")
    });
    assert_eq!(incoming.piece().expect("piece").as_deref(), Some(b"part".as_slice()));
    kill_the_worker(&httpd);
    assert!(incoming.piece().is_err(), "the cut can be seen");
    assert_eq!(httpd.get("/").status, 200);
});

mpm_test!(queued_requests_are_not_touched, |site| {
    let site = self::site(site, "processes=1 threads=1").expect_log("DROVER0053").expect_log(DIED);
    let (holding, _go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| httpd.request("POST", "/hold").send().status);
        holding.reached();
        let queued: Vec<_> = (0..3).map(|_| scope.spawn(|| httpd.request("POST", "/").send().status)).collect();
        kill_the_worker(&httpd);
        assert_eq!(held.join().expect("client"), 502);
        assert!(queued.into_iter().all(|q| q.join().expect("client") == 200));
    });
});

mpm_test!(a_killed_child_of_httpd_holds_no_slot, |site| {
    let site = self::site(site, "processes=1 threads=1");
    let (holding, go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    let mut worker = Vec::new();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| httpd.request("GET", "/hold").attempt().map(|a| a.status).map_err(drop));
        holding.reached();
        worker = httpd.workers();
        let (parent, droverd) = (httpd.pid(), httpd.droverd().pid);
        for child in processes::all().into_iter().filter(|p| p.parent == parent && p.pid != droverd) {
            httpd.signal(child.pid, Signal::KILL);
        }
        assert_eq!(held.join().expect("client"), Err(()));
    });
    go_on.open(1);
    until("answers", || httpd.request("GET", "/").attempt().is_ok_and(|a| a.status == 200));
    assert_eq!(httpd.workers()[0].pid, worker[0].pid, "the worker is the same");
});

mpm_test!(what_was_held_for_new_code_is_not_lost_with_its_holder, |site| {
    let version = |n: u32, wait: &str| {
        format!(
            "import gate\n{wait}\ndef application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{n} ' + environ['wsgi.input'].read()]\n"
        )
    };
    let site = site.script("v.wsgi", &version(1, "")).app("/", "v.wsgi").daemon("processes=1 threads=2");
    let (importing, go_on) = (site.gate("importing"), site.gate("go-on"));
    let httpd = site.expect_log("DROVER0007").expect_log("DROVER0059*droverd exited while it held").start();
    assert_eq!(httpd.ok("/"), "1 ");
    crate::lifecycle::change(&httpd.site, "v.wsgi", &version(2, "gate.reach('importing')\ngate.wait('go-on')"));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| httpd.request("POST", "/").body("once").send());
        importing.reached();
        httpd.signal(httpd.droverd().pid, Signal::KILL);
        importing.reached(); // by the worker of the next droverd
        go_on.open(2);
        let answer = held.join().expect("client");
        // By the new code, or by an old process that was still there: not lost, and not twice.
        assert!(answer.status == 200 && ["1 once", "2 once"].contains(&answer.text().as_str()), "{} {}", answer.status, answer.text());
    });
    until("the new code", || httpd.ok("/") == "2 ");
});

/// Shuts the queue of its group down, which it has as every worker has.
const SHUTS: &str = r#"
import os, socket, sys

def queue():
    words = open("/proc/self/cmdline", "rb").read().split(b"\0")
    return int(words[words.index(b"--queue") + 1])

def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/shut":
        socket.fromfd(queue(), socket.AF_UNIX, socket.SOCK_SEQPACKET).shutdown(socket.SHUT_RDWR)
    return [str(os.getpid()).encode()]
"#;

mpm_test!(a_queue_that_an_application_shuts_down_is_replaced, |site| {
    let site = site.daemon("processes=2 threads=2").script("s.wsgi", SHUTS).app("/", "s.wsgi");
    // A process may see the end of its queue before droverd tells it to go.
    let site = site.expect_log("DROVER0252").allow_log("DROVER0232*exited with status 0");
    let mut httpd = site.start();
    for round in 0..3 {
        let shut = httpd.get("/shut");
        assert_eq!(shut.status, 200);
        for _ in 0..3 {
            let next = httpd.get("/");
            assert_eq!(next.status, 200, "round {round}");
            assert_ne!(next.text(), shut.text(), "by a new worker");
        }
        if round == 1 {
            httpd.graceful();
            assert_eq!(httpd.get("/").status, 200);
        }
    }
});
