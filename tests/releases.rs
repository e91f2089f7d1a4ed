//! Deploys that change the configuration: what it names no more does no harm, and commands say who serves.
//!
//! Responsible for: releases in directories of their own, scripts that only requests name, and `drover reload` after `drover stop`. Called
//! by: `main.rs`.
use crate::control::run;
use crate::harness::{Httpd, until};
use crate::lifecycle::{app, change};

const BROKEN: &str = "import not_there\n";

fn renamed(httpd: &mut Httpd, from: &str, to: &str) {
    let config = httpd.site.text().replace(from, to);
    std::fs::write(httpd.site.dir().join("httpd.conf"), config).expect("configuration");
    httpd.graceful();
}

mpm_test!(a_script_that_the_configuration_names_no_more_is_forgotten, |site| {
    let site = site.script("r1.wsgi", &app("one")).script("r2.wsgi", &app("two")).app("/", "r1.wsgi");
    let mut httpd = site.start();
    assert_eq!(httpd.ok("/"), "one");
    change(&httpd.site, "r1.wsgi", BROKEN);
    renamed(&mut httpd, "r1.wsgi", "r2.wsgi");
    until("the new release", || httpd.ok("/") == "two");
    change(&httpd.site, "r2.wsgi", &app("two again"));
    until("an edit of the new release", || httpd.ok("/") == "two again");
    let (ok, said, error) = run(&httpd, &["reload", "app"]);
    assert!(ok && said.contains("new workers serve"), "{said}{error}");
    assert!(!httpd.log().contains("not_there"), "the old release is not even tried");
});

mpm_test!(a_script_that_was_only_requested_holds_nothing_up, |site| {
    let site = site.script("d/bad.wsgi", &app("bad")).script("d/good.wsgi", &app("good")).script("a.wsgi", &app("a"));
    let site =
        site.app("/d/", "d/").app("/", "a.wsgi").allow_log("DROVER0211").allow_output().allow_log("DROVER0221|DROVER0226|DROVER0061");
    let site = site.config("WSGIScriptReloading Off");
    let mut httpd = site.start();
    assert_eq!((httpd.ok("/"), httpd.ok("/d/bad.wsgi"), httpd.ok("/d/good.wsgi")), ("a".into(), "bad".into(), "good".into()));
    change(&httpd.site, "d/bad.wsgi", BROKEN);
    change(&httpd.site, "a.wsgi", &app("a2"));
    let (ok, said, error) = run(&httpd, &["reload", "app"]);
    assert!(ok && said.contains("new workers serve"), "{said}{error}");
    until("the new code", || httpd.ok("/") == "a2");
    assert!(httpd.log().contains("DROVER0211"), "it was tried, and the log says so");
    assert_eq!((httpd.get("/d/bad.wsgi").status, httpd.ok("/d/good.wsgi")), (503, "good".into()));
    // Mended, it is imported with the next request: its failure was of that moment.
    change(&httpd.site, "d/bad.wsgi", &app("mended"));
    until("the mended script", || httpd.get("/d/bad.wsgi").text() == "mended");
    // One that ends the process is not loaded in the next try.
    change(&httpd.site, "d/bad.wsgi", "import os\nos._exit(3)\n");
    change(&httpd.site, "a.wsgi", &app("a3"));
    run(&httpd, &["reload", "app"]);
    until("the newest code", || httpd.ok("/") == "a3");
    httpd.graceful();
    until("no more tries", || run(&httpd, &["status", "app"]).1.contains(": serving"));
});

mpm_test!(a_reload_of_a_stopped_group_does_not_speak_of_old_processes, |site| {
    let site = site.script("a.wsgi", &app("old")).app("/", "a.wsgi").daemon("processes=1 threads=2").config("WSGIScriptReloading Off");
    let site = site.expect_log("DROVER0227").allow_log("DROVER0225|DROVER0061|DROVER0065").allow_output();
    let httpd = site.start();
    httpd.ok("/");
    let (ok, said, _) = run(&httpd, &["stop", "app"]);
    assert!(ok && said.contains("stopped, 1 application group"), "{said}");
    until("no more answers", || httpd.get("/").status == 503);
    change(&httpd.site, "a.wsgi", BROKEN);
    let (ok, _, said) = run(&httpd, &["reload", "app"]);
    assert!(!ok && said.contains("no others serve, requests get 503") && !said.contains("keep serving"), "{said}");
    assert!(run(&httpd, &["status", "app"]).1.contains("application %{GLOBAL}: failing"));
    assert_eq!(httpd.get("/").status, 503);
    assert!(!httpd.log().contains("DROVER0226"), "and neither does the log");
});
