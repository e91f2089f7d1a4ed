//! What a group's user may not read, and an interpreter that cannot run the worker, as the administrator is told of them.
//!
//! Responsible for: the user, the directory and the option being named at `httpd -t`, in the log and by `drover`. Called by: `main.rs`.
use crate::harness::site::is_root;
use crate::harness::{Site, paths};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A directory that only root may enter, with a script and a link to the interpreter.
fn closed(site: &Site) {
    let closed = site.dir().join("closed");
    std::fs::create_dir_all(closed.join("lib")).expect("directory");
    std::fs::create_dir_all(closed.join("bin")).expect("directory");
    std::fs::write(closed.join("a.wsgi"), "").expect("script");
    std::os::unix::fs::symlink(paths::system_python(), closed.join("bin/python3")).expect("link");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).expect("mode");
}

const BARRIER: &str = "user nobody may not enter the directory @dir@/closed (mode 0700, owner root, group 0)";

event_test!(what_the_groups_user_may_not_use_is_told_by_the_check, |site| {
    if !is_root() {
        return; // only root can run a group as somebody else
    }
    let (subject, mpm) = (site.subject, site.mpm);
    let new = || {
        let site = Site::new(subject, mpm, "closed").bare();
        closed(&site);
        site
    };
    for (option, told) in [
        ("home=@dir@/closed/lib", "home=@dir@/closed/lib: "),
        ("python=@dir@/closed/bin/python3", "python=@dir@/closed/bin/python3: "),
        ("python-home=@dir@/closed", "the interpreter of python-home=, @dir@/closed/bin/python3: "),
    ] {
        let site = new().config(&format!("WSGIDaemonProcess x user=nobody group=#65534 {option}"));
        let line = site.text().lines().count();
        site.refused(&[&format!("DROVER0012: WSGIDaemonProcess x: {told}{BARRIER} (@dir@/httpd.conf:{line})")]);
    }
    let site = new().config(
        "WSGIDaemonProcess x user=nobody group=#65534 python-path=@dir@/closed/lib\n\
         WSGIScriptAlias /x @dir@/closed/a.wsgi process-group=x application-group=%{GLOBAL}",
    );
    let (said, line) = (site.accepted(), site.text().lines().count());
    for (told, line) in
        [("WSGIDaemonProcess x: python-path=@dir@/closed/lib: ", line - 1), ("WSGIScriptAlias /x: script @dir@/closed/a.wsgi: ", line)]
    {
        let told = site.fill(&format!("DROVER0014: {told}{BARRIER} (@dir@/httpd.conf:{line})"));
        assert!(said.contains(&told), "no {told:?} in {said}");
    }
});

event_test!(a_group_that_a_section_chooses_is_not_taken_for_the_implicit_one, |site| {
    if !is_root() {
        return; // only root can run a group as somebody else
    }
    // The layout of Flask's documentation, with a script that only the group's user may read.
    let site = site.script("own.wsgi", "def application(e, s):\n    s('200 OK', [])\n    return [b'mine']\n").config(
        "WSGIDaemonProcess own user=nobody group=#65534 threads=2\nWSGIScriptAlias /own @apps@/own.wsgi\n\
         <Directory @apps@>\nWSGIProcessGroup own\nWSGIApplicationGroup %{GLOBAL}\nRequire all granted\n</Directory>",
    );
    let script = site.apps().join("own.wsgi");
    std::os::unix::fs::chown(&script, Some(65534), Some(65534)).expect("owner");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let said = site.accepted();
    assert!(!said.contains("DROVER0014"), "{said}");
    assert_eq!(site.start().ok("/own"), "mine");
});

mpm_test!(a_directory_that_is_closed_while_httpd_runs_is_named_when_a_start_fails, |site| {
    if !is_root() {
        return; // only root can run a group as somebody else
    }
    let home = site.dir().join("closed/lib");
    closed(&site);
    let open = |mode| std::fs::set_permissions(home.parent().expect("parent"), std::fs::Permissions::from_mode(mode)).expect("mode");
    open(0o755);
    let denied = format!(
        "DROVER0220*cannot change directory to {} (home=) as user nobody: Permission denied*{}",
        home.display(),
        site.fill(BARRIER)
    );
    let options = "processes=1 threads=2 user=nobody group=#65534 home=@dir@/closed/lib python-path=@apps@";
    let mut httpd = site.daemon(options).app("/", "hello.wsgi").expect_log(&denied).expect_log("DROVER0226").start();
    httpd.ok("/");
    open(0o700);
    httpd.graceful();
    httpd.wait_log(&denied);
    httpd.ok("/");
});

// An interpreter that says it is Python 3.7, and `drover` about the group that has it.
mpm_test!(an_interpreter_that_is_too_old_is_told_in_one_sentence, |site| {
    let python = paths::system_python().display().to_string();
    let text = format!(
        "#!/bin/sh\nexec {python} -c \"import sys, runpy; sys.version_info = (3, 7, 2, 'final', 0); sys.executable = '@dir@/old'; sys.argv = sys.argv[1:]; \
         runpy.run_path(sys.argv[0], run_name='__main__')\" \"$@\"\n"
    );
    let old = site.dir().join("old");
    std::fs::write(&old, site.fill(&text)).expect("program");
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let sentence = site.fill("python 3.7 at @dir@/old is too old; mod_drover needs 3.9 or newer");
    let site = site.daemon("processes=1 threads=2 python=@dir@/old").app("/", "hello.wsgi");
    let httpd = site.expect_log(&format!("DROVER0227*{sentence}")).allow_log("DROVER0221|DROVER0065|too old").start();
    assert_eq!(httpd.get("/").status, 503);
    let drover = |command: &str| {
        let mut ask = Command::new(paths::prefix().join("bin/drover"));
        let output = ask.args([command, "--socket"]).arg(httpd.site.dir().join("run/drover.sock")).arg("app").output().expect("drover");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    for command in ["status", "reload"] {
        let said = drover(command);
        assert!(said.contains(&sentence), "drover {command}: {said}");
    }
});

event_test!(an_interpreter_whose_name_says_that_it_is_too_old_is_refused_by_the_check, |site| {
    for name in ["python2.7", "python3.8"] {
        let program = site.dir().join(name);
        std::fs::write(&program, "#!/bin/sh\n").expect("program");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
        let home = site.dir().join(format!("{name}-home/bin"));
        std::fs::create_dir_all(&home).expect("directory");
        std::os::unix::fs::symlink(&program, home.join("python3")).expect("link");
        let (subject, mpm) = (site.subject, site.mpm);
        let version = name.trim_start_matches("python");
        let new =
            Site::new(subject, mpm, "old").config(&format!("WSGIDaemonProcess x python-home={}", home.parent().expect("home").display()));
        new.refused(&[&format!("python {version} at {}/python3 is too old; mod_drover needs 3.9 or newer (", home.display())]);
    }
});
