//! When a follower takes the queue: figures in, decision out.
#[path = "../../src/threads/policy.rs"]
mod tested;
use tested::{FAIR_NS, Observation, Watch};

const TICK: u64 = 1_000_000;

/// Feeds ticks of (CPU of the leader, CPU of others, queue has something); says after which a follower is called.
fn called_at(ticks: &[(u64, u64, bool)]) -> Option<usize> {
    let mut watch = Watch::default();
    let (mut cpu, mut others_cpu, mut now) = (0, 0, 1);
    ticks.iter().position(|&(own, other, waiting)| {
        cpu += own;
        others_cpu += other;
        now += TICK;
        watch.tick(&Observation { since: 1, cpu, others_cpu, now, waiting })
    })
}

#[test]
fn a_leader_in_input_or_output_is_replaced_at_once() {
    assert_eq!(called_at(&[(300_000, 0, false), (0, 0, false)]), Some(1));
    assert_eq!(called_at(&[(300_000, 0, false), (400_000, 0, false), (5_000, 0, false)]), Some(2), "noise does not count");
}

#[test]
fn a_computing_leader_keeps_the_queue_while_nobody_waits() {
    assert_eq!(called_at(&[(TICK, 0, false); 100]), None);
}

#[test]
fn a_computing_leader_gives_way_when_somebody_waits_too_long() {
    let at = called_at(&[(TICK, 0, true); 100]).unwrap() as u64;
    assert_eq!(at, FAIR_NS / TICK, "the first tick beyond the bound");
    let mut ticks = vec![(TICK, 0, false); 50];
    ticks.extend([(TICK, 0, true), (TICK, 0, false), (TICK, 0, true), (TICK, 0, true)]);
    assert_eq!(called_at(&ticks), Some(53), "two ticks in a row");
}

#[test]
fn waiting_for_the_gil_is_not_input_or_output() {
    assert_eq!(called_at(&[(0, TICK, false); 50]), None);
    assert!(called_at(&[(0, TICK, true); 50]).is_some());
}

#[test]
fn another_request_is_another_matter() {
    let mut watch = Watch::default();
    let seen = |since| Observation { since, cpu: 5, others_cpu: 0, now: since + TICK, waiting: false };
    assert!(!watch.tick(&seen(1)));
    assert!(!watch.tick(&seen(2)), "a new one has not stood still yet");
    assert!(watch.tick(&seen(2)));
    watch.reset();
    assert!(!watch.tick(&seen(2)));
}
