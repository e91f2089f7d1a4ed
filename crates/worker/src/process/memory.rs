//! The native thread that measures the process's memory for droverd: memory-soft and `drover status` go by it.
//!
//! The kernel walks all of a process's mappings for that. So the process does it itself, and droverd, which serves all groups in one
//! thread, never does. Responsible for: that costing the process at most a fiftieth of one thread's time. Must never: take the GIL, or
//! run where requests wait for it. Called by: `process`, which starts it; `template`, once.
use crate::process::control::Control;
use drover_sys::Errno;
use drover_sys::wait::{EventfdFlags, eventfd};
use drover_wire::control::FromWorker;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The time between two measurements is at least this many times what the last one took.
const REST: u32 = 50;
/// When no memory-soft depends on it.
const UNHURRIED: Duration = Duration::from_secs(10);
/// With memory-soft.
const HURRIED: Duration = Duration::from_secs(1);

/// Wakes the thread.
#[derive(Debug)]
pub struct Gauge {
    bell: OwnedFd,
}

impl Gauge {
    /// Not woken yet.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { bell: eventfd(0, EventfdFlags::CLOEXEC)? })
    }

    /// The process has done something: it is measured when it is time.
    pub fn ring(&self) {
        // The counter is far from full, as the thread reads it.
        let _ = drover_sys::write_once(&self.bell, &1u64.to_ne_bytes());
    }
}

/// Runs until the process ends. The first measurement comes at once, the others while the process has requests, and one after the last.
pub fn run(control: &Control, gauge: &Gauge, has_memory_soft: bool) {
    let every = if has_memory_soft { HURRIED } else { UNHURRIED };
    loop {
        let begun = Instant::now();
        let Some(bytes) = proportional() else { return }; // no /proc, as in a chroot: droverd goes by what it sees
        // What droverd has no room for now is said next time.
        let _ = control.send(&FromWorker::Memory(bytes), &[]);
        std::thread::sleep(every.max(begun.elapsed() * REST));
        loop {
            match rustix::io::read(&gauge.bell, &mut [0; 8]) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Proportional set size, bytes: pages that several processes share count by their share.
pub fn proportional() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/smaps_rollup").ok()?)
}

/// The line `Pss:` of proc(5)'s smaps_rollup.
fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found() {
        let text = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:   900 kB\nPss:                 512 kB\nPss_Dirty: 7 kB\n";
        assert_eq!(parse(text), Some(512 * 1024));
        assert_eq!((parse(""), parse("Pss: x kB\n")), (None, None));
        assert!(proportional().is_some_and(|b| b > 4096));
    }
}
