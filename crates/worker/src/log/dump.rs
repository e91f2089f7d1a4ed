//! Writes the stacks of busy threads to the group's log.
//!
//! Responsible for: a dump even if the GIL is not available; leaving out threads that only wait for
//! requests. Must never: make its caller wait. Called by: `worker`, for `control_thread` (Dump,
//! deadlock-timeout) and `monitor` (request-timeout).
use crate::log::stderr;
use crate::messages::Code;
use crate::process::native;
use crate::threads::slot::Slot;
use crate::threads::spawn;
use drover_sys::{Errno, signals};
use parking_lot::Mutex;
use pyo3::prelude::*;
use rustix::fs::{MemfdFlags, SeekFrom, ftruncate, memfd_create, seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How long to wait for the GIL. A thread that holds it longer is in C code and runs no Python.
const GIL_TIMEOUT: Duration = Duration::from_secs(2);
/// A longer dump is cut, bytes.
const MAX_DUMP: usize = 1 << 20;
/// What writes the dump: nothing yet, the thread with the GIL, the signal handler.
const OPEN: u8 = 0;
const WITH_GIL: u8 = 1;
const WITHOUT_GIL: u8 = 2;

/// Where faulthandler writes, one dump at a time.
#[derive(Debug)]
pub struct Dumps {
    file: Mutex<OwnedFd>,
}

impl Dumps {
    /// An empty file in memory.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { file: Mutex::new(memfd_create("stacks", MemfdFlags::CLOEXEC)?) })
    }

    /// Makes faulthandler's signal handler write there.
    pub fn register(&self, py: Python<'_>) -> PyResult<()> {
        let fd = self.file.lock().as_raw_fd();
        py.import("faulthandler")?.call_method1("register", (signals::dump().as_raw(), fd, true, false)).map(drop)
    }

    /// Writes the stacks to descriptor 2, soon.
    ///
    /// With the GIL no frame changes while it is read; reading frames without it has crashed
    /// CPython 3.13. If the GIL is not available its holder is stuck in C code, so that no frame
    /// changes either: then faulthandler's signal handler writes them, which needs no GIL.
    pub fn write_soon(self: &Arc<Self>, slots: &[Arc<Slot>]) {
        let (dumps, slots) = (Arc::clone(self), slots.to_vec());
        // If the system has no thread left there is no dump.
        let _ = spawn::native("drover-dump", move || {
            dumps.write(&slots, |file| {
                let (fd, writer) = (file.as_raw_fd(), Arc::new(AtomicU8::new(OPEN)));
                let take = |writer: &AtomicU8, who| writer.compare_exchange(OPEN, who, Ordering::AcqRel, Ordering::Acquire).is_ok();
                let (done, wait) = crossbeam_channel::bounded(1);
                let theirs = Arc::clone(&writer);
                let dumper = spawn::python("drover-stacks", move || {
                    Python::attach(|py| {
                        if take(&theirs, WITH_GIL) {
                            // Without faulthandler there are no stacks.
                            let _ = py.import("faulthandler").and_then(|f| f.call_method1("dump_traceback", (fd, true)));
                            let _ = done.send(());
                        }
                    });
                });
                if dumper.is_ok() && wait.recv_timeout(GIL_TIMEOUT).is_ok() {
                    return;
                }
                if take(&writer, WITHOUT_GIL) {
                    native::raise(signals::dump());
                } else {
                    // The other thread has just taken the GIL.
                    let _ = wait.recv_timeout(GIL_TIMEOUT);
                }
            });
        });
    }

    /// Writes the stacks now, when the GIL is known not to be available: no frame changes while the
    /// signal handler reads them.
    pub fn write_without_gil(&self, slots: &[Arc<Slot>]) {
        self.write(slots, |_| native::raise(signals::dump()));
    }

    /// Writes the stacks that `dump` collects to descriptor 2.
    fn write(&self, slots: &[Arc<Slot>], dump: impl FnOnce(&OwnedFd)) {
        let Some(file) = self.file.try_lock() else { return }; // another dump is being written
        if ftruncate(&*file, 0).and_then(|()| seek(&*file, SeekFrom::Start(0))).is_err() {
            return; // a memory file refuses neither
        }
        dump(&file);
        let idle: Vec<u64> =
            slots.iter().filter(|s| s.since.load(Ordering::Acquire) == 0).filter_map(|s| s.ident.get()).map(|i| *i as u64).collect();
        let stacks = busy(&String::from_utf8_lossy(&read(&file)), &idle);
        let stacks = if stacks.is_empty() { "  no thread runs Python code of the application\n".to_owned() } else { stacks };
        stderr::write(format!("{}: stacks of the busy threads:\n{stacks}", Code::Stacks).as_bytes());
    }
}

fn read(file: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; MAX_DUMP];
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|r| !r.is_empty()) {
        match rustix::io::pread(file, rest, at as u64) {
            Ok(n @ 1..) => at += n,
            Err(Errno::INTR) => {}
            _ => break,
        }
    }
    bytes.truncate(at);
    bytes
}

/// The threads of faulthandler's text that run Python code, without `idle` ones and the waiting
/// main thread.
fn busy(text: &str, idle: &[u64]) -> String {
    let mut out = String::new();
    for thread in text.split("\n\n") {
        let ident = thread.split_once("hread 0x").and_then(|(_, rest)| {
            let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
            u64::from_str_radix(digits, 16).ok()
        });
        let runs = thread.lines().find(|line| line.starts_with("  File ")).is_some_and(|top| !top.contains("/mod_drover/boot.py\""));
        if runs && ident.is_none_or(|ident| !idle.contains(&ident)) {
            out.push_str(thread.trim_end());
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::busy;

    #[test]
    fn idle_threads_are_left_out() {
        let text = "Thread 0x00007f01 (most recent call first):\n  <no Python frame>\n\n\
                    Thread 0x00007f02 [drover-1] (most recent call first):\n  File \"/a.wsgi\", line 3 in wait\n  File \"/a.wsgi\", line 9 in f\n\n\
                    Thread 0x00007f03 (most recent call first):\n  File \"/a.wsgi\", line 1 in __call__\n\n\
                    Thread 0x00007f05 (most recent call first):\n  File \"/app/beat.py\", line 7 in beat\n\n\
                    Current thread 0x00007f04 (most recent call first):\n  File \"/usr/lib/mod_drover/boot.py\", line 30 in main\n";
        let kept = busy(text, &[0x7f01, 0x7f03]);
        assert_eq!(kept.matches("hread 0x").count(), 2, "{kept}");
        assert!(kept.contains("line 3 in wait\n  File \"/a.wsgi\", line 9 in f\n") && kept.contains("in beat\n"), "{kept}");
    }
}
