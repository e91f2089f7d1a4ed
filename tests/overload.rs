//! More requests than the processes can run.
//!
//! Responsible for: who waits, who is refused, that nobody else notices, and that everything is as before when it is over. Called by: `main.rs`.
use crate::harness::{Httpd, Mpm, Response, Site, processes, until};
use std::sync::mpsc::{Receiver, channel};

const APP: &str = r#"
import os
import gate

def application(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        gate.reach("holding")
        gate.wait("go-on")
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"#;

/// Two groups: `app`, which is overloaded, at `/`; `other` at `/other`.
fn site(site: Site, options: &str) -> Site {
    let site = with_all_children(site);
    let site = site.daemon(options).script("a.wsgi", APP).config("WSGIDaemonProcess other processes=1 threads=1 python-path=@apps@");
    site.config("WSGIScriptAlias /other @apps@/a.wsgi process-group=other application-group=%{GLOBAL}").app("/", "a.wsgi")
}

/// As many processes as there will be clients: prefork would take its time to start them.
fn with_all_children(site: Site) -> Site {
    if site.mpm == Mpm::Prefork {
        site.config("StartServers 64\nMinSpareServers 64").allow_log("AH00161: server reached MaxRequestWorkers")
    } else {
        site
    }
}

/// Sends `n` requests at once; their answers come through the channel, in the order in which they end.
fn send<'s>(scope: &'s std::thread::Scope<'s, '_>, httpd: &Httpd, path: &'static str, n: usize) -> Receiver<Response> {
    let (sender, receiver) = channel();
    for _ in 0..n {
        let (sender, request) = (sender.clone(), httpd.request("GET", path));
        scope.spawn(move || sender.send(request.send()));
    }
    receiver
}

fn refused(answer: &Response) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
}

mpm_test!(a_full_queue_refuses_at_once, |site| {
    let site = self::site(site, "processes=1 threads=1 queue-depth=2").expect_log("DROVER0058*limit of 2 waiting requests (queue-depth)");
    let (holding, go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let held = send(scope, &httpd, "/hold", 1);
        holding.reached();
        let answers = send(scope, &httpd, "/", 6);
        // While the only thread is held, only a refusal can be an answer.
        answers.iter().take(4).for_each(|answer| refused(&answer));
        go_on.open(1);
        assert_eq!(held.recv().expect("answer").status, 200);
        assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [200, 200]);
    });
    assert_eq!(httpd.get("/").status, 200);
});

mpm_test!(beyond_the_backlog_requests_wait_outside_of_the_queue, |site| {
    let site = self::site(site, "processes=1 threads=1 listen-backlog=1").config("DroverMaxWaiting off");
    let (holding, go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let held = send(scope, &httpd, "/hold", 1);
        holding.reached();
        let answers = send(scope, &httpd, "/", 6);
        assert_eq!(httpd.get("/other").status, 200);
        go_on.open(1);
        assert_eq!(held.recv().expect("answer").status, 200);
        assert!(answers.iter().take(6).all(|a| a.status == 200));
    });
});

mpm_test!(who_waits_longer_than_queue_timeout_is_refused, |site| {
    let site = self::site(site, "processes=1 threads=1 listen-backlog=1 queue-timeout=1").allow_log("DROVER0050");
    let (holding, go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let held = send(scope, &httpd, "/hold", 1);
        holding.reached();
        send(scope, &httpd, "/", 6).iter().take(6).for_each(|answer| refused(&answer));
        go_on.open(1);
        assert_eq!(held.recv().expect("answer").status, 200);
    });
    assert_eq!(httpd.get("/").status, 200);
});

mpm_test!(one_group_does_not_take_all_threads, |site| {
    let site = self::site(site, "processes=1 threads=4").config("DroverMaxWaiting 3");
    let site = site.expect_log("DROVER0058*group 'app'*3 requests (DroverMaxWaiting)");
    let (holding, go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let held = send(scope, &httpd, "/hold", 3);
        (0..3).for_each(|_| assert_eq!(holding.reached(), b'.'));
        refused(&httpd.get("/"));
        assert_eq!(httpd.get("/other").status, 200);
        go_on.open(3);
        assert!(held.iter().take(3).all(|a| a.status == 200));
    });
    assert_eq!(httpd.get("/").status, 200);
});

mpm_test!(without_a_word_a_quarter_of_the_threads_is_left_to_others, |site| {
    let site = self::site(site, "processes=1 threads=1 listen-backlog=1000").config("WSGIDaemonProcess third");
    let site = site.expect_log("DROVER0058*(DroverMaxWaiting)").allow_log("AH00484|AH00161|AH03490|AH10159|AH00288|AH00286");
    let (holding, go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let held = send(scope, &httpd, "/hold", 1);
        holding.reached();
        // More clients than httpd has threads: some are refused, whatever the MPM.
        let answers = send(scope, &httpd, "/", 200);
        refused(&answers.recv().expect("answer"));
        assert_eq!(httpd.get("/other").status, 200);
        go_on.open(1);
        assert_eq!(held.recv().expect("answer").status, 200);
        answers.iter().take(199).for_each(|a| assert!(matches!(a.status, 200 | 503), "{}", a.status));
    });
    assert_eq!(httpd.get("/").status, 200);
});

mpm_test!(what_a_killed_child_of_httpd_held_is_free_again, |site| {
    let site = self::site(site, "processes=1 threads=2").config("DroverMaxWaiting 2");
    let (holding, go_on) = (site.gate("holding"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let request = httpd.request("GET", "/hold");
            scope.spawn(move || assert!(request.attempt().is_err()));
        }
        (0..2).for_each(|_| assert_eq!(holding.reached(), b'.'));
        for child in children(&httpd) {
            httpd.signal(child, rustix::process::Signal::KILL);
        }
    });
    go_on.open(2);
    // Both places and both threads of the process are free: two requests hold them again, each lets the other in.
    until("answers", || httpd.request("GET", "/").attempt().is_ok_and(|a| a.status == 200));
    std::thread::scope(|scope| {
        let held = send(scope, &httpd, "/hold", 2);
        (0..2).for_each(|_| assert_eq!(holding.reached(), b'.'));
        go_on.open(2);
        assert!(held.iter().take(2).all(|a| a.status == 200));
    });
});

/// httpd's own children.
fn children(httpd: &Httpd) -> Vec<i32> {
    let (parent, droverd) = (httpd.pid(), httpd.droverd().pid);
    let all = processes::all().into_iter().filter(|p| p.parent == parent && p.pid != droverd);
    all.map(|p| p.pid).collect()
}

mpm_test!(ten_times_the_capacity_costs_no_answer_that_is_given, |site| {
    // 4 threads, 40 clients that never rest: whoever is answered is answered whole, whoever is not gets 503 in time.
    let script = "import time\ndef application(environ, start_response):\n    time.sleep(0.01)\n    start_response('200 OK', [])\n    return [b'whole']\n";
    let site = site.daemon("processes=2 threads=2 queue-timeout=1 queue-depth=12").script("busy.wsgi", script).app("/", "busy.wsgi");
    let site = with_all_children(site);
    let site = site.expect_log("DROVER0058*(queue-depth)").allow_log("DROVER0050");
    let httpd = site.start();
    let clients = if httpd.site.mpm == Mpm::Prefork { 30 } else { 40 };
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let client = || {
            let answers = (0..25).map(|_| httpd.get("/"));
            answers.map(|a| if a.status == 200 { assert_eq!(a.text(), "whole") } else { refused(&a) }).count();
            httpd.get("/").status
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        threads.into_iter().map(|t| t.join().expect("client")).collect()
    });
    assert_eq!(statuses.len(), clients);
    assert_eq!(httpd.get("/").status, 200);
});
