//! What the client gets of a response.
//!
//! Responsible for: streaming, head, length, close(), and which wrong responses are refused. Called by: `main.rs`.
use crate::harness::{Httpd, Site};
use std::os::unix::fs::PermissionsExt;

fn site(site: Site) -> Site {
    site.app("/on", "response.wsgi").app("/filtered/off", "response.wsgi").app("/filtered", "response.wsgi").app("/", "response.wsgi")
}

/// For applications that break a rule: the log says so, in whatever words.
fn noisy(site: Site) -> Site {
    self::site(site).allow_log("WSGI0174|DROVER0060|DROVER0064|DROVER0066*DROVER006").allow_output()
}

#[track_caller]
fn is_500(httpd: &Httpd, path: &str) {
    let response = httpd.get(path);
    assert_eq!(response.status, 500, "{path}: {}", response.text());
    assert!(response.header("X-Injected").is_none() && !response.text().contains("must not be sent"), "{path}: {response:?}");
}

both_test!(each_block_is_sent_before_the_next_is_made, |site| {
    let site = self::site(site);
    let gate = site.gate("next");
    let httpd = site.start();
    let mut answer = httpd.request("GET", "/streaming").open();
    for i in 0..3 {
        assert_eq!(answer.piece().expect("piece").expect("block"), format!("block {i}\n").into_bytes());
        gate.open(1);
    }
    assert!(answer.piece().expect("the end").is_none());
    // The first block may be empty: then the head waits for nothing more.
    gate.open(1);
    assert_eq!(httpd.get("/stop_after_head").text(), "late\n");
});

both_test!(write_and_return, |site| {
    let site = self::site(site);
    let gate = site.gate("next");
    let httpd = site.start();
    let mut answer = httpd.request("GET", "/write").open();
    assert_eq!(answer.piece().expect("piece").expect("block"), b"written ");
    gate.open(1);
    assert_eq!(answer.finish(false).text(), "twice, and returned\n");
});

both_test!(a_second_head, |site| {
    let httpd = noisy(site).start();
    let changed = httpd.get("/exc_info_before");
    assert_eq!((changed.status, changed.reason.as_str(), changed.text().as_str()), (500, "Changed", "the second head\n"));
    // PEP 3333 calls it a fatal error; mod_wsgi's documentation and its own tests take the second one.
    let twice = httpd.get("/twice");
    assert_eq!((twice.status, twice.text().as_str()), (201, "x"));
    let late = httpd.get("/exc_info_after");
    assert_eq!((late.status, late.text().as_str()), (200, "too late "));
    if !httpd.site.theirs() {
        assert!(!late.complete, "the client must see that the answer is cut off");
    }
});

both_test!(close_is_called_once, |site| {
    let site = noisy(site);
    let gate = site.gate("closed");
    let httpd = site.start();
    assert_eq!(httpd.ok("/close"), "ab");
    gate.reached();
    httpd.get("/close_after_error");
    gate.reached();
    assert_eq!(httpd.get("/close_fails").text(), "all of it\n");
    gate.reached();
    let mut endless = httpd.request("GET", "/close_endless").open();
    for _ in 0..5 {
        endless.piece().expect("piece");
    }
    endless.reset();
    gate.reached();
    // Had anything been closed twice, this next call's byte would not be the first to come.
    assert_eq!(httpd.ok("/close"), "ab");
    gate.reached();
});

both_test!(content_length_is_kept_and_enforced, |site| {
    let site = noisy(site);
    let httpd = site.start();
    let long = httpd.get("/too_long");
    assert_eq!((long.status, long.header("Content-Length"), long.text().as_str()), (200, Some("5"), "12345"));
    let short = httpd.get("/too_short");
    assert_eq!((short.header("Content-Length"), short.text().as_str(), short.complete), (Some("10"), "1234", false));
    for (path, text) in [("/single", "no length given\n"), ("/empty", "")] {
        let answer = httpd.get(path);
        assert_eq!((answer.text().as_str(), answer.complete), (text, true));
    }
});

mpm_test!(too_long_and_too_short_are_said, |site| {
    let httpd = noisy(site).expect_log("longer than its Content-Length").expect_log("DROVER0066*DROVER0064").start();
    httpd.get("/too_long");
    httpd.get("/too_short");
});

both_test!(methods_and_statuses_without_a_body, |site| {
    let httpd = self::site(site).start();
    assert_eq!(httpd.request("HEAD", "/large?4").send().header("Content-Length"), Some("262144"));
    for (path, status) in [("/no_content", 204), ("/not_modified", 304)] {
        let mut conn = httpd.connect();
        let answer;
        (answer, conn) = conn.exchange(httpd.request("GET", path));
        assert_eq!((answer.status, answer.body.len(), answer.header("Transfer-Encoding")), (status, 0, None));
        // The connection is in step.
        assert_eq!(conn.exchange(httpd.request("GET", "/cookies")).0.text(), "cookies");
    }
});

both_test!(head_is_mapped_to_get, |site| {
    let site = self::site(site).modules("deflate filter");
    let site = site.config("<Location /on>\nWSGIMapHEADToGET On\n</Location>\n<Location /filtered>\nSetOutputFilter DEFLATE\n</Location>");
    let httpd = site.config("<Location /filtered/off>\nWSGIMapHEADToGET Off\n</Location>").start();
    for (path, method) in [("/method", "HEAD"), ("/on/method", "GET"), ("/filtered/method", "GET"), ("/filtered/off/method", "HEAD")] {
        let head = httpd.request("HEAD", path).header("Accept-Encoding", "gzip").send();
        assert_eq!((head.status, head.header("X-Method")), (200, Some(method)), "{path}");
    }
    assert_eq!(httpd.request("HEAD", "/on/method").send().header("Content-Length"), Some("3"));
});

both_test!(header_fields_and_status, |site| {
    let httpd = self::site(site).start();
    let answer = httpd.get("/cookies");
    assert_eq!(answer.all("Set-Cookie"), ["a=1", "b=2; Path=/", "c=3"]);
    let odd = httpd.get("/status_text");
    assert_eq!((odd.status, odd.reason.as_str()), (299, "Quite Unusual (really)"));
    assert_eq!(httpd.get("/latin1").header("X-Name"), Some("caf\u{e9}"));
    for (line, status, reason) in [("299", 299, ""), ("418", 418, ""), ("404", 404, "Not Found")] {
        let answer = httpd.get(&format!("/status_alone?{line}"));
        assert_eq!((answer.status, answer.reason.as_str(), answer.text().as_str()), (status, reason, "x"), "{line}");
    }
    // White space in front of a value is no part of it; what follows it stays.
    let mut conn = httpd.connect();
    conn.send("GET /spaces HTTP/1.0\r\n\r\n").expect("send");
    let text = String::from_utf8_lossy(&conn.drain()).into_owned();
    for line in ["Set-Cookie: a=1", "X-Space: b", "X-Tab: c", "X-Behind: d; "] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
    }
});

// httpd itself would cut a range out of one answer and not out of another, as the answer arrives in one piece or in several.
both_test!(a_range_is_the_applications_affair, |site| {
    let httpd = self::site(site).start();
    for range in ["bytes=2-3", "bytes=-2", "bytes=1-1,3-3", "bytes=100-"] {
        for (path, text) in [("/cookies", "cookies"), ("/single", "no length given\n"), ("/empty", "")] {
            let answer = httpd.request("GET", path).header("Range", range).send();
            assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, text, true), "{path} {range}");
            assert!(answer.header("Content-Range").is_none(), "{path} {range}: {answer:?}");
        }
        let answer = httpd.request("GET", "/partial").header("Range", range).send();
        assert_eq!((answer.status, answer.text().as_str(), answer.header("Content-Range")), (206, "b", Some("bytes 1-1/3")), "{range}");
    }
    for (path, size) in [("/single", 16), ("/large?1", 65536), ("/many_small?3", 6)] {
        for method in ["GET", "POST", "HEAD"] {
            for range in ["bytes=1-2", "bytes=-1", "bytes=0-0,2-2", "bytes=999999-"] {
                let answer = httpd.request(method, path).header("Range", range).send();
                let expected = if method == "HEAD" { 0 } else { size };
                assert_eq!(
                    (answer.status, answer.body.len(), answer.header("Content-Range")),
                    (200, expected, None),
                    "{method} {path} {range}"
                );
            }
        }
    }
});

// httpd answers 500 in the application's place when a header is none: that answer must arrive.
both_test!(an_output_filter_answers, |site| {
    let bad = "<Location /on>\nHeader set X-Bad expr=%{unescape:a%01b}\n</Location>";
    let httpd = noisy(site).modules("headers").config(bad).allow_log("AH02430").start();
    for path in ["/on/cookies", "/on/single"] {
        let answer = httpd.get(path);
        assert_eq!((answer.status, answer.complete), (500, true), "{path}: {answer:?}");
        assert!(answer.header("X-Bad").is_none() && answer.text().contains("Internal Server Error"), "{path}: {answer:?}");
    }
    assert_eq!(httpd.ok("/cookies"), "cookies");
});

both_test!(wrong_heads_are_never_sent, |site| {
    let httpd = noisy(site).start();
    if !httpd.site.theirs() {
        is_500(&httpd, "/bad_header?nul");
    }
    for kind in ["crlf", "lf", "name", "unicode", "type", "bytes", "status", "status-type", "status-number", "pair", "tuple"] {
        is_500(&httpd, &format!("/bad_header?{kind}"));
    }
    for path in ["/text_block", "/not_iterable", "/no_head"] {
        is_500(&httpd, path);
    }
    assert_eq!(httpd.ok("/cookies"), "cookies");
});

mpm_test!(hop_by_hop_fields_are_refused, |site| {
    let httpd = noisy(site).start();
    for name in ["Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "TE", "Trailer", "Proxy-Authenticate"] {
        is_500(&httpd, &format!("/hop_by_hop?{name}"));
    }
});

both_test!(large_responses, |site| {
    let httpd = self::site(site).start();
    let counted = httpd.get("/large?64");
    assert_eq!((counted.body.len(), counted.complete), (64 << 16, true));
    assert!((0..64).all(|i| counted.body[i << 16] == 65 + (i % 26) as u8 && counted.body[(i << 16) + 65535] == 65 + (i % 26) as u8));
    let one = httpd.get("/large_one?8");
    assert!(one.complete && one.body.len() == 8 << 20 && one.body.chunks(16).all(|c| c == b"0123456789abcdef"));
    let small = httpd.get("/many_small?3000");
    assert_eq!(small.text(), (0..3000).map(|i| format!("{i}\n")).collect::<String>());
    assert_eq!(httpd.ok("/empty_blocks"), "ab");
});

both_test!(file_wrapper, |site| {
    let data: String = (0..40_000).map(|i| format!("{i:05}\n")).collect();
    let site = self::site(site).modules("env").script("data.txt", &data).config("SetEnv test.file @apps@/data.txt");
    let httpd = site.start();
    assert!(httpd.ok("/file") == data);
    assert!(httpd.ok("/file_from_middle") == data[1000..]);
    if !httpd.site.theirs() {
        assert_eq!(httpd.ok("/file_like"), "0123456789".repeat(5000));
    }
    assert_eq!(httpd.request("HEAD", "/file").send().status, 200);
});

both_test!(error_in_mid_stream, |site| {
    let httpd = noisy(site).expect_log("RuntimeError: broken in the middle").start();
    let answer = httpd.get("/fail_mid_stream");
    assert_eq!((answer.status, answer.text().as_str()), (200, "the first half\n"));
    if !httpd.site.theirs() {
        assert!(!answer.complete, "the client must see that the answer is cut off");
    }
    assert_eq!(httpd.ok("/cookies"), "cookies");
});

both_test!(http_1_0_clients, |site| {
    let httpd = self::site(site).start();
    let mut conn = httpd.connect();
    conn.send("GET /many_small?10 HTTP/1.0\r\n\r\n").expect("send");
    let text = String::from_utf8_lossy(&conn.drain()).into_owned();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"), "{text}");
});

both_test!(output_filters, |site| {
    let site = self::site(site).modules("deflate filter headers").config("SetOutputFilter DEFLATE\nHeader set X-Filtered yes");
    let httpd = site.start();
    let answer = httpd.request("GET", "/large?4").header("Accept-Encoding", "gzip").send();
    assert_eq!((answer.header("Content-Encoding"), answer.header("X-Filtered"), answer.complete), (Some("gzip"), Some("yes"), true));
    assert!(answer.body.starts_with(&[0x1f, 0x8b]) && answer.body.len() < 20_000);
    let head = httpd.request("HEAD", "/method").header("Accept-Encoding", "gzip").send();
    assert_eq!(head.status, 200);
});

both_test!(error_documents, |site| {
    let site =
        noisy(site).config("ErrorDocument 500 \"the server's own words\"\n<Location /exc_info_before>\nWSGIErrorOverride On\n</Location>");
    let httpd = site.start();
    assert_eq!(httpd.get("/text_block").text(), "the server's own words");
    assert_eq!(httpd.get("/exc_info_before").text(), "the server's own words");
});

both_test!(an_overridden_401_says_how_to_authenticate, |site| {
    let site = site.script(
        "deny.wsgi",
        "def application(e, s):\n    s(e['QUERY_STRING'].replace('+', ' '), [('WWW-Authenticate', 'Basic realm=\"a\"'), ('WWW-Authenticate', 'Bearer'), \
         ('X-Own', '1')])\n    return [b'own words']\n",
    );
    let site = site.config("WSGIErrorOverride On\nErrorDocument 401 \"the server's own words\"");
    let httpd = site.app("/", "deny.wsgi").start();
    let answer = httpd.get("/?401+No");
    assert_eq!((answer.status, answer.text().as_str(), answer.header("X-Own")), (401, "the server's own words", None));
    // RFC 9110 §15.5.2.
    assert_eq!(answer.all("WWW-Authenticate"), ["Basic realm=\"a\"", "Bearer"]);
    for status in [600, 999] {
        // Not an error that httpd knows.
        let odd = httpd.get(&format!("/?{status}+Odd"));
        assert_eq!((odd.status, odd.text().as_str()), (status, "own words"));
    }
});

mpm_test!(what_was_cut_is_not_cached, |site| {
    let cache = site.dir().join("cache");
    std::fs::create_dir(&cache).expect("directory");
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).expect("mode");
    let site = site
        .modules("cache cache_disk headers")
        .config("CacheRoot @dir@/cache\nCacheEnable disk /\nCacheIgnoreNoLastMod On\nCacheHeader On");
    let site = noisy(site).config("Header set Cache-Control max-age=100").expect_log("RuntimeError: broken in the middle");
    let httpd = site.allow_log("AH00765").start();
    let get = |path: &str| {
        let answer = httpd.get(path);
        (answer.text(), answer.complete, answer.header("X-Cache").map(|how| how.starts_with("HIT")))
    };
    for _ in 0..2 {
        assert_eq!(get("/fail_mid_stream"), ("the first half\n".into(), false, Some(false)));
    }
    assert_eq!([get("/single").2, get("/single").2], [Some(false), Some(true)], "what is whole is");
});

mpm_test!(an_output_filter_that_fails_is_said, |site| {
    let text = "def application(e, s):\n    s('200 OK', [('Content-Type', 'text/plain')])\n    \
                return (block for block in [b'first\\n', b'x' * 200]) if e['QUERY_STRING'] else [b'x' * 200]\n";
    let site = site.modules("filter substitute ext_filter").script("lines.wsgi", text).app("/", "lines.wsgi");
    let site = site.config("<Location />\nSetOutputFilter SUBSTITUTE\nSubstitute s/first/FIRST/\nSubstituteMaxLineLength 100\n</Location>");
    let site = site.config("ExtFilterDefine gone mode=output cmd=/no/such/program\n<Location /gone>\nSetOutputFilter gone\n</Location>");
    // httpd's own lines, then ours, with the true cause.
    let site = site.allow_log("AH01328|AH01458|AH01467").expect_log("DROVER0071*an output filter");
    let httpd = site.expect_log("DROVER0066*DROVER0071").start();
    assert_eq!(httpd.get("/").status, 500);
    assert_eq!(httpd.get("/gone").status, 500);
    let begun = httpd.get("/?begun");
    assert_eq!((begun.status, begun.text().as_str(), begun.complete), (200, "FIRST\n", false));
    assert!(!httpd.log().contains("DROVER0069"), "the client has not gone away");
});

mpm_test!(a_slow_reader_holds_nobody_up, |site| {
    let httpd = self::site(site).start();
    // Larger than every buffer between: the application is stopped in the middle, and others are served.
    let mut slow: Vec<_> = (0..3).map(|_| httpd.request("GET", "/large?400").open()).collect();
    assert_eq!(httpd.ok("/cookies"), "cookies");
    for answer in &mut slow {
        let mut size = 0;
        while let Some(piece) = answer.piece().expect("piece") {
            size += piece.len();
        }
        assert_eq!(size, 400 << 16);
    }
});
