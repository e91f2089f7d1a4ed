//! Starts, configures and restarts droverd from httpd's parent.
//!
//! Responsible for: sockets that outlive droverd and every configuration, so that no queued request is lost when it exits. Must
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

/// A socket pair of which the parent keeps both ends.
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

/// The last configuration, to configure the next droverd.
struct Saved {
    message: Vec<u8>,
    file: OwnedFd,
    logs: Vec<OwnedFd>,
}

/// A pool that lives as long as the process.
#[derive(Clone, Copy)]
struct Pool(*mut ffi::apr_pool_t);
// SAFETY: only httpd's parent uses it, with one thread.
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
    /// StopAll was sent; a configuration or the exit follows.
    stopped: bool,
}

// Descriptors and a process id, no configuration: they must survive restarts, during which the library stays loaded.
static PARENT: Mutex<Option<Parent>> = Mutex::new(None);

/// The path of mod_drover.so.
pub fn library() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    let here: fn() -> Option<PathBuf> = library;
    // SAFETY: dladdr fills the structure for an address in a loaded object, such as this function.
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

/// The directory of the installation, which holds mod_drover.so.
pub fn home() -> Option<PathBuf> {
    library()?.parent().map(Path::to_path_buf)
}

/// Creates the sockets and starts droverd if necessary, then sends the configuration.
///
/// # Safety
/// `s` must be the main server of the live configuration; called in the parent.
pub unsafe fn configure(s: *mut ffi::server_rec, configuration: &Configuration, logs: Vec<OwnedFd>) -> Result<(), (Code, String)> {
    let no_start = |text| (Code::SupervisorStart, text);
    let no_configuration = |text| (Code::Configure, text);
    let mut guard = PARENT.lock();
    if guard.is_none() {
        let made = (|| Ok((Ends::new()?, Ends::new()?, Ends::new()?)))();
        let (control, broker, store) = made.map_err(|e: Errno| no_start(format!("cannot create sockets for droverd: {e}")))?;
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
    let file = memfile::create(&bytes).map_err(|e| no_configuration(format!("cannot create a memory file: {e}")))?;
    let len = u32::try_from(bytes.len()).map_err(|_| no_configuration("the configuration is too large".to_owned()))?;
    let message = control::encode(&ToSupervisor::Configure { len }).map_err(|e| no_configuration(e.to_string()))?;
    parent.saved = Some(Saved { message, file, logs });
    parent.stopped = false;
    if parent.pid.is_none() {
        start(parent).map_err(no_start)?;
    }
    send_configuration(parent).map_err(|e| no_configuration(format!("cannot send the configuration to droverd: {e}")))
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

/// The first descriptor that droverd gets; the others follow.
const FIRST_FD: c_int = 3;
/// Descriptors are first duplicated above this number, so that none is overwritten.
const MIN_DUPLICATE: c_int = 64;

fn start(parent: &mut Parent) -> Result<(), String> {
    let home = home().ok_or("cannot determine the path of mod_drover.so")?;
    let program = home.join("droverd");
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| "a path contains a NUL".to_owned());
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
        let n = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, MIN_DUPLICATE) };
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

/// Uses posix_spawn: none of our code runs between fork and exec.
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

/// APR's notice about droverd. Runs in the parent's main loop.
unsafe extern "C" fn other_child(reason: c_int, data: *mut c_void, status: c_int) {
    super::guard::guard((), || {
        match reason {
            ffi::APR_OC_REASON_DEATH | ffi::APR_OC_REASON_LOST => {
                // SAFETY: a stale entry would crash httpd at a later death, so it must be removed now (APR's otherchild.c).
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
        format!("was killed by signal {}", libc::WTERMSIG(status))
    } else {
        format!("exited with status {}", libc::WEXITSTATUS(status))
    };
    let text = format!("droverd (pid {pid}) {how}; restarting it, queued requests wait");
    log::server(std::ptr::null_mut(), Level::Error, Code::SupervisorDied, &text);
    if parent.quick_deaths <= QUICK_TRIES {
        restart(parent);
    }
}

/// Whether a death after this time suggests that droverd cannot run. A killed one can run, so it only limits restarts to one a
/// second.
const fn is_quick(status: c_int, ran: Duration) -> bool {
    let killed = libc::WIFSIGNALED(status) && signals::is_sent_to_end(libc::WTERMSIG(status));
    ran.as_millis() < if killed { 1000 } else { 5000 }
}

/// How often droverd is restarted at once. After that [`revive`] backs off.
const QUICK_TRIES: u32 = 3;

/// Restarts droverd. It first reads what the old one left in the control socket; an old configuration does no harm.
fn restart(parent: &mut Parent) {
    if let Err(e) = start(parent).and_then(|()| send_configuration(parent).map_err(|e| e.to_string())) {
        parent.quick_deaths = parent.quick_deaths.saturating_add(1);
        parent.started = Instant::now();
        log::server(std::ptr::null_mut(), Level::Error, Code::SupervisorStart, &e);
    }
}

/// Restarts a droverd that keeps exiting, with backoff. Called every few seconds.
pub fn revive() {
    let mut guard = PARENT.lock();
    let Some(parent) = guard.as_mut() else { return };
    if parent.pid.is_some() || parent.stopped || parent.saved.is_none() || parent.owner != std::process::id() {
        return;
    }
    let pause = Duration::from_secs(1u64.checked_shl(parent.quick_deaths.min(6)).unwrap_or(64));
    if parent.started.elapsed() >= pause {
        restart(parent);
    }
}

/// httpd restarts or stops without grace, and so do the workers.
fn stop_workers() {
    let mut guard = PARENT.lock();
    let Some(parent) = guard.as_mut().filter(|p| !p.stopped && p.owner == std::process::id()) else { return };
    parent.stopped = true;
    if let Ok(message) = control::encode(&ToSupervisor::StopAll) {
        // If droverd does not read this, the exit of httpd or the next configuration has the same effect.
        let _ = channel::send(&parent.control.near, &[&message], &[], false);
    }
}

/// Returns the broker socket to a child of httpd, and closes all other sockets there.
#[must_use]
pub fn into_child() -> Option<OwnedFd> {
    let mut guard = PARENT.lock();
    if guard.as_ref()?.owner == std::process::id() {
        return guard.as_ref()?.broker.near.try_clone().ok(); // -X: one process is both
    }
    guard.take().map(|parent| parent.broker.near)
}

/// How long httpd's parent waits for droverd when it exits. droverd itself obeys the groups' shutdown-timeout.
const MAX_EXIT_WAIT: Duration = Duration::from_secs(30);

/// The parent exits: it closes the sockets, which stops droverd, and waits for it.
unsafe extern "C" fn at_exit(_: *mut c_void) -> ffi::apr_status_t {
    super::guard::guard(ffi::APR_SUCCESS, end)
}

fn end() -> ffi::apr_status_t {
    // Children of httpd run this too when they call exit(), but they are not the owner.
    let Some(mut guard) = PARENT.try_lock() else { return ffi::APR_SUCCESS };
    if guard.as_ref().is_none_or(|p| p.owner != std::process::id()) {
        return ffi::APR_SUCCESS;
    }
    let Some(parent) = guard.take() else { return ffi::APR_SUCCESS };
    let pid = parent.pid;
    // Some MPMs exit without a notice before (prefork's graceful-stop). Without one droverd would assume a crash of httpd.
    if !parent.stopped
        && let Ok(message) = control::encode(&ToSupervisor::StopAll)
    {
        let _ = channel::send(&parent.control.near, &[&message], &[], false); // the end of the socket has the same effect
    }
    drop(parent);
    if let Some(pid) = pid {
        drover_sys::wait::process_end(pid, MAX_EXIT_WAIT);
        // SAFETY: reaps our own child if it exited; httpd's main loop no longer does.
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
    fn a_killed_droverd_can_run() {
        let after = |ms| Duration::from_millis(ms);
        // As in waitpid(2): a signal, or a status in the second byte.
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
