//! New code that cannot be started.
//!
//! Responsible for: the old code serving on whatever is wrong with the new one, the reason being told, and 503 at once when there is
//! nothing old. Called by: `main.rs`.
use crate::harness::{Httpd, until};
use crate::lifecycle::{app, change, under_load};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A start that failed, in droverd's words.
const FAILED: &str = "DROVER0220|DROVER0221|DROVER0225|DROVER0226|DROVER0227|DROVER0228";

fn status(httpd: &Httpd) -> String {
    crate::control::run(httpd, &["status"]).1
}

/// What is wrong with the new code, and what of it must stand in the log and in the status.
const BAD: [(&str, &str); 6] = [
    ("x = 1\n", "has no callable 'application'"),
    ("def application(:\n", "SyntaxError"),
    ("import no_such_module\n", "No module named 'no_such_module'"),
    ("raise RuntimeError('on purpose')\n", "RuntimeError: on purpose"),
    ("import os\nos._exit(9)\n", "exited with status 9 before it was ready"),
    ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "was killed by signal 9 before it was ready"),
];

mpm_test!(graceful_with_broken_code_leaves_the_old_serving, |site| {
    let site = site.script("a.wsgi", &app("old")).app("/", "a.wsgi").daemon("processes=2 threads=2");
    let site = site.config("WSGIScriptReloading Off").allow_output().allow_log(FAILED);
    let mut httpd = site.start();
    httpd.ok("/");
    for (code, reason) in BAD {
        let (good, bad) = under_load(&mut httpd, 2, |httpd| {
            change(&httpd.site, "a.wsgi", code);
            httpd.graceful();
            until(reason, || status(httpd).contains(reason));
            assert_eq!(httpd.ok("/"), "old");
        });
        assert!(bad.is_empty(), "{reason}: {good} good, {} lost: {bad:?}", bad.len());
        assert!(httpd.log().contains(reason), "{reason}");
    }
    change(&httpd.site, "a.wsgi", &app("new"));
    httpd.graceful();
    until("the new code", || httpd.ok("/") == "new");
    until("nothing to complain of", || !status(&httpd).contains("the last start failed"));
});

mpm_test!(a_script_that_the_groups_user_may_not_read, |site| {
    if !crate::harness::site::is_root() {
        return; // user= has no effect then
    }
    let site = site.script("a.wsgi", &app("secret")).app("/", "a.wsgi").daemon("processes=1 threads=2 user=nobody");
    std::fs::set_permissions(site.apps().join("a.wsgi"), std::fs::Permissions::from_mode(0o600)).expect("chmod");
    let site = site
        .expect_log("DROVER0227*user nobody may not read")
        .allow_output()
        .allow_log("DROVER0014: WSGIScriptAlias|DROVER0225|DROVER0061");
    let httpd = site.start();
    assert_eq!(httpd.get("/").status, 503);
    until("the state", || status(&httpd).contains(": failing"));
});

mpm_test!(code_that_hangs_beyond_startup_timeout, |site| {
    let site = site.script("a.wsgi", &app("old")).app("/", "a.wsgi").daemon("processes=1 threads=2 startup-timeout=1 shutdown-timeout=1");
    let site = site.config("WSGIScriptReloading Off").allow_log(FAILED).allow_output().allow_log("DROVER0222|DROVER0236|DROVER0403");
    let mut httpd = site.start();
    httpd.ok("/");
    change(&httpd.site, "a.wsgi", "import time\ntime.sleep(3600)\n");
    httpd.graceful();
    until("the failure", || status(&httpd).contains("startup-timeout"));
    assert_eq!(httpd.ok("/"), "old");
    until("the stacks", || httpd.log().contains("a.wsgi\", line 2"));
});

mpm_test!(a_virtualenv_that_is_gone, |site| {
    let site = site.script("a.wsgi", &app("served")).app("/", "a.wsgi").bare();
    let venv = site.dir().join("venv");
    let python = Command::new("/usr/bin/python3").args(["-m", "venv", "--without-pip"]).arg(&venv).status().expect("python3");
    assert!(python.success());
    let site = site.config("WSGIDaemonProcess app python-home=@dir@/venv threads=2\nWSGIProcessGroup app\nWSGIApplicationGroup %{GLOBAL}");
    let mut httpd = site.allow_log(FAILED).start();
    httpd.ok("/");
    let away = httpd.site.dir().join("away");
    std::fs::rename(&venv, &away).expect("rename");
    httpd.graceful();
    until("the failure", || status(&httpd).contains("venv/bin/python3"));
    httpd.ok("/");
    std::fs::rename(&away, &venv).expect("rename");
    httpd.graceful();
    until("the new generation", || httpd.log().matches("DROVER0231").count() == 2 && !status(&httpd).contains("start failed"));
    httpd.ok("/");
});

mpm_test!(with_nothing_old_503_at_once_and_no_storm, |site| {
    let site = site.script("a.wsgi", "import no_such_module\n").app("/", "a.wsgi").daemon("processes=4 threads=2");
    let site = site.expect_log("No module named 'no_such_module'").allow_output().allow_log(FAILED).allow_log("DROVER0061*no_such_module");
    let httpd = site.config("WSGIScriptReloading Off").start();
    until("the failure", || status(&httpd).contains("next attempt in"));
    for _ in 0..20 {
        let answer = httpd.get("/");
        assert_eq!(answer.status, 503);
        assert!(answer.header("Retry-After").is_some_and(|v| v.parse::<u32>().is_ok()));
    }
    let starts = httpd.log().matches(" is ready (generation ").count();
    assert!(starts < 10, "{starts} starts");
});

mpm_test!(a_touched_script_is_tried_at_once, |site| {
    let site = site.script("a.wsgi", "import os\nos._exit(9)\n").app("/", "a.wsgi").allow_log(FAILED).allow_log("DROVER0065");
    let httpd = site.start();
    // The pauses between tries grow; after a few of them nothing would be tried for a long time.
    until("some tries", || httpd.get("/").status == 503 && httpd.log().matches("exited with status 9").count() >= 3);
    change(&httpd.site, "a.wsgi", &app("mended"));
    assert_eq!(httpd.ok("/"), "mended", "the very request that shows the change is answered by the new code");
});
