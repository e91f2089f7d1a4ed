//! Everything at once, at random: graceful, kills, broken deploys and load.
//!
//! Responsible for: no request lost beyond what the kills explain, no process, socket or descriptor left, memory flat. It runs for
//! seconds in `make test` and for MINUTES in `make soak`; the order of events comes from a seed that a failure prints. Called by:
//! `main.rs`.
use crate::graceful::{ask, code};
use crate::harness::{Httpd, Site, paths, processes, until};
use crate::lifecycle::change;
use rustix::process::Signal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
const THREADS: usize = 4;

/// A generator of numbers that look random (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % sides
    }
}

fn duration() -> Duration {
    let minutes = std::env::var("DROVER_SOAK_MINUTES").ok().and_then(|m| m.parse().ok());
    minutes.map_or(Duration::from_secs(6), |m: u64| Duration::from_secs(60 * m))
}

/// So many requests may fail, for the reasons there were.
#[derive(Default)]
struct Explained {
    losses: usize,
    version: usize,
}

fn status(httpd: &Httpd, arguments: &[&str]) -> bool {
    let socket = httpd.site.dir().join("run/drover.sock");
    let mut command = std::process::Command::new(paths::drover());
    command.args(arguments).arg("--socket").arg(socket).output().is_ok_and(|o| o.status.success())
}

/// One event, and until its consequence is there.
fn happen(httpd: &mut Httpd, dice: &mut Dice, explained: &mut Explained, newest: &AtomicUsize) {
    let deploy = |httpd: &mut Httpd, explained: &mut Explained| {
        explained.version += 1;
        newest.store(explained.version, Ordering::SeqCst);
        change(&httpd.site, "a.wsgi", &code(explained.version));
    };
    let serves = |httpd: &Httpd, version: usize| until("the newest code", || ask(httpd.site.port, 0) == Ok(version));
    match dice.roll(9) {
        0 => httpd.graceful(),
        1 => {
            deploy(httpd, explained);
            httpd.graceful();
            serves(httpd, explained.version);
        }
        2 => {
            deploy(httpd, explained);
            serves(httpd, explained.version);
        }
        3 => {
            change(&httpd.site, "a.wsgi", "def application(:\n");
            httpd.graceful();
            until("the failure", || httpd.log().matches("SyntaxError").count() > 0 && ask(httpd.site.port, 0).is_ok());
            deploy(httpd, explained);
            httpd.graceful();
            serves(httpd, explained.version);
        }
        4 | 5 => {
            // Each of its threads may have run a request, and so may those that were taken in this moment.
            if let Some(victim) = pick(httpd.workers(), dice) {
                explained.losses += THREADS;
                let _ = rustix::process::Pid::from_raw(victim.pid).map(|p| rustix::process::kill_process(p, Signal::KILL));
                until("its end", || !processes::is_alive(&victim));
            }
        }
        6 => {
            if let Some(worker) = pick(httpd.workers(), dice) {
                let _ = rustix::process::Pid::from_raw(worker.pid).map(|p| rustix::process::kill_process(p, Signal::TERM));
            }
        }
        7 => {
            let droverd = httpd.droverd();
            httpd.signal(droverd.pid, Signal::KILL);
            // A request that waits for new code is in nobody else's hands.
            explained.losses += CLIENTS;
            until("another droverd", || httpd.family().iter().any(|p| p.command.contains("droverd") && *p != droverd));
        }
        _ => {
            assert!(status(httpd, &["reload", "app"]) || !status(httpd, &["status"]), "drover reload");
        }
    }
    until("an answer", || ask(httpd.site.port, 0).is_ok());
}

fn pick(mut workers: Vec<processes::Process>, dice: &mut Dice) -> Option<processes::Process> {
    if workers.is_empty() { None } else { Some(workers.swap_remove(dice.roll(workers.len()))) }
}

fn resident(pid: i32) -> u64 {
    processes::status(pid, "VmRSS").trim_end_matches("kB").trim().parse().unwrap_or(0)
}

mpm_test!(everything_at_once, |site| {
    soak(site, "", 2);
});

// droverd has one child more, the template.
mpm_test!(everything_at_once_with_templates, |site| {
    soak(site, "preload=On", 3);
});

/// `children` is the number of processes below droverd when all is quiet.
fn soak(site: Site, options: &str, children: usize) {
    let options = format!("processes=2 threads={THREADS} restart-interval=5 {options}");
    let site = site.script("a.wsgi", &code(0)).app("/", "a.wsgi").daemon(&options);
    let site =
        site.allow_log("DROVER0007|DROVER0051|DROVER0053|DROVER0059|DROVER0061|DROVER0065|DROVER0066|DROVER0067|DROVER0207|DROVER0208");
    let site = site.allow_log(
        "DROVER0221|DROVER0225|DROVER0226|DROVER0227|DROVER0228|DROVER0232|DROVER0235|DROVER0236|DROVER0242|DROVER0247|DROVER0248|DROVER0271",
    );
    let site = site.allow_output();
    let mut httpd = site.start();
    let seed = std::env::var("DROVER_SOAK_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()) | 1);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut explained, newest) = (Explained::default(), AtomicUsize::new(0));
    httpd.graceful();
    until("answers", || ask(httpd.site.port, 0).is_ok() && httpd.workers().len() == children);
    let before = (processes::descriptors(httpd.pid()), resident(httpd.pid()));
    let (stop, good, lost) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (until_then, port) = (Instant::now() + duration(), httpd.site.port);
    std::thread::scope(|scope| {
        for kind in 0..CLIENTS {
            let (stop, good, lost) = (&stop, &good, &lost);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match ask(port, kind) {
                        Ok(_) => drop(good.fetch_add(1, Ordering::Relaxed)),
                        Err(why) => lost.lock().expect("lock").push(why),
                    }
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while Instant::now() < until_then {
                happen(&mut httpd, &mut dice, &mut explained, &newest);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let lost = lost.into_inner().expect("lock");
    assert!(lost.len() <= explained.losses, "seed {seed}: {} lost, {} explained: {lost:?}", lost.len(), explained.losses);
    assert!(good.into_inner() > 0);
    until("the processes of one generation", || httpd.workers().len() == children && ask(port, 0) == Ok(explained.version));
    until("as many descriptors as before", || processes::descriptors(httpd.pid()) <= before.0 + 2);
    let grown = resident(httpd.pid()).saturating_sub(before.1);
    assert!(grown < 8 * 1024, "seed {seed}: httpd's parent has grown by {grown} kB");
}
