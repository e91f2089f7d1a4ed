//! Start, graceful, restart, stop, reload, and deaths in between.
//!
//! Responsible for: that nothing is lost on purpose and nothing stays behind. Called by: `main.rs`.
use crate::harness::{Httpd, Site, processes, until};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub fn app(text: &str) -> String {
    format!("import os\ndef application(e, s):\n    s('200 OK', [('X-Pid', str(os.getpid()))])\n    return [b'{text}']\n")
}

/// Clients that go on asking while `meanwhile` runs; gives the number of good answers, and what the others were.
pub fn under_load(httpd: &mut Httpd, clients: usize, meanwhile: impl FnOnce(&mut Httpd)) -> (usize, Vec<String>) {
    let (stop, good, port) = (AtomicBool::new(false), AtomicUsize::new(0), httpd.site.port);
    let bad = std::thread::scope(|scope| {
        let ask = || {
            let mut bad = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = crate::harness::Request::new(port, "GET", "/").send();
                if answer.status == 200 && answer.complete {
                    good.fetch_add(1, Ordering::Relaxed);
                } else {
                    bad.push(format!("{} {}", answer.status, answer.text()));
                }
            }
            bad
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
        let served = |n| until("some answers", || good.load(Ordering::Relaxed) > n);
        served(20);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(httpd)));
        served(good.load(Ordering::Relaxed) + 20);
        stop.store(true, Ordering::Relaxed);
        let bad = clients.into_iter().flat_map(|c| c.join().unwrap_or_else(|_| vec!["a client was cut off".into()])).collect();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        bad
    });
    (good.into_inner(), bad)
}

/// Writes a script with a time of modification that differs for certain.
pub fn change(site: &Site, name: &str, text: &str) {
    static STEP: AtomicUsize = AtomicUsize::new(1);
    // At once, as a deploy should: nobody sees half a file.
    let aside = format!("{name}.new");
    site.write(&aside, text);
    std::fs::rename(site.apps().join(&aside), site.apps().join(name)).expect("rename");
    let later = SystemTime::now() + Duration::from_secs(10 * STEP.fetch_add(1, Ordering::Relaxed) as u64);
    std::fs::File::options().write(true).open(site.apps().join(name)).expect("open").set_modified(later).expect("mtime");
}

mpm_test!(graceful_under_load_loses_nothing, |site| {
    let mut httpd = site.script("a.wsgi", &app("a")).daemon("processes=2 threads=4").app("/", "a.wsgi").start();
    let (good, bad) = under_load(&mut httpd, 3, |httpd| (0..3).for_each(|_| httpd.graceful()));
    assert!(bad.is_empty(), "{good} good, {} lost: {bad:?}", bad.len());
});

mpm_test!(a_request_outlives_graceful, |site| {
    let site = site.app("/", "fail.wsgi");
    let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
    let mut httpd = site.start();
    let port = httpd.site.port;
    let answer = std::thread::spawn(move || crate::harness::Request::new(port, "GET", "/hang").send());
    hanging.reached();
    let before: Vec<String> = httpd.workers().iter().map(|w| w.pid.to_string()).collect();
    httpd.graceful();
    until("the new generation", || httpd.log().contains("DROVER0231: (group 'app'): generation 2 serves"));
    // The old process takes requests until it is told that the new one serves.
    let mut new = String::new();
    until("an answer of the new process", || {
        new = httpd.ok("/ok");
        !before.contains(&new)
    });
    go_on.open(1);
    let old = answer.join().expect("thread");
    assert_eq!(old.status, 200);
    assert_ne!(old.text(), new, "the old request ended in the old process");
});

mpm_test!(graceful_reads_the_configuration_again, |site| {
    let mut httpd = site.modules("env").config("SetEnv which first").app("/", "environ.wsgi").start();
    assert_eq!(httpd.get("/").json()["which"], "first");
    let config = httpd.site.text().replace("SetEnv which first", "SetEnv which second\nWSGIDaemonProcess more threads=2\n");
    let config = config.replace(
        "WSGIScriptAlias /",
        "WSGIScriptAlias /more @apps@/process.wsgi process-group=more application-group=%{GLOBAL}\nWSGIScriptAlias /",
    );
    std::fs::write(httpd.site.dir().join("httpd.conf"), httpd.site.fill(&config)).expect("configuration");
    httpd.graceful();
    until("the new configuration", || httpd.get("/").json()["which"] == "second");
    assert_eq!(httpd.get("/more").json()["group"], "more");
});

mpm_test!(a_changed_script_is_loaded_and_nothing_is_lost, |site| {
    let mut httpd = site.script("a.wsgi", &app("one")).daemon("processes=2 threads=2").app("/", "a.wsgi").start();
    assert_eq!(httpd.ok("/"), "one");
    let (good, bad) = under_load(&mut httpd, 2, |httpd| {
        change(&httpd.site, "a.wsgi", &app("two"));
        until("the new code", || httpd.get("/").text() == "two");
    });
    assert!(bad.is_empty(), "{good} good, {} lost: {bad:?}", bad.len());
    until("only the new code", || (0..10).all(|_| httpd.ok("/") == "two"));
});

both_test!(script_reloading, |site| {
    let site = site.script("a.wsgi", &app("one")).script("fixed.wsgi", &app("fixed")).app("/fixed", "fixed.wsgi").app("/", "a.wsgi");
    let group =
        "WSGIDaemonProcess fixed processes=1 threads=2\n<Location /fixed>\nWSGIProcessGroup fixed\nWSGIScriptReloading Off\n</Location>";
    let httpd = site.config(group).start();
    assert_eq!((httpd.ok("/"), httpd.ok("/fixed")), ("one".into(), "fixed".into()));
    change(&httpd.site, "fixed.wsgi", &app("changed"));
    change(&httpd.site, "a.wsgi", &app("two"));
    until("the new code", || httpd.get("/").text() == "two");
    assert_eq!(httpd.ok("/fixed"), "fixed");
});

mpm_test!(a_broken_change_leaves_the_old_code_serving, |site| {
    let site = site.script("a.wsgi", &app("one")).app("/", "a.wsgi").expect_log("SyntaxError");
    let httpd = site.allow_log("DROVER0225|DROVER0226").allow_output().start();
    assert_eq!(httpd.ok("/"), "one");
    change(&httpd.site, "a.wsgi", "def application(:\n");
    assert_eq!(httpd.ok("/"), "one");
    until("the failure in the log", || httpd.log().contains("SyntaxError"));
    assert_eq!(httpd.ok("/"), "one");
    change(&httpd.site, "a.wsgi", &app("two"));
    until("the new code", || httpd.ok("/") == "two");
});

mpm_test!(a_killed_supervisor_is_started_again, |site| {
    let mut httpd = site.script("a.wsgi", &app("a")).app("/", "a.wsgi").expect_log("DROVER0007").start();
    httpd.ok("/");
    httpd.look();
    let old = httpd.droverd();
    let pid: i32 = httpd.get("/").header("X-Pid").expect("X-Pid").parse().expect("pid");
    httpd.signal(old.pid, Signal::KILL);
    until("droverd is gone", || !processes::is_alive(&old));
    until("another droverd", || httpd.family().iter().any(|p| p.command.contains("droverd") && *p != old));
    until("answers", || httpd.get("/").status == 200);
    until("the old worker is gone", || httpd.workers().iter().all(|p| p.pid != pid));
    let again = httpd.droverd();
    httpd.look();
    httpd.signal(again.pid, Signal::KILL);
    until("answers again", || !processes::is_alive(&again) && httpd.get("/").status == 200);
});

// With the pauses for one that cannot run, the last of these would be a minute's wait.
mpm_test!(a_supervisor_that_is_killed_again_and_again_is_started_each_time, |site| {
    let httpd = site.script("a.wsgi", &app("a")).app("/", "a.wsgi").expect_log("DROVER0007").start();
    for _ in 0..7 {
        httpd.ok("/");
        let (old, seen) = (httpd.droverd(), Instant::now());
        until("a second of its life", || seen.elapsed() > Duration::from_secs(1));
        httpd.signal(old.pid, Signal::KILL);
        until("another droverd", || httpd.family().iter().any(|p| p.command.contains("droverd") && p.pid != old.pid));
    }
    httpd.ok("/");
});

mpm_test!(everything_ends_when_the_parent_is_killed, |site| {
    let mut httpd = site
        .script("a.wsgi", &app("a"))
        .daemon("processes=3 threads=2")
        .app("/", "a.wsgi")
        .allow_leftovers()
        .allow_log("DROVER0203|DROVER0236")
        .start();
    httpd.ok("/");
    until("three workers", || httpd.workers().len() == 3);
    httpd.kill_parent();
});

mpm_test!(everything_ends_when_the_parent_is_killed_in_mid_request, |site| {
    let site = site
        .app("/", "fail.wsgi")
        .allow_leftovers()
        .daemon("processes=1 threads=2 shutdown-timeout=1")
        .allow_log("DROVER0053|DROVER0059|DROVER0203|DROVER0236");
    let (hanging, _go_on) = (site.gate("hanging"), site.gate("go-on"));
    let mut httpd = site.start();
    let mut conn = httpd.connect();
    conn.send("GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    hanging.reached();
    httpd.kill_parent();
});

mpm_test!(restart_and_stop_do_not_wait_for_a_hanging_request, |site| {
    let site = site.app("/", "fail.wsgi").daemon("processes=1 threads=2 shutdown-timeout=1").allow_log("DROVER0053|DROVER0236|AH00045");
    let (hanging, _go_on) = (site.gate("hanging"), site.gate("go-on"));
    let mut httpd = site.start();
    let hang = |httpd: &Httpd| {
        let mut conn = httpd.connect();
        conn.send("GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
        hanging.reached();
        conn
    };
    let _first = hang(&httpd);
    httpd.restart();
    httpd.ok("/ok");
    let _second = hang(&httpd);
    httpd.stop();
});

mpm_test!(many_generations_leak_nothing, |site| {
    let mut httpd = site.script("a.wsgi", &app("a")).app("/", "a.wsgi").start();
    let settle = |httpd: &Httpd| until("one generation", || httpd.workers().len() == 1 && httpd.get("/").status == 200);
    httpd.graceful();
    httpd.restart();
    settle(&httpd);
    let parent = processes::descriptors(httpd.pid());
    let droverd = httpd.droverd();
    let supervisor = processes::descriptors(droverd.pid);
    for _ in 0..4 {
        httpd.graceful();
        httpd.ok("/");
    }
    settle(&httpd);
    until("as many descriptors as before", || processes::descriptors(httpd.pid()) <= parent);
    if processes::is_alive(&droverd) {
        until("as many descriptors as before in droverd", || processes::descriptors(droverd.pid) <= supervisor);
    }
});

both_test!(maximum_requests, |site| {
    let httpd = site.script("a.wsgi", &app("a")).daemon("processes=2 threads=2 maximum-requests=5").app("/", "a.wsgi").start();
    // A process that has served its number goes on until its successor is up.
    let mut pids = std::collections::BTreeSet::new();
    until("four processes have served", || {
        let answer = httpd.get("/");
        assert_eq!(answer.status, 200);
        pids.insert(answer.header("X-Pid").expect("X-Pid").to_string());
        pids.len() >= 4
    });
});

mpm_test!(a_dead_worker_is_replaced, |site| {
    let site = site
        .script("a.wsgi", &app("a"))
        .daemon("processes=3 threads=2")
        .app("/", "a.wsgi")
        .expect_log("DROVER0232*signal 9")
        .allow_log("DROVER0059");
    let httpd = site.start();
    until("three workers", || httpd.get("/").status == 200 && httpd.workers().len() == 3);
    until("three that serve", || httpd.log().matches("is ready (generation").count() >= 3);
    let victim = httpd.workers().remove(0);
    httpd.signal(victim.pid, Signal::KILL);
    for _ in 0..20 {
        assert_eq!(httpd.get("/").status, 200);
    }
    until("three workers again", || !processes::is_alive(&victim) && httpd.workers().len() == 3);
});

mpm_test!(stop_directly_after_start, |site| {
    let httpd =
        site.script("slow.wsgi", "import time\ntime.sleep(30)\n").app("/", "slow.wsgi").daemon("processes=2 threads=2 shutdown-timeout=1");
    httpd.allow_log("DROVER0236").start().finish();
});

both_test!(import_scripts_run_when_a_process_starts, |site| {
    let site = site.script("preload.py", "import gate\ngate.reach('loaded')\n").app("/", "hello.wsgi");
    let site = site.config("WSGIImportScript @apps@/preload.py process-group=app application-group=%{GLOBAL}");
    let gate = site.gate("loaded");
    let httpd = site.start();
    gate.reached();
    httpd.ok("/");
});

both_test!(one_process_for_debugging, |site| {
    // httpd itself leaves its pid file then, and ends without telling its other children.
    let site = site.allow_leftovers().allow_log("DROVER0203");
    let mut httpd = site.script("a.wsgi", &app("a")).app("/", "a.wsgi").single().start();
    for _ in 0..3 {
        assert_eq!(httpd.ok("/"), "a");
    }
    httpd.stop();
});
