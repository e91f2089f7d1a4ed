//! What [`super`] does when things go wrong below it that only it can see.
//!
//! Responsible for: readers that die, LMDB refusing to go on, damage after damage. Called by: `disk.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use rustix::process::{Signal, getpid, kill_process};
use std::process::{Command, Stdio};

fn disk(directory: &Path) -> Disk {
    let guard = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(directory.join("locks")).unwrap();
    Disk::new(directory, 2 << 20, false, guard, Box::new(|_| {}))
}

fn key(n: u8) -> Key {
    Key([n; 32])
}

fn record() -> Record {
    Record { created_ms: 1, accessed_ms: 1, timeout_s: 60, data: vec![7; 3000] }
}

fn moved_aside(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("damaged")).count()
}

/// Not a test but what another process runs: it is killed while it reads.
#[test]
fn helper_process() {
    let Ok(directory) = std::env::var("DROVER_DIES_READING") else { return };
    let _ = disk(Path::new(&directory)).run(|opened| {
        let txn = opened.env.read_txn()?;
        opened.table.len(&txn)?;
        kill_process(getpid(), Signal::KILL).unwrap();
        Ok(())
    });
}

fn die_reading(directory: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "disk::tests::helper_process", "--test-threads=1"]).env("DROVER_DIES_READING", directory);
    assert!(child.stdout(Stdio::null()).status().unwrap().code().is_none(), "killed");
}

#[test]
fn a_killed_reader_does_not_fill_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(directory.path());
    store.put(&key(1), &record(), Put::Any, 1).unwrap();
    die_reading(directory.path());
    for _ in 0..2000 {
        store.put(&key(1), &record(), Put::Any, 1).unwrap();
    }
}

#[test]
fn each_sweep_looks_for_killed_readers() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(directory.path());
    store.put(&key(1), &record(), Put::Any, 1).unwrap();
    die_reading(directory.path());
    assert_eq!(store.sweep(1, 10), Ok(Swept::default()), "nothing is over");
    assert_eq!(store.run(|opened| Ok(opened.clear_dead_readers())), Ok(false), "none is left");
}

#[test]
fn a_store_that_lmdb_refuses_to_go_on_with_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(directory.path());
    store.put(&key(1), &record(), Put::Any, 1).unwrap();
    let first = AtomicBool::new(true);
    let found = store.run(|opened| {
        if first.swap(false, Ordering::Relaxed) {
            return Err(heed::Error::Mdb(MdbError::Panic).into());
        }
        let txn = opened.env.read_txn()?;
        Ok((opened.seen.number, opened.table.len(&txn)?))
    });
    assert_eq!(found, Ok((1, 2)), "opened a second time, and all is there");
    let never = store.run(|_| Err::<(), _>(heed::Error::Mdb(MdbError::Panic).into()));
    assert!(matches!(never, Err(Error::Unavailable(_))), "{never:?}");
    assert_eq!((moved_aside(directory.path()), store.load(&key(1), 2)), (0, Ok(Some(record()))));
}

#[test]
fn many_may_be_moved_aside_in_one_second() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(directory.path());
    for n in 1..=5 {
        store.put(&key(1), &record(), Put::Create, 1).unwrap();
        let seen = store.opened.read().as_ref().map(|opened| opened.seen);
        store.open_again(seen, Trouble::Damaged("so it is said".into())).unwrap();
        assert_eq!(moved_aside(directory.path()), n);
    }
}
