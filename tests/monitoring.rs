//! `drover status --check`, `--json`, `drover reload --all`: for scripts and monitoring.
//!
//! Responsible for: exit statuses and names that programs rely on. Called by: `main.rs`.
use crate::control::{drover, run};
use crate::harness::{Httpd, Mpm, Site, Subject, paths, until};
use crate::lifecycle::{app, change};
use std::process::{Command, Output};

/// The exit status of a command, and what it prints.
fn told(httpd: &Httpd, arguments: &[&str]) -> (Option<i32>, String) {
    let output = drover(httpd, arguments).output().expect("drover");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

mpm_test!(check_has_an_exit_status_for_each_state, |site| {
    let site = site.script("a.wsgi", &app("old")).app("/", "a.wsgi").daemon("processes=1 threads=2").config("WSGIScriptReloading Off");
    let httpd = site.expect_log("DROVER0226").allow_log("DROVER0225|Traceback|  File \"|RuntimeError|    ").start();
    httpd.ok("/");
    until("all serve", || told(&httpd, &["status", "--check"]).0 == Some(0));
    let (_, line) = told(&httpd, &["status", "--check"]);
    assert!(line.starts_with("ok: ") && line.lines().count() == 1, "{line}");
    assert_eq!(told(&httpd, &["status", "app", "--check"]).0, Some(0));
    change(&httpd.site, "a.wsgi", "raise RuntimeError('on purpose')\n");
    assert_eq!(told(&httpd, &["reload", "app"]).0, Some(1));
    let (status, line) = told(&httpd, &["status", "--check"]);
    assert_eq!(status, Some(1), "{line}");
    assert!(line.starts_with("not ok: group 'app', application %{GLOBAL}: serving (new code cannot start): ") && line.lines().count() == 1);
    assert!(line.contains("RuntimeError: on purpose"), "{line}");
    let (status, json) = told(&httpd, &["status", "app", "--check", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((status, all["groups"][0]["applications"][0]["state"].as_str()), (Some(1), Some("serving-old-code")), "{json}");
    change(&httpd.site, "a.wsgi", &app("new"));
    assert_eq!(told(&httpd, &["reload", "app"]).0, Some(0));
    until("all serve", || told(&httpd, &["status", "--check"]).0 == Some(0));
    assert_eq!(told(&httpd, &["stop", "app"]).0, Some(0));
    let (status, line) = told(&httpd, &["status", "--check"]);
    assert!(status == Some(1) && line.contains("group 'app': stopped by an administrator"), "{line}");
    let (status, line) = told(&httpd, &["status", "nobody", "--check"]);
    assert!(status == Some(2) && line.contains("no group 'nobody'") && line.contains("app"), "{line}");
    let absent = Command::new(paths::drover()).args(["status", "--check", "--socket", "/nowhere/drover.sock"]).output().expect("drover");
    assert!(
        absent.status.code() == Some(3) && absent.stdout.starts_with(b"unknown: /nowhere/drover.sock: no server listens"),
        "{absent:?}"
    );
    let wrong = Command::new(paths::drover()).args(["status", "--chek"]).output().expect("drover");
    assert_eq!(wrong.status.code(), Some(2));
});

mpm_test!(reload_all_leaves_stopped_groups_alone, |site| {
    let site = site.daemon("processes=1 threads=2").app("/", "process.wsgi");
    let site = site.config(
        "WSGIDaemonProcess b threads=2\n<Location /b>\nWSGIProcessGroup b\n</Location>\n\
         WSGIDaemonProcess c threads=2\n<Location /c>\nWSGIProcessGroup c\n</Location>",
    );
    let httpd = site.expect_log("DROVER0065*stopped by an administrator").start();
    let pid = |url: &str| httpd.get(url).json()["pid"].clone();
    let (a, b) = (pid("/"), pid("/b"));
    httpd.ok("/c");
    assert!(run(&httpd, &["stop", "c"]).0);
    let (ok, said, complaint) = run(&httpd, &["reload", "--all"]);
    assert!(ok, "{complaint}");
    for line in ["group 'app': new workers serve", "group 'b': new workers serve", "group 'c': stopped by an administrator"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    until("new processes", || pid("/") != a && pid("/b") != b);
    until("the stopped one stays so", || httpd.get("/c").status == 503);
});

mpm_test!(a_command_without_its_group_names_the_groups, |site| {
    let httpd = site.daemon("processes=1 threads=2").app("/", "process.wsgi").config("WSGIDaemonProcess spare").start();
    httpd.ok("/");
    for (arguments, part) in [
        (vec!["reload"], "drover reload: which group? This server has app, default, spare; --all reloads each"),
        (vec!["stop"], "drover stop: which group? This server has app, default, spare"),
        (vec!["reload", "shop"], "no group 'shop' that you may see or control, only app, default, spare"),
    ] {
        let output = drover(&httpd, &arguments).output().expect("drover");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(part), "{arguments:?}: {output:?}");
    }
    let Output { status, stderr, .. } = Command::new(paths::drover()).args(["stop", "--socket", "/nowhere"]).output().expect("drover");
    assert!(status.code() == Some(2) && String::from_utf8_lossy(&stderr).contains("which group? drover status lists them"), "{stderr:?}");
});

event_test!(a_second_server_is_found_and_named, |site| {
    let at = |site: Site| {
        std::fs::create_dir_all(site.dir().join("lasting/of")).expect("directory");
        site.app("/", "hello.wsgi").config("DroverControlSocket @dir@/lasting/of/drover.sock")
    };
    let one = at(site).start();
    let other = at(Site::new(Subject::Ours, Mpm::Event, module_path!())).start();
    for httpd in [&one, &other] {
        httpd.ok("/");
    }
    for arguments in [["status"], ["reload"]] {
        let output = Command::new(paths::drover()).args(arguments).output().expect("drover");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        if arguments == ["reload"] {
            continue;
        }
        for httpd in [&one, &other] {
            let socket = httpd.site.dir().join("lasting/of/drover.sock");
            let line = format!("--socket {} (httpd, process {})", socket.display(), httpd.pid());
            assert!(said.contains("servers run here; choose one:") && said.contains(&line), "{line}: {said}");
        }
    }
});
