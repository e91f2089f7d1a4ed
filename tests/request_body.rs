//! Request bodies: every way to send one, every way to read one, and what an application gets of a broken one.
//!
//! Responsible for: that a body arrives byte for byte or not at all. Called by: `main.rs`.
use crate::harness::{Httpd, Response};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::io::Write;

const WAYS: [&str; 8] = ["read_all", "read_none", "blocks", "odd", "lines", "readlines", "readline", "short_lines"];

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| if i % 79 == 78 { b'\n' } else { (i % 251) as u8 }).collect()
}

#[track_caller]
fn received(response: &Response, body: &[u8]) {
    assert_eq!(response.status, 200, "{}", response.text());
    let told = response.json();
    assert_eq!((told["size"].as_u64(), told["after"].as_u64()), (Some(body.len() as u64), Some(0)));
    assert_eq!(told["sha256"].as_str().unwrap_or("?"), sha256(body));
}

/// By the program that every Debian has, so that the tests need no cryptography of their own.
fn sha256(data: &[u8]) -> String {
    let mut child = std::process::Command::new("sha256sum");
    let mut child = child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("sha256sum");
    child.stdin.take().expect("stdin").write_all(data).expect("write");
    String::from_utf8_lossy(&child.wait_with_output().expect("output").stdout)[..64].to_string()
}

both_test!(sizes_and_ways_to_read, |site| {
    let httpd = site.app("/", "body.wsgi").start();
    for (i, size) in [0, 1, 2, 8191, 8192, 65535, 65536, 65537, 300_000, 3 << 20].into_iter().enumerate() {
        let body = pattern(size);
        received(&httpd.request("POST", &format!("/{}", WAYS[i % WAYS.len()])).body(body.clone()).send(), &body);
        let chunked = httpd.request("POST", &format!("/{}", WAYS[(i + 3) % WAYS.len()])).chunked(body.chunks(7001)).send();
        received(&chunked, &body);
        // RFC 3875: CONTENT_LENGTH when it is known; that is for a chunked body that was read before the application ran.
        let length = &chunked.json()["length"];
        assert!(length.is_null() || (!httpd.site.theirs() && *length == size.to_string().as_str()), "{size}: {length}");
    }
});

both_test!(every_way_to_read, |site| {
    let httpd = site.app("/", "body.wsgi").start();
    let body = pattern(200_000);
    for way in WAYS {
        received(&httpd.request("PUT", &format!("/{way}")).body(body.clone()).send(), &body);
    }
});

both_test!(a_request_without_body, |site| {
    let httpd = site.app("/", "body.wsgi").start();
    for way in WAYS {
        received(&httpd.get(&format!("/{way}")), b"");
    }
    assert_eq!(httpd.get("/read_all").json()["length"], serde_json::Value::Null);
});

both_test!(connections_are_kept_whatever_was_read, |site| {
    let httpd = site.app("/", "body.wsgi").start();
    let mut conn = httpd.connect();
    for way in ["nothing", "read_all", "nothing", "lines"] {
        let response;
        (response, conn) = conn.exchange(httpd.request("POST", &format!("/{way}")).body(pattern(100_000)));
        assert_eq!(response.status, 200);
        (_, conn) = conn.exchange(httpd.request("GET", "/read_all"));
    }
});

both_test!(expect_100_continue, |site| {
    let httpd = site.app("/", "body.wsgi").start();
    for size in [5usize, 200_000] {
        let mut conn = httpd.connect();
        let head =
            format!("POST /read_all HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n");
        conn.send(head).expect("send");
        let mut interim = [0u8; 25];
        std::io::Read::read_exact(&mut conn.stream, &mut interim).expect("interim answer");
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        conn.send(pattern(size)).expect("send body");
        received(&conn.answer().finish(false), &pattern(size));
    }
});

/// What of the body's end is missing, and what the application must not take for a whole body.
fn rude(httpd: &Httpd, head: &str, body: &[u8], reset: bool) -> Vec<u8> {
    let mut conn = httpd.connect();
    let _ = conn.send(format!("POST /read_all HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n"));
    let _ = conn.send(body);
    if reset {
        conn.reset();
        return Vec::new();
    }
    conn.shutdown();
    conn.drain()
}

mpm_test!(a_cut_body_is_never_taken_for_a_whole_one, |site| {
    let site = site.script(
        "cut.wsgi",
        "import gate\ndef application(environ, start_response):\n    try:\n        environ['wsgi.input'].read()\n    except OSError:\n        \
         gate.reach('cut', b'E')\n        raise\n    gate.reach('cut', b'W')\n    start_response('200 OK', [])\n    return [b'whole']\n",
    );
    // Bodies of this size would be read before a process sees them.
    let site = site.daemon("processes=1 threads=4 request-buffer-size=0").app("/", "cut.wsgi");
    let gate = site.gate("cut");
    let httpd = site.start();
    let large = pattern(400_000);
    for reset in [false, true] {
        rude(&httpd, "Content-Length: 1000000", &large, reset);
        assert_eq!(gate.reached(), b'E', "Content-Length, reset {reset}");
        let mut chunks = b"61a80\r\n".to_vec();
        chunks.extend_from_slice(&large);
        chunks.extend_from_slice(b"\r\n");
        rude(&httpd, "Transfer-Encoding: chunked", &chunks, reset);
        assert_eq!(gate.reached(), b'E', "chunked, reset {reset}");
    }
    // A small one never reaches the application at all.
    rude(&httpd, "Content-Length: 1000", b"only this", false);
    rude(&httpd, "Content-Length: 1000", b"only this", true);
    httpd.request("POST", "/").body("whole").send();
    assert_eq!(gate.reached(), b'W', "the next call is the whole request's");
});

mpm_test!(malformed_chunks_are_400, |site| {
    let site = site.app("/", "body.wsgi");
    let httpd = site.start();
    for bytes in [&b"zz\r\nabc\r\n0\r\n\r\n"[..], b"5\r\nabcdefgh\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n"] {
        let answer = rude(&httpd, "Transfer-Encoding: chunked", bytes, false);
        // httpd calls a chunk whose size overflows too large.
        let status: &[u8] = if bytes.starts_with(b"ffff") { b"HTTP/1.1 413 " } else { b"HTTP/1.1 400 " };
        assert!(answer.starts_with(status), "{}", String::from_utf8_lossy(&answer));
    }
    let answer = rude(&httpd, "Content-Length: five", b"", false);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
});

both_test!(unknown_transfer_encoding, |site| {
    let httpd = site.app("/", "body.wsgi").start();
    let answer = rude(&httpd, "Transfer-Encoding: gzip", b"", false);
    assert!(answer.starts_with(b"HTTP/1.1 400 ") || answer.starts_with(b"HTTP/1.1 501 "), "{}", String::from_utf8_lossy(&answer));
});

both_test!(chunked_can_be_refused, |site| {
    let site = site.app("/", "body.wsgi").config("<Location /blocks>\nWSGIChunkedRequest Off\n</Location>");
    let httpd = site.expect_log("WSGI0139|DROVER0025").start();
    assert_eq!(httpd.request("POST", "/blocks").chunked([&b"abc"[..]]).send().status, 411);
    assert_eq!(httpd.request("POST", "/odd").chunked([&b"abc"[..]]).send().status, 200);
});

both_test!(limit_request_body, |site| {
    let site = site.app("/", "body.wsgi").head("LimitRequestBody 100000");
    let httpd = site.start();
    assert_eq!(httpd.request("POST", "/nothing").body(pattern(100_001)).send().status, 413);
    received(&httpd.request("POST", "/read_all").body(pattern(100_000)).send(), &pattern(100_000));
    if !httpd.site.theirs() {
        assert_eq!(httpd.request("POST", "/read_all").chunked(pattern(300_000).chunks(9000)).send().status, 413);
    }
});

mpm_test!(input_behaves_as_a_buffered_reader, |site| {
    let httpd = site.app("/", "input.wsgi").start();
    let body = prop::collection::vec(prop_oneof![3 => Just(b'\n'), 20 => any::<u8>()], 0..1500);
    let operation = prop_oneof![
        Just("read".to_string()),
        Just("read:None".to_string()),
        Just("read:-1".to_string()),
        Just("readline".to_string()),
        Just("readlines".to_string()),
        Just("next".to_string()),
        (0..400i32).prop_map(|n| format!("read:{n}")),
        (-1..90i32).prop_map(|n| format!("readline:{n}")),
        (0..300i32).prop_map(|n| format!("readlines:{n}")),
    ];
    let case = (body, prop::collection::vec(operation, 1..12), any::<bool>());
    let mut runner = TestRunner::new(Config { cases: 80, failure_persistence: None, ..Config::default() });
    let result = runner.run(&case, |(body, operations, chunked)| {
        let hex: String = body.iter().map(|b| format!("{b:02x}")).collect();
        let request = httpd.request("POST", &format!("/?{}", operations.join(","))).header("X-Body", hex);
        let response = if chunked { request.chunked(body.chunks(97)).send() } else { request.body(body).send() };
        prop_assert_eq!(response.text(), "same");
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
});

// A body that does not come: within RequestReadTimeout the client is told, the application too, and the process is free again.
mpm_test!(a_body_that_stops_is_408, |site| {
    let script = "import gate\ndef application(environ, start_response):\n    try:\n        environ['wsgi.input'].read()\n    except OSError:\n        \
                  gate.reach('stopped', b'E')\n        raise\n    gate.reach('stopped', b'W')\n    start_response('200 OK', [])\n    return [b'whole']\n";
    let site =
        site.modules("reqtimeout").config("RequestReadTimeout header=0 body=1").daemon("processes=1 threads=1 request-buffer-size=0");
    let site = site.script("stop.wsgi", script).app("/", "stop.wsgi");
    let stopped = site.gate("stopped");
    let httpd = site.start();
    for (head, sent, large) in [
        ("Content-Length: 1000000", pattern(200_000), true),
        ("Transfer-Encoding: chunked", [b"30d40\r\n".as_slice(), &pattern(200_000), b"\r\n"].concat(), true),
        ("Content-Length: 1000", pattern(10), false),
        ("Transfer-Encoding: chunked", b"5\r\nabcde\r\n".to_vec(), true),
    ] {
        let mut conn = httpd.connect();
        conn.send(format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n")).expect("send");
        conn.send(&sent).expect("send");
        // Neither closed nor continued: nothing but the time limit can end it.
        assert_eq!(conn.answer().head.status, 408, "{head}");
        if large {
            assert_eq!(stopped.reached(), b'E', "{head}");
        }
    }
    assert_eq!(httpd.request("POST", "/").body("whole").send().text(), "whole");
    assert_eq!(
        stopped.reached(),
        b'W',
        "the next call is the whole request's; a small body of known length that stops never reaches the application"
    );
});

mpm_test!(a_body_that_a_filter_unpacks_is_whole, |site| {
    let httpd = site.modules("deflate").config("SetInputFilter DEFLATE").app("/", "body.wsgi").start();
    for size in [1, 3_000, 70_000, 300_000, 900_000, 5 << 20] {
        let body = pattern(size);
        let packed = gzip(&body);
        for path in ["/read_all", "/lines"] {
            let request = || httpd.request("POST", path).header("Content-Encoding", "gzip");
            received(&request().body(packed.clone()).send(), &body);
            received(&request().chunked(packed.chunks(500)).send(), &body);
        }
        // What it says of the length is true or not said.
        let length = &httpd.request("POST", "/read_all").header("Content-Encoding", "gzip").body(packed).send().json()["length"];
        assert!(length.is_null() || *length == size.to_string().as_str(), "{size}: {length}");
    }
});

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip");
    let mut child = child.arg("-c").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("gzip");
    let (mut stdin, data) = (child.stdin.take().expect("stdin"), data.to_vec());
    let writing = std::thread::spawn(move || stdin.write_all(&data).expect("write"));
    let packed = child.wait_with_output().expect("output").stdout;
    writing.join().expect("writer");
    packed
}

both_test!(a_filter_may_keep_a_body_until_its_end, |site| {
    // sort(1) gives nothing before it has everything.
    let text = "def application(e, s):\n    lines = e['wsgi.input'].read().split()\n    s('200 OK', [('Content-Type', 'text/plain')])\n    \
                return [b'%d %s %s' % (len(lines), lines[0], lines[-1])]\n";
    let site = site.modules("ext_filter filter").script("sorted.wsgi", text).app("/", "sorted.wsgi");
    let site = site.config("ExtFilterDefine sorted mode=input cmd=/usr/bin/sort\n<Location />\nSetInputFilter sorted\n</Location>");
    let httpd = site.start();
    for lines in [3, 20_000, 200_000] {
        let body: String = (0..lines).rev().map(|n| format!("{n:07}\n")).collect();
        let expected = format!("{lines} 0000000 {:07}", lines - 1);
        assert_eq!(httpd.request("POST", "/").body(body.clone()).send().text(), expected);
        assert_eq!(httpd.request("POST", "/").chunked(body.as_bytes().chunks(50_000)).send().text(), expected, "chunked");
    }
});
