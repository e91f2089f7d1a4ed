//! Memory use of workers.
//!
//! Workers measure themselves and report (`drover_wire::control::FromWorker::Memory`). For the
//! proportional set size the kernel walks all mappings of a process, which can take seconds. A
//! worker that lies harms only its own group.
//!
//! Responsible for: memory-soft. Must never: read anything whose cost grows with the worker's
//! memory. Called by: `workers/messages.rs`.
use crate::pool::{Event, Now, ReplaceReason};
use crate::supervisor::{Supervisor, now};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

/// Resident set size in bytes, a counter in the kernel (proc(5), statm). `None`: the process has
/// exited.
fn resident(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

impl Supervisor {
    /// A worker or fork server reports its memory.
    pub fn memory_reported(&mut self, pid: u32, bytes: u64) {
        let fork_server = self.fork_servers.get_mut(&pid).map(|t| &mut t.process);
        let Some(process) = fork_server.or_else(|| self.processes.get_mut(&pid)) else { return };
        process.memory = Some(bytes);
        let limit = process.settings.spec.memory_soft;
        let (unit, worker) = (process.unit, process.number);
        if self.processes.contains_key(&pid) && limit.is_some_and(|limit| bytes > limit) {
            self.feed(unit, Event::Replace { worker, why: ReplaceReason::Memory(bytes) });
        }
    }

    /// A worker reports activity. A worker in a chroot without /proc cannot measure itself; its
    /// resident set size is used instead.
    pub fn check_memory(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let spec = &process.settings.spec;
        let now: Now = now();
        if spec.chroot.is_none() || process.memory_at + EVERY > now {
            return;
        }
        process.memory_at = now;
        if process.memory.is_none() || process.memory_is_resident {
            process.memory_is_resident = true;
            if let Some(bytes) = resident(pid) {
                self.memory_reported(pid, bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_some_memory() {
        assert!(resident(std::process::id()).is_some_and(|bytes| bytes > 1 << 16));
        assert_eq!(resident(u32::MAX), None);
    }
}
