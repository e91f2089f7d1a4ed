//! A worker that sends what ours never do: nobody but its own group is harmed.
//!
//! Responsible for: httpd believing no worker. The other direction, clients that break the rules, is in slow_clients.rs. Called by: `main.rs`.
use crate::harness::client::{Incoming, Request, Response};
use crate::harness::httpd::Httpd;
use crate::harness::{Site, log, processes};

/// Two groups: one whose only process answers by itself, and a good one.
pub fn site(site: Site) -> Site {
    let groups = "WSGIDaemonProcess bad processes=1 threads=1 socket-timeout=3\nWSGIDaemonProcess good processes=1 threads=2\n\
        WSGIScriptAlias /good @apps@/hello.wsgi process-group=good application-group=%{GLOBAL}\n\
        WSGIScriptAlias /hostile @apps@/hostile.wsgi process-group=bad application-group=%{GLOBAL}";
    site.bare().config(groups)
}

/// A process that has gone bad: what it says from now on is its own.
pub struct Bad<'h>(&'h Httpd, Incoming);

impl<'h> Bad<'h> {
    pub fn new(httpd: &'h Httpd) -> Self {
        let mut taken = httpd.request("GET", "/hostile/take").open();
        assert_eq!(taken.piece().expect("a piece").as_deref(), Some(&b"taken\n"[..]));
        Self(httpd, taken)
    }

    /// It is good again, and serves as before.
    pub fn release(self) {
        assert_eq!(self.0.get("/hostile/over").text(), "over\n");
        self.1.finish(false);
        assert_eq!(self.0.ok("/hostile/"), "good\n");
    }
}

/// An answer of the bad group, and one of the good group behind it on the same connection, if that is still open.
fn both(httpd: &Httpd, path: &str) -> (Response, Option<Response>) {
    let port = httpd.site.port;
    let mut conn = httpd.connect();
    let two = format!("GET /hostile/{path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\nGET /good HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    conn.send(two).expect("send");
    let (first, mut conn) = conn.answer().whole();
    let second = if first.complete && !conn.has_ended() { Some(conn.answer().whole().0) } else { None };
    (first, second)
}

pub fn good(answer: &Response) -> bool {
    answer.status == 200 && answer.text() == "Hello, drover\n" && answer.header("X-Forged").is_none()
}

mpm_test!(what_a_worker_says_of_its_answers_length_is_held_to, |site| {
    let site = self::site(site).expect_log("DROVER0064*response headers cannot be sent").expect_log("DROVER0066*DROVER0056");
    let httpd = site.start();
    let bad = Bad::new(&httpd);
    let (long, next) = both(&httpd, "long_body");
    assert_eq!((long.text().as_str(), long.complete), ("first\n", true));
    assert!(good(&next.expect("the connection stays")), "what came behind was no answer");
    let (short, next) = both(&httpd, "short_body");
    assert!(!short.complete && next.is_none(), "{short:?} {next:?}");
    for path in ["chunked", "two_lengths"] {
        let (refused, next) = both(&httpd, path);
        assert_eq!(refused.status, 500, "{path}");
        assert!(next.is_none_or(|next| good(&next)), "{path}");
    }
    assert!(good(&httpd.get("/good")));
    bad.release();
});

mpm_test!(a_workers_text_is_never_more_urgent_than_an_error, |site| {
    let httpd = self::site(site).allow_output().start();
    let bad = Bad::new(&httpd);
    assert!(good(&both(&httpd, "levels").1.expect("the connection stays")));
    bad.release();
    let line = |n: u32| httpd.log().lines().find(|l| l.contains(&format!("level {n} of a bad worker"))).map(str::to_owned);
    for level in 0..=3 {
        let line = line(level).expect("the line");
        assert_eq!(log::level(&line), Some("error"), "{line}");
    }
    assert_eq!(line(60000), None, "LogLevel is info");
});

mpm_test!(a_worker_cannot_take_httpds_memory, |site| {
    let site = self::site(site).expect_log("DROVER0056*invalid data from the worker").expect_log("DROVER0055").allow_log("DROVER0053");
    let httpd = site.start();
    let bad = Bad::new(&httpd);
    let children = || -> Vec<i32> { httpd.family().iter().filter(|p| p.command.contains("httpd.conf")).map(|p| p.pid).collect() };
    for path in ["many_fields", "questions", "announced"] {
        let answer = httpd.get(&format!("/hostile/{path}"));
        assert!(answer.status >= 500, "{path}: {}", answer.status);
        for pid in children() {
            let peak: u64 = processes::status(pid, "VmHWM").trim().trim_end_matches(" kB").trim().parse().unwrap_or(0);
            assert!(peak < 150_000, "{path}: {peak} KiB");
        }
    }
    assert!(good(&httpd.get("/good")));
    bad.release();
});

mpm_test!(a_worker_cannot_make_httpd_wait_for_a_close, |site| {
    let httpd = self::site(site).start();
    let bad = Bad::new(&httpd);
    for _ in 0..20 {
        let answer = httpd.get("/hostile/lingering");
        assert_eq!((answer.status, answer.text().as_str()), (200, "first\n"));
    }
    assert!(good(&httpd.get("/good")));
    bad.release();
});

// A name that a client makes up in its Host header is no new group of processes.
mpm_test!(a_port_of_the_clients_choice_names_no_group, |site| {
    let httpd = site.config("WSGIApplicationGroup %{RESOURCE}").app("/", "hello.wsgi").start();
    let own = httpd.site.port.to_string();
    for port in ["2000", "2001", "2002", "80", "443", "", &own] {
        let host = format!("localhost:{port}");
        let answer = Request::new(httpd.site.port, "GET", "/").header("Host", host.trim_end_matches(':')).send();
        assert_eq!(answer.status, 200);
    }
    assert_eq!(httpd.workers().len(), 1, "with and without a port, and with any port, it is one application");
});

/// Counts in its session; `/scribble?BYTE` writes that byte over the memory of the queue's tokens, `/hole` takes its pages away.
const SCRIBBLES: &str = r#"
import ctypes

def application(environ, start_response):
    with open("/proc/self/maps") as maps:
        begin, end = [int(n, 16) for n in next(line for line in maps if "mod_drover tokens" in line).split()[0].split("-")]
    if environ["PATH_INFO"] == "/scribble":
        ctypes.memset(begin, int(environ["QUERY_STRING"]), end - begin)
        body = "done"
    elif environ["PATH_INFO"] == "/hole":
        MADV_REMOVE = 9
        body = str(ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_REMOVE))
    else:
        session = environ["mod_drover.session"]
        session["n"] = session.get("n", 0) + 1
        body = str(session["n"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"#;

mpm_test!(who_writes_into_the_memory_of_tokens_loses_no_lock_and_takes_none_of_others, |site| {
    let groups = "WSGIDaemonProcess other processes=1 threads=2\n\
        WSGIScriptAlias /other @apps@/s.wsgi process-group=other application-group=%{GLOBAL}";
    let site = site.script("s.wsgi", SCRIBBLES).daemon("processes=2 threads=2").config(groups).config("DroverSession disk");
    let httpd = site.app("/", "s.wsgi").start();
    let begin = |path: &str| httpd.get(path).header("Set-Cookie").expect("a cookie").split(';').next().expect("cookie").to_owned();
    let sessions = [("/", begin("/")), ("/other", begin("/other"))];
    let mut count = 1;
    let mut check = |after: &str| {
        for _ in 0..3 {
            count += 1;
            for (path, cookie) in &sessions {
                let answer = httpd.request("GET", path).header("Cookie", cookie).send();
                assert_eq!((answer.status, answer.text()), (200, count.to_string()), "{path} after {after}");
            }
        }
    };
    check("the start");
    for byte in [255, 0, 1, 127] {
        assert_eq!(httpd.ok(&format!("/scribble?{byte}")), "done");
        check(&format!("{byte}s"));
    }
    assert_eq!(httpd.ok("/hole"), "0");
    check("the hole");
});
