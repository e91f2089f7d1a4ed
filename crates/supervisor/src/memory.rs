//! How much memory a worker has.
//!
//! Responsible for: memory-soft, looked at while there are requests, at most once a second for each worker as the kernel has to walk
//! its mappings. Must never: decide when it is replaced. Called by: `worker_talk.rs`, `status.rs`.
use crate::pool::{Event, Now, Why};
use crate::supervisor::{Supervisor, now};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

/// Proportional set size, bytes: pages that several processes share count by their share. `None`: the process is gone.
pub fn proportional(pid: u32) -> Option<u64> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

/// The line `Pss:` of proc(5)'s smaps_rollup.
fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

impl Supervisor {
    /// The worker says that it does something: is it too large by now?
    pub fn look_at_memory(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(limit) = process.settings.spec.memory_soft else { return };
        let now: Now = now();
        if process.memory_at + EVERY > now {
            return;
        }
        process.memory_at = now;
        let (unit, worker) = (process.unit, process.number);
        if let Some(bytes) = proportional(pid).filter(|b| *b > limit) {
            self.feed(unit, Event::Leaving { worker, why: Why::Memory(bytes) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found() {
        let text = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:   900 kB\nPss:                 512 kB\nPss_Dirty: 7 kB\n";
        assert_eq!(parse(text), Some(512 * 1024));
        assert_eq!((parse(""), parse("Pss: x kB\n")), (None, None));
        assert!(proportional(std::process::id()).is_some_and(|b| b > 4096));
    }
}
