//! Clients that are slow, rude, or gone.
//!
//! Responsible for: a process being held only while the application runs, every answer whole or visibly cut, and nothing left behind.
//! Called by: `main.rs`.
use crate::harness::{Conn, Httpd, Request, Site, processes, until};
use rustix::process::Signal;

const APP: &str = r#"
import hashlib
import gate

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/large":
        size = int(environ["QUERY_STRING"])
        start_response("200 OK", [("Content-Length", str(size))])
        return (bytes([n % 251]) * min(65536, size - n * 65536) for n in range((size + 65535) // 65536))
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [hashlib.sha256(body).hexdigest().encode()]
"#;

fn site(site: Site, options: &str) -> Site {
    site.daemon(options).script("a.wsgi", APP).app("/", "a.wsgi")
}

/// What `/large` sends.
fn large(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 65536 % 251) as u8).collect()
}

const MIB: usize = 1 << 20;

mpm_test!(a_slow_download_holds_no_process, |site| {
    let httpd = self::site(site, "processes=1 threads=1").start();
    let incoming = httpd.request("GET", &format!("/large?{}", 7 * MIB)).open();
    // The only thread of the only process serves others, although the client has read nothing.
    for _ in 0..3 {
        assert_eq!(httpd.get("/").status, 200);
    }
    let answer = incoming.finish(false);
    assert!(answer.complete && answer.body == large(7 * MIB));
});

mpm_test!(many_slow_downloads_hold_no_process, |site| {
    let site = self::site(site, "processes=1 threads=1 queue-depth=4");
    let httpd = site.start();
    let download = |_| {
        let incoming = httpd.request("GET", &format!("/large?{}", 6 * MIB)).open();
        assert_eq!(httpd.get("/").status, 200, "what is taken over does not count as waiting");
        incoming
    };
    let incoming: Vec<_> = (0..8).map(download).collect();
    let expected = large(6 * MIB);
    for incoming in incoming {
        let answer = incoming.finish(false);
        assert!(answer.complete && answer.body == expected);
    }
});

mpm_test!(more_than_the_buffer_waits_for_the_client, |site| {
    let site = self::site(site, "processes=1 threads=2 response-buffer-size=65536").config("SendBufferSize 65536");
    let httpd = site.start();
    let incoming = httpd.request("GET", &format!("/large?{}", 48 * MIB)).open();
    assert_eq!(httpd.get("/").status, 200);
    let memory = |httpd: &Httpd| httpd.family().iter().map(|p| number(&processes::status(p.pid, "VmHWM"))).max().unwrap_or(0);
    let answer = incoming.finish(false);
    assert!(answer.complete && answer.body == large(48 * MIB));
    let kib = memory(&httpd);
    assert!(kib > 1000 && kib < 44 * 1024, "no process has held it whole: {kib} KiB");
});

fn number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

mpm_test!(a_slow_upload_holds_no_process, |site| {
    let httpd = self::site(site, "processes=1 threads=1").start();
    let body = large(900_000);
    let mut conn = httpd.connect();
    conn.send(format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())).expect("send");
    conn.send(&body[..450_000]).expect("send");
    for _ in 0..3 {
        assert_eq!(httpd.get("/").status, 200);
    }
    conn.send(&body[450_000..]).expect("send");
    let sum = httpd.request("POST", "/").body(body).send().text();
    assert_eq!(conn.answer().finish(false).text(), sum);
});

mpm_test!(the_size_of_bodies_that_are_read_first_can_be_set, |site| {
    // Nothing is read first: the process waits for the client, and a second thread serves the others.
    let httpd = self::site(site, "processes=1 threads=2 request-buffer-size=0").start();
    let body = large(200_000);
    let mut conn = httpd.connect();
    conn.send(format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())).expect("send");
    conn.send(&body[..100_000]).expect("send");
    assert_eq!(httpd.get("/").status, 200);
    conn.send(&body[100_000..]).expect("send");
    let sum = httpd.request("POST", "/").body(body).send().text();
    assert_eq!(conn.answer().finish(false).text(), sum);
});

mpm_test!(a_client_that_sends_no_more_is_answered, |site| {
    let httpd = self::site(site, "processes=1 threads=1").start();
    let mut conn = httpd.connect();
    conn.send(format!("GET /large?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 3 * MIB)).expect("send");
    conn.shutdown(); // half-closed: it still reads
    let answer = conn.answer().finish(false);
    assert!(answer.complete && answer.body == large(3 * MIB));
});

mpm_test!(clients_that_reset_leave_nothing_behind, |site| {
    let httpd = self::site(site, "processes=2 threads=2").start();
    assert_eq!(httpd.get("/").status, 200);
    until("both processes", || httpd.workers().len() == 2);
    let before = sockets(&httpd);
    let body = large(900_000);
    for n in 0..40 {
        match n % 4 {
            0 => httpd.request("GET", &format!("/large?{}", 7 * MIB)).open().reset(),
            1 => half_a_body(&httpd, &body, 900_000).reset(),
            2 => half_a_body(&httpd, &body, 90_000_000).reset(),
            _ => {
                let mut conn = httpd.connect();
                conn.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
                conn.reset();
            }
        }
    }
    // All threads serve, and the sockets are gone.
    for _ in 0..8 {
        assert_eq!(httpd.get("/").status, 200);
    }
    until("no socket is left", || sockets(&httpd) == before);
});

/// Open sockets of the workers: an idle one has those it was born with.
fn sockets(httpd: &Httpd) -> usize {
    let of = |pid: i32| std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_socket =
        |fd: &std::fs::DirEntry| std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
    httpd.workers().iter().map(|p| of(p.pid).filter(is_socket).count()).sum()
}

fn half_a_body(httpd: &Httpd, body: &[u8], length: usize) -> Conn {
    let mut conn = httpd.connect();
    conn.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")).expect("send");
    conn.send(&body[..body.len() / 2]).expect("send");
    conn
}

event_test!(thousands_of_idle_connections_hold_no_thread, |site| {
    let site = self::site(site, "processes=1 threads=2").config("KeepAliveTimeout 60\nAsyncRequestWorkerFactor 200");
    let mut httpd = site.start();
    // Answered once and kept: that is what a browser leaves behind.
    let idle: Vec<Conn> = (0..2000)
        .map(|_| {
            let (answer, conn) = httpd.connect().exchange(Request::new(httpd.site.port, "GET", "/"));
            assert_eq!(answer.status, 200);
            conn
        })
        .collect();
    assert_eq!(httpd.get("/").status, 200);
    let (answer, _) = idle.into_iter().next_back().expect("connection").exchange(Request::new(httpd.site.port, "GET", "/"));
    assert_eq!(answer.status, 200);
    // Not at once: mod_mpm_event (2.4.71) may crash in its own code when it is told to stop at once after so many connections.
    httpd.signal(httpd.pid(), Signal::WINCH);
    httpd.ended();
});
