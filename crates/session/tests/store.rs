//! Tests of the semantics that all engines share, and of what survives a crash.
//!
//! Processes are real: the test binary runs itself (`helper`), so `kill -9` is a real one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use drover_session::disk::Disk;
use drover_session::memory::Memory;
use drover_session::owner::Owner;
use drover_session::{Engine, Error, Id, Key, Limits, Put, Record, Sessions, Stop};
use proptest::prelude::*;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const LIMITS: Limits = Limits { disk_bytes: 64 << 20, memory_bytes: 1 << 20, data_bytes: 100_000, always_sync: false };
const NOW: u64 = 1_800_000_000_000;

fn quiet(_: &str) {}

static SAID: AtomicUsize = AtomicUsize::new(0);
fn count(_: &str) {
    SAID.fetch_add(1, Ordering::SeqCst);
}

fn locks(dir: &Path) -> File {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(dir.join("locks")).unwrap()
}

fn disk(dir: &Path, size: u64) -> Disk {
    Disk::new(dir, size, false, locks(dir), Stop::never(), Box::new(count))
}

fn key(n: u32) -> Key {
    Key::named(b"test", n.to_string().as_bytes()).unwrap()
}

/// A record that was used after the request that created it.
fn record(text: &str) -> Record {
    Record { created_ms: NOW - 1, accessed_ms: NOW, timeout_s: 1800, data: text.as_bytes().to_vec() }
}

/// Runs a test with every engine of this crate.
fn each(test: impl Fn(&dyn Engine)) {
    let dir = tempfile::tempdir().unwrap();
    test(&disk(dir.path(), 64 << 20));
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(disk(dir.path(), 64 << 20), 1 << 20);
    memory.begin_exclusive();
    test(&memory);
    // So small that nearly everything moves to disk.
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(disk(dir.path(), 64 << 20), 8_000);
    memory.begin_exclusive();
    test(&memory);
    let dir = tempfile::tempdir().unwrap();
    test(&Memory::new(disk(dir.path(), 64 << 20), 1 << 20));
}

#[test]
fn a_session_is_found_until_it_expires_or_is_removed() {
    each(|engine| {
        assert_eq!(engine.load(&key(1), NOW), Ok(None));
        engine.put(&key(1), &record("one"), Put::Create, NOW).unwrap();
        assert_eq!(engine.load(&key(1), NOW), Ok(Some(record("one"))));
        assert_eq!(engine.put(&key(1), &record("two"), Put::Create, NOW), Err(Error::Exists));
        engine.put(&key(1), &record("three"), Put::Replace, NOW).unwrap();
        assert_eq!(engine.put(&key(2), &record("four"), Put::Replace, NOW), Err(Error::Missing));
        assert_eq!(engine.load(&key(1), NOW + 1_799_999).unwrap().unwrap().data, b"three");
        engine.touch(&key(1), NOW + 1_000_000).unwrap();
        engine.touch(&key(9), NOW).unwrap();
        assert_eq!(engine.load(&key(1), NOW + 2_799_999).unwrap().unwrap().accessed_ms, NOW + 1_000_000);
        assert_eq!(engine.load(&key(1), NOW + 2_800_000), Ok(None), "over");
        assert_eq!(engine.put(&key(1), &record("five"), Put::Replace, NOW + 2_800_000), Err(Error::Missing));
        engine.put(&key(1), &record("six"), Put::Create, NOW + 2_800_000).unwrap();
        assert_eq!((engine.remove(&key(1), NOW), engine.remove(&key(1), NOW)), (Ok(true), Ok(false)));
        assert_eq!(engine.load(&key(1), NOW), Ok(None));
    });
}

#[test]
fn a_sweep_removes_only_expired_sessions_in_bounded_steps() {
    each(|engine| {
        for n in 0..500 {
            let timeout_s = if n % 5 == 0 { 7200 } else { 60 };
            engine.put(&key(n), &Record { timeout_s, ..record("x") }, Put::Any, NOW).unwrap();
        }
        assert_eq!(engine.sweep(NOW, 100).unwrap().removed, 0);
        let later = NOW + 200_000;
        let mut steps = 0;
        while engine.sweep(later, 50).unwrap().more {
            steps += 1;
            assert!(steps < 1000);
        }
        assert!(steps > 3, "one step did it all");
        for n in 0..500 {
            assert_eq!(engine.load(&key(n), NOW).unwrap().is_some(), n % 5 == 0, "{n}");
        }
        assert_eq!(engine.figures().unwrap().sessions, 100);
    });
}

#[derive(Debug, Clone)]
enum Step {
    Put(u32, u8, u32, Put),
    Touch(u32),
    Remove(u32),
    Load(u32),
    Sweep,
    Pass(u64),
    Share,
    Alone,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![Just(Put::Any), Just(Put::Create), Just(Put::Replace)];
    let step = prop_oneof![
        4 => (0..12u32, any::<u8>(), 1..400u32, how).prop_map(|(k, d, t, how)| Step::Put(k, d, t, how)),
        2 => (0..12u32).prop_map(Step::Touch),
        1 => (0..12u32).prop_map(Step::Remove),
        3 => (0..12u32).prop_map(Step::Load),
        1 => Just(Step::Sweep),
        2 => (0..200_000u64).prop_map(Step::Pass),
        1 => Just(Step::Share),
        1 => Just(Step::Alone),
    ];
    prop::collection::vec(step, 1..80)
}

/// The engine and a map must agree after any sequence of steps; changes of the role have no effect.
fn agree(engine: &dyn Engine, memory: Option<&Memory>, steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut model, mut now): (HashMap<u32, Record>, u64) = (HashMap::new(), NOW);
    for step in steps {
        match *step {
            Step::Put(k, data, timeout_s, how) => {
                let lives = model.get(&k).is_some_and(|r| !r.is_expired(now));
                let expected = match how {
                    Put::Create if lives => Err(Error::Exists),
                    Put::Replace if !lives => Err(Error::Missing),
                    _ => Ok(()),
                };
                let new = Record { created_ms: now, accessed_ms: now, timeout_s, data: vec![data; usize::from(data) * 4] };
                prop_assert_eq!(engine.put(&key(k), &new, how, now), expected.clone());
                if expected.is_ok() {
                    model.insert(k, new);
                }
            }
            Step::Touch(k) => {
                engine.touch(&key(k), now).unwrap();
                if let Some(record) = model.get_mut(&k).filter(|r| !r.is_expired(now)) {
                    record.accessed_ms = now;
                }
                // A touch of an expired session has no defined result: both sides forget it.
                if model.get(&k).is_some_and(|r| r.is_expired(now)) {
                    model.remove(&k);
                    engine.remove(&key(k), now).unwrap();
                }
            }
            Step::Remove(k) => {
                let lived = model.remove(&k).is_some_and(|r| !r.is_expired(now));
                prop_assert_eq!(engine.remove(&key(k), now), Ok(lived));
            }
            Step::Load(k) => {
                let expected = model.get(&k).filter(|r| !r.is_expired(now)).cloned();
                prop_assert_eq!(engine.load(&key(k), now), Ok(expected));
            }
            Step::Sweep => drop(engine.sweep(now, 5).unwrap()),
            Step::Pass(ms) => now += ms,
            Step::Share => memory.into_iter().for_each(|m| m.end_exclusive().unwrap()),
            Step::Alone => memory.into_iter().for_each(|m| {
                m.end_exclusive().unwrap();
                m.begin_exclusive();
            }),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn engines_do_what_a_map_does(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        agree(&disk(dir.path(), 64 << 20), None, &steps)?;
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(disk(dir.path(), 64 << 20), 20_000);
        memory.begin_exclusive();
        agree(&memory, Some(&memory), &steps)?;
    }
}

#[test]
fn a_full_store_is_an_error_and_the_old_value_stays() {
    let dir = tempfile::tempdir().unwrap();
    let small = disk(dir.path(), 1 << 20);
    small.put(&key(0), &record("precious"), Put::Any, NOW).unwrap();
    let large = Record { data: vec![7; 50_000], ..record("") };
    let full = (1..100).find_map(|n| small.put(&key(n), &large, Put::Any, NOW).err());
    assert_eq!(full, Some(Error::Full));
    assert_eq!(small.put(&key(0), &large, Put::Any, NOW), Err(Error::Full));
    assert_eq!(small.load(&key(0), NOW), Ok(Some(record("precious"))));
    // Expired sessions make room.
    while small.sweep(NOW + 10_000_000, 10).unwrap().more {}
    small.put(&key(0), &large, Put::Any, NOW).unwrap();
}

#[test]
fn a_full_store_evicts_sessions_that_were_never_used_again() {
    let stores = |test: &dyn Fn(&dyn Engine)| {
        let dir = tempfile::tempdir().unwrap();
        test(&disk(dir.path(), 1 << 20));
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(disk(dir.path(), 1 << 20), 1 << 20);
        memory.begin_exclusive();
        test(&memory);
    };
    stores(&|engine| {
        let new = |n: u32| Record { created_ms: NOW + u64::from(n), accessed_ms: NOW + u64::from(n), data: vec![7; 3000], ..record("") };
        let used = |n: u32| Record { accessed_ms: NOW + 100_000, ..new(n) };
        // A hundred sessions in use, among thousands that are created and never used again.
        for n in 0..10_000 {
            assert_eq!(engine.put(&key(n), &new(n), Put::Create, NOW), Ok(()), "{n}");
            if n % 100 == 0 {
                let first = n / 100;
                assert_eq!(engine.put(&key(n), &used(n), Put::Replace, NOW), Ok(()), "{n}");
                // Each of the others can still be changed, touched and read.
                let other = first / 2 * 100;
                assert_eq!(engine.put(&key(other), &used(other), Put::Replace, NOW), Ok(()), "{n}");
                assert_eq!(engine.touch(&key(other), NOW + 100_000), Ok(()));
            }
        }
        assert!((0..10_000).step_by(100).all(|n| engine.load(&key(n), NOW) == Ok(Some(used(n)))));
        let left = (0..10_000).filter(|n| engine.load(&key(*n), NOW).unwrap().is_some()).collect::<Vec<_>>();
        assert!(left.len() > 150 && left.contains(&9999) && !left.contains(&1), "the oldest go first: {}", left.len());
    });
}

#[test]
fn room_is_made_for_large_sessions_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = disk(dir.path(), 1 << 20);
    store.put(&key(0), &record("precious"), Put::Any, NOW).unwrap();
    for n in 1..300 {
        let new = Record { created_ms: NOW, accessed_ms: NOW, data: vec![7; 100_000 + n as usize * 300], ..record("") };
        assert_eq!(store.put(&key(n), &new, Put::Create, NOW), Ok(()), "{n}");
        assert_eq!(store.put(&key(0), &record(&n.to_string()), Put::Replace, NOW), Ok(()));
    }
}

#[test]
fn evictions_are_logged_once_a_second() {
    static LINES: AtomicUsize = AtomicUsize::new(0);
    let dir = tempfile::tempdir().unwrap();
    let say = |line: &str| {
        assert!(line.contains("is full") && line.contains("DroverSessionDiskSize"), "{line}");
        LINES.fetch_add(1, Ordering::SeqCst);
    };
    let store = Disk::new(dir.path(), 1 << 20, false, locks(dir.path()), Stop::never(), Box::new(say));
    let begun = std::time::Instant::now();
    for n in 0..1000 {
        let new = Record { created_ms: NOW, accessed_ms: NOW, data: vec![7; 30_000], ..record("") };
        store.put(&key(n), &new, Put::Create, NOW).unwrap();
    }
    let lines = LINES.load(Ordering::SeqCst) as u64;
    assert!((1..=begun.elapsed().as_secs() + 1).contains(&lines), "{lines}");
}

#[test]
fn a_full_disk_is_an_error_and_the_old_value_stays() {
    let dir = tempfile::tempdir().unwrap();
    assert!(said_by("limited", dir.path()).contains("full, and precious"));
}

#[test]
fn a_store_that_finds_no_room_for_its_locks_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(said_by("unopenable", dir.path()).contains("stored at last"));
}

#[test]
fn a_disk_too_full_for_the_locks_does_not_end_the_process() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can mount a file system; the test above needs no root
    }
    let dir = tempfile::tempdir().unwrap();
    // In its own mount namespace, which ends with the process.
    let small = "mount -t tmpfs -o size=64k none \"$DROVER_DIR\" && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", small]);
    assert!(said_by_child(started(command, "cramped", dir.path())).contains("stored at last"));
}

/// The output of a helper that must succeed.
fn said_by(what: &str, dir: &Path) -> String {
    said_by_child(helper(what, dir))
}

fn said_by_child(mut child: Child) -> String {
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    said
}

#[test]
fn a_session_that_cannot_be_removed_from_disk_is_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    assert!(said_by("unremovable", dir.path()).contains("still new"));
}

#[test]
fn a_full_disk_can_be_read_through_full_memory() {
    let dir = tempfile::tempdir().unwrap();
    assert!(said_by("unwritable", dir.path()).contains("all read"));
}

#[test]
fn memory_is_bounded_and_the_rest_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(disk(dir.path(), 64 << 20), 160_000);
    memory.begin_exclusive();
    for n in 0..2000 {
        memory.put(&key(n), &Record { data: vec![1; 300], ..record("") }, Put::Create, NOW).unwrap();
    }
    // 320 fit in memory; the others are on disk, and none is lost.
    let on_disk = disk_figures(&memory);
    assert!(on_disk > 1600, "{on_disk}");
    assert!((0..2000).all(|n| memory.load(&key(n), NOW).unwrap().is_some()));
}

fn disk_figures(memory: &Memory) -> u64 {
    memory.figures().unwrap().sessions
}

#[test]
fn a_store_that_is_cut_or_overwritten_is_moved_aside_and_the_service_goes_on() {
    type Damage = fn(&Path);
    let damages: [Damage; 6] = [
        |file| OpenOptions::new().write(true).open(file).unwrap().set_len(5000).unwrap(),
        |file| OpenOptions::new().write(true).open(file).unwrap().set_len(0).unwrap(),
        |file| OpenOptions::new().write(true).open(file).unwrap().set_len(16_384).unwrap(),
        |file| OpenOptions::new().write(true).open(file).unwrap().write_all(&[0x55; 16_384]).unwrap(),
        |file| std::fs::write(file, b"not a store at all").unwrap(),
        // More pages than possible, in both meta pages.
        |file| {
            let file = OpenOptions::new().write(true).open(file).unwrap();
            for meta in [0, 4096] {
                file.write_all_at(&[0x11; 8], meta + 136).unwrap();
            }
        },
    ];
    for (n, damage) in damages.iter().enumerate() {
        for running in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let store = disk(dir.path(), 64 << 20);
            for n in 0..200 {
                store.put(&key(n), &Record { data: vec![1; 3000], ..record("") }, Put::Any, NOW).unwrap();
            }
            let mut store = Some(store);
            if !running {
                store = None;
            }
            let store = store.unwrap_or_else(|| disk(dir.path(), 64 << 20));
            let said = SAID.load(Ordering::SeqCst);
            damage(&dir.path().join("store/data.mdb"));
            for n in 0..200 {
                let found = store.load(&key(n), NOW).unwrap_or_else(|e| panic!("damage {n}: {e}"));
                assert!(found.is_none_or(|r| r.data == [1; 3000]), "never something else");
            }
            store.put(&key(1), &record("new"), Put::Any, NOW).unwrap();
            assert_eq!(store.load(&key(1), NOW), Ok(Some(record("new"))));
            // An empty file is a new store; everything else is kept for inspection.
            let moved = moved_aside(dir.path());
            assert!(moved == 1 && SAID.load(Ordering::SeqCst) > said || (n == 1 && !running), "damage {n}, running {running}: {moved}");
        }
    }
}

/// The test binary itself, as another process.
fn helper(what: &str, dir: &Path) -> Child {
    // With SIGXFSZ ignored, as in httpd: exceeding the file size limit is an error.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    started(command, what, dir)
}

fn started(mut command: Command, what: &str, dir: &Path) -> Child {
    command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "helper_process", "--nocapture", "--test-threads=1"])
        .env("DROVER_HELPER", what)
        .env("DROVER_DIR", dir);
    command.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap()
}

fn wait_for(lines: &mut impl BufRead, word: &str) {
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the helper ended before it said {word:?}");
    }
}

const FOREVER: u64 = u64::MAX;

/// Not a test: the body of [`helper`].
#[test]
fn helper_process() {
    let (Ok(what), Ok(dir)) = (std::env::var("DROVER_HELPER"), std::env::var("DROVER_DIR")) else { return };
    let dir = Path::new(&dir);
    match what.as_str() {
        "counter" => {
            let sessions = Sessions::disk(dir, LIMITS, &Stop::never(), &quiet).unwrap();
            for _ in 0..200 {
                add_one(&sessions, &key(1));
            }
        }
        "holder" => {
            let sessions = Sessions::disk(dir, LIMITS, &Stop::never(), &quiet).unwrap();
            let _guard = sessions.lock(&key(1), FOREVER, &mut || false).unwrap();
            println!("holding");
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        "writer" => {
            let sessions = Sessions::disk(dir, LIMITS, &Stop::never(), &quiet).unwrap();
            println!("writing");
            let parent = rustix::process::getppid();
            for n in 0u32.. {
                if rustix::process::getppid() != parent {
                    return; // the test has ended
                }
                let all = vec![n as u8; 100 + n as usize % 5000];
                sessions.put(&key(n % 100), &Record { data: all, ..record("") }, Put::Any, NOW).unwrap();
                if n % 7 == 0 {
                    sessions.remove(&key(n % 50), NOW).unwrap();
                }
            }
        }
        "creator" => {
            let store = disk(dir, 1 << 30);
            let threads = 0..2u32;
            std::thread::scope(|scope| {
                for thread in threads {
                    let store = &store;
                    scope.spawn(move || (0..CREATED).for_each(|n| create_and_find(store, std::process::id() * 2 + thread, n)));
                }
            });
        }
        "small" => {
            let store = disk(dir, 2 << 20);
            store_large(&store, 0..100);
            println!("stored");
            std::io::stdin().read_exact(&mut [0]).unwrap();
            store_large(&store, 5000..5001);
            for n in (0..100).chain(1000..2000) {
                assert!(store.load(&key(n), NOW).unwrap().is_some(), "{n}");
            }
        }
        "memory" => {
            let sessions = Sessions::memory(dir, LIMITS, &Stop::never(), &quiet).unwrap();
            for n in 0..500 {
                sessions.put(&key(n), &record(&n.to_string()), Put::Any, NOW).unwrap();
            }
            let held = sessions.lock(&key(1), FOREVER, &mut || false).unwrap();
            println!("alone");
            let (stop, _keep) = std::io::pipe().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| sessions.keep(&stop, 1_000_000, 1_000_000, || NOW));
                std::io::stdin().read_exact(&mut [0]).unwrap();
                sessions.put(&key(1), &record("in the end"), Put::Any, NOW).unwrap();
                drop(held);
                println!("let go");
                std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
                std::process::exit(0);
            });
        }
        "limited" => {
            let store = disk(dir, 64 << 20);
            store.put(&key(0), &record("precious"), Put::Any, NOW).unwrap();
            rustix::process::setrlimit(rustix::process::Resource::Fsize, rustix::process::Rlimit { current: Some(200_000), maximum: None })
                .unwrap();
            let large = Record { data: vec![7; 50_000], ..record("") };
            let full = (1..100).find_map(|n| store.put(&key(n), &large, Put::Any, NOW).err());
            assert_eq!(full, Some(Error::Full));
            println!("full, and {}", String::from_utf8(store.load(&key(0), NOW).unwrap().unwrap().data).unwrap());
        }
        // On a disk that is nearly full at first.
        "cramped" => {
            assert_eq!(disk(dir, 2 << 20).put(&key(0), &record("first"), Put::Any, NOW), Err(Error::Full));
            assert!(Command::new("mount").args(["-o", "remount,size=8m"]).arg(dir).status().unwrap().success());
            disk(dir, 2 << 20).put(&key(0), &record("first"), Put::Any, NOW).unwrap();
            println!("stored at last");
        }
        // With a file size limit that stops the file `turns`, or LMDB's lock file.
        "unopenable" => {
            for limit in [0, 5000] {
                let limit = rustix::process::Rlimit { current: Some(limit), maximum: None };
                rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
                assert_eq!(disk(dir, 2 << 20).load(&key(0), NOW), Err(Error::Full));
            }
            let none = rustix::process::Rlimit { current: None, maximum: None };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, none).unwrap();
            disk(dir, 2 << 20).put(&key(0), &record("first"), Put::Any, NOW).unwrap();
            println!("stored at last");
        }
        "unremovable" => {
            let memory = Memory::new(disk(dir, 64 << 20), 1 << 20);
            memory.put(&key(0), &record("old"), Put::Any, NOW).unwrap();
            memory.begin_exclusive();
            memory.put(&key(0), &record("new"), Put::Replace, NOW).unwrap();
            // From here on nothing can be written.
            let nothing = rustix::process::Rlimit { current: Some(0), maximum: None };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, nothing).unwrap();
            assert_eq!(memory.remove(&key(0), NOW), Err(Error::Full));
            assert_eq!(memory.load(&key(0), NOW), Ok(Some(record("new"))));
            println!("still new");
        }
        "unwritable" => {
            let store = disk(dir, 64 << 20);
            store_large(&store, 0..64);
            drop(store);
            // Space for one session per shard.
            let memory = Memory::new(disk(dir, 64 << 20), 16 * 4000);
            memory.begin_exclusive();
            for n in 1000..1064 {
                memory.put(&key(n), &Record { data: vec![8; 3000], ..record("") }, Put::Any, NOW).unwrap();
            }
            let nothing = rustix::process::Rlimit { current: Some(0), maximum: None };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, nothing).unwrap();
            for n in (0..64).chain(1000..1064) {
                assert!(memory.load(&key(n), NOW).unwrap().is_some(), "{n}");
            }
            println!("all read");
        }
        other => panic!("no helper {other}"),
    }
}

fn add_one(sessions: &Sessions, key: &Key) {
    let _guard = sessions.lock(key, FOREVER, &mut || false).unwrap();
    let before = sessions.load(key, NOW).unwrap().map_or(0, |r| String::from_utf8(r.data).unwrap().parse::<u32>().unwrap());
    sessions.put(key, &record(&(before + 1).to_string()), Put::Any, NOW).unwrap();
}

#[test]
fn eight_processes_count_to_the_exact_end() {
    let dir = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..8).map(|_| helper("counter", dir.path())).collect();
    assert!(children.into_iter().all(|mut child| child.wait().unwrap().success()));
    let sessions = Sessions::disk(dir.path(), LIMITS, &Stop::never(), &quiet).unwrap();
    assert_eq!(sessions.load(&key(1), NOW).unwrap().unwrap().data, b"1600");
}

fn store_large(store: &Disk, which: std::ops::Range<u32>) {
    for n in which {
        store.put(&key(n), &Record { data: vec![7; 3000], ..record("") }, Put::Any, NOW).unwrap();
    }
}

fn moved_aside(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("damaged")).count()
}

#[test]
fn another_size_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    // Raised: a process from before the reload runs beside one with the new size.
    let mut old = helper("small", dir.path());
    let mut lines = BufReader::new(old.stdout.take().unwrap());
    wait_for(&mut lines, "stored");
    let larger = disk(dir.path(), 16 << 20);
    store_large(&larger, 1000..2000);
    old.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    let mut said = String::new();
    lines.read_to_string(&mut said).unwrap();
    assert!(old.wait().unwrap().success(), "{said}");
    assert!(larger.load(&key(5000), NOW).unwrap().is_some());
    drop(larger);
    // Lowered: sessions stay; only new ones do not fit.
    let smaller = disk(dir.path(), 2 << 20);
    assert_eq!(smaller.figures().unwrap().sessions, 1101);
    assert!((6000..6100).any(|n| smaller.put(&key(n), &Record { data: vec![7; 50_000], ..record("") }, Put::Any, NOW) == Err(Error::Full)));
    assert!((1000..2000).all(|n| smaller.load(&key(n), NOW).unwrap().is_some()));
    while smaller.sweep(NOW + 10_000_000, 100).unwrap().more {}
    store_large(&smaller, 0..100);
    assert_eq!(moved_aside(dir.path()), 0);
}

/// Sessions that each thread of a creator creates.
const CREATED: u32 = 4000;

fn create_and_find(store: &Disk, who: u32, n: u32) {
    let key = Key::named(b"created", format!("{who}-{n}").as_bytes()).unwrap();
    let record = Record { data: vec![7; 3000], ..record("") };
    store.put(&key, &record, Put::Create, NOW).unwrap();
    assert!(store.load(&key, NOW).unwrap().is_some(), "lost at once");
}

#[test]
fn a_store_that_many_processes_make_longer_is_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..4).map(|_| helper("creator", dir.path())).collect();
    for mut child in children {
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let ended = child.wait().unwrap();
        assert!(ended.success(), "{ended}: {said}");
    }
    assert_eq!(disk(dir.path(), 1 << 30).figures().unwrap().sessions, u64::from(8 * CREATED));
}

#[test]
fn a_killed_owner_releases_its_lock_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = Sessions::disk(dir.path(), LIMITS, &Stop::never(), &quiet).unwrap();
    let mut child = helper("holder", dir.path());
    wait_for(&mut BufReader::new(child.stdout.take().unwrap()), "holding");
    assert_eq!(sessions.lock(&key(1), 0, &mut || false).unwrap_err(), Error::LockTimeout);
    drop(sessions.lock(&key(2), 0, &mut || false).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(sessions.lock(&key(1), 0, &mut || false).unwrap());
}

#[test]
fn a_store_is_good_whenever_its_writers_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12 {
        let mut children: Vec<Child> = (0..3).map(|_| helper("writer", dir.path())).collect();
        for child in &mut children {
            wait_for(&mut BufReader::new(child.stdout.take().unwrap()), "writing");
        }
        // In the middle of their work: after some writes of this process, which waits for the
        // writer lock.
        let sessions = Sessions::disk(dir.path(), LIMITS, &Stop::never(), &quiet).unwrap();
        for n in 0..round {
            sessions.put(&key(1000 + n), &record("mine"), Put::Any, NOW).unwrap();
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        for n in 0..100 {
            let found = sessions.load(&key(n), NOW).unwrap();
            assert!(found.is_none_or(|r| r.data.iter().all(|b| *b == r.data[0])), "a record of two writes");
        }
        add_one(&sessions, &key(5000));
    }
    assert_eq!(moved_aside(dir.path()), 0, "the store was never damaged");
}

#[test]
fn an_exclusive_owner_hands_its_sessions_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = helper("memory", dir.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut lines, "alone");
    let sessions = Sessions::memory(dir.path(), LIMITS, &Stop::never(), &quiet).unwrap();
    for n in 0..500 {
        assert_eq!(sessions.load(&key(n), NOW).unwrap().unwrap().data, n.to_string().as_bytes());
    }
    // A lock that it held before is held against other processes too.
    assert_eq!(sessions.lock(&key(1), 0, &mut || false).unwrap_err(), Error::LockTimeout);
    child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    wait_for(&mut lines, "let go");
    drop(sessions.lock(&key(1), FOREVER, &mut || false).unwrap());
    assert_eq!(sessions.load(&key(1), NOW).unwrap().unwrap().data, b"in the end");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    // Exclusive owner again: new sessions are in memory, and on disk after the handover.
    let (stop, keep) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| sessions.keep(&stop, 1_000_000, 1_000_000, || NOW));
        while !format!("{:?}", sessions.figures()).contains("Ok") {}
        sessions.put(&key(7), &record("seven"), Put::Any, NOW).unwrap();
        drop(keep);
    });
    sessions.hand_over();
    drop(sessions);
    let after = Sessions::memory(dir.path(), LIMITS, &Stop::never(), &quiet).unwrap();
    assert_eq!(after.load(&key(7), NOW).unwrap().unwrap().data, b"seven");
}

#[test]
fn nobody_waits_for_another_threads_wait_to_enter() {
    let dir = tempfile::tempdir().unwrap();
    // An exclusive owner that ignores handover requests, like a stopped process.
    let _deaf = Owner::new(dir.path(), locks(dir.path())).map(|owner| (owner.try_exclusive(), owner)).unwrap();
    let sessions = Sessions::memory(dir.path(), LIMITS, &Stop::never(), &quiet).unwrap();
    let (waits, go_on) = (std::sync::Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let mut asked = 0;
            let mut cancelled = || {
                asked += 1;
                if asked == 1 {
                    waits.wait();
                }
                go_on.load(Ordering::SeqCst)
            };
            sessions.lock(&key(1), FOREVER, &mut cancelled).map(drop)
        });
        // The other thread is waiting and continues to wait; this one reaches its own deadline.
        waits.wait();
        assert!(matches!(sessions.lock(&key(2), 0, &mut || false), Err(Error::Unavailable(_))));
        assert_eq!(sessions.enter(FOREVER, &mut || true), Err(Error::Cancelled));
        assert!(!first.is_finished());
        go_on.store(true, Ordering::SeqCst);
        assert_eq!(first.join().unwrap(), Err(Error::Cancelled));
    });
    sessions.hand_over();
    let (stop, keep) = std::io::pipe().unwrap();
    drop(keep);
    sessions.keep(&stop, 0, 0, || NOW);
}

#[test]
fn a_session_that_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = Sessions::disk(dir.path(), LIMITS, &Stop::never(), &quiet).unwrap();
    let large = Record { data: vec![0; 100_001], ..record("") };
    assert_eq!(sessions.put(&key(1), &large, Put::Any, NOW), Err(Error::TooLarge(100_001, 100_000)));
}

#[test]
fn nobody_else_can_read_the_store_and_no_identifier_lies_in_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let sessions = Sessions::disk(dir.path(), LIMITS, &Stop::never(), &quiet).unwrap();
    let id = Id::new().unwrap();
    sessions.put(&Key::derive(b"scope", &id), &record("data"), Put::Create, NOW).unwrap();
    for file in ["store", "store/data.mdb", "store/lock.mdb", "locks", "knock"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}: {mode:o}");
    }
    let bytes = std::fs::read(dir.path().join("store/data.mdb")).unwrap();
    assert!(!bytes.windows(id.as_str().len()).any(|w| w == id.as_str().as_bytes()));
}
