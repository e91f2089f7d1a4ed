//! What a client and an administrator learn when an application fails, and that nobody else is harmed.
//!
//! Responsible for: statuses, log codes, and the request after the failure. Called by: `main.rs`.
use crate::harness::{Site, until};

fn site(site: Site) -> Site {
    site.app("/", "fail.wsgi")
}

both_test!(exceptions_are_500_with_a_traceback, |site| {
    let site = self::site(site).expect_log("ValueError: thrown on purpose").expect_log("ValueError: thrown at the first block");
    let httpd = site.allow_log("DROVER0060|WSGI0174").allow_output().start();
    for path in ["/exception", "/at_iteration", "/base_exception"] {
        assert_eq!(httpd.get(path).status, 500, "{path}");
    }
    let pid = httpd.ok("/ok");
    assert_eq!(httpd.ok("/ok"), pid, "the process lives on");
});

both_test!(sys_exit_ends_the_request_and_not_the_process, |site| {
    let httpd = self::site(site).expect_log("SystemExit|DROVER0063").allow_log("WSGI0175").allow_output().start();
    let pid = httpd.ok("/ok");
    assert_eq!(httpd.get("/sys_exit").status, 500);
    assert_eq!(httpd.ok("/ok"), pid);
});

both_test!(an_exception_in_a_thread_of_its_own, |site| {
    let httpd = self::site(site).expect_log("ZeroDivisionError").allow_output().start();
    let pid = httpd.ok("/thread");
    assert_eq!(httpd.ok("/ok"), pid);
});

both_test!(no_script_no_callable_no_directory, |site| {
    let site = site.script("empty.wsgi", "x = 1\n").app("/missing", "missing.wsgi").app("/empty", "empty.wsgi").app("/dir/", "");
    let site = site.expect_log("DROVER0021|WSGI0135").expect_log("DROVER0062|WSGI0089");
    let site = site.allow_log("DROVER0014: script*missing.wsgi|DROVER0225|DROVER0227|DROVER0228");
    let httpd = site.app("/ok", "hello.wsgi").start();
    for path in ["/missing", "/missing/x", "/dir/missing.wsgi"] {
        assert_eq!(httpd.get(path).status, 404, "{path}");
    }
    // mod_wsgi means 404 as well, but its daemon processes give 500.
    assert_eq!(httpd.get("/empty").status, if httpd.site.theirs() { 500 } else { 404 });
    httpd.ok("/ok");
});

both_test!(exec_cgi_is_needed_without_an_alias, |site| {
    let site = site.modules("alias").config("Alias /files @apps@\n<Directory @apps@>\nSetHandler wsgi-script\n</Directory>");
    let httpd = site.expect_log("DROVER0020|ExecCGI|WSGI01|AH0").start();
    assert_eq!(httpd.get("/files/hello.wsgi").status, 403);
});

both_test!(an_unknown_group_is_500, |site| {
    let httpd = site
        .config("<Location /x>\nWSGIProcessGroup nowhere\n</Location>")
        .allow_log("DROVER0014")
        .app("/", "hello.wsgi")
        .expect_log("DROVER0027|WSGI0151")
        .start();
    assert_eq!(httpd.get("/x").status, 500);
    httpd.ok("/");
});

mpm_test!(a_failed_import_is_503_with_a_traceback, |site| {
    let site = site.script("broken.wsgi", "import no_such_module\n").script("syntax.wsgi", "def application(:\n");
    let group =
        "WSGIDaemonProcess second processes=1 threads=2 python-path=@apps@\n<Location /syntax>\nWSGIProcessGroup second\n</Location>";
    let site = site.config(group).app("/broken", "broken.wsgi").app("/syntax", "syntax.wsgi");
    let site = site.expect_log("ModuleNotFoundError: No module named 'no_such_module'").expect_log("SyntaxError").allow_output();
    let httpd = site.allow_log("DROVER0061|DROVER0065|DROVER0225|DROVER0226|DROVER0227|DROVER0228").start();
    for path in ["/broken", "/syntax"] {
        assert_eq!(httpd.get(path).status, 503, "{path}");
    }
});

mpm_test!(a_mended_script_is_served_again, |site| {
    let site = site.script("a.wsgi", "import no_such_module\n").app("/", "a.wsgi").allow_output().expect_log("ModuleNotFoundError");
    let httpd = site.allow_log("DROVER0061|DROVER0065|DROVER0225|DROVER0226|DROVER0227|DROVER0228").start();
    assert_eq!(httpd.get("/").status, 503);
    httpd.site.write("a.wsgi", "def application(e, s):\n    s('200 OK', [])\n    return [b'mended']\n");
    until("the mended script", || httpd.get("/").text() == "mended");
});

both_test!(a_process_that_dies_is_502, |site| {
    let site = self::site(site)
        .daemon("processes=2 threads=2")
        .expect_log("DROVER0053|WSGI0146|WSGI0147")
        .allow_log("DROVER0059|DROVER0232|WSGI0127|WSGI0146|WSGI0147");
    let site = site.expect_log("DROVER0232*signal 11|AH0005*exit signal Segmentation fault");
    let site = site.expect_log("Fatal Python error: Segmentation fault|AH0005*exit signal Segmentation fault").allow_output();
    let httpd = site.start();
    for method in ["POST", "GET"] {
        assert_eq!(httpd.request(method, "/die").send().status, 502, "{method}");
        until("a process again", || httpd.get("/ok").status == 200);
    }
    for path in ["/os_exit", "/segfault"] {
        assert_eq!(httpd.request("POST", path).send().status, 502, "{path}");
        until("a process again", || httpd.get("/ok").status == 200);
    }
});

mpm_test!(a_death_in_mid_stream_cuts_the_answer, |site| {
    let site = self::site(site).expect_log("DROVER0053|DROVER0066").allow_log("DROVER0232");
    let gate = site.gate("go-on");
    let httpd = site.start();
    let mut answer = httpd.request("GET", "/die_mid_stream").open();
    assert_eq!(answer.piece().expect("piece").expect("block"), b"the first half\n");
    gate.open(1);
    let rest = answer.finish(false);
    assert!(!rest.complete && rest.body.is_empty(), "{rest:?}");
});

mpm_test!(request_timeout_is_504, |site| {
    let site = self::site(site).daemon("processes=1 threads=2 request-timeout=1 shutdown-timeout=1 graceful-timeout=1");
    let site = site.expect_log("DROVER0054").allow_log("DROVER0234|DROVER0235|DROVER0236|DROVER0403").allow_output();
    let (hanging, _go_on) = (site.gate("hanging"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| httpd.get("/hang"));
        hanging.reached();
        assert_eq!(answer.join().expect("thread").status, 504);
    });
    until("served again", || httpd.get("/ok").status == 200);
});

mpm_test!(queue_timeout_is_503_with_retry_after, |site| {
    let site = self::site(site).daemon("processes=1 threads=1 queue-timeout=1").expect_log("DROVER0050");
    let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| httpd.get("/hang"));
        hanging.reached();
        let second = httpd.get("/ok");
        assert_eq!(second.status, 503, "{}", second.text());
        assert!(second.header("Retry-After").is_some_and(|v| v.parse::<u32>().is_ok()), "{:?}", second.headers);
        go_on.open(1);
        assert_eq!(first.join().expect("thread").status, 200);
    });
    httpd.ok("/ok");
});

mpm_test!(clients_that_go_away_are_nobodys_trouble, |site| {
    let site = self::site(site).daemon("processes=1 threads=4");
    let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
    let httpd = site.start();
    for _ in 0..2 {
        let mut conn = httpd.connect();
        conn.send("GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
        hanging.reached();
        conn.reset();
        go_on.open(1);
    }
    let mut half = httpd.connect();
    half.send("GET /ok HTTP/1.1\r\nHost:").expect("send");
    half.reset();
    httpd.ok("/ok");
});
