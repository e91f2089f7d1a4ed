//! How many processes there are: rolling changes, and groups that grow and shrink.
//!
//! Responsible for: processes=MIN-MAX and reload=rolling on a real server; the decisions themselves are simulated in droverd's tests.
//! Called by: `main.rs`.
use crate::harness::{processes, until};
use crate::lifecycle::{app, under_load};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

mpm_test!(a_rolling_change_has_one_process_too_many_at_most, |site| {
    let site = site.script("a.wsgi", &app("a")).app("/", "a.wsgi").daemon("processes=3 threads=2 reload=rolling");
    let mut httpd = site.start();
    until("three workers", || httpd.get("/").status == 200 && httpd.workers().len() == 3);
    let most = AtomicUsize::new(0);
    let (pid, id, done) = (httpd.pid(), httpd.site.id.clone(), AtomicBool::new(false));
    let droverd = httpd.droverd().pid;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let workers = processes::family(pid, &id).into_iter().filter(|p| p.parent == droverd).count();
                most.fetch_max(workers, Ordering::Relaxed);
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let old: Vec<i32> = httpd.workers().iter().map(|p| p.pid).collect();
            let (good, bad) = under_load(&mut httpd, 2, |httpd| {
                httpd.graceful();
                until("all are new", || {
                    let now = httpd.workers();
                    now.len() == 3 && now.iter().all(|p| !old.contains(&p.pid))
                });
            });
            assert!(bad.is_empty(), "{good} good, {} lost: {bad:?}", bad.len());
        }));
        done.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(most.load(Ordering::Relaxed) <= 4, "{} workers at once", most.load(Ordering::Relaxed));
});

mpm_test!(a_group_starts_on_demand_and_ends_when_idle, |site| {
    let site = site.script("a.wsgi", &app("a")).app("/", "a.wsgi").daemon("processes=0-2 threads=2 inactivity-timeout=1");
    let httpd = site.config("WSGIImportScript @apps@/a.wsgi process-group=app application-group=%{GLOBAL}").start();
    assert!(httpd.workers().is_empty(), "nobody has asked");
    for _ in 0..2 {
        assert_eq!(httpd.ok("/"), "a");
        until("nobody is there any more", || httpd.workers().is_empty());
    }
});

mpm_test!(a_group_grows_under_load_and_shrinks_again, |site| {
    let site = site.app("/", "fail.wsgi").daemon("processes=1-3 threads=1 inactivity-timeout=2");
    let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
    let httpd = site.start();
    httpd.ok("/ok");
    assert_eq!(httpd.workers().len(), 1);
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..3).map(|_| scope.spawn(|| httpd.get("/hang").status)).collect();
        // One thread each: all three can only run at once when there are three processes.
        for _ in 0..3 {
            hanging.reached();
        }
        assert_eq!(httpd.workers().len(), 3);
        go_on.open(3);
        for answer in slow {
            assert_eq!(answer.join().expect("thread"), 200);
        }
    });
    until("one is left", || httpd.workers().len() == 1);
    httpd.ok("/ok");
});

mpm_test!(an_elastic_group_survives_graceful_under_load, |site| {
    let site = site.script("a.wsgi", &app("a")).app("/", "a.wsgi").daemon("processes=0-3 threads=2 inactivity-timeout=1");
    let mut httpd = site.start();
    for _ in 0..2 {
        let (good, bad) = under_load(&mut httpd, 3, |httpd| httpd.graceful());
        assert!(bad.is_empty(), "{good} good, {} lost: {bad:?}", bad.len());
        until("nobody is there any more", || httpd.workers().is_empty());
    }
});
