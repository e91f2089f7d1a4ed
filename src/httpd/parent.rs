//! droverd as seen from httpd's parent: its sockets, its start, its death, its configuration.
//!
//! Responsible for: the sockets outliving droverd and every generation, so that nothing queued is lost when it dies. Must
//! never: start a thread, fork without exec, wait without a deadline. Called by: `lifecycle`, in the parent only.
use super::{ffi, log};
use crate::messages::{Code, Level};
use drover_sys::{Errno, channel, memfile, signals};
use drover_wire::control::{self, Configuration, ToSupervisor};
use parking_lot::Mutex;
use std::ffi::{CString, OsStr, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A socket of which the parent keeps both ends.
struct Ends {
    near: OwnedFd,
    far: OwnedFd,
}

impl Ends {
    fn new() -> Result<Self, Errno> {
        let (near, far) = channel::packet_pair()?;
        channel::set_send_buffer(&near, 4 << 20);
        channel::set_send_buffer(&far, 4 << 20);
        Ok(Self { near, far })
    }
}

/// What is kept to configure a new droverd as the old one was.
struct Saved {
    message: Vec<u8>,
    file: OwnedFd,
    logs: Vec<OwnedFd>,
}

/// A pool that lives as long as the process.
#[derive(Clone, Copy)]
struct Pool(*mut ffi::apr_pool_t);
// SAFETY: used by httpd's parent only, which has one thread.
unsafe impl Send for Pool {}

/// The state of the parent.
struct Parent {
    owner: u32,
    /// The process's own pool.
    pool: Pool,
    control: Ends,
    broker: Ends,
    store: Ends,
    pid: Option<i32>,
    started: Instant,
    quick_deaths: u32,
    saved: Option<Saved>,
    /// StopAll was sent; a configuration or the end follows.
    stopped: bool,
}

// Descriptors and a process id, no configuration: the library stays loaded over restarts, and so must these.
static PARENT: Mutex<Option<Parent>> = Mutex::new(None);

/// The file that this code was loaded from: mod_drover.so.
pub fn library() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    let here: fn() -> Option<PathBuf> = library;
    // SAFETY: dladdr fills the structure for an address inside a loaded object, which this very function is.
    let info = unsafe {
        if libc::dladdr(here as *const c_void, info.as_mut_ptr()) == 0 {
            return None;
        }
        info.assume_init()
    };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated name that lives as long as the object is loaded.
    let name = unsafe { std::ffi::CStr::from_ptr(info.dli_fname) };
    std::fs::canonicalize(OsStr::from_bytes(name.to_bytes())).ok()
}

/// Where the parts of this installation lie: the directory of mod_drover.so.
pub fn home() -> Option<PathBuf> {
    library()?.parent().map(Path::to_path_buf)
}

/// Makes the sockets and starts droverd if that has not been done, then hands over the configuration.
///
/// # Safety
/// `s` must be the main server of the live configuration; called in the parent.
pub unsafe fn configure(s: *mut ffi::server_rec, configuration: &Configuration, logs: Vec<OwnedFd>) -> Result<(), (Code, String)> {
    let no_start = |text| (Code::SupervisorStart, text);
    let no_configuration = |text| (Code::Configure, text);
    let mut guard = PARENT.lock();
    if guard.is_none() {
        let made = (|| Ok((Ends::new()?, Ends::new()?, Ends::new()?)))();
        let (control, broker, store) = made.map_err(|e: Errno| no_start(format!("cannot make sockets for droverd: {e}")))?;
        // SAFETY: a live server has its process, whose pool lives until exit.
        let pool = Pool(unsafe { (*(*s).process).pool });
        *guard = Some(Parent {
            owner: std::process::id(),
            pool,
            control,
            broker,
            store,
            pid: None,
            started: Instant::now(),
            quick_deaths: 0,
            saved: None,
            stopped: false,
        });
        // SAFETY: the cleanup is a plain function of the pinned library.
        unsafe { ffi::apr_pool_cleanup_register(pool.0, std::ptr::null(), Some(at_exit), Some(ffi::apr_pool_cleanup_null)) };
    }
    let Some(parent) = guard.as_mut() else { return Err(no_start("no state".into())) };
    let bytes = control::encode(configuration).map_err(|e| no_configuration(e.to_string()))?;
    let file = memfile::create(&bytes).map_err(|e| no_configuration(format!("cannot make a memory file: {e}")))?;
    let len = u32::try_from(bytes.len()).map_err(|_| no_configuration("the configuration is too large".to_owned()))?;
    let message = control::encode(&ToSupervisor::Configure { len }).map_err(|e| no_configuration(e.to_string()))?;
    parent.saved = Some(Saved { message, file, logs });
    parent.stopped = false;
    if parent.pid.is_none() {
        start(parent).map_err(no_start)?;
    }
    send_configuration(parent).map_err(|e| no_configuration(format!("cannot hand the configuration to droverd: {e}")))
}

fn send_configuration(parent: &Parent) -> Result<(), Errno> {
    let Some(saved) = &parent.saved else { return Ok(()) };
    let more = control::encode(&ToSupervisor::Logs).unwrap_or_default();
    const BESIDE: usize = channel::MAX_FDS - 1;
    let mut logs: &[OwnedFd] = &saved.logs;
    while let Some((head, tail)) = logs.split_at_checked(BESIDE).filter(|(_, tail)| !tail.is_empty()) {
        let fds: Vec<BorrowedFd<'_>> = head.iter().map(AsFd::as_fd).collect();
        channel::send(&parent.control.near, &[&more], &fds, false)?;
        logs = tail;
    }
    let fds: Vec<BorrowedFd<'_>> = std::iter::once(saved.file.as_fd()).chain(logs.iter().map(AsFd::as_fd)).collect();
    channel::send(&parent.control.near, &[&saved.message], &fds, false).map(drop)
}

/// First descriptor that droverd gets; the others follow.
const FIRST_FD: c_int = 3;
/// Descriptors are moved above this before they are put in their places, so that none is overwritten on the way.
const ABOVE: c_int = 64;

fn start(parent: &mut Parent) -> Result<(), String> {
    let home = home().ok_or("cannot find out where mod_drover.so lies")?;
    let program = home.join("droverd");
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| "a path holds a NUL".to_owned());
    let path = text(program.as_os_str().as_bytes())?;
    let mut arguments = vec![path.clone()];
    for word in [
        "--version-of-module",
        drover_wire::VERSION,
        "--control",
        "3",
        "--broker",
        "4",
        "--store",
        "5",
        "--store-write",
        "6",
        "--parent",
        &std::process::id().to_string(),
    ] {
        arguments.push(text(word.as_bytes())?);
    }
    let mut argv: Vec<*mut libc::c_char> = arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
    argv.push(std::ptr::null_mut());

    let mut moved = Vec::new();
    for fd in [&parent.control.far, &parent.broker.far, &parent.store.near, &parent.store.far] {
        // SAFETY: duplicates a descriptor we own; the result is ours.
        let n = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, ABOVE) };
        if n < 0 {
            return Err(format!("cannot duplicate a descriptor: {}", std::io::Error::last_os_error()));
        }
        // SAFETY: just made by fcntl.
        moved.push(unsafe { OwnedFd::from_raw_fd(n) });
    }
    let pid = spawn(&path, &argv, &moved)
        .map_err(|e| format!("cannot start {}: {e}; is the installation complete (make install)?", program.display()))?;
    parent.pid = Some(pid);
    parent.started = Instant::now();
    // SAFETY: the process pool lives until exit; apr_proc_t is plain data, kept there.
    unsafe {
        let pool = parent.pool.0;
        let process: *mut ffi::apr_proc_t = ffi::apr_palloc(pool, size_of::<ffi::apr_proc_t>()).cast();
        if !process.is_null() {
            process.write_bytes(0, 1);
            (*process).pid = pid;
            ffi::apr_proc_other_child_register(process, Some(other_child), process.cast(), std::ptr::null_mut(), pool);
        }
    }
    Ok(())
}

/// posix_spawn: no code of ours runs between fork and exec.
fn spawn(path: &CString, argv: &[*mut libc::c_char], fds: &[OwnedFd]) -> Result<i32, std::io::Error> {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    let check = |status: c_int| if status == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(status)) };
    let mut actions = std::mem::MaybeUninit::uninit();
    let mut attributes = std::mem::MaybeUninit::uninit();
    // SAFETY: both objects are initialised first and destroyed last; argv ends with null; the parent is single-threaded, so
    // nobody changes the environment meanwhile.
    unsafe {
        check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
        check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
        let (mut actions, mut attributes) = (actions.assume_init(), attributes.assume_init());
        let result = (|| {
            for (fd, place) in fds.iter().zip(FIRST_FD..) {
                check(libc::posix_spawn_file_actions_adddup2(&raw mut actions, fd.as_raw_fd(), place))?;
            }
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            check(libc::posix_spawnattr_setsigmask(&raw mut attributes, &raw const none))?;
            let mut default = std::mem::zeroed();
            libc::sigemptyset(&raw mut default);
            for signal in [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGCHLD] {
                libc::sigaddset(&raw mut default, signal);
            }
            check(libc::posix_spawnattr_setsigdefault(&raw mut attributes, &raw const default))?;
            // A process group of its own: a terminal's Ctrl-C is httpd's to handle.
            check(libc::posix_spawnattr_setpgroup(&raw mut attributes, 0))?;
            let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETPGROUP;
            check(libc::posix_spawnattr_setflags(&raw mut attributes, flags as libc::c_short))?;
            let mut pid = 0;
            check(libc::posix_spawn(&raw mut pid, path.as_ptr(), &raw const actions, &raw const attributes, argv.as_ptr(), environ))?;
            Ok(pid)
        })();
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::posix_spawnattr_destroy(&raw mut attributes);
        result
    }
}

/// APR's news of droverd. Runs in the parent's loop.
unsafe extern "C" fn other_child(reason: c_int, data: *mut c_void, status: c_int) {
    super::guard::guard((), || {
        match reason {
            ffi::APR_OC_REASON_DEATH | ffi::APR_OC_REASON_LOST => {
                // SAFETY: a later death would find this entry again and crash httpd: it must go now (APR's otherchild.c).
                unsafe { ffi::apr_proc_other_child_unregister(data) };
                // SAFETY: our own apr_proc_t in the process pool.
                died(unsafe { (*data.cast::<ffi::apr_proc_t>()).pid }, status);
            }
            ffi::APR_OC_REASON_RESTART => stop_workers(),
            _ => {}
        }
    });
}

fn died(pid: i32, status: c_int) {
    let mut guard = PARENT.lock();
    let Some(parent) = guard.as_mut().filter(|p| p.pid == Some(pid) && p.owner == std::process::id()) else { return };
    parent.pid = None;
    if parent.stopped {
        return;
    }
    parent.quick_deaths = if is_quick(status, parent.started.elapsed()) { parent.quick_deaths.saturating_add(1) } else { 0 };
    let how = if libc::WIFSIGNALED(status) {
        format!("was ended by signal {}", libc::WTERMSIG(status))
    } else {
        format!("exited with status {}", libc::WEXITSTATUS(status))
    };
    let text = format!("droverd (pid {pid}) {how}; it is started again, and what is queued waits");
    log::server(std::ptr::null_mut(), Level::Error, Code::SupervisorDied, &text);
    if parent.quick_deaths <= QUICK_TRIES {
        again(parent);
    }
}

/// Whether a death after so long makes one think that droverd cannot run. One that somebody kills can, however often that is done: it is only
/// not started more than once a second for it.
const fn is_quick(status: c_int, ran: Duration) -> bool {
    let killed = libc::WIFSIGNALED(status) && signals::is_sent_to_end(libc::WTERMSIG(status));
    ran.as_millis() < if killed { 1000 } else { 5000 }
}

/// So often droverd is started again at once; then [`revive`] does it, with growing pauses.
const QUICK_TRIES: u32 = 3;

/// Starts droverd again. What the dead one had not read of its control socket the new one reads first; an old configuration
/// does no harm.
fn again(parent: &mut Parent) {
    if let Err(e) = start(parent).and_then(|()| send_configuration(parent).map_err(|e| e.to_string())) {
        parent.quick_deaths = parent.quick_deaths.saturating_add(1);
        parent.started = Instant::now();
        log::server(std::ptr::null_mut(), Level::Error, Code::SupervisorStart, &e);
    }
}

/// Starts droverd again when it keeps dying. Called every few seconds.
pub fn revive() {
    let mut guard = PARENT.lock();
    let Some(parent) = guard.as_mut() else { return };
    if parent.pid.is_some() || parent.stopped || parent.saved.is_none() || parent.owner != std::process::id() {
        return;
    }
    let pause = Duration::from_secs(1u64.checked_shl(parent.quick_deaths.min(6)).unwrap_or(64));
    if parent.started.elapsed() >= pause {
        again(parent);
    }
}

/// httpd restarts or stops at once: so do the workers.
fn stop_workers() {
    let mut guard = PARENT.lock();
    let Some(parent) = guard.as_mut().filter(|p| !p.stopped && p.owner == std::process::id()) else { return };
    parent.stopped = true;
    if let Ok(message) = control::encode(&ToSupervisor::StopAll) {
        // If droverd does not read, the end of httpd or the next configuration tells it the same.
        let _ = channel::send(&parent.control.near, &[&message], &[], false);
    }
}

/// What a child of httpd gets: its end of the broker. Everything else is closed in it.
#[must_use]
pub fn into_child() -> Option<OwnedFd> {
    let mut guard = PARENT.lock();
    if guard.as_ref()?.owner == std::process::id() {
        return guard.as_ref()?.broker.near.try_clone().ok(); // -X: one process is both
    }
    guard.take().map(|parent| parent.broker.near)
}

/// How long httpd's parent waits at its end for droverd; droverd itself keeps to the groups' shutdown-timeout.
const LONGEST_END: Duration = Duration::from_secs(30);

/// The parent ends: the sockets are closed, which droverd sees, and its end is awaited.
unsafe extern "C" fn at_exit(_: *mut c_void) -> ffi::apr_status_t {
    super::guard::guard(ffi::APR_SUCCESS, end)
}

fn end() -> ffi::apr_status_t {
    // Children of httpd run this too when they call exit(): they are not the owner.
    let Some(mut guard) = PARENT.try_lock() else { return ffi::APR_SUCCESS };
    if guard.as_ref().is_none_or(|p| p.owner != std::process::id()) {
        return ffi::APR_SUCCESS;
    }
    let Some(parent) = guard.take() else { return ffi::APR_SUCCESS };
    let pid = parent.pid;
    // Not every way out of httpd's MPMs has told it before (prefork's graceful-stop); else it would take this for a sudden death.
    if !parent.stopped
        && let Ok(message) = control::encode(&ToSupervisor::StopAll)
    {
        let _ = channel::send(&parent.control.near, &[&message], &[], false); // or the end of the socket says the same
    }
    drop(parent);
    if let Some(pid) = pid {
        drover_sys::wait::process_end(pid, LONGEST_END);
        // SAFETY: reaps our own child if it has ended; httpd's loop, which would, is over.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
    }
    ffi::APR_SUCCESS
}

/// A copy of a server's error log descriptor.
///
/// # Safety
/// `s` must be a server_rec of the live configuration.
pub unsafe fn log_of(s: *mut ffi::server_rec) -> Option<(c_int, OwnedFd)> {
    // SAFETY: the caller's promise.
    let fd = unsafe { ffi::drover_error_log_fd(s) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the log is open for as long as the configuration lives; the copy is ours.
    let copy = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().ok()?;
    Some((fd, copy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_killed_is_not_held_to_be_unable_to_run() {
        let after = |ms| Duration::from_millis(ms);
        // As waitpid(2) has it: a signal, or a status in the second byte.
        for (status, ms, quick) in [
            (libc::SIGKILL, 900, true),
            (libc::SIGKILL, 1100, false),
            (libc::SIGTERM, 1100, false),
            (libc::SIGSEGV, 1100, true),
            (1 << 8, 4900, true),
            (1 << 8, 5100, false),
        ] {
            assert_eq!(is_quick(status, after(ms)), quick, "{status} {ms}");
        }
    }
}
