//! When the monitor looks: reasons in, times out; and that it sleeps when there is none.
#[path = "../../src/threads/bell.rs"]
mod bell;
#[path = "../../src/threads/schedule.rs"]
mod tested;
use bell::Bell;
use std::sync::Arc;
use std::sync::mpsc;
use tested::{NEVER, Reasons, Schedule, TELL_NS, TICK_NS};

const SECOND: u64 = 1_000_000_000;

/// How often the monitor looks in a second of a clock of ours, while `reasons` gives why (of the time now).
fn looks(reasons: impl Fn(u64) -> Reasons) -> usize {
    let (mut schedule, mut now, mut looks) = (Schedule::default(), SECOND, 0);
    loop {
        now = schedule.next(now, &reasons(now));
        if now >= 2 * SECOND {
            return looks;
        }
        looks += 1;
    }
}

#[test]
fn without_a_reason_it_does_not_look() {
    assert_eq!(looks(|_| Reasons::default()), 0, "idle, or a request without limits in the only thread");
}

#[test]
fn what_is_to_be_told_wakes_it_now_and_then() {
    assert_eq!(looks(|now| Reasons { untold: Some(now + TELL_NS), ..Reasons::default() }), 4);
    // Told late, and not heard: no loop without a pause.
    assert_eq!(looks(|_| Reasons { untold: Some(1), ..Reasons::default() }), 999);
}

#[test]
fn a_limit_wakes_it_once() {
    let due = SECOND + 300_000_000;
    assert_eq!(looks(|now| Reasons { due: Some(due).filter(|&at| at > now), ..Reasons::default() }), 1);
}

#[test]
fn it_looks_at_each_tick_only_while_somebody_can_be_promoted() {
    assert_eq!(looks(|_| Reasons { promotable: true, ..Reasons::default() }), 999);
    let until = SECOND + 100 * TICK_NS;
    let some = looks(|now| Reasons { promotable: now < until, ..Reasons::default() });
    assert!((100..=120).contains(&some), "{some}: a few ticks more, and no more");
}

#[test]
fn the_earliest_reason_counts() {
    let mut schedule = Schedule::default();
    let reasons = Reasons { promotable: false, untold: Some(50 * TICK_NS), due: Some(40 * TICK_NS) };
    assert_eq!(schedule.next(TICK_NS, &reasons), 40 * TICK_NS);
    assert_eq!(schedule.next(39 * TICK_NS + 1, &reasons), 40 * TICK_NS + 1, "never in less than a tick");
    assert_eq!(schedule.next(TICK_NS, &Reasons { promotable: true, ..reasons }), 2 * TICK_NS);
}

#[test]
fn what_happens_before_the_sleep_is_not_slept_through() {
    let bell = Bell::default();
    bell.sleep(NEVER, || 5); // returns
    bell.ring(0, || unreachable!("it is awake"));
}

#[test]
fn a_ring_wakes_only_a_sleeper_that_would_sleep_too_long() {
    let bell = Arc::new(Bell::default());
    let (sleeps, asleep) = mpsc::channel();
    let theirs = Arc::clone(&bell);
    let sleeper = std::thread::spawn(move || {
        theirs.sleep(NEVER - 1, || {
            sleeps.send(()).unwrap();
            NEVER
        });
    });
    asleep.recv().unwrap();
    bell.ring(NEVER - 1, || unreachable!("it sleeps no longer than that"));
    bell.ring(0, || NEVER);
    assert!(!sleeper.is_finished());
    bell.ring(0, || 7);
    sleeper.join().unwrap();
}
