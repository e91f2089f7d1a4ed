//! `preload=On`: one process imports the application, the others are forked from it.
//!
//! Responsible for: the import being done once for a generation, the hooks, the deaths, and what a forked process has and has not.
//! Called by: `main.rs`.
use crate::harness::wait::poll;
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
    site.daemon(&format!("preload=On {options}")).app("/", "a.wsgi").allow_log("printed by")
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

mpm_test!(hooks_run_in_their_order_and_processes, |bare| {
    let httpd = site(bare, "processes=2 threads=1").start();
    let up = wait_workers(&httpd, 2);
    let template = templates(&httpd)[0];
    let all = notes(&httpd);
    let of = |pid: i32| all.iter().filter(|(_, p)| *p == pid).map(|(what, _)| what.as_str()).collect::<Vec<_>>();
    assert_eq!(of(template), ["import", "before-2", "before-1", "before-2", "before-1"], "the last one first, once for each fork");
    for pid in up {
        assert_eq!(of(pid), ["after-1", "after-2"]);
    }
    let hooks = httpd.get("/").json()["hooks"].clone();
    let hooks: Vec<_> = hooks.as_array().expect("list").iter().filter_map(|h| h.as_str()).collect();
    assert_eq!(hooks[hooks.len() - 4..], ["before-2", "before-1", "after-1", "after-2"]);
});

mpm_test!(without_preload_the_hooks_of_one_code_base_do_no_harm, |bare| {
    let httpd = site(bare, "processes=1 threads=1");
    let httpd = httpd.daemon("processes=1 threads=1").start();
    let told = httpd.get("/").json();
    assert_eq!(told["hooks"], serde_json::json!(["after-1", "after-2"]));
    assert_eq!((told["import"].as_i64(), templates(&httpd).len()), (told["pid"].as_i64(), 0));
});

mpm_test!(a_script_that_is_loaded_later_has_its_hooks_called, |bare| {
    let late = "import mod_drover\nSEEN = []\n@mod_drover.after_fork\ndef run():\n    SEEN.append('ran')\n\
        def application(e, s):\n    s('200 OK', [])\n    return [''.join(SEEN).encode()]\n";
    let bare = bare.script("late/late.wsgi", late).config("WSGIScriptAliasMatch ^/late/([a-z]+) @apps@/late/$1.wsgi");
    let httpd = site(bare, "processes=1 threads=1").start();
    wait_workers(&httpd, 1);
    assert_eq!((httpd.ok("/late/late"), httpd.ok("/late/late")), ("ran".into(), "ran".into()));
});

mpm_test!(processes_differ_in_what_must_differ, |bare| {
    let httpd = site(bare, "processes=3 threads=1");
    let (hanging, go_on) = (httpd.gate("hanging"), httpd.gate("go-on"));
    let httpd = httpd.start();
    let up: BTreeSet<_> = wait_workers(&httpd, 3).into_iter().collect();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(|| httpd.get("/hang").json())).collect();
        for _ in 0..3 {
            hanging.reached();
        }
        go_on.open(3);
        asked.into_iter().map(|a| a.join().expect("thread")).collect()
    });
    let pids: BTreeSet<_> = answers.iter().map(|a| a["pid"].as_i64().expect("pid") as i32).collect();
    assert_eq!(pids, up);
    assert_eq!(answers.iter().map(|a| a["random"].to_string()).collect::<BTreeSet<_>>().len(), 3, "random is seeded anew");
    // Sockets and pipes: none of a sibling's or of the template's, but the queue that they have in common.
    let mut owners: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for answer in &answers {
        let links: BTreeSet<_> = answer["links"].as_object().expect("links").values().filter_map(|l| l.as_str()).collect();
        for link in links.into_iter().filter(|l| l.starts_with("socket:") || l.starts_with("pipe:")) {
            owners.entry(link.into()).or_default().push(answer["pid"].as_i64().expect("pid"));
        }
    }
    let template = templates(&httpd)[0];
    let theirs: BTreeSet<String> = std::fs::read_dir(format!("/proc/{template}/fd"))
        .expect("descriptors")
        .filter_map(|e| std::fs::read_link(e.ok()?.path()).ok()?.to_str().map(String::from))
        .collect();
    let shared: Vec<_> = owners.iter().filter(|(_, who)| who.len() > 1).map(|(link, _)| link).collect();
    assert_eq!(shared.len(), 1, "the queue: {owners:?}");
    let of_the_template: Vec<_> = owners.keys().filter(|link| theirs.contains(*link)).collect();
    assert_eq!(of_the_template, shared, "template: {theirs:?}");
});

mpm_test!(a_killed_worker_is_replaced_without_an_import, |bare| {
    let mut httpd = site(bare, "processes=2 threads=1").start();
    let up = wait_workers(&httpd, 2);
    httpd.expect_log("DROVER0232*killed by signal 9");
    httpd.signal(up[0], Signal::KILL);
    let now = wait_workers(&httpd, 3);
    assert_eq!((imports(&httpd).len(), templates(&httpd).len()), (1, 1));
    until("both answer", || {
        let pid = httpd.get("/").json()["pid"].as_i64().expect("pid") as i32;
        now[1..].contains(&pid)
    });
    assert!(processes::process(up[0]).is_none(), "it is reaped");
});

mpm_test!(a_killed_template_harms_nobody_and_the_next_worker_gets_a_new_one, |bare| {
    let mut httpd = site(bare, "processes=2 threads=2").start();
    let up = wait_workers(&httpd, 2);
    let template = templates(&httpd)[0];
    httpd.expect_log("DROVER0248*killed by signal 9");
    let (good, bad) = under_load(&mut httpd, 2, |httpd| {
        httpd.signal(template, Signal::KILL);
        httpd.wait_log(&format!("DROVER0248*template {template} was killed"));
    });
    assert!(bad.is_empty(), "{good} good, {} lost: {bad:?}", bad.len());
    assert_eq!(workers(&httpd), up, "nobody was touched");
    httpd.expect_log("DROVER0232*killed by signal 9");
    httpd.signal(up[1], Signal::KILL);
    wait_workers(&httpd, 3);
    assert_eq!((templates(&httpd).len(), imports(&httpd).len()), (2, 2));
    assert!(processes::process(template).is_none(), "it is reaped");
});

mpm_test!(templates_that_are_killed_again_and_again_are_a_failed_start, |bare| {
    let script = "import os, gate\ngate.reach('importing', b'.')\ngate.wait('import')\n\
        def application(e, s):\n    s('200 OK', [])\n    return [b'up']\n";
    let bare = bare.script("a.wsgi", script).daemon("preload=On processes=3 threads=1").app("/", "a.wsgi");
    let (importing, import) = (bare.gate("importing"), bare.gate("import"));
    let httpd =
        bare.expect_log("DROVER0247*killed by signal 9").expect_log("DROVER0227*killed by signal 9").allow_log("DROVER0065").start();
    // The first three are followed by another one at once.
    for _ in 0..4 {
        importing.reached();
        let [template] = httpd.workers().try_into().expect("one template");
        httpd.signal(template.pid, Signal::KILL);
    }
    until("503 with the reason", || httpd.get("/").status == 503);
    import.open(1);
    until("the next try", || httpd.get("/").status == 200);
});

const THREADS: &str = "import threading\nthreading.Thread(target=threading.Event().wait, name='collector', daemon=True).start()\n";

mpm_test!(threads_at_import_are_refused_with_the_reason, |bare| {
    let httpd = site(bare, "processes=2 threads=1").start();
    let up = wait_workers(&httpd, 2);
    let mut httpd = httpd;
    httpd.expect_log("DROVER0247*preload=On");
    httpd.expect_log("DROVER0247*'collector'*mod_drover.after_fork*preload=Off");
    httpd.expect_log("DROVER0226*'collector'");
    change(&httpd.site, "a.wsgi", &(THREADS.to_owned() + &app("two")));
    for _ in 0..5 {
        let told = httpd.get("/").json();
        assert_eq!(told["version"], "one", "the old generation keeps serving");
        assert!(up.contains(&(told["pid"].as_i64().expect("pid") as i32)));
    }
    httpd.wait_log("DROVER0226*'collector'");
    let cured =
        THREADS.replace("threading.Thread", "import mod_drover\nmod_drover.after_fork(threading.Thread").replace(".start()", ".start)");
    change(&httpd.site, "a.wsgi", &(cured + &app("three")));
    let cured = poll(|| Some(httpd.get("/").json()).filter(|told| told["version"] == "three")).expect("the cured code");
    let threads = cured["threads"].to_string();
    assert!(threads.contains("collector"), "{threads}");
});

mpm_test!(a_thread_that_has_ended_is_no_reason, |bare| {
    let script = "import threading\nfor _ in range(20):\n    t = threading.Thread(target=int)\n    t.start()\n    t.join()\n";
    let bare = site(bare, "processes=1 threads=1");
    bare.write("a.wsgi", &(script.to_owned() + &app("one")));
    let httpd = bare.start();
    assert_eq!(httpd.get("/").json()["version"], "one");
});

mpm_test!(a_hook_that_raises_is_a_failed_start_with_its_traceback, |bare| {
    let mut httpd = site(bare, "processes=2 threads=1").allow_log("mod_drover worker: Traceback|DROVER0221").allow_output().start();
    wait_workers(&httpd, 2);
    for (hook, version) in [("after_fork", "two"), ("before_fork", "three")] {
        httpd.expect_log("DROVER0226*ZeroDivisionError");
        let failures = httpd.log().matches("DROVER0226").count();
        let broken = format!("import mod_drover\n@mod_drover.{hook}\ndef broken():\n    1 / 0\n");
        change(&httpd.site, "a.wsgi", &(broken + &app(version)));
        assert_eq!(httpd.get("/").json()["version"], "one");
        until("the failure", || httpd.log().matches("DROVER0226").count() > failures);
        assert!(httpd.log().contains("in broken"), "the traceback");
    }
    change(&httpd.site, "a.wsgi", &app("four"));
    until("the mended code", || httpd.get("/").json()["version"] == "four");
});

mpm_test!(a_touched_script_gets_a_new_template, |bare| {
    let mut httpd = site(bare, "processes=2 threads=2").start();
    wait_workers(&httpd, 2);
    let old = templates(&httpd)[0];
    let (good, bad) = under_load(&mut httpd, 2, |httpd| {
        change(&httpd.site, "a.wsgi", &app("two"));
        until("the new code", || httpd.get("/").json()["version"] == "two");
    });
    assert!(bad.is_empty(), "{good} good, {} lost: {bad:?}", bad.len());
    until("only the new code", || (0..10).all(|_| httpd.get("/").json()["version"] == "two"));
    until("the old template is gone", || processes::process(old).is_none());
    assert_eq!((templates(&httpd).len(), imports(&httpd).len()), (2, 2));
});

mpm_test!(graceful_under_load_with_templates_loses_nothing, |bare| {
    let mut httpd = site(bare, "processes=2 threads=4").start();
    let (good, bad) = under_load(&mut httpd, 3, |httpd| (0..3).for_each(|_| httpd.graceful()));
    assert!(bad.is_empty(), "{good} good, {} lost: {bad:?}", bad.len());
    until("the last generation", || httpd.log().contains("generation 4 serves"));
    until("one template and two workers", || httpd.workers().len() == 3);
    // One that has just ended is a zombie until droverd looks.
    let droverd = httpd.droverd().pid;
    until("no zombie of droverd's", || zombies().iter().all(|p| p.parent != droverd));
});

/// Every zombie of the machine.
fn zombies() -> Vec<processes::Process> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter_map(processes::process).filter(|p| p.state == 'Z').collect()
}

mpm_test!(rolling_and_elastic_groups_fork_too, |bare| {
    let httpd = site(bare, "processes=1-3 reload=rolling inactivity-timeout=1 threads=1");
    let (hanging, go_on) = (httpd.gate("hanging"), httpd.gate("go-on"));
    let httpd = httpd.start();
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(|| httpd.get("/hang").status)).collect();
        for _ in 0..3 {
            hanging.reached();
        }
        go_on.open(3);
        assert!(asked.into_iter().all(|a| a.join().expect("thread") == 200));
    });
    assert_eq!(imports(&httpd).len(), 1, "it grew by forks");
    until("it has shrunk", || httpd.workers().len() == 2);
});

mpm_test!(a_group_without_request_threads_forks_too, |bare| {
    let script = "import os, gate, mod_drover\nHERE = os.getpid()\nmod_drover.after_fork(lambda: gate.reach('ran', b'f' if os.getpid() != HERE else b'-'))\n";
    let site = bare.script("job.py", script).bare().config(
        "WSGIDaemonProcess job preload=On processes=1 threads=0 python-path=@apps@\n\
         WSGIImportScript @apps@/job.py process-group=job application-group=%{GLOBAL}",
    );
    let ran = site.gate("ran");
    let httpd = site.start();
    assert_eq!(ran.reached(), b'f');
    wait_workers(&httpd, 1);
});

mpm_test!(names_tell_the_template_from_its_workers, |bare| {
    let httpd = site(bare, "processes=1 threads=1 display-name=%{GROUP}").start();
    let up = wait_workers(&httpd, 1);
    let command = |pid: i32| processes::process(pid).expect("process").command;
    assert!(command(templates(&httpd)[0]).starts_with("(wsgi:app) template"), "{}", command(templates(&httpd)[0]));
    assert!(command(up[0]).starts_with("(wsgi:app)") && !command(up[0]).contains("template"), "{}", command(up[0]));
});

mpm_test!(orphans_of_the_application_are_reaped_and_left_alone, |bare| {
    let script = r#"
import os, gate
def application(environ, start_response):
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            gate.reach("daemon")
            gate.wait("go-on")
        os._exit(0)
    os.waitpid(child, 0)
    start_response("200 OK", [])
    return [str(os.getppid()).encode()]
"#;
    let bare = bare.script("a.wsgi", script).daemon("preload=On processes=1 threads=1").app("/", "a.wsgi");
    let (daemon, go_on) = (bare.gate("daemon"), bare.gate("go-on"));
    let httpd = bare.start();
    let droverd: i32 = httpd.ok("/").parse().expect("pid");
    daemon.reached();
    let up = wait_workers(&httpd, 1);
    let template = templates(&httpd)[0];
    let orphan = httpd.workers().into_iter().find(|p| p.pid != up[0] && p.pid != template).expect("droverd has adopted it");
    assert_eq!(orphan.parent, droverd);
    assert_eq!(httpd.get("/").status, 200, "it is left alone, and all goes on");
    daemon.reached();
    go_on.open(2);
    until("it is reaped", || processes::process(orphan.pid).is_none());
    assert!(!httpd.log().contains("DROVER0209"));
});

mpm_test!(startup_timeout_counts_while_the_template_imports, |bare| {
    let script = "import gate\ngate.wait('never')\n";
    let bare = bare.script("a.wsgi", script).daemon("preload=On processes=2 threads=1 startup-timeout=1").app("/", "a.wsgi");
    let _never = bare.gate("never");
    let bare = bare.expect_log("DROVER0222").expect_log("DROVER0227*startup-timeout").allow_log("DROVER0065|DROVER0236").allow_output();
    let mut httpd = bare.start();
    httpd.wait_log("DROVER0227*startup-timeout");
    assert_eq!(httpd.get("/").status, 503);
    httpd.wait_log("gate.py*line*wait");
    httpd.look();
});

mpm_test!(a_killed_supervisor_takes_its_templates_along, |bare| {
    let mut httpd = site(bare, "processes=1 threads=1").expect_log("DROVER0007").start();
    let up = wait_workers(&httpd, 1);
    let old: Vec<_> = httpd.workers();
    assert_eq!(old.len(), 2);
    httpd.look();
    httpd.signal(httpd.droverd().pid, Signal::KILL);
    until("the old ones are gone", || old.iter().all(|p| !processes::is_alive(p)));
    until("another one answers", || {
        let answer = httpd.get("/");
        answer.status == 200 && answer.json()["pid"].as_i64() != Some(up[0].into())
    });
});

/// What a child that the application forks has of ours: at the import and in a request.
const CHILDREN: &str = r#"
import json, os, subprocess, sys
subprocess.run(["true"], check=True)

def sockets():
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink("/proc/self/fd/" + fd))
        except OSError:
            pass
    return sum(link.startswith("socket:") for link in links)

def in_child():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(sockets()).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    answer = int(os.read(read, 9))
    os.close(read)
    return answer

AT_IMPORT, IMPORTED_BY = in_child(), os.getpid()

def application(environ, start_response):
    start_response("200 OK", [])
    answer = [list(sys.version_info[:2]), AT_IMPORT, in_child(), IMPORTED_BY != os.getpid(), sockets() > 1]
    return [json.dumps(answer).encode()]
"#;

mpm_test!(every_python_forks_and_a_forked_childs_child_has_nothing_of_ours, |bare| {
    let pythons = crate::groups::pythons();
    let mut text = String::new();
    for (i, python) in pythons.iter().enumerate() {
        text += &format!("WSGIDaemonProcess v{i} preload=On processes=2 threads=2 python={}\n", python.display());
        text += &format!("WSGIScriptAlias /v{i} @apps@/children.wsgi process-group=v{i} application-group=%{{GLOBAL}}\n");
    }
    let site = bare.script("children.wsgi", CHILDREN).bare().config(&text).allow_log("DeprecationWarning|fork()");
    let httpd = site.environment("LD_LIBRARY_PATH", &crate::groups::libraries(&pythons)).start();
    for (i, python) in pythons.iter().enumerate() {
        let told = httpd.get(&format!("/v{i}")).json();
        let told = told.as_array().expect("list");
        assert_eq!(serde_json::json!(told[1..]), serde_json::json!([0, 0, true, true]), "{}", python.display());
    }
    assert_eq!(templates(&httpd).len(), pythons.len());
});

mpm_test!(workers_that_have_served_enough_are_replaced_by_forks, |bare| {
    let httpd = site(bare, "processes=2 threads=1 maximum-requests=10").start();
    wait_workers(&httpd, 2);
    until("each was replaced", || {
        assert_eq!(httpd.get("/").status, 200);
        workers(&httpd).len() >= 6
    });
    assert_eq!((imports(&httpd).len(), templates(&httpd).len()), (1, 1));
});

mpm_test!(the_command_drover_shows_the_template, |bare| {
    let httpd = site(bare, "processes=2 threads=1").start();
    wait_workers(&httpd, 2);
    let socket = httpd.site.dir().join("run/drover.sock");
    let mut command = std::process::Command::new(crate::harness::paths::drover());
    let output = command.arg("status").arg("--socket").arg(socket).output().expect("drover status");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |state: &str| text.lines().filter(|l| l.contains(state)).count();
    assert_eq!((line(" template "), line(" serving ")), (1, 2), "{text}");
});
