//! What the log tells of failures: who died with what, that it is over, and nothing twice.
//!
//! Responsible for: an administrator finding the request that killed a worker, and the end of what was reported. Called by: `main.rs`.
use crate::harness::until;
use crate::lifecycle::{app, change};

mpm_test!(a_dead_worker_and_its_requests_name_each_other, |site| {
    let crash = "import os\ndef application(e, s):\n    if e['PATH_INFO'].startswith('/crash'):\n        \
                 os.abort()\n    s('200 OK', [('X-Pid', str(os.getpid()))])\n    return [b'ok']\n";
    let site = site.script("a.wsgi", crash).app("/", "a.wsgi").daemon("processes=1 threads=2").modules("unique_id");
    let site =
        site.expect_log("DROVER0232*was killed by signal 6*(it ran POST /crash/here ").expect_log("DROVER0053").expect_log("DROVER0059");
    let site = site.expect_log("Fatal Python error: Aborted").expect_log("DROVER0232*was killed by signal 6*(it ran GET /crash%1b ");
    let httpd = site.allow_output().start();
    let pid = |httpd: &crate::harness::Httpd| httpd.get("/").header("X-Pid").expect("pid").to_owned();
    let first = pid(&httpd);
    assert_eq!(httpd.request("POST", "/crash/here?secret=1").send().status, 502);
    until("both lines", || httpd.log().contains("DROVER0232") && httpd.log().contains("DROVER0053"));
    let log = httpd.log();
    let line = |code: &str| log.lines().rfind(|l| l.contains(code)).expect("line").to_owned();
    assert!(line("DROVER0053").contains(&format!("worker {first} exited while it ran the request")), "{}", line("DROVER0053"));
    assert!(line("DROVER0053").contains("POST /crash/here ") && line("DROVER0232").contains(&format!("worker {first} ")));
    let id = |line: String| line.split("/crash/here ").nth(1).expect("id")[..24].to_owned();
    assert_eq!(id(line("DROVER0053")), id(line("DROVER0232")), "mod_unique_id's");
    assert!(!log.contains("secret"), "no query");
    // One that may run twice, and kills both: each line has its own worker.
    until("a new worker", || httpd.get("/").status == 200);
    let second = pid(&httpd);
    assert_eq!(httpd.get("/crash%1b").status, 502);
    let log = httpd.log();
    let line = |code: &str| log.lines().rfind(|l| l.contains(code)).expect("line").to_owned();
    assert!(line("DROVER0059").contains(&format!("worker {second} exited before it responded")), "{}", line("DROVER0059"));
    assert!(
        line("DROVER0053").contains("worker ") && !line("DROVER0053").contains(&format!("worker {second} exited")),
        "{}",
        line("DROVER0053")
    );
    until("both deaths", || httpd.log().matches("DROVER0232").count() == 3);
    let named = |line: &&str| line.contains("DROVER0232") && line.contains("(it ran GET /crash%1b ");
    assert_eq!(httpd.log().lines().filter(named).count(), 2, "{}", httpd.log());
});

mpm_test!(a_recovery_is_told_whatever_the_log_level, |site| {
    let site = site.script("a.wsgi", &app("one")).app("/", "a.wsgi").config("LogLevel warn").allow_output();
    let site = site
        .expect_log("DROVER0225")
        .allow_log("DROVER0226")
        .expect_log("DROVER0226*same failure as before")
        .expect_log("DROVER0214*serving again after");
    let httpd = site.start();
    assert_eq!(httpd.ok("/"), "one");
    change(&httpd.site, "a.wsgi", "import not_there\n");
    until("the failure, and a second one", || {
        assert_eq!(httpd.ok("/"), "one");
        httpd.log().contains("same failure as before, 2 attempts")
    });
    let log = httpd.log();
    assert_eq!(log.matches("DROVER0225").count(), 1, "the traceback stands there once");
    assert!(!log.contains("DROVER0214"));
    change(&httpd.site, "a.wsgi", &app("two"));
    until("the new code", || httpd.ok("/") == "two");
    until("the end of it", || httpd.log().contains("not_there") && httpd.log().contains("DROVER0214"));
});
