//! Fork and exec of a worker: user, groups, directory, descriptors.
//!
//! Responsible for: everything between fork(2) and execve(2), and for reporting to the parent which
//! step failed. Must never: allocate, take a lock or read a configuration in the child; leave a
//! descriptor open in it beyond those named. Called by: droverd, which has one thread, and perhaps
//! some that only close (`channel/closer.rs`).
#![allow(unsafe_code)]
use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// User and groups of the child.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Working directory of the child.
#[derive(Debug, Clone)]
pub enum Directory {
    /// This directory, or the start fails.
    Must(CString),
    /// This directory, or `/` when it cannot be entered (home directories of system users often do
    /// not exist).
    Try(CString),
}

/// Everything that starting a child needs, prepared.
#[derive(Debug)]
pub struct Command<'a> {
    /// The executable, as execve(2) takes it.
    pub program: CString,
    /// Arguments, the name of the program first.
    pub arguments: Vec<CString>,
    /// `NAME=value`.
    pub environment: Vec<CString>,
    /// `None`: the child keeps those of the parent.
    pub credentials: Option<Credentials>,
    /// Directory for chroot(2).
    pub chroot: Option<CString>,
    /// Working directory.
    pub directory: Directory,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Nice value.
    pub nice: Option<i32>,
    /// Soft limit of open descriptors; `None`: the parent's.
    pub open_files: Option<u64>,
    /// Resource limits, soft and hard.
    pub limits: Vec<(Limit, u64, u64)>,
    /// Standard input, output, error.
    pub standard: [BorrowedFd<'a>; 3],
    /// Descriptors that stay open, under their own numbers.
    pub keep: &'a [BorrowedFd<'a>],
}

/// A resource that the kernel limits (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// RLIMIT_DATA, bytes.
    Data,
    /// RLIMIT_AS, bytes.
    AddressSpace,
    /// RLIMIT_CPU, seconds.
    Cpu,
}

/// The step of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// fork(2), or the pipe before it.
    Fork = 1,
    /// setpriority(2).
    Priority = 2,
    /// chroot(2).
    Chroot = 3,
    /// setgid(2) or setgroups(2).
    Groups = 4,
    /// setuid(2).
    User = 5,
    /// chdir(2).
    Directory = 6,
    /// Standard streams and the descriptors to be kept.
    Descriptors = 7,
    /// execve(2).
    Exec = 8,
    /// setrlimit(2).
    Limits = 9,
}

impl Step {
    const fn from_number(number: u32) -> Self {
        match number {
            2 => Self::Priority,
            3 => Self::Chroot,
            4 => Self::Groups,
            5 => Self::User,
            6 => Self::Directory,
            7 => Self::Descriptors,
            8 => Self::Exec,
            9 => Self::Limits,
            _ => Self::Fork,
        }
    }
}

/// A failed step with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// The step.
    pub step: Step,
    /// The system's reason.
    pub errno: Errno,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.step, self.errno)
    }
}

impl std::error::Error for Failed {}

/// A forked child. It may not have reached its program: [`Child::failure`] tells once it has ended.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: Pid,
    report: OwnedFd,
}

impl Child {
    /// The step that failed before the program ran. Does not wait: to be called after the child has
    /// ended.
    #[must_use]
    pub fn failure(&self) -> Option<Failed> {
        let mut bytes = [0u8; 8];
        match rustix::io::read(&self.report, &mut bytes) {
            Ok(8) => {
                let [a, b, c, d, e, f, g, h] = bytes;
                let step = Step::from_number(u32::from_ne_bytes([a, b, c, d]));
                Some(Failed { step, errno: Errno::from_raw_os_error(i32::from_ne_bytes([e, f, g, h])) })
            }
            _ => None,
        }
    }
}

/// A user's groups in the system's group database, the primary one included.
pub fn supplementary_groups(user: &CStr, gid: u32) -> Vec<u32> {
    let mut room: c_int = 64;
    // Bounded: the second call gets the size that the first returned; a database that grows
    // meanwhile gets two more tries.
    for _ in 0..4 {
        let mut groups = vec![0 as libc::gid_t; usize::try_from(room).unwrap_or(64)];
        // SAFETY: `user` is NUL-terminated, `groups` has room for `room` ids, and the call writes
        // at most that many.
        let found = unsafe { libc::getgrouplist(user.as_ptr(), gid, groups.as_mut_ptr(), &raw mut room) };
        if found >= 0 {
            groups.truncate(usize::try_from(found).unwrap_or(0));
            return groups;
        }
        room = room.max(1);
    }
    vec![gid]
}

/// Pointers to strings, ended by NULL, as execve(2) takes arguments and environment.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// Everything the child reads, laid out before the fork.
struct Prepared<'a> {
    command: &'a Command<'a>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    standard: [RawFd; 3],
    keep: Vec<RawFd>,
    report: RawFd,
}

/// Starts a child. Other threads of the process must share no lock with it. Signals that it blocks are not blocked
/// in the child.
pub fn spawn(command: &Command<'_>) -> Result<Child, Failed> {
    let before = |errno| Failed { step: Step::Fork, errno };
    let (report, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(before)?;
    let [input, output, error] = command.standard;
    let prepared = Prepared {
        command,
        arguments: pointers(&command.arguments),
        environment: pointers(&command.environment),
        standard: [input.as_raw_fd(), output.as_raw_fd(), error.as_raw_fd()],
        keep: command.keep.iter().map(AsRawFd::as_raw_fd).collect(),
        report: writer.as_fd().as_raw_fd(),
    };
    rustix::fs::fcntl_setfl(&report, rustix::fs::OFlags::NONBLOCK).map_err(before)?;
    // SAFETY: no lock that another thread may hold at the fork is taken in the child. It calls
    // only async-signal-safe functions on memory prepared before, and ends in execve or _exit
    // without returning to Rust code that owns anything.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(before(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::AGAIN))),
        // SAFETY: this is the child of the fork above.
        0 => unsafe { child(&prepared) },
        pid => {
            drop(writer);
            Pid::from_raw(pid).map(|pid| Child { pid, report }).ok_or_else(|| before(Errno::SRCH))
        }
    }
}

/// Runs in the child until execve, or reports the step that failed.
///
/// # Safety
/// Only to be called in the child of a fork of a process with one thread.
unsafe fn child(prepared: &Prepared<'_>) -> ! {
    // SAFETY: the caller's contract is passed on.
    let step = unsafe { become_worker(prepared) };
    // SAFETY: __errno_location is always valid in the calling thread; write and _exit are
    // async-signal-safe; the buffer is a local of 8 bytes. A pipe takes 8 bytes at once, and a
    // reader that is gone needs no report.
    unsafe {
        let errno: c_int = *libc::__errno_location();
        let [a, b, c, d] = (step as u32).to_ne_bytes();
        let [e, f, g, h] = errno.to_ne_bytes();
        let bytes = [a, b, c, d, e, f, g, h];
        libc::write(prepared.report, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(127)
    }
}

/// Returns only when a step has failed, with that step; errno has the reason.
///
/// # Safety
/// As [`child`], and so for each function that it calls. Every call is async-signal-safe:
/// setgroups, setgid and setuid are plain system calls when there is one thread, as in the child of
/// a fork. Every pointer is to memory that was prepared before the fork and has not changed since.
unsafe fn become_worker(prepared: &Prepared<'_>) -> Step {
    let c = prepared.command;
    // SAFETY: only async-signal-safe calls, on prepared memory.
    unsafe {
        libc::setpgid(0, 0);
        forget_signals();
        if !keep_descriptors(prepared) {
            return Step::Descriptors;
        }
        if !c.limits.iter().all(|limit| set_limit(limit)) {
            return Step::Limits;
        }
        if c.nice.is_some_and(|nice| !set_priority(nice)) {
            return Step::Priority;
        }
        if let Some(root) = &c.chroot
            && (libc::chroot(root.as_ptr()) < 0 || libc::chdir(c"/".as_ptr()) < 0)
        {
            return Step::Chroot;
        }
        if let Some(who) = &c.credentials {
            libc::prctl(libc::PR_SET_KEEPCAPS, c_ulong::from(who.uid != 0), 0, 0, 0);
            if libc::setgid(who.gid) < 0 || libc::setgroups(who.groups.len(), who.groups.as_ptr()) < 0 {
                return Step::Groups;
            }
            if libc::setuid(who.uid) < 0 {
                return Step::User;
            }
            if who.uid != 0 {
                keep_a_shield();
            }
        }
        if !enter(&c.directory) {
            return Step::Directory;
        }
        if let Some(mask) = c.umask {
            libc::umask(mask);
        }
        libc::execve(c.program.as_ptr(), prepared.arguments.as_ptr(), prepared.environment.as_ptr());
        Step::Exec
    }
}

/// Keeps one capability of root, and drops the others. exec(2) opens a process to the other processes
/// of its user, which could open its memory before the program closes it. The kernel refuses that to
/// a process that lacks a capability of the other. An ambient one passes exec without AT_SECURE,
/// which would make the program ignore parts of its environment. The two that are tried permit nothing
/// but to wake or keep awake a sleeping machine; the program is to drop them (`protect_process`).
/// Where neither can be kept, none is, and the program starts without this protection.
unsafe fn keep_a_shield() {
    // SAFETY: the contract of `become_worker`.
    unsafe {
        for capability in [CAP_WAKE_ALARM, CAP_BLOCK_SUSPEND] {
            let raise = c_ulong::from(libc::PR_CAP_AMBIENT_RAISE.unsigned_abs());
            if set_capabilities(1 << (capability - 32)) && libc::prctl(libc::PR_CAP_AMBIENT, raise, c_ulong::from(capability), 0, 0) == 0 {
                return;
            }
        }
        set_capabilities(0);
    }
}

const CAP_WAKE_ALARM: u32 = 35;
const CAP_BLOCK_SUSPEND: u32 = 36;

/// `struct __user_cap_header_struct`, which libc does not name.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct`: capabilities 0 to 31, or 32 to 63.
#[repr(C)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives this process these of the capabilities 32 to 63, and no others.
unsafe fn set_capabilities(high: u32) -> bool {
    /// `_LINUX_CAPABILITY_VERSION_3`: two words.
    const VERSION: u32 = 0x2008_0522;
    let word = |set| CapabilityWord { effective: set, permitted: set, inheritable: set };
    let (mut header, words) = (CapabilityHeader { version: VERSION, pid: 0 }, [word(0), word(high)]);
    // SAFETY: the contract of `become_worker`; both structs live through the call and are laid out
    // as capset(2) reads them in this version.
    unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) == 0 }
}

/// Gives every signal its default action and blocks none.
unsafe fn forget_signals() {
    // SAFETY: the contract of `become_worker`.
    unsafe {
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in 1..65 {
            // Refused for KILL, STOP and the two that libc reserves, which is right.
            libc::sigaction(signal, &raw const default, std::ptr::null_mut());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Leaves the standard streams and the named descriptors open, no others; sets the limit of open
/// descriptors.
unsafe fn keep_descriptors(prepared: &Prepared<'_>) -> bool {
    // SAFETY: the contract of `become_worker`.
    unsafe {
        for (at, fd) in (0..).zip(prepared.standard) {
            if libc::dup2(fd, at) < 0 {
                return false;
            }
        }
        // Closes at exec what a library left open. On an old kernel without the call only our own
        // are open, close-on-exec.
        libc::syscall(libc::SYS_close_range, 3 as c_uint, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for fd in &prepared.keep {
            if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                return false;
            }
        }
        if let Some(soft) = prepared.command.open_files {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
                limit.rlim_cur = soft;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            }
        }
        true
    }
}

unsafe fn set_limit((limit, soft, hard): &(Limit, u64, u64)) -> bool {
    let value = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
    let resource = match limit {
        Limit::Data => libc::RLIMIT_DATA,
        Limit::AddressSpace => libc::RLIMIT_AS,
        Limit::Cpu => libc::RLIMIT_CPU,
    };
    // SAFETY: the contract of `become_worker`.
    unsafe { libc::setrlimit(resource, &raw const value) == 0 }
}

unsafe fn set_priority(nice: i32) -> bool {
    // SAFETY: the contract of `become_worker`.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0
            // Only root may raise the priority. The start logs a warning; serving does not depend
            // on it.
            || matches!(*libc::__errno_location(), libc::EACCES | libc::EPERM)
    }
}

unsafe fn enter(directory: &Directory) -> bool {
    // SAFETY: the contract of `become_worker`.
    unsafe {
        match directory {
            Directory::Must(path) => libc::chdir(path.as_ptr()) == 0,
            Directory::Try(path) => libc::chdir(path.as_ptr()) == 0 || libc::chdir(c"/".as_ptr()) == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cstring(text: &str) -> CString {
        CString::new(text).unwrap()
    }

    fn run(program: &str, arguments: &[&str], directory: Directory, umask: Option<u32>) -> (String, Option<Failed>) {
        run_as(program, arguments, directory, umask, None)
    }

    fn run_as(
        program: &str,
        arguments: &[&str],
        directory: Directory,
        umask: Option<u32>,
        credentials: Option<Credentials>,
    ) -> (String, Option<Failed>) {
        let null =
            rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap();
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let command = Command {
            program: cstring(program),
            arguments: arguments.iter().map(|a| cstring(a)).collect(),
            environment: vec![cstring("A=1")],
            credentials,
            chroot: None,
            directory,
            umask,
            nice: None,
            open_files: None,
            limits: vec![(Limit::Data, 1 << 30, 1 << 31), (Limit::Cpu, 100, 200)],
            standard: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            keep: &[],
        };
        // The test harness has several threads; the child uses nothing of theirs.
        let child = spawn(&command).unwrap();
        drop(writer);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut text).unwrap();
        rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty()).unwrap();
        (text, child.failure())
    }

    #[test]
    fn a_child_has_what_was_named_and_nothing_else() {
        let script = "echo $A $HOME; pwd; umask; ulimit -S -d; ulimit -H -t; ls /proc/self/fd | tr '\\n' ' '";
        let (text, failed) = run("/bin/sh", &["sh", "-c", script], Directory::Must(cstring("/usr")), Some(0o027));
        assert_eq!(failed, None);
        assert_eq!(text, "1\n/usr\n0027\n1048576\n200\n0 1 2 3 ", "3 belongs to ls");
    }

    #[test]
    fn a_child_of_another_user_starts_with_one_capability_at_most() {
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        if !rustix::process::geteuid().is_root() {
            return; // who cannot change the user has nothing to keep
        }
        let set = |status: &str, name: &str| {
            let hex = status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
            u64::from_str_radix(&hex, 16).unwrap()
        };
        let possible = set(&own, "CapPrm:") & set(&own, "CapBnd:");
        let kept = [CAP_WAKE_ALARM, CAP_BLOCK_SUSPEND].map(|c| 1 << c).into_iter().find(|c| possible & c != 0).unwrap_or(0);
        let nobody = Credentials { uid: 65534, gid: 65534, groups: vec![65534] };
        let (text, failed) = run_as("/bin/cat", &["cat", "/proc/self/status"], Directory::Must(cstring("/")), None, Some(nobody));
        assert_eq!(failed, None);
        for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(set(&text, name), kept, "{name} {text}");
        }
    }

    #[test]
    fn the_failed_step_is_named() {
        let (_, failed) = run("/no/such/python", &["x"], Directory::Try(cstring("/nonexistent")), None);
        assert_eq!(failed, Some(Failed { step: Step::Exec, errno: Errno::NOENT }));
        let (_, failed) = run("/bin/true", &["x"], Directory::Must(cstring("/nonexistent")), None);
        assert_eq!(failed, Some(Failed { step: Step::Directory, errno: Errno::NOENT }));
    }

    #[test]
    fn groups_of_root() {
        assert!(supplementary_groups(c"root", 0).contains(&0));
    }
}
