//! Tests of failures below [`super`] that only it can see.
//!
//! Responsible for: readers that die, writers that are stopped or killed, LMDB refusing to
//! continue, repeated damage. Called by: `disk/mod.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::environment::{LAST_PAGE, LOCK_FILE};
use super::*;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

fn disk(directory: &Path) -> Disk {
    let guard = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(directory.join("locks")).unwrap();
    Disk::new(directory, 2 << 20, false, guard, Stop::never(), Box::new(|_| {}))
}

fn key(n: u8) -> Key {
    Key([n; 32])
}

fn record() -> Record {
    Record { created_ms: 0, accessed_ms: 1, timeout_s: 60, data: vec![7; 3000] }
}

fn moved_aside(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("damaged")).count()
}

/// Not a test: run by another process, which reports that it writes, or begins to read, and
/// continues when told to.
#[test]
fn stopping_process() {
    let (Ok(directory), Ok(what)) = (std::env::var("DROVER_STOPS"), std::env::var("DROVER_WHILE")) else { return };
    let stop = || {
        println!("stop me");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    };
    let store = disk(Path::new(&directory));
    let done = store.run(&Stop::never(), |opened| {
        if what == "reading" {
            let _lock = opened.store_locks.reader(&Stop::never())?;
            stop();
            return Ok(());
        }
        let mut txn = opened.write()?;
        opened.replace(&mut txn, &key(2), &record())?;
        stop();
        store.commit(txn)
    });
    assert_eq!(done, Ok(()));
}

/// A stopped process; killed when dropped.
struct Stopped(Child);

impl Stopped {
    fn new(directory: &Path, what: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "disk::tests::stopping_process", "--nocapture", "--test-threads=1"]);
        child.env("DROVER_STOPS", directory).env("DROVER_WHILE", what).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut stopped = Self(child.spawn().unwrap());
        let mut lines = BufReader::new(stopped.0.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("stop me")));
        kill_process(stopped.pid(), Signal::STOP).unwrap();
        let state = waitpid(Some(stopped.pid()), WaitOptions::UNTRACED).unwrap().unwrap().1;
        assert!(state.stopped(), "{state:?}");
        stopped
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A store with short waits.
fn hasty(directory: &Path) -> Disk {
    disk(directory).with_patience(Duration::from_millis(50))
}

fn all_writes(store: &Disk) -> [Result<(), Error>; 5] {
    [
        store.put(&key(1), &record(), Put::Any, 1),
        store.put_all(&[(key(1), &record())]),
        store.touch(&key(1), 2),
        store.remove(&key(3), 1).map(drop),
        store.sweep(1 << 40, 10).map(drop),
    ]
}

#[test]
fn a_stopped_writer_blocks_no_reader_and_other_writers_time_out() {
    for end in [Signal::CONT, Signal::KILL] {
        let directory = tempfile::tempdir().unwrap();
        let store = hasty(directory.path());
        store.put(&key(1), &record(), Put::Any, 1).unwrap();
        let mut child = Stopped::new(directory.path(), "writing");
        for (n, refused) in all_writes(&store).into_iter().enumerate() {
            let Err(Error::Unavailable(why)) = refused else { panic!("{n}: {refused:?}") };
            let expected = [&format!("process {} writes to it", child.0.id()), "it is stopped", &format!("kill -CONT {}", child.0.id())];
            assert!(expected.iter().all(|part| why.contains(part)), "{why}");
        }
        assert_eq!((store.load(&key(1), 2), store.load(&key(2), 2)), (Ok(Some(record())), Ok(None)));
        drop(store);
        let store = hasty(directory.path());
        assert_eq!(store.load(&key(1), 2), Ok(Some(record())), "also who opens the store now");
        drop(store);
        drop(child.0.stdin.take());
        kill_process(child.pid(), end).unwrap();
        assert_eq!(all_writes(&disk(directory.path()).with_patience(Duration::MAX)), [const { Ok(()) }; 5]);
        assert_eq!(child.0.wait().unwrap().success(), end == Signal::CONT);
    }
}

#[test]
fn a_process_stopped_as_it_begins_to_read_blocks_nobody_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let store = hasty(directory.path());
    store.put(&key(1), &record(), Put::Any, 1).unwrap();
    let child = Stopped::new(directory.path(), "reading");
    let refused = store.load(&key(1), 2);
    assert!(matches!(&refused, Err(Error::Unavailable(why)) if why.contains(&child.0.id().to_string())), "{refused:?}");
    store.put(&key(4), &record(), Put::Any, 1).unwrap();
    drop(store);
    assert!(matches!(hasty(directory.path()).load(&key(1), 2), Err(Error::Unavailable(_))), "who opens it reads its tables");
    drop(child);
    assert_eq!(hasty(directory.path()).load(&key(4), 2), Ok(Some(record())));
}

#[test]
fn a_process_with_another_lock_file_takes_the_shared_one() {
    let directory = tempfile::tempdir().unwrap();
    let (store, file) = (disk(directory.path()), directory.path().join("turns"));
    store.put(&key(1), &record(), Put::Any, 1).unwrap();
    std::fs::remove_file(&file).unwrap();
    let others = StoreLocks::open(directory.path(), Duration::ZERO).unwrap();
    assert!(store.run(&Stop::never(), |opened| Ok(opened.store_locks.are_shared())) == Ok(false));
    store.sweep(1, 10).unwrap();
    let _lock = others.writer(&Stop::never()).unwrap();
    let hasty = store.with_patience(Duration::from_millis(1));
    *hasty.opened.write() = None;
    assert!(matches!(hasty.put(&key(1), &record(), Put::Any, 1), Err(Error::Unavailable(_))));
}

#[test]
fn the_file_of_locks_has_its_blocks_before_lmdb_maps_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(directory.path());
    let blocks = |name: &str| std::fs::metadata(directory.path().join(name)).map(|found| (found.len(), found.blocks() * 512)).unwrap();
    store.put(&key(1), &record(), Put::Any, 1).unwrap();
    for (name, len) in [("store/lock.mdb", LOCK_FILE), ("turns", 4096)] {
        let found = blocks(name);
        assert!(found.0 == len && found.1 >= len, "{name}: {found:?}");
    }
    // As LMDB creates it; the next process that opens it allocates it.
    drop(store);
    let path = directory.path().join("store/lock.mdb");
    File::create(&path).unwrap().set_len(LOCK_FILE - 320).unwrap();
    assert!(blocks("store/lock.mdb").1 < LOCK_FILE / 2, "a hole");
    assert_eq!(disk(directory.path()).load(&key(1), 2), Ok(Some(record())));
    let found = blocks("store/lock.mdb");
    assert!(found.0 == LOCK_FILE - 320 && found.1 >= LOCK_FILE - 320, "{found:?}");
}

/// Not a test: run by another process, which is killed while it reads.
#[test]
fn helper_process() {
    let Ok(directory) = std::env::var("DROVER_DIES_READING") else { return };
    let _ = disk(Path::new(&directory)).run(&Stop::never(), |opened| {
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
    assert_eq!(store.run(&Stop::never(), |opened| Ok(opened.clear_dead_readers())), Ok(false), "none is left");
}

#[test]
fn a_store_that_lmdb_refuses_to_go_on_with_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(directory.path());
    store.put(&key(1), &record(), Put::Any, 1).unwrap();
    let first = AtomicBool::new(true);
    let found = store.run(&Stop::never(), |opened| {
        if first.swap(false, Ordering::Relaxed) {
            return Err(heed::Error::Mdb(heed::MdbError::Panic).into());
        }
        let txn = opened.env.read_txn()?;
        Ok((opened.seen.number, opened.table.len(&txn)?))
    });
    assert_eq!(found, Ok((1, 2)), "opened a second time, and all is there");
    let never = store.run(&Stop::never(), |_| Err::<(), _>(heed::Error::Mdb(heed::MdbError::Panic).into()));
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
        store.open_again(seen, Trouble::Damaged("so it is said".into()), &Stop::never()).unwrap();
        assert_eq!(moved_aside(directory.path()), n);
    }
}

#[test]
fn the_private_layout_of_lmdb_is_the_one_that_is_read_here() {
    let version = heed::lmdb_version();
    assert_eq!((version.major, version.minor), (0, 9), "check LAST_PAGE and LOCK_FILE in environment.rs against mdb.c of {version:?}");
    // The last page in the newer of the two meta pages is the one that LMDB reports.
    let directory = tempfile::tempdir().unwrap();
    let store = disk(directory.path());
    (0..50).for_each(|n| store.put(&key(n), &record(), Put::Any, 1).unwrap());
    let reported = store.run(&Stop::never(), |opened| Ok(opened.env.info().last_page_number as u64)).unwrap();
    let bytes = std::fs::read(directory.path().join("store/data.mdb")).unwrap();
    let last = |meta: usize| u64::from_ne_bytes(*bytes[meta * page_size() + LAST_PAGE..].first_chunk().unwrap());
    assert!(reported > 2 && [last(0), last(1)].contains(&reported), "{reported}: {} {}", last(0), last(1));
    // LMDB computes the number of readers from the length of the lock file that was allocated for it.
    let readers = store.run(&Stop::never(), |opened| Ok(opened.env.info().maximum_number_of_readers)).unwrap();
    assert!((environment::READERS..environment::READERS + 8).contains(&readers), "{readers}");
}

#[test]
fn nobody_waits_without_end_for_a_thread_that_opens_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(directory.path()).with_patience(Duration::ZERO);
    let opening = store.opened.write();
    let refused = store.load(&key(1), 1).unwrap_err().to_string();
    assert!(refused.contains("another thread of this process has been opening it"), "{refused}");
    drop(opening);
}

#[test]
fn a_stop_ends_the_wait_for_a_thread_that_opens_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let (store, stop) = stoppable(directory.path());
    let opening = store.opened.write();
    assert!(ended_by_stop(&stop, || store.load(&key(1), 1).map(drop)));
    drop(opening);
}

#[test]
fn a_stop_ends_the_wait_for_the_lock_of_a_writer_and_of_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    disk(directory.path()).put(&key(1), &record(), Put::Any, 1).unwrap();
    let others = StoreLocks::open(directory.path(), Duration::ZERO).unwrap();
    let (store, stop) = stoppable(directory.path());
    let writer = others.writer(&Stop::never()).unwrap();
    assert!(ended_by_stop(&stop, || store.put(&key(1), &record(), Put::Any, 1)));
    drop(writer);
    let (store, stop) = stoppable(directory.path());
    let _reader = others.reader(&Stop::never()).unwrap();
    assert!(ended_by_stop(&stop, || store.load(&key(1), 1).map(drop)));
}

#[test]
fn a_stop_ends_the_wait_for_a_process_that_moves_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let (store, stop) = stoppable(directory.path());
    let other = OpenOptions::new().read(true).write(true).open(directory.path().join("locks")).unwrap();
    assert_eq!(filelock::set(&other, MOVING, Hold::Exclusive), Ok(true));
    stop.stop();
    assert_eq!(store.load(&key(1), 1), Err(Error::Stopping));
}

#[test]
fn a_process_that_is_being_stopped_still_writes_its_sessions() {
    let directory = tempfile::tempdir().unwrap();
    let (store, stop) = stoppable(directory.path());
    let others = StoreLocks::open(directory.path(), Duration::ZERO).unwrap();
    stop.stop();
    std::thread::scope(|scope| {
        let (held, is_held) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let _writer = others.writer(&Stop::never()).unwrap();
            held.send(()).unwrap();
            goes_on.recv().unwrap();
        });
        is_held.recv().unwrap();
        assert_eq!(store.put(&key(2), &record(), Put::Any, 1), Err(Error::Stopping));
        go_on.send(()).unwrap();
        assert_eq!(store.put_all(&[(key(1), &record())]), Ok(()));
    });
    assert_eq!((store.sync(), store.load(&key(1), 2)), (Ok(()), Ok(Some(record()))));
}

/// A store whose waits only a stop ends.
fn stoppable(directory: &Path) -> (Disk, Stop) {
    let stop = Stop::new().unwrap();
    (Disk { stop: stop.clone(), ..disk(directory) }.with_patience(Duration::MAX), stop)
}

/// Whether the operation, which waits for another owner, returns because of the stop.
fn ended_by_stop(stop: &Stop, operation: impl Fn() -> Result<(), Error> + Sync) -> bool {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(&operation);
        stop.stop();
        waiting.join().unwrap() == Err(Error::Stopping)
    })
}
