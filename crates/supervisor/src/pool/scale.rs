//! How many workers a pool should have, between its limits.
//!
//! Responsible for: the decision, from observations. It grows by half when requests queue, and not
//! again before the new workers are ready. It shrinks by one when the least used worker was idle
//! for a while, and not soon after growth, so that a varying load does not cause constant starts
//! and exits. Must never: read a clock, know a worker. Called by: [`crate::pool`] when it checks
//! the queue.
#![forbid(unsafe_code)]
use crate::pool::events::Now;
use std::time::Duration;

/// A request that waited longer than this indicates too few workers.
const MAX_WAIT: Duration = Duration::from_millis(50);
/// Consecutive checks that must see waiting requests when no worker reports how long they wait.
const PRESSED_CHECKS: u32 = 2;
/// Time between two checks.
pub const CHECK_EVERY: Duration = Duration::from_millis(100);
/// Maximum delay of a worker's activity report.
pub const REPORT_LAG: Duration = Duration::from_millis(250);
/// How long after the last activity the checks go on.
pub const CHECK_FOR: Duration = Duration::from_secs(2);
/// Idle time before scaling down when inactivity-timeout is off.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(30);

/// Observations of a pool at one check.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    pub now: Now,
    /// Currently wanted workers.
    pub target: usize,
    pub least: usize,
    pub most: usize,
    /// All wanted workers serve; none is starting.
    pub complete: bool,
    /// Requests are waiting in the queue.
    pub waiting: bool,
    /// How long the least used worker has been idle.
    pub idle: Duration,
    /// The idle time required to shrink.
    pub patience: Duration,
}

/// Previous observations.
#[derive(Debug, Clone, Default)]
pub struct Scale {
    /// Consecutive checks that saw waiting requests.
    checks: u32,
    /// The longest wait reported since the last decision.
    waited: Duration,
    /// When it last grew (or would have, without the limit) or shrank.
    grown: Option<Now>,
    shrunk: Option<Now>,
}

impl Scale {
    /// Reports how long a request waited before a worker took it.
    pub fn waited(&mut self, for_: Duration) {
        self.waited = self.waited.max(for_);
    }

    /// The number of workers wanted from now on.
    pub fn decide(&mut self, seen: &Observation) -> usize {
        self.checks = if seen.waiting { self.checks.saturating_add(1) } else { 0 };
        let target = seen.target.clamp(seen.least, seen.most);
        if !seen.complete {
            // Waiting while workers start does not show how many are needed.
            self.waited = Duration::ZERO;
            self.checks = 0;
            return target;
        }
        let pressed = std::mem::take(&mut self.waited) > MAX_WAIT || self.checks >= PRESSED_CHECKS;
        if pressed {
            // Also at the upper limit: a pool under load does not shrink soon.
            self.checks = 0;
            self.grown = Some(seen.now);
            return (target + target.div_ceil(2).max(1)).min(seen.most);
        }
        let quiet = |since: Option<Now>, pause: Duration| since.is_none_or(|at| at + pause <= seen.now);
        let may_shrink = quiet(self.grown, seen.patience) && quiet(self.shrunk, seen.patience / 4);
        if !seen.waiting && target > seen.least && seen.idle >= seen.patience && may_shrink {
            self.shrunk = Some(seen.now);
            return target - 1;
        }
        target
    }

    /// When the decision may change without an event; `idle_since` is the last activity of the
    /// least used worker.
    pub fn deadline(&self, idle_since: Now, patience: Duration) -> Now {
        let after = |since: Option<Now>, pause: Duration| since.map_or(Now::ZERO, |at| at + pause);
        (idle_since + patience).max(after(self.grown, patience)).max(after(self.shrunk, patience / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// A group under load: each worker handles one request in `SERVICE`, and the request rate
    /// varies. Time advances in check intervals; a worker serves `START` after it was started.
    struct World {
        scale: Scale,
        now: Now,
        least: usize,
        most: usize,
        target: usize,
        serving: usize,
        coming: Vec<Now>,
        queue: f64,
        idle_since: Vec<Now>,
        changes: Vec<(Now, usize)>,
    }

    const SERVICE: Duration = Duration::from_millis(20);
    const START: Duration = Duration::from_millis(500);
    const PATIENCE: Duration = Duration::from_secs(10);

    impl World {
        fn new(least: usize, most: usize) -> Self {
            let serving = least.max(1);
            let idle_since = vec![Now::ZERO; most + 1];
            let (now, queue) = (Duration::from_secs(1000), 0.0);
            Self { scale: Scale::default(), now, least, most, target: serving, serving, coming: vec![], queue, idle_since, changes: vec![] }
        }

        /// Simulates one check interval at this request rate.
        fn step(&mut self, rate: f64) {
            self.now += CHECK_EVERY;
            let (now, before) = (self.now, self.coming.len());
            self.coming.retain(|at| *at > now);
            self.serving += before - self.coming.len();
            let capacity = self.serving as f64 * CHECK_EVERY.as_secs_f64() / SERVICE.as_secs_f64();
            self.queue += rate * CHECK_EVERY.as_secs_f64();
            let done = self.queue.min(capacity);
            self.queue -= done;
            // The kernel wakes the oldest worker first: the newest ones are idle.
            let busy = (done / capacity * self.serving as f64).ceil() as usize;
            for worker in 0..busy {
                self.idle_since[worker] = now;
            }
            if self.queue >= 1.0 {
                self.scale.waited(Duration::from_secs_f64(self.queue / (capacity / CHECK_EVERY.as_secs_f64())));
            }
            let least_used = self.idle_since[self.serving.saturating_sub(1)];
            let seen = Observation {
                now,
                target: self.target,
                least: self.least,
                most: self.most,
                complete: self.coming.is_empty(),
                waiting: self.queue >= 1.0,
                idle: now - least_used,
                patience: PATIENCE,
            };
            let target = self.scale.decide(&seen);
            if target != self.target {
                self.changes.push((now, target));
                for worker in self.target..target {
                    self.coming.push(now + START);
                    self.idle_since[worker] = now + START;
                }
                self.serving -= self.target.saturating_sub(target);
                self.target = target;
            }
        }

        fn run(&mut self, seconds: u64, rate: impl Fn(f64) -> f64) {
            let start = self.now;
            while self.now < start + Duration::from_secs(seconds) {
                self.step(rate((self.now - start).as_secs_f64()));
            }
        }
    }

    #[test]
    fn a_steady_load_gets_what_it_needs_and_no_more() {
        let mut world = World::new(1, 16);
        world.run(60, |_| 200.0); // four workers' work
        assert!((4..=7).contains(&world.target), "{:?}", world.changes);
        assert!(world.queue < 1.0);
        let settled = world.changes.len();
        world.run(120, |_| 200.0);
        assert!(world.changes.len() <= settled + 4, "{:?}", world.changes);
    }

    #[test]
    fn a_burst_is_met_within_seconds_and_forgotten() {
        let mut world = World::new(1, 16);
        world.run(5, |_| 10.0);
        assert_eq!(world.target, 1);
        world.run(6, |_| 500.0);
        assert!(world.serving >= 10, "{:?}", world.changes);
        world.run(300, |_| 10.0);
        assert_eq!(world.target, 1, "{:?}", world.changes);
    }

    #[test]
    fn a_ramp_is_followed() {
        let mut world = World::new(1, 32);
        world.run(60, |t| 10.0 + t * 10.0);
        assert!((12..=24).contains(&world.target), "{:?}", world.changes);
        assert!(world.queue < 100.0, "{}", world.queue);
    }

    #[test]
    fn a_load_that_comes_and_goes_does_not_make_workers_come_and_go() {
        let mut world = World::new(1, 16);
        world.run(300, |t| if (t as u64 / 3).is_multiple_of(2) { 300.0 } else { 0.0 });
        let grew_again = world.changes.windows(3).filter(|w| w[1].1 < w[0].1 && w[2].1 > w[1].1).count();
        assert!(grew_again <= 1, "{:?}", world.changes);
    }

    #[test]
    fn a_request_that_waits_for_the_first_worker_does_not_ask_for_a_second() {
        let mut scale = Scale::default();
        let seen = Observation {
            now: 100 * MS,
            target: 1,
            least: 0,
            most: 8,
            complete: false,
            waiting: true,
            idle: Duration::ZERO,
            patience: PATIENCE,
        };
        for _ in 0..20 {
            scale.waited(Duration::from_secs(3));
            assert_eq!(scale.decide(&seen), 1);
        }
        assert_eq!(scale.decide(&Observation { complete: true, waiting: false, ..seen }), 1);
    }

    proptest! {
        /// Stays within the limits, never shrinks by two at once, and never within the patience
        /// after growth.
        #[test]
        fn bounds_and_damping(rates in proptest::collection::vec((0.0f64..2000.0, 1u64..20), 1..20), least in 0usize..4, more in 0usize..20) {
            let mut world = World::new(least, (least + more).max(1));
            for (rate, seconds) in rates { world.run(seconds, |_| rate); }
            let mut grown = None;
            let mut before = least.max(1);
            for (at, target) in &world.changes {
                prop_assert!((least..=(least + more).max(1)).contains(target));
                if *target > before { grown = Some(*at); } else {
                    prop_assert_eq!(*target, before - 1);
                    prop_assert!(grown.is_none_or(|g| g + PATIENCE <= *at));
                }
                before = *target;
            }
        }
    }
}
