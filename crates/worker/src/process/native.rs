//! The process as the kernel sees it: its signals, its title, its threads' clocks, its exit.
//!
//! Responsible for: every unsafe call of this crate that does not concern Python. Must never: know
//! a request. Called by: the files of `process` and `threads`.
use drover_sys::Errno;
use rustix::process::Signal;
use std::ffi::{CStr, CString, c_int};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// The CPU clock of one thread, readable from another.
#[derive(Debug, Clone, Copy)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The clock of the calling thread.
    pub fn mine() -> Option<Self> {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: pthread_self is the calling thread, which exists; the pointer is to a local.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        (failed == 0).then_some(Self(clock))
    }

    /// CPU time that the thread has used, nanoseconds; `None` if it has ended.
    pub fn ns(self) -> Option<u64> {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a local; the kernel refuses a clock of a thread that has ended
        // with EINVAL.
        let failed = unsafe { libc::clock_gettime(self.0, &raw mut t) };
        let whole = u64::try_from(t.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
        (failed == 0).then(|| whole.saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0)))
    }
}

/// The signals that ask this worker to finish and exit, and the one for used-up CPU time.
const TAKEN: [c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGXCPU];
/// What was received, one bit each: a request to exit, used-up CPU time.
static CAME: AtomicI32 = AtomicI32::new(0);
const GO: i32 = 1;
const CPU_TIME: i32 = 2;
/// Where the handler writes, and in which process: a forked child inherits the handler, but must
/// not use it.
static BELL: AtomicI32 = AtomicI32::new(-1);
static OWNER: AtomicI32 = AtomicI32::new(0);

extern "C" fn ring(signal: c_int) {
    // SAFETY: only async-signal-safe calls (signal-safety(7)) and atomics; errno is saved, as the
    // interrupted code may read it.
    unsafe {
        if libc::getpid() != OWNER.load(Ordering::Relaxed) {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
            return;
        }
        let errno = *libc::__errno_location();
        CAME.fetch_or(if signal == libc::SIGXCPU { CPU_TIME } else { GO }, Ordering::Relaxed);
        let one = 1u64;
        libc::write(BELL.load(Ordering::Relaxed), (&raw const one).cast(), size_of::<u64>());
        *libc::__errno_location() = errno;
    }
}

/// Discards standard output and standard error.
pub fn discard_output() {
    // SAFETY: plain system calls on a constant path and on descriptors 1 and 2, which this process owns for good.
    unsafe {
        let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if nowhere >= 0 {
            libc::dup2(nowhere, 1);
            libc::dup2(nowhere, 2);
            libc::close(nowhere);
        }
    }
}

/// The signals received since the last call: a request to exit, used-up CPU time.
pub fn signals_that_came() -> (bool, bool) {
    let came = CAME.swap(0, Ordering::Relaxed);
    (came & GO != 0, came & CPU_TIME != 0)
}

/// The event counter that signals ring, or -1.
pub fn bell() -> RawFd {
    BELL.load(Ordering::Relaxed)
}

/// Makes SIGINT, SIGTERM, SIGUSR1 and SIGXCPU write to the event counter `bell`. They are handled,
/// not blocked: a program that the application starts would inherit a blocked signal and could not
/// be ended.
pub fn ring_on_signals(bell: RawFd) {
    OWNER.store(rustix::process::getpid().as_raw_pid(), Ordering::Relaxed);
    BELL.store(bell, Ordering::Relaxed);
    for signal in TAKEN {
        // SAFETY: a zeroed sigaction is valid, `ring` is async-signal-safe and has the type that a handler without SA_SIGINFO has.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ring as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// In a forked child: restores the default action of the signals that this file handles.
pub fn default_signals() {
    for signal in TAKEN {
        // SAFETY: a zeroed sigaction is valid and the pointer is to a local; SIG_DFL installs no function. Both are
        // async-signal-safe.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut now);
            if now.sa_sigaction == ring as *const () as libc::sighandler_t {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Calls `in_child` in each process that fork() makes, in its only thread, before fork() returns
/// there.
pub fn at_fork(in_child: extern "C" fn()) -> Result<(), Errno> {
    // SAFETY: a function of the right type that lives as long as this library, which an interpreter
    // never unloads. `in_child` itself must be safe in the child of a process with threads.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Raises a signal in the calling thread.
pub fn raise(signal: Signal) {
    // SAFETY: no pointer is involved; the handler is faulthandler's, which works in any thread.
    unsafe { libc::raise(signal.as_raw()) };
}

/// Exits now: no destructor, no atexit, and no other thread runs any more.
pub fn exit(status: c_int) -> ! {
    // SAFETY: _exit does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// Takes over an inherited descriptor by its number.
pub fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: droverd passes the number on the command line for this call alone; no other code in
    // this process knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A file that leads nowhere, for a forked child. All its calls are async-signal-safe.
pub struct Nowhere(c_int);

impl Nowhere {
    /// Opens /dev/null, or a file in memory if the root directory (`chroot=`) has none.
    pub fn open() -> Option<Self> {
        // SAFETY: plain system calls on constant strings.
        let fd = unsafe {
            match libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) {
                -1 => libc::memfd_create(c"nowhere".as_ptr(), libc::MFD_CLOEXEC),
                fd => fd,
            }
        };
        (fd >= 0).then_some(Self(fd))
    }

    /// Makes `fd` lead here, whichever code still uses it.
    pub fn replace(&self, fd: RawFd) {
        // SAFETY: a plain system call on numbers; the child of a fork has this one thread.
        unsafe { libc::dup3(self.0, fd, libc::O_CLOEXEC) };
    }
}

impl Drop for Nowhere {
    fn drop(&mut self) {
        // SAFETY: `open` has made it and no other code knows the number.
        unsafe { libc::close(self.0) };
    }
}

/// The name of the process's first thread, as `ps -c` and `top` show it.
pub fn name() -> CString {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, the last of them NUL.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    CStr::from_bytes_until_nul(&name).map(CStr::to_owned).unwrap_or_default()
}

/// Sets the name of the process's first thread.
pub fn set_name(name: &CStr) {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string and cuts it at 15 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// The names of the process's threads in the kernel; `None` without /proc, as in a chroot.
pub fn tasks() -> Option<Vec<String>> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    Some(tasks.flatten().map(name).collect())
}

/// Sets the title of the process and the name of its first thread for process lists. Overwrites the
/// arguments of exec.
pub fn set_title(title: &CStr) {
    set_name(title);
    let Some((start, end)) = arguments_area() else { return };
    let room = end.saturating_sub(start);
    let text = title.to_bytes();
    let used = text.len().min(room.saturating_sub(1));
    // SAFETY: the kernel says (proc(5), arg_start and arg_end) that these bytes are the argument
    // strings on the first thread's stack: writable, never unmapped. CPython copied them into
    // sys.orig_argv at its start and does not read them again.
    unsafe {
        let area = std::ptr::with_exposed_provenance_mut::<u8>(start);
        std::ptr::write_bytes(area, 0, room);
        std::ptr::copy_nonoverlapping(text.as_ptr(), area, used);
    }
}

/// The range of the argument strings, from fields 48 and 49 of /proc/self/stat; `None` if the
/// kernel does not tell.
fn arguments_area() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses with any content; the third begins after the last
    // parenthesis.
    let mut rest = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(48 - 3);
    let (start, end) = (rest.next()?.parse().ok()?, rest.next()?.parse().ok()?);
    (start != 0 && end > start).then_some((start, end))
}
