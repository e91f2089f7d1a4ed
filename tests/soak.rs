//! Everything at once, at random: graceful, kills, broken deploys and load.
//!
//! Responsible for: no request lost beyond what the kills explain, no process, socket or descriptor left, memory flat. It runs for
//! seconds in `make test` and for MINUTES in `make soak`; the order of events comes from a seed that a failure prints. Called by:
//! `main.rs`.
use crate::graceful::{ask, code};
use crate::harness::{Httpd, Site, processes, until};
use crate::lifecycle::change;
use rustix::process::Signal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
/// The kind of [`ask`]'s requests that have a body.
const UPLOAD: usize = 2;
const EVENTS: usize = 9;

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

/// A kill -9, from just before it was sent until its consequence was seen.
#[derive(Clone, Copy)]
struct Kill {
    of_worker: bool,
    from: Instant,
    until: Instant,
}

/// A request that was not answered as it should have been.
struct Loss {
    kind: usize,
    from: Instant,
    until: Instant,
    why: String,
}

impl Loss {
    /// Only the death of a process that had taken the request explains it, with a 502 or a cut answer. A GET of which nothing was sent
    /// runs once more: it takes two kills, of which one may be droverd's, as the request may have waited there for new code.
    fn is_explained(&self, kills: &[Kill]) -> bool {
        let during: Vec<_> = kills.iter().filter(|k| k.from <= self.until && self.from <= k.until).collect();
        let (refused, cut) =
            (self.why.starts_with(&format!("{} 502 ", self.kind)), self.why.starts_with(&format!("{} 200 cut ", self.kind)));
        let needed = if refused && self.kind != UPLOAD { 2 } else { 1 };
        (refused || cut) && during.len() >= needed && during.iter().any(|k| k.of_worker)
    }
}

/// What was done to the server.
#[derive(Default)]
struct Story {
    kills: Vec<Kill>,
    /// Workers that were sent SIGTERM.
    told_to_go: Vec<processes::Process>,
    version: usize,
    events: [usize; EVENTS],
}

impl Story {
    fn kill(&mut self, of_worker: bool, deed: impl FnOnce()) {
        let from = Instant::now();
        deed();
        self.kills.push(Kill { of_worker, from, until: Instant::now() });
    }
}

/// What `drover` says; `None`: it could not ask droverd.
fn drover(httpd: &Httpd, arguments: &[&str]) -> Option<String> {
    let (ok, said, _) = crate::control::run(httpd, arguments);
    ok.then_some(said)
}

/// Whether a worker serves that is not dead or about to go, as far as droverd knows or as the test has seen to it.
fn serves_surely(httpd: &Httpd, told_to_go: &[processes::Process]) -> bool {
    let Some(status) = drover(httpd, &["status", "app", "--json"]).and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
    else {
        return false;
    };
    let workers = status["groups"][0]["applications"][0]["workers"].as_array().cloned().unwrap_or_default();
    let same = |a: &processes::Process, b: &processes::Process| (a.pid, a.started) == (b.pid, b.started);
    let alive: Vec<_> = httpd.workers().into_iter().filter(|w| !told_to_go.iter().any(|t| same(t, w))).collect();
    workers.iter().any(|w| w["state"] == "serving" && alive.iter().any(|p| w["pid"] == p.pid))
}

/// One event, and until its consequence is there.
fn happen(httpd: &mut Httpd, dice: &mut Dice, story: &mut Story) {
    let deploy = |httpd: &mut Httpd, story: &mut Story| {
        story.version += 1;
        change(&httpd.site, "a.wsgi", &code(story.version));
    };
    let serves = |httpd: &Httpd, version: usize| until("the newest code", || ask(httpd.site.port, 0) == Ok(version));
    let event = dice.roll(EVENTS);
    story.events[event] += 1;
    match event {
        0 => httpd.graceful(),
        1 => {
            deploy(httpd, story);
            httpd.graceful();
            serves(httpd, story.version);
        }
        2 => {
            deploy(httpd, story);
            serves(httpd, story.version);
        }
        3 => {
            // New code that is broken is harmless while an old process serves. (With none, 503 is the right answer.)
            until("a process that serves", || serves_surely(httpd, &story.told_to_go));
            let failures = httpd.log().matches("SyntaxError").count();
            change(&httpd.site, "a.wsgi", "def application(:\n");
            httpd.graceful();
            until("the failure", || httpd.log().matches("SyntaxError").count() > failures && ask(httpd.site.port, 0).is_ok());
            deploy(httpd, story);
            httpd.graceful();
            serves(httpd, story.version);
        }
        4 | 5 => {
            if let Some(victim) = pick(httpd.workers(), dice) {
                story.kill(true, || {
                    let _ = rustix::process::Pid::from_raw(victim.pid).map(|p| rustix::process::kill_process(p, Signal::KILL));
                    until("its end", || !processes::is_alive(&victim));
                });
            }
        }
        6 => {
            if let Some(worker) = pick(httpd.workers(), dice) {
                let _ = rustix::process::Pid::from_raw(worker.pid).map(|p| rustix::process::kill_process(p, Signal::TERM));
                story.told_to_go.push(worker);
            }
        }
        7 => {
            let droverd = httpd.droverd();
            story.kill(false, || {
                httpd.signal(droverd.pid, Signal::KILL);
                until("another droverd", || httpd.family().iter().any(|p| p.command.contains("droverd") && p.pid != droverd.pid));
            });
        }
        _ => {
            assert!(drover(httpd, &["reload", "app"]).is_some() || drover(httpd, &["status"]).is_none(), "drover reload");
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
    let options = format!("processes=2 threads=4 restart-interval=5 {options}");
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
    let mut story = Story::default();
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
                    let from = Instant::now();
                    match ask(port, kind) {
                        Ok(_) => drop(good.fetch_add(1, Ordering::Relaxed)),
                        Err(why) => lost.lock().expect("lock").push(Loss { kind, from, until: Instant::now(), why }),
                    }
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while Instant::now() < until_then {
                happen(&mut httpd, &mut dice, &mut story);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let (lost, good) = (lost.into_inner().expect("lock"), good.into_inner());
    let unexplained: Vec<_> = lost.iter().filter(|loss| !loss.is_explained(&story.kills)).map(|loss| &loss.why).collect();
    assert!(unexplained.is_empty(), "seed {seed}: {} of {} lost requests without a reason: {unexplained:?}", unexplained.len(), lost.len());
    assert!(good > 0);
    until("the processes of one generation", || httpd.workers().len() == children && ask(port, 0) == Ok(story.version));
    until("as many descriptors as before", || processes::descriptors(httpd.pid()) <= before.0 + 2);
    let grown = resident(httpd.pid()).saturating_sub(before.1);
    eprintln!("seed {seed}: {good} served, {} lost to kills, events {:?}, httpd's parent grown by {grown} kB", lost.len(), story.events);
    assert!(grown < 8 * 1024, "seed {seed}: httpd's parent has grown by {grown} kB");
}
