//! The native thread that watches running requests. It never takes the GIL.
//!
//! Responsible for: calling a follower when `policy` says so, telling httpd that a request is not waiting any more, telling
//! droverd of one that runs too long. Must never: touch Python. Called by: `process`, which starts it.
use crate::dump;
use crate::exchange::{Exchange, Slot};
use crate::interrupt;
use crate::leader::Leader;
use crate::policy::{Seen, Watch};
use crate::worker::Worker;
use drover_sys::{clock, wait};
use drover_wire::control::{Activity, FromWorker};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it looks while something runs and there are followers to call.
const TICK: Duration = Duration::from_millis(1);
/// How often it looks when there is nobody to call.
const SLOW_TICK: Duration = Duration::from_millis(20);
/// So many ticks with nothing running, and it sleeps until woken.
const IDLE_TICKS: u32 = 20;
/// How often droverd is told what was done.
const TELL_NS: u64 = 200_000_000;
/// How long before the time by which it had to be taken httpd is told that a request runs, at most.
const NOTICE_NS: u64 = 1_000_000_000;

/// Wakes the monitor when it sleeps deeply.
#[derive(Debug, Default)]
pub struct Bell {
    asleep: AtomicBool,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Bell {
    /// To be called when a request begins: cheap while the monitor is awake.
    pub fn ring(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            let guard = self.lock.lock();
            self.asleep.store(false, Ordering::SeqCst);
            drop(guard);
            self.bell.notify_one();
        }
    }

    fn sleep(&self, still_idle: impl Fn() -> bool) {
        let mut guard = self.lock.lock();
        self.asleep.store(true, Ordering::SeqCst);
        // A request that began before it could see us asleep is seen here.
        if !still_idle() {
            self.asleep.store(false, Ordering::SeqCst);
        }
        while self.asleep.load(Ordering::SeqCst) {
            self.bell.wait(&mut guard);
        }
    }
}

/// Runs until the process ends.
pub fn run(worker: &Worker) {
    let tick = if worker.slots.len() > 1 { TICK } else { SLOW_TICK };
    let idle = || worker.slots.iter().all(|slot| slot.since.load(Ordering::SeqCst) == 0);
    let mut watch = Watch::default();
    let mut quiet = 0;
    let mut report = Report::default();
    loop {
        std::thread::sleep(if quiet >= IDLE_TICKS { SLOW_TICK } else { tick });
        quiet = if idle() { quiet + 1 } else { 0 };
        // It does not sleep on something untold.
        let told = report.tell(worker, clock::monotonic_ns());
        if worker.ask_for_successor() && told && quiet >= IDLE_TICKS {
            worker.monitor.sleep(idle);
            quiet = 0;
        }
        let now = clock::monotonic_ns();
        for slot in &worker.slots {
            check(worker, slot, now);
        }
        lead(worker, &mut watch, now);
    }
}

/// What droverd was told last.
#[derive(Default)]
struct Report {
    at: u64,
    taken: u64,
    counted: u64,
    running: u32,
}

impl Report {
    /// Tells what is new, if the last time is long enough ago. True: nothing is left to be told.
    fn tell(&mut self, worker: &Worker, now: u64) -> bool {
        let running = worker.slots.iter().filter(|slot| slot.since.load(Ordering::Relaxed) != 0).count();
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        let (taken, counted) = (worker.tally.taken.load(Ordering::Relaxed), worker.tally.counted.load(Ordering::Relaxed));
        if taken == self.taken && running == self.running {
            return true;
        }
        if now.saturating_sub(self.at) < TELL_NS {
            return false;
        }
        let waited_us = worker.tally.waited_us.swap(0, Ordering::Relaxed);
        let activity = Activity { taken: taken - self.taken, counted: counted - self.counted, waited_us, running };
        let heard = worker.control.send(&FromWorker::Activity(activity), &[]).is_ok();
        if heard {
            (self.taken, self.counted, self.running) = (taken, counted, running);
        } else {
            // When droverd does not take it, the next one makes up for it.
            worker.tally.waited_us.fetch_max(waited_us, Ordering::Relaxed);
        }
        self.at = now;
        worker.gauge.ring();
        heard
    }
}

/// Calls a follower if that is good.
fn lead(worker: &Worker, watch: &mut Watch, now: u64) {
    let Leader::Running(leader) = worker.leadership.look() else { return watch.reset() };
    if worker.is_stopping() || !worker.leadership.has_follower() {
        return watch.reset();
    }
    let Some(slot) = worker.slots.get(leader) else { return };
    let since = slot.since.load(Ordering::Acquire);
    if since == 0 {
        return watch.reset(); // between two requests
    }
    let others = worker.slots.iter().filter(|other| other.index != leader && other.since.load(Ordering::Acquire) != 0);
    let seen = Seen { since, cpu: cpu(slot), others_cpu: others.map(cpu).sum(), now, waiting: wait::readable_now(&worker.queue.socket) };
    if watch.tick(&seen) {
        if let Some(follower) = worker.leadership.promote(leader).and_then(|index| worker.slots.get(index)) {
            follower.parker.call();
        }
        watch.reset();
    }
}

fn cpu(slot: &Arc<Slot>) -> u64 {
    slot.clock.get().and_then(|clock| clock.ns()).unwrap_or(0)
}

/// Looks at one running request.
fn check(worker: &Worker, slot: &Arc<Slot>, now: u64) {
    let since = slot.since.load(Ordering::Acquire);
    if since == 0 {
        return;
    }
    let age = now.saturating_sub(since);
    let limit = worker.config.options.request_timeout_ms.map(|ms| ms.saturating_mul(1_000_000)).filter(|&ns| ns > 0);
    // Young requests, which are nearly all, cost nothing more.
    let Some(exchange) = slot.exchange() else { return };
    if is_near(&exchange, now) && !exchange.told_taken.swap(true, Ordering::Relaxed) {
        exchange.way.tell_taken();
    }
    let Some(limit) = limit.filter(|limit| age > *limit) else { return };
    let grace = worker.config.options.interrupt_timeout_ms.map_or(0, |ms| ms.saturating_mul(1_000_000));
    if grace > 0 && !exchange.told_interrupt.swap(true, Ordering::Relaxed) {
        interrupt::raise_in(Arc::clone(slot), Arc::clone(&exchange));
    }
    if age > limit.saturating_add(grace) && !exchange.told_stuck.swap(true, Ordering::Relaxed) {
        dump::stacks(worker);
        let what = exchange.what.get().map(|w| String::from_utf8_lossy(w).into_owned()).unwrap_or_default();
        let what = format!("request {what} has run for {:.1} s; the stacks stand near", age as f64 / 1e9);
        // When droverd does not take it, its own limits apply.
        let _ = worker.control.send(&FromWorker::Stuck { what, deadlocked: false }, &[]);
    }
}

/// Whether httpd is about to think that nobody has taken the request.
pub fn is_near(exchange: &Exchange, now: u64) -> bool {
    let p = &exchange.prefix;
    if p.take_by == 0 {
        return false;
    }
    let notice = (p.take_by.saturating_sub(p.queued_at) / 4).min(NOTICE_NS);
    now >= p.take_by.saturating_sub(notice)
}
