//! Closing descriptors whose close(2) may wait without limit.
//!
//! close(2) of a file on FUSE asks the file system's server, which the sender of the descriptor may
//! have chosen, and no signal ends that wait.
//! Responsible for: no thread that does other work waits for that; a bound on the threads that do.
//! Must never: close such a descriptor in the calling thread; take a lock (the caller may be the
//! child of a fork). Called by: `disposal`, `channel`.
use crate::signals;
use rustix::net::sockopt;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that may hang at a time.
const MAX_THREADS: usize = 16;
const STACK_BYTES: usize = 64 * 1024;

/// The helper threads of this process; a process in which nothing may wait has none.
static CLOSER: Closer = Closer::new();

/// Whether close(2) of a descriptor may wait: all kinds except sockets, memory files and pipes. Does
/// not ask a file system, which could wait as well (fstat(2), fstatfs(2)).
pub fn may_wait(fd: impl AsFd) -> bool {
    sockopt::socket_type(&fd).is_err() && rustix::fs::fcntl_get_seals(&fd).is_err() && rustix::pipe::fcntl_getpipe_size(&fd).is_err()
}

/// Closes them in a thread of their own. While [`is_full`], leaves them open for good.
pub(crate) fn close_elsewhere(fds: Vec<OwnedFd>) {
    if !fds.is_empty() {
        CLOSER.drop_elsewhere(fds);
    }
}

/// Whether as many threads hang as may. Who can do without more descriptors takes none then.
pub(crate) fn is_full() -> bool {
    CLOSER.busy.load(Ordering::Relaxed) >= MAX_THREADS
}

struct Closer {
    busy: AtomicUsize,
}

impl Closer {
    const fn new() -> Self {
        Self { busy: AtomicUsize::new(0) }
    }

    /// Returns whether a thread was started for it. Else `items` are never dropped.
    fn drop_elsewhere<T: Send + 'static>(&'static self, items: Vec<T>) -> bool {
        // If no thread can be started, the closure is dropped here; that must not close anything.
        let items = ManuallyDrop::new(items);
        if self.busy.fetch_add(1, Ordering::Relaxed) >= MAX_THREADS {
            self.busy.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let work = move || {
            drop(ManuallyDrop::into_inner(items));
            self.busy.fetch_sub(1, Ordering::Relaxed);
        };
        let started = signals::blocked(|| std::thread::Builder::new().name("drover-closer".into()).stack_size(STACK_BYTES).spawn(work));
        if started.is_err() {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
        started.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    #[test]
    fn kinds_of_descriptors_are_told_apart() {
        let (a, _b) = crate::channel::stream_pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        for fd in [&a, &crate::memfile::create(b"x").unwrap(), &read, &write] {
            assert!(!may_wait(fd), "{fd:?}");
        }
        assert!(!may_wait(std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap()));
        for path in ["/dev/null", "/etc/passwd", "/proc/self/status", "/"] {
            assert!(may_wait(std::fs::File::open(path).unwrap()), "{path}");
        }
    }

    /// Its drop hangs until the test says so.
    struct Slow {
        begun: Sender<()>,
        go: Receiver<()>,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.begun.send(());
            let _ = self.go.recv();
        }
    }

    #[test]
    fn the_caller_does_not_wait_and_the_threads_are_bounded() {
        static CLOSER: Closer = Closer::new();
        let (begun, has_begun) = channel();
        let slow = || {
            let (release, go) = channel::<()>();
            (release, CLOSER.drop_elsewhere(vec![Slow { begun: begun.clone(), go }]))
        };
        let hanging: Vec<_> = (0..MAX_THREADS).map(|_| slow()).collect();
        assert!(hanging.iter().all(|(_, started)| *started));
        for _ in &hanging {
            has_begun.recv().unwrap();
        }
        let (release, started) = slow();
        assert!(!started);
        assert!(release.send(()).is_ok(), "what finds no thread is not dropped");
        assert_eq!(CLOSER.busy.load(Ordering::Relaxed), MAX_THREADS);
        drop(hanging);
        while CLOSER.busy.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        assert!(CLOSER.drop_elsewhere(vec![()]));
    }
}
