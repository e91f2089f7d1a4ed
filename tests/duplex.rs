//! Answers while the request's body is still on its way.
//!
//! Responsible for: that neither side waits for the other, also where the application asks for its session in between, by HTTP/1, TLS
//! and HTTP/2. mod_wsgi cannot do this: it sends the whole body first. Called by: `main.rs`.
use crate::harness::Site;
use crate::tls_http2::{curl, tls};

/// Saves its session before, while and after it sends back what it reads.
const SESSION_ECHO: &str = r#"
def application(environ, start_response):
    session = environ["mod_drover.session"]
    def changed():
        session["n"] = session.get("n", 0) + 1
        session.save()
    def echo():
        for piece in iter(lambda: environ["wsgi.input"].read(65536), b""):
            yield piece
            changed()
    changed()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return echo()
"#;

fn session_echo(site: Site) -> Site {
    site.daemon("processes=1 threads=2").script("echo.wsgi", SESSION_ECHO).config("DroverSession disk").app("/echo", "echo.wsgi")
}

fn large(mib: usize) -> Vec<u8> {
    (0..mib << 20).map(|i| (i / 4096) as u8).collect()
}

mpm_test!(an_echo_between_questions_about_a_session, |site| {
    let httpd = session_echo(site).start();
    let body = large(7);
    let answer = httpd.request("POST", "/echo").body(body.clone()).send();
    assert!(answer.status == 200 && answer.complete && answer.body == body, "{} {}", answer.status, answer.body.len());
});

mpm_test!(an_echo_between_questions_about_a_session_by_tls, |site| {
    let (site, port) = tls(session_echo(site), "WSGIScriptAlias /echo @apps@/echo.wsgi");
    let httpd = site.start();
    let body = large(20);
    assert!(curl(&httpd, port, "/echo", &["-T", "-"], &body) == body);
});

event_test!(an_echo_between_questions_about_a_session_by_http2, |site| {
    let (site, port) = tls(session_echo(site).modules("http2"), "Protocols h2 http/1.1\nWSGIScriptAlias /echo @apps@/echo.wsgi");
    let httpd = site.start();
    let body = large(20);
    assert!(curl(&httpd, port, "/echo", &["--http2", "-T", "-"], &body) == body);
});

mpm_test!(a_large_answer_to_a_large_body_that_nobody_reads, |site| {
    let httpd = site.app("/", "duplex.wsgi").start();
    for _ in 0..3 {
        let answer = httpd.request("POST", "/ignore").body(vec![b'b'; 3 << 20]).send();
        assert_eq!((answer.status, answer.body.len(), answer.complete), (200, 300_000, true));
    }
});

mpm_test!(an_echo_of_a_body_larger_than_all_buffers, |site| {
    let httpd = site.app("/", "duplex.wsgi").start();
    let body: Vec<u8> = (0..8usize << 20).map(|i| (i / 4096) as u8).collect();
    let answer = httpd.request("POST", "/echo").body(body.clone()).send();
    assert!(answer.status == 200 && answer.complete && answer.body == body, "{} {}", answer.status, answer.body.len());
});

mpm_test!(each_block_is_answered_before_the_next_is_sent, |site| {
    let site = site.script(
        "pong.wsgi",
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return iter(environ['wsgi.input'].readline, b'')\n",
    );
    let httpd = site.app("/", "pong.wsgi").start();
    let mut conn = httpd.connect();
    // More than a small body, so that it is streamed.
    conn.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n").expect("send");
    let line = |i: u8| [vec![b'a' + i; 70_000], b"\n".to_vec()].concat();
    let chunk = |line: &[u8]| [format!("{:x}\r\n", line.len()).into_bytes(), line.to_vec(), b"\r\n".to_vec()].concat();
    conn.send(chunk(&line(0))).expect("send");
    let mut answer = conn.answer();
    for i in 0..4u8 {
        let mut got = Vec::new();
        while got.len() < 70_001 {
            got.extend(answer.piece().expect("piece").expect("not the end"));
        }
        assert_eq!(got, line(i));
        if i < 3 {
            answer.conn().send(chunk(&line(i + 1))).expect("send");
        }
    }
    answer.conn().send("0\r\n\r\n").expect("send");
    assert!(answer.finish(false).complete);
});
