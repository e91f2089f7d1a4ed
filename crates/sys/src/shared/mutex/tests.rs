//! Mutexes whose owners are stopped, killed, or many; damaged files.
//!
//! Responsible for: real processes, as which the test binary runs itself. Must never: wait without
//! a deadline for a stopped one. Called by: cargo test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A directory for one test.
struct TestDir(PathBuf);

impl TestDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("drover-mutex-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("mutexes")
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

const COUNTED: u32 = 2000;

/// Not a test: this is what the other processes run.
#[test]
fn helper_process() {
    let (Ok(what), Ok(dir)) = (std::env::var("DROVER_HELPER"), std::env::var("DROVER_PLACE")) else { return };
    let dir = PathBuf::from(dir);
    let mutexes = Mutexes::open(&dir.join("mutexes")).unwrap();
    if what == "hold" {
        let held = mutexes.lock(0, u64::MAX).unwrap();
        println!("holding");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        drop(held);
        // The output of the test harness would not be read.
        std::process::exit(0);
    }
    let number = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join("number")).unwrap();
    for _ in 0..COUNTED {
        let _held = mutexes.lock(1, u64::MAX).unwrap();
        let mut bytes = [0; 4];
        let _ = number.read_at(&mut bytes, 0).unwrap();
        number.write_all_at(&(u32::from_ne_bytes(bytes) + 1).to_ne_bytes(), 0).unwrap();
    }
}

fn helper(what: &str, dir: &TestDir) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "shared::mutex::tests::helper_process", "--nocapture", "--test-threads=1"]);
    command.env("DROVER_HELPER", what).env("DROVER_PLACE", &dir.0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// A process that has locked the first mutex.
fn holder(dir: &TestDir) -> Child {
    let mut child = helper("hold", dir);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("holding")));
    child
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

fn after(ms: u64) -> u64 {
    monotonic_ns() + ms * 1_000_000
}

fn refused(mutexes: &Mutexes, which: usize, until: u64) -> Option<Refused> {
    mutexes.lock(which, until).err()
}

/// The process that owns the mutex.
fn busy(refused: Option<Refused>) -> Option<u32> {
    if let Some(Refused::Busy(holder)) = refused { holder.pid() } else { None }
}

#[test]
fn a_stopped_owner_delays_no_waiter_beyond_its_deadline() {
    let dir = TestDir::new("stopped");
    let mutexes = Mutexes::open(&dir.file()).unwrap();
    let mut child = holder(&dir);
    kill_process(pid_of(&child), Signal::STOP).unwrap();
    waitpid(Some(pid_of(&child)), WaitOptions::UNTRACED).unwrap();
    let first = refused(&mutexes, 0, after(300)); // more than one slice
    assert_eq!((busy(first), first), (Some(child.id()), refused(&mutexes, 0, 0)), "the same turn");
    assert_eq!(refused(&mutexes, 1, 0), None);
    kill_process(pid_of(&child), Signal::CONT).unwrap();
    drop(child.stdin.take());
    drop(mutexes.lock(0, u64::MAX).unwrap());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_killed_owner_frees_its_mutex_at_once() {
    let dir = TestDir::new("killed");
    let mutexes = Mutexes::open(&dir.file()).unwrap();
    let mut last = None;
    for _ in 0..3 {
        let mut child = holder(&dir);
        let this = refused(&mutexes, 0, 0);
        assert!(busy(this) == Some(child.id()) && this != last, "another turn");
        last = this;
        child.kill().unwrap();
        child.wait().unwrap();
        drop(mutexes.lock(0, 0).unwrap());
        assert_eq!(refused(&mutexes, 0, 0), None);
    }
    // Also while a thread waits.
    let mut child = holder(&dir);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| refused(&mutexes, 0, u64::MAX));
        child.kill().unwrap();
        assert_eq!(waits.join().unwrap(), None);
    });
    child.wait().unwrap();
}

#[test]
fn processes_that_start_at_once_lose_no_count() {
    let dir = TestDir::new("count");
    let children: Vec<Child> = (0..6).map(|_| helper("count", &dir)).collect();
    assert!(children.into_iter().all(|mut child| child.wait().unwrap().success()));
    let number = std::fs::read(dir.0.join("number")).unwrap();
    assert_eq!(number, (6 * COUNTED).to_ne_bytes());
    let left: Vec<_> = std::fs::read_dir(&dir.0).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn an_unused_file_is_made_anew() {
    let dir = TestDir::new("anew");
    let mutexes = Mutexes::open(&dir.file()).unwrap();
    let held = mutexes.lock(0, 0).unwrap();
    // As after a crash of the machine: locked, by a process that no longer exists.
    let copy = dir.0.join("copy");
    for bytes in [std::fs::read(dir.file()).unwrap(), vec![0x55; LEN], vec![7; 10], vec![0; 3 * LEN], Vec::new()] {
        std::fs::write(&copy, bytes).unwrap();
        let second = Mutexes::open(&copy).unwrap();
        assert_eq!((refused(&second, 0, 0), std::fs::metadata(&copy).unwrap().len()), (None, LEN as u64));
    }
    drop(held);
}

#[test]
fn a_damaged_file_in_use_is_replaced() {
    let dir = TestDir::new("damaged");
    type Damage = fn(&File);
    let damages: [Damage; 2] = [|file| file.set_len(2 * LEN as u64).unwrap(), |file| file.write_all_at(&[0x55; 8], 0).unwrap()];
    for damage in damages {
        let old = Mutexes::open(&dir.file()).unwrap();
        damage(&old.file);
        assert!(old.is_at(&dir.file()));
        let (new, other) = (Mutexes::open(&dir.file()).unwrap(), Mutexes::open(&dir.file()).unwrap());
        assert!(!old.is_at(&dir.file()) && new.is_at(&dir.file()) && new.inode == other.inode);
        let _held = new.lock(0, 0).unwrap();
        assert_eq!(busy(refused(&other, 0, 0)), Some(std::process::id()));
    }
}

#[test]
fn a_mutex_that_was_not_repaired_is_an_error() {
    let dir = TestDir::new("lost");
    let mutexes = Mutexes::open(&dir.file()).unwrap();
    // What glibc writes when the mutex of a dead owner is unlocked without repair: i32::MAX - 1 as
    // its owner, the third word.
    mutexes.file.write_all_at(&(i32::MAX - 1).to_ne_bytes(), 64 + 8).unwrap();
    assert_eq!((refused(&mutexes, 0, 0), refused(&mutexes, 1, 0)), (Some(Refused::Lost), None));
    drop(mutexes);
    assert_eq!(refused(&Mutexes::open(&dir.file()).unwrap(), 0, 0), None);
}
