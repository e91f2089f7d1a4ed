//! Which line ends in which log.
//!
//! Responsible for: that nothing an application writes is lost, and that it stands where its administrator looks. Called by: `main.rs`.
use crate::harness::{Httpd, Site, log, until};

fn site(site: Site) -> Site {
    let host =
        "<VirtualHost *:@port@>\nServerName shop.example\nErrorLog @logs@/shop.log\nWSGIScriptAlias / @apps@/log.wsgi\n</VirtualHost>";
    site.config(host).allow_output()
}

#[track_caller]
fn waits_for(httpd: &Httpd, file: &str, text: &str) -> String {
    until(&format!("{text:?} in {file}"), || httpd.logs().file(file).contains(text));
    httpd.logs().file(file).lines().find(|l| l.contains(text)).expect("line").to_string()
}

both_test!(wsgi_errors_go_to_the_log_of_the_virtual_host, |site| {
    let httpd = self::site(site).start();
    httpd.ok("/errors");
    for text in ["to wsgi.errors: caf", "one line", "printed to wsgi.errors"] {
        let line = waits_for(&httpd, "shop.log", text);
        assert_eq!(log::level(&line), Some("error"), "{line}");
        assert!(line.contains("[wsgi:") && line.contains("127.0.0.1"), "{line}");
    }
    httpd.ok("/partial");
    waits_for(&httpd, "shop.log", "a line without its end");
    httpd.ok("/log");
    waits_for(&httpd, "shop.log", "logging says a warning");
});

both_test!(text_is_data_and_not_a_format, |site| {
    let httpd = self::site(site).start();
    httpd.ok("/format");
    waits_for(&httpd, "shop.log", "%s%n%d");
    if !httpd.site.theirs() {
        // mod_wsgi cuts a line after 8 KB.
        httpd.ok("/long");
        waits_for(&httpd, "shop.log", "end of the long line");
    }
});

both_test!(print_is_not_lost, |site| {
    let httpd = self::site(site).start();
    for path in ["/stdout", "/stderr"] {
        httpd.ok(path);
    }
    until("both lines", || httpd.log().contains("printed to stdout") && httpd.log().contains("printed to stderr"));
});

mpm_test!(stray_output_has_the_groups_name, |site| {
    let httpd = self::site(site).start();
    httpd.ok("/raw");
    for n in [1, 2] {
        let line = waits_for(&httpd, "error.log", &format!("raw on descriptor {n}"));
        assert!(line.contains("app") && log::level(&line).is_some(), "{line}");
    }
});

mpm_test!(a_crash_loses_no_line, |site| {
    let httpd = self::site(site).expect_log("DROVER0053").allow_log("DROVER0232*exited with status 9").start();
    assert_eq!(httpd.request("POST", "/crash").send().status, 502);
    until("the last line", || httpd.log().contains("the last line before the crash"));
    for i in 0..200 {
        assert!(httpd.log().contains(&format!("line {i} before the crash")), "line {i} is lost");
    }
});

// mod_wsgi takes the virtual host by its address, so name-based hosts share the log of the first.
mpm_test!(each_request_has_its_own_log, |site| {
    let second =
        "<VirtualHost *:@port@>\nServerName wiki.example\nErrorLog @logs@/wiki.log\nWSGIScriptAlias / @apps@/log.wsgi\n</VirtualHost>";
    let httpd = self::site(site).config(second).start();
    let ask = |host: &str| httpd.request("GET", "/errors").header("Host", host).send();
    ask("wiki.example");
    waits_for(&httpd, "wiki.log", "to wsgi.errors");
    assert!(!httpd.logs().file("shop.log").contains("to wsgi.errors"));
    ask("shop.example");
    waits_for(&httpd, "shop.log", "to wsgi.errors");
    assert_eq!(httpd.logs().file("wiki.log").matches("] to wsgi.errors").count(), 1);
});

both_test!(a_traceback_is_in_the_log_of_its_virtual_host, |site| {
    let host = "<VirtualHost *:@port@>\nServerName f.example\nErrorLog @logs@/f.log\nWSGIScriptAlias / @apps@/fail.wsgi\n</VirtualHost>";
    let httpd = site.config(host).expect_log("ValueError: thrown on purpose").allow_log("DROVER0060|WSGI0174").allow_output().start();
    assert_eq!(httpd.get("/exception").status, 500);
    waits_for(&httpd, "f.log", "ValueError: thrown on purpose");
    if !httpd.site.theirs() {
        waits_for(&httpd, "f.log", "Traceback (most recent call last)");
        waits_for(&httpd, "f.log", "fail.wsgi\", line");
    }
});

/// Exceptions with a traceback longer than any message: each is the cause of the next.
const DEEP: &str = "import mod_drover\n\
    def deep(n):\n    try:\n        raise KeyError('the first cause') if n == 0 else deep(n - 1)\n    except Exception as e:\n        \
    raise ValueError('a cause, number %d' % n) from e\n\
    def last():\n    try:\n        deep(900)\n    except Exception as e:\n        raise RuntimeError('the reason at the end') from e\n";

mpm_test!(of_a_long_traceback_the_end_is_kept_and_the_cut_is_told, |bare| {
    let hook = format!("import sys\nsys.setrecursionlimit(20000)\n{DEEP}mod_drover.after_fork(last)\n");
    let import = format!("import sys\nsys.setrecursionlimit(20000)\n{DEEP}last()\n");
    let text = "WSGIDaemonProcess hook processes=1 threads=1\nWSGIDaemonProcess import processes=1 threads=1\n\
        WSGIScriptAlias /hook @apps@/hook.wsgi process-group=hook application-group=%{GLOBAL}\n\
        WSGIScriptAlias /import @apps@/import.wsgi process-group=import application-group=%{GLOBAL}\n";
    let site = bare.bare().config(text).script("hook.wsgi", &hook).script("import.wsgi", &import).allow_output();
    let httpd = site.allow_log("DROVER02*|DROVER00*").start();
    for group in ["hook", "import"] {
        assert!(httpd.get(&format!("/{group}")).status >= 500);
        let line = |what: &str| httpd.log().lines().any(|l| l.contains(&format!("(group '{group}')")) && l.contains(what));
        until("the reason", || line("RuntimeError: the reason at the end"));
        assert!(line("bytes are cut]") && line("a cause, number 900"), "{group}");
        assert!(!line("KeyError: 'the first cause'"), "{group}: nothing was cut, so nothing was tested");
    }
});

mpm_test!(a_line_that_httpd_escapes_is_whole, |site| {
    let script = "def application(environ, start_response):\n    environ['wsgi.errors'].write('\\u0436' * 5000 + ' the end of the line\\n')\n    \
        start_response('200 OK', [])\n    return [b'']\n";
    let httpd = site.script("wide.wsgi", script).app("/", "wide.wsgi").allow_output().start();
    httpd.ok("/");
    waits_for(&httpd, "error.log", "the end of the line");
    let whole = httpd.log().matches("\\xd0\\xb6").count();
    assert_eq!(whole, 5000, "each character came");
});
