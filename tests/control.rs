//! `drover status|reload|stop` on a running server.
//!
//! Responsible for: what an administrator sees and steers through the control socket, and who may. Called by: `main.rs`.
use crate::harness::{Httpd, Site, paths, until};
use crate::lifecycle::{app, change};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

/// `drover` with these arguments, for this server.
pub fn drover(httpd: &Httpd, arguments: &[&str]) -> Command {
    let mut command = Command::new(paths::drover());
    command.args(arguments).arg("--socket").arg(httpd.site.dir().join("run/drover.sock")).current_dir("/");
    command
}

/// Whether `drover` with these arguments succeeds, what it prints, and what it complains of.
pub fn run(httpd: &Httpd, arguments: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } = drover(httpd, arguments).output().expect("drover");
    (status.success(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

fn status(httpd: &Httpd) -> Value {
    let (ok, text, said) = run(httpd, &["status", "--json"]);
    assert!(ok, "{said}");
    serde_json::from_str(&text).expect("JSON")
}

fn site(site: Site) -> Site {
    site.daemon("processes=2 threads=2").app("/", "process.wsgi")
}

mpm_test!(status_shows_groups_and_processes, |site| {
    let mut httpd = self::site(site).config("WSGIDaemonProcess spare threads=3").start();
    httpd.ok("/");
    until("both workers", || status(&httpd)["groups"][0]["applications"][0]["workers"].as_array().is_some_and(|w| w.len() == 2));
    until("the request", || {
        let all = status(&httpd);
        let workers = all["groups"][0]["applications"][0]["workers"].as_array().expect("workers").clone();
        workers.iter().any(|w| w["requests"] == 1 && w["state"] == "serving" && w["memory"].as_u64() > Some(1 << 20))
    });
    let all = status(&httpd);
    assert_eq!(all["httpd"], httpd.pid());
    assert_eq!(all["droverd"], httpd.droverd().pid);
    let names: Vec<_> = all["groups"].as_array().expect("groups").iter().map(|g| g["name"].as_str().expect("name").to_owned()).collect();
    assert_eq!(names, ["app", "default", "spare"]);
    let (_, table, _) = run(&httpd, &["status", "app"]);
    assert!(table.contains("group app: processes=2 threads=2") && table.contains("application %{GLOBAL}: serving"), "{table}");
    let (ok, _, said) = run(&httpd, &["status", "nobody"]);
    assert!(!ok && said.contains("no group 'nobody'"), "{said}");
    httpd.graceful();
    until("another generation", || status(&httpd)["groups"][0]["applications"][0]["generation"] == 2);
});

mpm_test!(reload_gives_new_processes, |site| {
    let httpd = self::site(site).start();
    let before = httpd.get("/").json()["pid"].clone();
    let (ok, said, _) = run(&httpd, &["reload", "app"]);
    assert!(ok && said.contains("1 application group"), "{said}");
    until("a new process", || httpd.get("/").json()["pid"] != before);
    let (ok, _, said) = run(&httpd, &["reload", "nobody"]);
    assert!(!ok && said.contains("no group 'nobody'"), "{said}");
});

mpm_test!(a_stopped_group_is_503_until_it_is_reloaded, |site| {
    let site = self::site(site).config("WSGIDaemonProcess other threads=2\n<Location /other>\nWSGIProcessGroup other\n</Location>");
    let mut httpd = site.expect_log("DROVER0065*stopped by an administrator").start();
    httpd.ok("/");
    assert!(run(&httpd, &["stop", "app"]).0);
    // A process may still take a request in the moment before it hears that it should go.
    until("no more answers", || httpd.get("/").status == 503);
    let refused = httpd.get("/");
    assert_eq!(refused.status, 503);
    assert!(refused.header("Retry-After").is_some());
    httpd.ok("/other");
    until("no worker of the group", || status(&httpd)["groups"][0]["applications"][0]["workers"] == serde_json::json!([]));
    assert_eq!(status(&httpd)["groups"][0]["applications"][0]["state"], "halted");
    let (_, table, _) = run(&httpd, &["status", "app"]);
    assert!(table.contains("application %{GLOBAL}: halted") && !table.contains("failed"), "{table}");
    assert!(run(&httpd, &["reload", "app"]).0);
    httpd.ok("/");
    assert!(httpd.log().contains("DROVER0270"));
    assert!(run(&httpd, &["stop", "app"]).0);
    until("no more answers", || httpd.get("/").status == 503);
    httpd.graceful();
    until("answers after graceful", || httpd.get("/").status == 200);
});

mpm_test!(reload_says_what_is_wrong_with_the_new_code, |site| {
    let site = site.script("a.wsgi", &app("old")).app("/", "a.wsgi").daemon("processes=2 threads=2").config("WSGIScriptReloading Off");
    let httpd = site.expect_log("DROVER0226").allow_log("DROVER0225|Traceback|  File \"|RuntimeError|    ").start();
    httpd.ok("/");
    change(&httpd.site, "a.wsgi", "raise RuntimeError('on purpose')\n");
    let (ok, _, said) = run(&httpd, &["reload", "app"]);
    assert!(!ok && said.contains("keep serving") && said.matches("RuntimeError: on purpose").count() == 1, "{said}");
    assert_eq!(httpd.ok("/"), "old");
    let (_, table, _) = run(&httpd, &["status", "app"]);
    assert!(table.contains("serving (new code cannot start)"), "{table}");
    change(&httpd.site, "a.wsgi", &app("new"));
    assert!(run(&httpd, &["reload", "app"]).0);
    // An old process that has not read yet that it is to go may take one more request.
    until("the new code", || httpd.ok("/") == "new");
});

mpm_test!(a_group_is_stopped_before_its_first_request, |site| {
    let site = self::site(site).config("WSGIDaemonProcess later threads=2\n<Location /later>\nWSGIProcessGroup later\n</Location>");
    let httpd = site.expect_log("DROVER0065*stopped by an administrator").start();
    httpd.ok("/");
    let (ok, said, _) = run(&httpd, &["stop", "later"]);
    assert!(ok && said.contains("stopped; the group had no workers"), "{said}");
    assert!(run(&httpd, &["status", "later"]).1.contains("stopped by an administrator"));
    assert_eq!(httpd.get("/later").status, 503);
    let (ok, said, _) = run(&httpd, &["reload", "later"]);
    assert!(ok && said.contains("new workers serve"), "{said}");
    httpd.ok("/later");
});

mpm_test!(only_root_and_the_groups_user_may, |site| {
    if !crate::harness::site::is_root() {
        // Another user cannot be had without root; the rule for the own user is what the other tests go by.
        return;
    }
    let httpd = self::site(site).config("WSGIDaemonProcess theirs user=nobody threads=2").start();
    let uid = |name: &str| {
        let passwd = std::fs::read_to_string("/etc/passwd").expect("passwd");
        let line = passwd.lines().find(|l| l.starts_with(&format!("{name}:"))).expect("user").to_owned();
        line.split(':').nth(2).expect("uid").parse::<u32>().expect("number")
    };
    let output = drover(&httpd, &["status", "--json"]).uid(uid("nobody")).output().expect("drover");
    let seen: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(seen["groups"].as_array().expect("groups").len(), 1);
    assert_eq!(seen["groups"][0]["name"], "theirs");
    let output = drover(&httpd, &["status"]).uid(uid("daemon")).output().expect("drover");
    assert!(String::from_utf8_lossy(&output.stdout).contains("no group that you may see"), "{output:?}");
    for arguments in [["reload", "app"], ["stop", "app"]] {
        let output = drover(&httpd, &arguments).uid(uid("nobody")).output().expect("drover");
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no group 'app' that you may"), "{output:?}");
    }
    let output = drover(&httpd, &["reload", "theirs"]).uid(uid("nobody")).output().expect("drover");
    assert!(output.status.success(), "{output:?}");
});

mpm_test!(the_socket_can_be_moved_and_left_out, |site| {
    let mut httpd = self::site(site).config("DroverControlSocket @dir@/run/other.sock").start();
    httpd.ok("/");
    let ask = |httpd: &Httpd, name: &str| {
        let socket = httpd.site.dir().join("run").join(name);
        Command::new(paths::drover()).arg("status").arg("--socket").arg(socket).output().expect("drover")
    };
    assert!(ask(&httpd, "other.sock").status.success());
    let nobody = ask(&httpd, "drover.sock");
    assert!(!nobody.status.success() && String::from_utf8_lossy(&nobody.stderr).contains("no server listens"), "{nobody:?}");
    let config = httpd.site.text().replace("run/other.sock", "run/third.sock");
    std::fs::write(httpd.site.dir().join("httpd.conf"), config).expect("configuration");
    httpd.graceful();
    until("the other place", || ask(&httpd, "third.sock").status.success());
    assert!(!ask(&httpd, "other.sock").status.success());
    let config = httpd.site.text();
    let line = config.lines().find(|l| l.starts_with("DroverControlSocket")).expect("line").to_owned();
    std::fs::write(httpd.site.dir().join("httpd.conf"), config.replace(&line, "DroverControlSocket off")).expect("configuration");
    httpd.graceful();
    until("no socket", || !ask(&httpd, "third.sock").status.success());
    httpd.ok("/");
});

event_test!(a_socket_that_others_can_replace_is_told_at_t, |site| {
    use std::os::unix::fs::PermissionsExt;
    let open = site.dir().join("open");
    std::fs::create_dir(&open).expect("directory");
    let site = self::site(site).config("DroverControlSocket @dir@/open/drover.sock");
    for (mode, told) in [(0o755, false), (0o777, true), (0o1777, true)] {
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(mode)).expect("mode");
        let said = site.accepted();
        let expected = format!("other users can write to the directory {} (its mode is {mode:04o})", open.display());
        assert_eq!(said.contains(&expected), told, "{said}");
    }
});
