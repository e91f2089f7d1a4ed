//! CPU of one load and one store of a session, by engine, among few sessions and among a million. `cargo run --release -p drover-session
//! --example speed`; part of `make bench`.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use drover_session::{Key, Limits, Put, Record, Sessions, Stop};
use std::time::Duration;

const NOW: u64 = 1_800_000_000_000;
const TIMES: u32 = 20_000;

fn record(n: u32) -> Record {
    Record { created_ms: NOW, accessed_ms: NOW + u64::from(n % 1000), timeout_s: 1800, data: vec![b'x'; 300] }
}

fn key(n: u32) -> Key {
    Key::named(b"bench", n.to_string().as_bytes()).expect("a name")
}

/// User and system time of this process.
fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

fn measure(name: &str, mut one: impl FnMut(u32)) {
    let before = cpu();
    (0..TIMES).for_each(&mut one);
    println!("{name:<40} {:>7.3} us", (cpu() - before).as_secs_f64() * 1e6 / f64::from(TIMES));
}

fn engine(name: &str, sessions: &Sessions, among: u32) {
    for n in 0..among {
        sessions.put(&key(n), &record(n), Put::Any, NOW).unwrap();
    }
    let pick = |n: u32| key(n.wrapping_mul(2_654_435_761) % among);
    measure(&format!("{name}, {among} sessions: load"), |n| drop(sessions.load(&pick(n), NOW).unwrap()));
    measure(&format!("{name}, {among} sessions: lock, load, put"), |n| {
        let key = pick(n);
        let _guard = sessions.lock(&key, u64::MAX, &mut || false).unwrap();
        let found = sessions.load(&key, NOW).unwrap().unwrap();
        sessions.put(&key, &found, Put::Any, NOW).unwrap();
    });
}

/// The cost that our own writer lock adds to a write.
fn writer_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store_locks = drover_session::store_locks::StoreLocks::open(dir.path(), drover_session::store_locks::PATIENCE).unwrap();
    measure("the writer lock, uncontended", |_| drop(store_locks.writer(&Stop::never()).unwrap()));
}

fn main() {
    writer_lock();
    let limits = Limits { disk_bytes: 4 << 30, memory_bytes: 1 << 30, data_bytes: 1 << 20, always_sync: false };
    for among in [1000, 1_000_000] {
        let dir = tempfile::tempdir().unwrap();
        engine("memory", &Sessions::memory(dir.path(), limits, &Stop::never(), &|text| eprintln!("{text}")).unwrap(), among);
        let dir = tempfile::tempdir().unwrap();
        engine("disk", &Sessions::disk(dir.path(), limits, &Stop::never(), &|text| eprintln!("{text}")).unwrap(), among);
    }
}
