//! The native thread that measures the process's memory for droverd: memory-soft and `drover
//! status` use it.
//!
//! Measuring makes the kernel walk all of a process's mappings. So each worker measures itself, and
//! droverd, which serves all groups in one thread, never does. Responsible for: using at most a
//! fiftieth of one thread's time. Must never: take the GIL, or delay a request. Called by:
//! `lifecycle`, which starts it; `fork_server`, once.
use crate::process::control::Control;
use drover_sys::Errno;
use drover_sys::wait::{EventfdFlags, eventfd};
use drover_wire::control::FromWorker;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The time between two measurements, as a multiple of what the last one took, at least.
const REST_FACTOR: u32 = 50;
/// The time between two measurements without memory-soft, at least.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same with memory-soft.
const INTERVAL_WITH_SOFT_LIMIT: Duration = Duration::from_secs(1);

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

    /// The descriptor.
    pub const fn fd(&self) -> &OwnedFd {
        &self.bell
    }

    /// The process has worked: it is measured when it is time.
    pub fn ring(&self) {
        // The counter is far from full, as the thread reads it.
        let _ = drover_sys::write_once(&self.bell, &1u64.to_ne_bytes());
    }
}

/// Runs until the process exits. Measures at once, while the process has requests, and once after
/// the last.
pub fn run(control: &Control, gauge: &Gauge, has_memory_soft: bool) {
    let every = if has_memory_soft { INTERVAL_WITH_SOFT_LIMIT } else { INTERVAL };
    loop {
        let begun = Instant::now();
        let Some(bytes) = proportional() else { return }; // no /proc, as in a chroot: droverd uses its own figures
        // If droverd has no room now, the next measurement is sent.
        let _ = control.send(&FromWorker::Memory(bytes), &[]);
        std::thread::sleep(every.max(begun.elapsed() * REST_FACTOR));
        loop {
            match rustix::io::read(&gauge.bell, &mut [0; 8]) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// The proportional set size in bytes: pages shared by several processes count by their share.
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
