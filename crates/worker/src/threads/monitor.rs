//! The native thread that watches running requests.
//!
//! Responsible for: calling a follower when `policy` says so; telling httpd that a request runs
//! before queue-timeout; reporting activity and requests that exceed their time limit to droverd.
//! Must never: take the GIL, wake up without a reason (`schedule`). Called by:
//! `process::lifecycle`, which starts it; `serve`, when a request begins or ends.
use crate::request::running::Request;
use crate::threads::interrupt;
use crate::threads::leader::Leader;
use crate::threads::policy::{Observation, Watch};
use crate::threads::schedule::{Reasons, Schedule, TELL_NS, TICK_NS};
use crate::threads::slot::Slot;
use crate::worker::Worker;
use drover_sys::{clock, wait};
use drover_wire::control::{Activity, FromWorker};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// httpd is told that a request runs this long before its queue-timeout, at most.
const NOTICE_NS: u64 = 1_000_000_000;

/// Runs until the process ends.
pub fn run(worker: &Worker) {
    let (mut watch, mut report, mut schedule) = (Watch::default(), Report::default(), Schedule::default());
    loop {
        let now = clock::monotonic_ns();
        report.tell(worker, now);
        for slot in &worker.slots {
            check(worker, slot, now);
        }
        lead(worker, &mut watch, now);
        let until = schedule.next(now, &reasons(worker, &report));
        worker.monitor.sleep(until, || reasons(worker, &report).at(now));
    }
}

/// The reasons to check again.
fn reasons(worker: &Worker, report: &Report) -> Reasons {
    let due = worker.slots.iter().filter_map(|slot| due(worker, slot)).min();
    Reasons { promotable: promotable(worker).is_some(), untold: report.untold(worker), due }
}

/// A request has begun: wakes the monitor if it must check earlier than planned.
pub fn begun(worker: &Worker, slot: &Arc<Slot>, now: u64) {
    worker.monitor.ring(now.saturating_add(TICK_NS), || {
        let reasons =
            Reasons { promotable: worker.leadership.has_follower(), untold: Some(now.saturating_add(TELL_NS)), due: due(worker, slot) };
        reasons.at(now)
    });
}

/// A request has ended, which droverd must be told.
pub fn ended(worker: &Worker) {
    worker.monitor.ring(0, || clock::monotonic_ns().saturating_add(TELL_NS));
}

/// What droverd was told last.
#[derive(Default)]
struct Report {
    at: u64,
    taken: u64,
    counted: u64,
    running: u32,
    /// The last message was not sent, or a request for a successor was not.
    failed: bool,
}

impl Report {
    /// When droverd must be told something; `None` if it is up to date.
    fn untold(&self, worker: &Worker) -> Option<u64> {
        let news = worker.counters.taken.load(Ordering::SeqCst) != self.taken || running(worker) != self.running;
        (news || self.failed).then(|| self.at.saturating_add(TELL_NS))
    }

    /// Tells droverd what is new, if the last report is old enough.
    fn tell(&mut self, worker: &Worker, now: u64) {
        if self.untold(worker).is_none_or(|at| now < at) {
            return;
        }
        self.at = now;
        // If droverd has no room now, it is told later.
        self.failed = !worker.ask_for_successor();
        let running = running(worker);
        let (taken, counted) = (worker.counters.taken.load(Ordering::SeqCst), worker.counters.counted.load(Ordering::Relaxed));
        if taken == self.taken && running == self.running {
            return;
        }
        let waited_us = worker.counters.waited_us.swap(0, Ordering::Relaxed);
        let activity = Activity { taken: taken - self.taken, counted: counted - self.counted, waited_us, running };
        if worker.control.send(&FromWorker::Activity(activity), &[]).is_ok() {
            (self.taken, self.counted, self.running) = (taken, counted, running);
        } else {
            // If it was not sent, the next report includes it.
            worker.counters.waited_us.fetch_max(waited_us, Ordering::Relaxed);
            self.failed = true;
        }
        worker.gauge.ring();
    }
}

/// The number of running requests.
fn running(worker: &Worker) -> u32 {
    let running = worker.slots.iter().filter(|slot| slot.since.load(Ordering::SeqCst) != 0).count();
    u32::try_from(running).unwrap_or(u32::MAX)
}

/// The leader's thread if it runs a request and a follower could take the queue.
fn promotable(worker: &Worker) -> Option<usize> {
    match worker.leadership.state() {
        Leader::Running(leader) if !worker.is_stopping() && worker.leadership.has_follower() => Some(leader),
        _ => None,
    }
}

/// Calls a follower if `policy` says so.
fn lead(worker: &Worker, watch: &mut Watch, now: u64) {
    let Some(leader) = promotable(worker) else { return watch.reset() };
    let Some(slot) = worker.slots.get(leader) else { return };
    let since = slot.since.load(Ordering::Acquire);
    if since == 0 {
        return watch.reset(); // between two requests
    }
    let others = worker.slots.iter().filter(|other| other.index != leader && other.since.load(Ordering::Acquire) != 0);
    let seen =
        Observation { since, cpu: cpu(slot), others_cpu: others.map(cpu).sum(), now, waiting: wait::readable_now(&worker.queue.socket) };
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

/// When `check` must look at a slot's running request next; `None` if it has no limit ahead.
fn due(worker: &Worker, slot: &Arc<Slot>) -> Option<u64> {
    let since = slot.since.load(Ordering::SeqCst);
    if since == 0 {
        return None;
    }
    let request = slot.request()?;
    let unless = |told: &AtomicBool| !told.load(Ordering::Relaxed);
    let notice = notice_at(&request).filter(|_| unless(&request.told_taken));
    let over = limit(worker).map(|limit| since.saturating_add(limit).saturating_add(1));
    let interrupt = over.filter(|_| grace(worker) > 0 && unless(&request.told_interrupt));
    let stuck = over.filter(|_| unless(&request.told_stuck)).map(|at| at.saturating_add(grace(worker)));
    [notice, interrupt, stuck].into_iter().flatten().min()
}

/// request-timeout, nanoseconds.
fn limit(worker: &Worker) -> Option<u64> {
    worker.config.options.request_timeout_ms.map(|ms| ms.saturating_mul(1_000_000)).filter(|&ns| ns > 0)
}

/// interrupt-timeout, nanoseconds; 0 if it is off.
fn grace(worker: &Worker) -> u64 {
    worker.config.options.interrupt_timeout_ms.map_or(0, |ms| ms.saturating_mul(1_000_000))
}

/// Checks one running request.
fn check(worker: &Worker, slot: &Arc<Slot>, now: u64) {
    let since = slot.since.load(Ordering::Acquire);
    if since == 0 {
        return;
    }
    let age = now.saturating_sub(since);
    // Nearly all requests are young, and cost nothing more than this.
    let Some(request) = slot.request() else { return };
    if is_near(&request, now) && !request.told_taken.swap(true, Ordering::Relaxed) {
        request.reply.tell_taken();
    }
    let Some(limit) = limit(worker).filter(|limit| age > *limit) else { return };
    let grace = grace(worker);
    if grace > 0 && !request.told_interrupt.swap(true, Ordering::Relaxed) {
        interrupt::raise_in(Arc::clone(slot), Arc::clone(&request));
    }
    if age > limit.saturating_add(grace) && !request.told_stuck.swap(true, Ordering::Relaxed) {
        worker.dump();
        let what = request.what.get().map(|w| String::from_utf8_lossy(w).into_owned()).unwrap_or_default();
        let what = format!("request {what} has run for {:.1} s; the stacks are in the log", age as f64 / 1e9);
        // If it is not sent, droverd's own limits apply.
        let _ = worker.control.send(&FromWorker::Stuck { what, deadlocked: false }, &[]);
    }
}

/// Whether httpd is about to think that no worker has taken the request.
pub fn is_near(request: &Request, now: u64) -> bool {
    notice_at(request).is_some_and(|at| now >= at)
}

/// When httpd must be told that the request runs; `None` if it need not.
fn notice_at(request: &Request) -> Option<u64> {
    let p = &request.prefix;
    let notice = (p.take_by.saturating_sub(p.queued_at) / 4).min(NOTICE_NS);
    (p.take_by != 0).then(|| p.take_by.saturating_sub(notice))
}
