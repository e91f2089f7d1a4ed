//! Gates: a test and an application wait for each other without a clock.
//!
//! Responsible for: named FIFOs in the scratch directory. The application calls `gate.wait(name)`
//! to wait until the test opens the gate, or `gate.reach(name)` to tell the test that it arrived
//! (tests/apps/gate.py). Must never: block a test without a limit. Called by: tests.
use super::wait::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::{read, write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// One FIFO. It is open for reading and writing, so that no open(2) waits.
pub struct Gate {
    fd: OwnedFd,
    name: String,
}

impl Gate {
    /// Creates the FIFO `name` in `dir`.
    pub fn new(dir: &Path, name: &str) -> Gate {
        let path = dir.join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::from(0o666), 0).expect("mkfifo");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("chmod");
        let fd = open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).expect("open FIFO");
        Gate { fd, name: name.to_string() }
    }

    /// Lets `n` calls of `gate.wait` return, now or later.
    pub fn open(&self, n: usize) {
        assert_eq!(write(&self.fd, &vec![b'.'; n]).expect("write FIFO"), n);
    }

    /// Waits until the application has called `gate.reach` once more, and returns the byte it
    /// wrote.
    #[track_caller]
    pub fn reached(&self) -> u8 {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let n = poll(&mut fds, Some(&limit)).expect("poll FIFO");
        assert!(n > 0, "the application never reached the gate {:?}", self.name);
        let mut byte = [0u8; 1];
        assert_eq!(read(&self.fd, &mut byte).expect("read FIFO"), 1);
        byte[0]
    }
}
