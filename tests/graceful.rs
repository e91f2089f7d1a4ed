//! `apachectl graceful` and `graceful-stop` under every kind of request, with the code or the configuration really changing.
//!
//! Responsible for: no request lost, each answered by the old code or the new, and the new code serving. Called by: `main.rs`.
use crate::harness::{Httpd, Request, Site, processes, until};
use crate::lifecycle::change;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Quick, slow, upload and streaming requests; each answer ends with the version of the code.
pub fn code(version: usize) -> String {
    format!(
        r#"
import os, time
VERSION = b"{version}"

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/upload":
        start_response("200 OK", [])
        return [b"%d " % len(environ["wsgi.input"].read()), VERSION]
    if path == "/stream":
        start_response("200 OK", [])
        return stream()
    if path == "/slow":
        time.sleep(0.05)
    start_response("200 OK", [("X-Pid", str(os.getpid()))])
    return [VERSION]

def stream():
    for _ in range(5):
        yield b"."
        time.sleep(0.01)
    yield VERSION
"#
    )
}

/// The version at the end of an answer, or what is wrong with it.
pub fn ask(port: u16, n: usize) -> Result<usize, String> {
    let upload = vec![b'x'; 200_000];
    let (request, before) = match n % 4 {
        0 => (Request::new(port, "GET", "/"), ""),
        1 => (Request::new(port, "GET", "/slow"), ""),
        2 => (Request::new(port, "POST", "/upload").body(upload), "200000 "),
        _ => (Request::new(port, "GET", "/stream"), "....."),
    };
    let answer = request.attempt().map_err(|e| e.to_string())?;
    let text = answer.text();
    let version = text.strip_prefix(before).and_then(|v| v.parse().ok()).filter(|_| answer.status == 200 && answer.complete);
    version.ok_or_else(|| format!("{} {} {}{text}", n % 4, answer.status, if answer.complete { "" } else { "cut " }))
}

/// Four clients, one kind of request each, while `meanwhile` runs. Gives what was wrong.
fn mixed_load(httpd: &mut Httpd, newest: &AtomicUsize, meanwhile: impl FnOnce(&mut Httpd)) -> Vec<String> {
    let (stop, good, port) = (AtomicBool::new(false), AtomicUsize::new(0), httpd.site.port);
    std::thread::scope(|scope| {
        let client = |kind: usize| {
            let (stop, good) = (&stop, &good);
            scope.spawn(move || {
                let mut bad = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match ask(port, kind) {
                        // Its file may be written a moment before the number is raised here.
                        Ok(version) if version <= newest.load(Ordering::SeqCst) + 1 => drop(good.fetch_add(1, Ordering::Relaxed)),
                        Ok(version) => bad.push(format!("answered by version {version}")),
                        Err(why) => bad.push(why),
                    }
                }
                bad
            })
        };
        let clients: Vec<_> = (0..4).map(client).collect();
        until("some answers", || good.load(Ordering::Relaxed) > 20);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(httpd)));
        stop.store(true, Ordering::Relaxed);
        let bad = clients.into_iter().flat_map(|c| c.join().expect("client")).collect();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        eprintln!("{} served", good.load(Ordering::Relaxed));
        bad
    })
}

mpm_test!(new_code_with_each_graceful_loses_nothing, |site| {
    let site = site.script("a.wsgi", &code(0)).app("/", "a.wsgi").daemon("processes=2 threads=4").config("WSGIScriptReloading Off");
    let mut httpd = site.start();
    let newest = AtomicUsize::new(0);
    let bad = mixed_load(&mut httpd, &newest, |httpd| {
        let times = std::env::var("DROVER_GRACEFUL_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
        for version in 1..=times {
            change(&httpd.site, "a.wsgi", &code(version));
            newest.store(version, Ordering::SeqCst);
            httpd.graceful();
            until("the new code", || ask(httpd.site.port, 0) == Ok(version));
        }
    });
    assert!(bad.is_empty(), "{} lost: {bad:?}", bad.len());
});

mpm_test!(groups_come_go_and_change_at_graceful, |site| {
    let site = site.script("a.wsgi", &code(0)).bare().app("/", "a.wsgi");
    let head = "WSGIApplicationGroup %{GLOBAL}\nWSGIProcessGroup one\n";
    let variants = [
        "WSGIDaemonProcess one processes=1 threads=4",
        "WSGIDaemonProcess one processes=3 threads=2\nWSGIDaemonProcess two threads=2",
        "WSGIDaemonProcess one processes=2 threads=4 umask=0027 display-name=%{GROUP}\nWSGIDaemonProcess three threads=1",
        "WSGIDaemonProcess one processes=1-3 threads=4 reload=rolling\nWSGIDaemonProcess two threads=2",
    ];
    let mut httpd = site.config(head).config(variants[0]).start();
    let newest = AtomicUsize::new(0);
    let bad = mixed_load(&mut httpd, &newest, |httpd| {
        for variant in variants.iter().skip(1).chain(&variants) {
            let text = httpd.site.text().replace(variants[0], variant);
            std::fs::write(httpd.site.dir().join("httpd.conf"), text).expect("configuration");
            let generations = httpd.log().matches("DROVER0231: (group 'one')").count();
            httpd.graceful();
            until("a generation", || httpd.log().matches("DROVER0231: (group 'one')").count() > generations);
        }
    });
    assert!(bad.is_empty(), "{} lost: {bad:?}", bad.len());
});

mpm_test!(graceful_stop_finishes_what_runs, |site| {
    let site = site.app("/", "fail.wsgi").daemon("processes=1 threads=2");
    let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
    let mut httpd = site.start();
    httpd.look();
    let port = httpd.site.port;
    std::thread::scope(|scope| {
        let slow = scope.spawn(move || Request::new(port, "GET", "/hang").send());
        hanging.reached();
        httpd.signal(httpd.pid(), Signal::WINCH);
        until("no more connections", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
        go_on.open(1);
        let answer = slow.join().expect("thread");
        assert!(answer.status == 200 && answer.complete, "{answer:?}");
    });
    httpd.ended();
});

mpm_test!(an_old_generation_beyond_graceful_timeout_is_ended_and_logged, |site| {
    let site: Site = site.app("/", "fail.wsgi").daemon("processes=1 threads=2 graceful-timeout=1 shutdown-timeout=1");
    let site = site.expect_log("DROVER0235").expect_log("in hang").expect_log("DROVER0054*shutdown-timeout").allow_log("DROVER0236");
    let site = site.allow_output().allow_log("DROVER0403");
    let (hanging, _go_on) = (site.gate("hanging"), site.gate("go-on"));
    let mut httpd = site.start();
    let port = httpd.site.port;
    std::thread::scope(|scope| {
        let slow = scope.spawn(move || Request::new(port, "POST", "/hang").send());
        hanging.reached();
        let old = httpd.workers();
        httpd.graceful();
        assert_eq!(slow.join().expect("thread").status, 504);
        until("the old process is gone", || old.iter().all(|p| !processes::is_alive(p)));
    });
    httpd.ok("/ok");
});
