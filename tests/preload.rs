//! `preload=On`: one process imports the application, the others are forked from it.
//!
//! Responsible for: the import being done once for a generation, the hooks, the deaths, and what a forked process has and has not.
//! Called by: `main.rs`.
use crate::harness::{Httpd, Site, processes, until};
use crate::lifecycle::{change, under_load};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};

/// Writes a line to a file for each import and each call of a hook, and answers with what it knows of its process.
const APP: &str = r#"
import json, os, random, sys, threading
import mod_drover

VERSION = "@version@"

def note(what):
    with open("@dir@/notes/notes", "a") as f:
        f.write(f"{what} {os.getpid()} {VERSION}\n")

note("import")
IMPORTED_BY = os.getpid()
RANDOM = random.random()
HOOKS = []

@mod_drover.before_fork
def first():
    note("before-1")
    HOOKS.append("before-1")

@mod_drover.before_fork
def second():
    note("before-2")
    HOOKS.append("before-2")

@mod_drover.after_fork
def third():
    note("after-1")
    HOOKS.append("after-1")

@mod_drover.after_fork
def fourth():
    note("after-2")
    HOOKS.append("after-2")

def links():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[int(fd)] = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            pass
    return found

def application(environ, start_response):
    answer = {
        "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp(), "import": IMPORTED_BY, "random": random.random(),
        "hooks": HOOKS, "version": VERSION, "links": links(), "umask": os.umask(0o22), "cwd": os.getcwd(),
        "threads": [t.name for t in threading.enumerate()], "main": threading.main_thread() is threading.enumerate()[0],
    }
    print("printed by", os.getpid())
    sys.stdout.flush()
    if environ["PATH_INFO"].startswith("/hang"):
        import gate
        gate.reach("hanging")
        gate.wait("go-on")
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Pid", str(os.getpid()))])
    return [json.dumps(answer).encode()]
"#;

fn app(version: &str) -> String {
    APP.replace("@version@", version)
}

/// A site with the application above.
fn site(site: Site, options: &str) -> Site {
    let notes = site.dir().join("notes");
    std::fs::create_dir(&notes).expect("directory");
    std::fs::set_permissions(&notes, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("mode");
    let site = site.script("a.wsgi", &app("one"));
    site.daemon(&format!("preload=On {options}")).app("/", "a.wsgi")
}

/// What was noted: what, by which process.
fn notes(httpd: &Httpd) -> Vec<(String, i32)> {
    let text = std::fs::read_to_string(httpd.site.dir().join("notes/notes")).unwrap_or_default();
    let note = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(note).collect()
}

fn imports(httpd: &Httpd) -> Vec<i32> {
    notes(httpd).into_iter().filter(|(what, _)| what == "import").map(|(_, pid)| pid).collect()
}

/// Process ids in lines with this code, in their order.
fn logged(httpd: &Httpd, code: &str, word: &str) -> Vec<i32> {
    let mark = format!("{word} ");
    let pid = |line: &str| line.split_once(code)?.1.split_once(&mark)?.1.split(' ').next()?.parse().ok();
    httpd.log().lines().filter_map(pid).collect()
}

/// Workers that have come up, in order.
fn workers(httpd: &Httpd) -> Vec<i32> {
    logged(httpd, "DROVER0230", "worker")
}

fn templates(httpd: &Httpd) -> Vec<i32> {
    logged(httpd, "DROVER0246", "template")
}

fn wait_workers(httpd: &Httpd, number: usize) -> Vec<i32> {
    until("the workers", || workers(httpd).len() >= number);
    workers(httpd)
}

mpm_test!(the_import_runs_once_for_all_workers, |bare| {
    let httpd = site(bare, "processes=4 threads=2 umask=0027").start();
    let up = wait_workers(&httpd, 4);
    let template = templates(&httpd);
    assert_eq!((template.len(), imports(&httpd)), (1, template.clone()));
    let droverd = httpd.droverd().pid;
    let told = httpd.get("/").json();
    let pid = told["pid"].as_i64().expect("pid") as i32;
    assert!(up.contains(&pid), "{pid} {up:?}");
    assert_eq!((told["import"].as_i64(), told["parent"].as_i64()), (Some(template[0].into()), Some(droverd.into())));
    assert_eq!((told["group"].as_i64(), told["umask"].as_i64()), (Some(pid.into()), Some(0o027)));
    assert_eq!(told["main"], true);
    for pid in up.iter().chain(&template) {
        assert_eq!(processes::process(*pid).expect("process").parent, droverd);
    }
    assert_eq!(std::fs::read_dir(format!("/proc/{}/task", template[0])).expect("tasks").count(), 1);
    httpd.wait_log(&format!("[pid {pid}:*printed by {pid}"));
});
