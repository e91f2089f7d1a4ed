//! Shared counters while child processes start, count, look for dead ones and are killed, all at
//! once.
//!
//! Responsible for: no slot ever has two owners, and nothing is left of a dead process. To the
//! kernel's locks, a thread with its own descriptor table is a process, and the end of that table
//! is its death. So threads stand for processes here. Must never: share a program with other tests,
//! whose descriptors would be copied. Called by: `cargo test`.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
use drover_sys::counters::{ChildSlot, SharedCounters};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const CHILDREN: usize = 6;

/// Runs `life` as a process of its own; what it leaves behind is what a killed process leaves.
fn as_process<T: Send>(life: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let process = scope.spawn(|| {
            // SAFETY: this thread gets a copy of the descriptor table; every number means what it
            // meant before.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            let result = life();
            // SAFETY: closes the numbers of this thread's own table, which nothing uses any more.
            assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) }, 0);
            result
        });
        process.join().unwrap()
    })
}

#[test]
fn what_a_dead_process_leaves_is_subtracted() {
    let counters = SharedCounters::new(2).unwrap();
    let counter = counters.find(&"a").unwrap();
    let die_with = |n: u64| {
        as_process(|| {
            let dead = counters.claim().unwrap();
            counters.add(dead, counter, n);
            dead
        })
    };
    let dead = die_with(2);
    let mine = counters.claim().unwrap();
    assert_eq!((mine, counters.enter(mine, counter)), (dead, 1), "its slot was the first free one");
    die_with(5);
    assert_eq!(counters.enter(mine, counter), 7);
    assert!(!counters.exceeds(mine, counter, 2, 1), "found, and subtracted");
    assert_eq!(counters.enter(mine, counter), 3);
    as_process(|| {
        assert!(counters.claim().is_some());
        assert_eq!(as_process(|| counters.claim()), None, "there are more processes than expected");
    });
}

#[test]
fn no_slot_has_two_owners_while_processes_die_and_are_reaped() {
    let counters = SharedCounters::new(CHILDREN).unwrap();
    let (counter, full) = (counters.find(&"a").unwrap(), counters.find(&"full").unwrap());
    let owners: Vec<Mutex<()>> = (0..CHILDREN).map(|_| Mutex::new(())).collect();
    let slots: Mutex<Vec<ChildSlot>> = Mutex::new(Vec::new());
    let time = AtomicU64::new(1);
    let index = |slot: ChildSlot| {
        let mut slots = slots.lock().unwrap();
        slots.iter().position(|known| *known == slot).unwrap_or_else(|| {
            slots.push(slot);
            slots.len() - 1
        })
    };
    let lives = |number: u64| {
        for life in 0..300 {
            as_process(|| {
                let Some(mine) = counters.claim() else { return };
                let owner = owners[index(mine)].try_lock().expect("no other process owns this slot");
                // A counter above its limit makes every process look for dead ones all the time.
                counters.add(mine, full, 1000);
                for _ in 0..20 {
                    let _ = counters.enter(mine, counter);
                    let _ = counters.exceeds(mine, full, 10, time.fetch_add(1, Ordering::Relaxed));
                    counters.leave(mine, counter);
                }
                if (life + number).is_multiple_of(2) {
                    counters.add(mine, counter, 3); // killed with three requests
                } else {
                    counters.subtract(mine, full, 1000);
                }
                drop(owner);
            });
        }
    };
    let lives = &lives;
    std::thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || lives(number));
        }
    });
    let mine = counters.claim().unwrap();
    let _ = (counters.enter(mine, counter), counters.enter(mine, full));
    assert!(!counters.exceeds(mine, counter, 1, u64::MAX), "nothing is left of dead processes");
    assert!(!counters.exceeds(mine, full, 1, u64::MAX));
    assert_eq!((counters.enter(mine, counter), counters.enter(mine, full)), (2, 2), "and nothing was subtracted twice");
}
