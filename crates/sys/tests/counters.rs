//! Counters under children that come, count, look for the dead and are killed, all at once.
//!
//! Responsible for: no column ever having two owners, and nothing being left of the dead. A thread with a table of descriptors of its
//! own is a process to the kernel's locks, and the end of that table is a death: so threads stand for processes here. Must never: be in
//! one program with other tests, whose descriptors would be copied. Called by: `cargo test`.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
use drover_sys::counters::{Column, Tally};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const CHILDREN: usize = 6;

/// Runs this as a process of its own would; what it leaves behind is what a killed one leaves.
fn as_process<T: Send>(life: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let process = scope.spawn(|| {
            // SAFETY: this thread gets a copy of the descriptors; each number leads to what it led to.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            let result = life();
            // SAFETY: closes the numbers of this thread's own table, in which nobody uses one any more.
            assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) }, 0);
            result
        });
        process.join().unwrap()
    })
}

#[test]
fn what_a_dead_process_leaves_is_taken_off() {
    let tally = Tally::new(2).unwrap();
    let row = tally.find(&"a").unwrap();
    let die_with = |n: u64| {
        as_process(|| {
            let dead = tally.claim().unwrap();
            tally.add(dead, row, n);
            dead
        })
    };
    let dead = die_with(2);
    let mine = tally.claim().unwrap();
    assert_eq!((mine, tally.enter(mine, row)), (dead, 1), "its column was the first free one");
    die_with(5);
    assert_eq!(tally.enter(mine, row), 7);
    assert!(!tally.exceeds(mine, row, 2, 1), "looked for, and taken off");
    assert_eq!(tally.enter(mine, row), 3);
    as_process(|| {
        assert!(tally.claim().is_some());
        assert_eq!(as_process(|| tally.claim()), None, "there are more processes than expected");
    });
}

#[test]
fn no_column_has_two_owners_while_others_die_and_look_for_the_dead() {
    let tally = Tally::new(CHILDREN).unwrap();
    let (row, full) = (tally.find(&"a").unwrap(), tally.find(&"full").unwrap());
    let owners: Vec<Mutex<()>> = (0..CHILDREN).map(|_| Mutex::new(())).collect();
    let columns: Mutex<Vec<Column>> = Mutex::new(Vec::new());
    let time = AtomicU64::new(1);
    let index = |column: Column| {
        let mut columns = columns.lock().unwrap();
        columns.iter().position(|known| *known == column).unwrap_or_else(|| {
            columns.push(column);
            columns.len() - 1
        })
    };
    let lives = |number: u64| {
        for life in 0..300 {
            as_process(|| {
                let Some(mine) = tally.claim() else { return };
                let owner = owners[index(mine)].try_lock().expect("nobody else owns this column");
                // Something that is too high for everybody has them look for the dead all the time.
                tally.add(mine, full, 1000);
                for _ in 0..20 {
                    let _ = tally.enter(mine, row);
                    let _ = tally.exceeds(mine, full, 10, time.fetch_add(1, Ordering::Relaxed));
                    tally.leave(mine, row);
                }
                if (life + number).is_multiple_of(2) {
                    tally.add(mine, row, 3); // killed with three requests
                } else {
                    tally.subtract(mine, full, 1000);
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
    let mine = tally.claim().unwrap();
    let _ = (tally.enter(mine, row), tally.enter(mine, full));
    assert!(!tally.exceeds(mine, row, 1, u64::MAX), "nothing is left of the dead");
    assert!(!tally.exceeds(mine, full, 1, u64::MAX));
    assert_eq!((tally.enter(mine, row), tally.enter(mine, full)), (2, 2), "and nothing was taken off twice");
}
