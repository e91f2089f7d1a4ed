//! httpd's phases, in order: pre_config, check_config, post_config, child_init, monitor, child_stopping.
//!
//! Responsible for: starting nothing before the second configuration pass; the one pointer to the running configuration. Must
//! never: keep a pointer into a configuration that httpd has cleared. Called by: `module`.
use super::mpm::Mpm;
use super::socache::Cache;
use super::system::{Host, descriptors_of_a_child, open_files, writable_by_others};
use super::{commands, ffi, log, parent, sessions};
use crate::config::{AliasPattern, ControlSocket};
use crate::dispatch::{Queues, Wake};
use crate::handler::{AdmissionCounters, Context};
use crate::messages::{Code, Level};
use crate::resolved::{self, Problem, Resolved, Server, System};
use crate::session::{Plan, Settings, Stores};
use drover_sys::counters::{ChildSlot, SharedCounters};
use drover_sys::shared::Flag;
use drover_wire::control::{Configuration, GroupSpec, Target};
use std::ffi::{CStr, CString, OsString, c_int, c_void};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The running configuration. A cleanup of its pool sets it to null.
static RUNNING: AtomicPtr<Running> = AtomicPtr::new(ptr::null_mut());
/// The state of this child of httpd. Set once in child_init, never freed.
static CHILD: AtomicPtr<Child> = AtomicPtr::new(ptr::null_mut());

/// A configuration, and what its children share.
struct Running {
    resolved: Resolved,
    counters: Option<SharedCounters>,
    slots: u64,
    sessions: Plan,
    /// Set by the first request that uses a session, if no directive configures sessions.
    sessions_used: Option<Flag>,
    caches: Vec<Option<Cache>>,
}

struct Child {
    queues: Queues,
    wake: Wake,
    child_slot: Option<ChildSlot>,
    stores: Option<&'static Stores>,
}

/// Before the configuration is read.
pub fn pre_config() -> c_int {
    ffi::OK
}

/// All servers, each once, the main one first, with the index of its error log in `logs`.
unsafe fn servers<'a>(main: *mut ffi::server_rec, logs: &mut Vec<OwnedFd>) -> Vec<(*mut ffi::server_rec, Server<'a>)> {
    let mut all = Vec::new();
    let mut seen: Vec<(c_int, u16)> = Vec::new();
    let mut slots: Vec<*mut commands::ServerSlot> = Vec::new();
    let mut s = main;
    while !s.is_null() {
        // SAFETY: a list of live server_recs. Each has our slot, or shares the main server's if it defines nothing.
        unsafe {
            let slot = commands::slot_of(s);
            let log = match parent::log_of(s) {
                Some((fd, copy)) => seen.iter().find(|(known, _)| *known == fd).map(|(_, place)| *place).unwrap_or_else(|| {
                    let place = u16::try_from(logs.len()).unwrap_or(u16::MAX);
                    logs.push(copy);
                    seen.push((fd, place));
                    place
                }),
                None => 0,
            };
            if !slots.contains(&slot) {
                slots.push(slot);
                let name = if (*s).server_hostname.is_null() { &[][..] } else { CStr::from_ptr((*s).server_hostname).to_bytes() };
                let log_level = u8::try_from(ffi::drover_level_server(s)).unwrap_or(4);
                all.push((
                    s,
                    Server { config: &(*slot).config, name, is_virtual: (*s).is_virtual != 0, log, log_level, sections_choose: false },
                ));
            }
            s = (*s).next;
        }
    }
    all
}

/// The groups, and problems that do not prevent the start.
struct Groups {
    resolved: Resolved,
    specs: Vec<GroupSpec>,
    unreadable: Vec<Problem>,
    doubled: Vec<Problem>,
    targets: Vec<Target>,
    crowded: Vec<String>,
}

unsafe fn resolve(pconf: *mut ffi::apr_pool_t, s: *mut ffi::server_rec, logs: &mut Vec<OwnedFd>) -> Result<Groups, Problem> {
    // SAFETY: the caller's.
    let (all, sections_choose) = unsafe { (servers(s, logs), commands::sections_choose_groups(pconf)) };
    let views: Vec<Server<'_>> = all.iter().map(|(_, view)| Server { sections_choose, ..*view }).collect();
    let (resolved, specs) = resolved::resolve(&views, &Host)?;
    let unreadable = resolved::unreadable(&views, &specs, resolved.implicit_name(), &Host);
    let targets = resolved::targets(&views, resolved.implicit_name());
    let (doubled, crowded) = (resolved::doubled(&views), resolved::crowded(&views));
    Ok(Groups { resolved, specs, unreadable, doubled, targets, crowded })
}

/// Refuses a configuration that cannot work. Runs after the MPM's own check. `apachectl -t` ends here.
///
/// # Safety
/// `s` must be the main server of the configuration just read.
pub unsafe fn check_config(pconf: *mut ffi::apr_pool_t, s: *mut ffi::server_rec) -> c_int {
    if super::beside::is_linked_in() {
        let text = "mod_wsgi is compiled into this httpd and mod_drover replaces it: remove the LoadModule line of mod_drover";
        log::startup(Level::Crit, Code::BesideModWsgi, text);
        return ffi::HTTP_INTERNAL_SERVER_ERROR;
    }
    // SAFETY: the caller's promise.
    match unsafe { check(pconf, s) } {
        Ok(()) => ffi::OK,
        Err((code, problem)) => {
            // SAFETY: the caller's promise.
            let at = unsafe { commands::place_of(pconf, &problem) };
            log::startup(Level::Crit, code, &format!("{problem}{at}"));
            ffi::HTTP_INTERNAL_SERVER_ERROR
        }
    }
}

unsafe fn check(pconf: *mut ffi::apr_pool_t, s: *mut ffi::server_rec) -> Result<(), (Code, Problem)> {
    // SAFETY: the caller's.
    unsafe {
        let groups = resolve(pconf, s, &mut Vec::new()).map_err(|problem| (Code::Refused, problem))?;
        if commands::first_pass() {
            warnings(pconf, s, &groups).iter().for_each(|text| log::startup(Level::Warn, Code::Doubtful, text));
            doubled(pconf, &groups).iter().for_each(|text| log::startup(Level::Notice, Code::Doubled, text));
            groups.crowded.iter().for_each(|text| log::startup(Level::Warn, Code::CrowdedGroup, text));
        }
        // A running server must not stop because something is no longer available: post_config logs it and continues.
        if Host.is_running() {
            return Ok(());
        }
        let doubt = sessions::check(pconf, &slots(s), &Mpm::query(), &Host).map_err(|problem| (Code::SessionsRefused, problem))?;
        if let Some(problem) = doubt.filter(|_| commands::first_pass()) {
            let text = format!("{problem}{}", commands::place_of(pconf, &problem));
            log::startup(Level::Warn, Code::SessionsRefused, &text);
        }
    }
    Ok(())
}

/// Warnings about things that the configuration names and that do not exist. They are accepted, as by mod_wsgi.
unsafe fn warnings(pconf: *mut ffi::apr_pool_t, s: *mut ffi::server_rec, groups: &Groups) -> Vec<String> {
    // SAFETY: the caller's: a live configuration, whose servers live as long as its pool.
    unsafe {
        let name_of = |server: *mut ffi::server_rec| {
            let is_named = (*server).is_virtual != 0 && !(*server).server_hostname.is_null();
            is_named.then(|| CStr::from_ptr((*server).server_hostname).to_bytes())
        };
        let named = commands::named_groups(pconf).iter();
        let mut texts: Vec<String> = named
            .filter_map(|named| {
                let text = resolved::group_warning(&groups.resolved, name_of(named.server), &named.name)?;
                Some(format!("{}: {text}{}", named.directive, named.at))
            })
            .collect();
        texts.extend(groups.unreadable.iter().map(|problem| format!("{problem}{}", commands::place_of(pconf, problem))));
        let above = control_socket(pconf, s).and_then(|path| PathBuf::from(OsString::from_vec(path)).parent().map(Path::to_path_buf));
        if let Some((above, why)) = above.as_ref().and_then(|above| Some((above, writable_by_others(above)?))) {
            let what = format!(
                "other users can write to the directory {} ({why}) and replace the socket of the command drover; use a directory that only root can write to",
                above.display()
            );
            texts.push(match &(*commands::slot_of(s)).config.control_socket {
                Some(ControlSocket::Path(path)) => {
                    let problem = Problem::new("DroverControlSocket", path, what);
                    format!("{problem}{}", commands::place_of(pconf, &problem))
                }
                _ => format!("DroverControlSocket: {what}"),
            });
        }
        if let (Some(ControlSocket::Path(path)), Some(above)) = (&(*commands::slot_of(s)).config.control_socket, above)
            && !above.is_dir()
        {
            let what = format!("directory {} not found, so the command drover cannot reach this server", above.display());
            let problem = Problem::new("DroverControlSocket", path, what);
            texts.push(format!("{problem}{}", commands::place_of(pconf, &problem)));
        }
        texts
    }
}

/// Notices about applications with more processes than they need. None if sections choose groups, which depends on the request.
unsafe fn doubled(pconf: *mut ffi::apr_pool_t, groups: &Groups) -> Vec<String> {
    // SAFETY: the caller's: the pool of a live configuration.
    unsafe {
        let known = !commands::sections_choose_groups(pconf);
        groups.doubled.iter().filter(|_| known).map(|problem| format!("{problem}{}", commands::place_of(pconf, problem))).collect()
    }
}

/// Our slots of all servers, each once.
unsafe fn slots(s: *mut ffi::server_rec) -> Vec<*mut commands::ServerSlot> {
    // SAFETY: the caller's: the main server of a live configuration.
    unsafe { servers(s, &mut Vec::new()).into_iter().map(|(server, _)| commands::slot_of(server)).collect() }
}

/// Starts with the configuration that was read.
///
/// # Safety
/// `s` must be the main server of the configuration just read.
pub unsafe fn post_config(pconf: *mut ffi::apr_pool_t, s: *mut ffi::server_rec) -> c_int {
    // SAFETY: returns a number (http_main.h).
    if unsafe { ffi::ap_state_query(ffi::AP_SQ_MAIN_STATE) } == ffi::AP_SQ_MS_CREATE_PRE_CONFIG {
        return ffi::OK;
    }
    // SAFETY: the caller's promise; the configuration pass is single-threaded.
    unsafe {
        compile_patterns(pconf, s);
        let mpm = Mpm::query();
        log::server(s, Level::Notice, Code::Mpm, &format!("mod_drover {}: {mpm}", drover_wire::VERSION));
        let needed = descriptors_of_a_child(u64::try_from(mpm.threads).unwrap_or(1));
        if let Some(limit) = open_files().filter(|limit| *limit < needed) {
            let text = format!(
                "the limit of open files is {limit}, but a child of httpd with {} threads may need {needed}: raise LimitNOFILE= in httpd's systemd unit (or ulimit -n where httpd is started)",
                mpm.threads
            );
            log::server(s, Level::Warn, Code::FewDescriptors, &text);
        }
        let mut logs = Vec::new();
        let groups = match resolve(pconf, s, &mut logs) {
            Ok(done) => done,
            Err(problem) => return refuse(pconf, s, Code::Refused, &problem),
        };
        warnings(pconf, s, &groups).iter().for_each(|text| log::server(s, Level::Warn, Code::Doubtful, text));
        groups.crowded.iter().for_each(|text| log::server(s, Level::Warn, Code::CrowdedGroup, text));
        let Groups { resolved, specs: groups, targets, .. } = groups;
        if libc::geteuid() != 0 && asks_for_identity(s) {
            let text = "httpd does not run as root: user=, group=, supplementary-groups= and chroot= of WSGIDaemonProcess have no effect; neither has a cpu-priority= above httpd's own";
            log::server(s, Level::Warn, Code::NotRoot, text);
        }
        let (sessions, caches) = match sessions::prepare(pconf, s, &slots(s), &mpm, &Host) {
            Ok(done) => done,
            Err(problem) => return refuse(pconf, s, Code::SessionsRefused, &problem),
        };
        let daemons = usize::try_from(mpm.daemons).unwrap_or(1);
        // Stopping children count while they still run requests. Without counters nothing is refused.
        let counters = SharedCounters::new(daemons * 2 + 16).ok();
        let said = sessions.said.clone();
        let slots = u64::try_from(mpm.slots()).unwrap_or(1);
        let sessions_used = if sessions.configured { None } else { Flag::new().ok() };
        publish(pconf, Running { resolved, counters, slots, sessions, sessions_used, caches });
        let mut generation: c_int = 0;
        ffi::ap_mpm_query(ffi::AP_MPMQ_GENERATION, &raw mut generation);
        let configuration = Configuration {
            version: drover_wire::VERSION.to_owned(),
            generation: u64::try_from(generation).unwrap_or(0),
            log_level: u8::try_from(ffi::drover_level_server(s)).unwrap_or(4),
            control_socket: control_socket(pconf, s),
            sessions: said,
            groups,
            targets,
        };
        if let Err((code, text)) = parent::configure(s, &configuration, logs) {
            log::server(s, Level::Crit, code, &text);
            return ffi::HTTP_INTERNAL_SERVER_ERROR;
        }
    }
    ffi::OK
}

/// Logs a problem that stops httpd.
unsafe fn refuse(pconf: *mut ffi::apr_pool_t, s: *mut ffi::server_rec, code: Code, problem: &Problem) -> c_int {
    // SAFETY: the caller's: the pool of the live configuration.
    let at = unsafe { commands::place_of(pconf, problem) };
    log::server(s, Level::Crit, code, &format!("{problem}{at}"));
    ffi::HTTP_INTERNAL_SERVER_ERROR
}

/// The path of the socket for the command `drover`.
unsafe fn control_socket(pconf: *mut ffi::apr_pool_t, s: *mut ffi::server_rec) -> Option<Vec<u8>> {
    // SAFETY: the main server's slot is alive.
    let configured = unsafe { (*commands::slot_of(s)).config.control_socket.clone() };
    let path = match configured {
        Some(ControlSocket::Off) => return None,
        Some(ControlSocket::Path(path)) => path,
        None => b"drover.sock".to_vec(),
    };
    let path = CString::new(path).ok()?;
    // SAFETY: a NUL-terminated name; the result is NUL-terminated and lies in the pool, or is null for an invalid path.
    unsafe {
        let path = ffi::ap_runtime_dir_relative(pconf, path.as_ptr());
        if path.is_null() { None } else { Some(CStr::from_ptr(path).to_bytes().to_vec()) }
    }
}

unsafe fn asks_for_identity(s: *mut ffi::server_rec) -> bool {
    // SAFETY: the caller's.
    let all = unsafe { servers(s, &mut Vec::new()) };
    all.iter().flat_map(|(_, view)| &view.config.groups).any(|g| {
        let o = &g.options;
        o.user.is_some() || o.group.is_some() || o.supplementary_groups.is_some() || o.chroot.is_some() || o.cpu_priority < 0
    })
}

unsafe fn compile_patterns(pconf: *mut ffi::apr_pool_t, s: *mut ffi::server_rec) {
    let mut s = s;
    while !s.is_null() {
        // SAFETY: live server_recs; a slot shared by two servers is filled twice with the same.
        unsafe {
            let slot = &mut *commands::slot_of(s);
            let patterns = slot
                .config
                .aliases
                .iter()
                .map(|alias| match &alias.pattern {
                    AliasPattern::Prefix(_) => ptr::null_mut(),
                    AliasPattern::Regex(source) => super::regex(&mut *pconf, source).unwrap_or(ptr::null_mut()),
                })
                .collect();
            slot.patterns = patterns;
            s = (*s).next;
        }
    }
}

/// Makes this the running configuration until its pool is cleared.
unsafe fn publish(pconf: *mut ffi::apr_pool_t, running: Running) {
    unsafe extern "C" fn withdraw(owner: *mut c_void) -> ffi::apr_status_t {
        // A child of httpd runs this when it exits, perhaps with requests still running: it leaves the memory to the kernel.
        if owner.addr() != std::process::id() as usize {
            return ffi::APR_SUCCESS;
        }
        let old = RUNNING.swap(ptr::null_mut(), Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: made by Box::into_raw below; requests run only while the pool lives.
            super::guard::guard((), || drop(unsafe { Box::from_raw(old) }));
        }
        ffi::APR_SUCCESS
    }
    RUNNING.store(Box::into_raw(Box::new(running)), Ordering::Release);
    // Not a pointer: the id of the process that frees it.
    let owner = ptr::without_provenance(std::process::id() as usize);
    // SAFETY: pconf is the live configuration's pool; the cleanup never dereferences its argument.
    unsafe { ffi::apr_pool_cleanup_register(pconf, owner, Some(withdraw), Some(ffi::apr_pool_cleanup_null)) };
}

/// Runs every few seconds in the parent.
pub fn monitor() -> c_int {
    parent::revive();
    ffi::DECLINED
}

/// Starts a child of httpd.
///
/// # Safety
/// `s` must be the main server; called once in each child.
pub unsafe fn child_init(pchild: *mut ffi::apr_pool_t, s: *mut ffi::server_rec) {
    // SAFETY: looks up mod_ssl's function after all modules were loaded.
    unsafe { ffi::drover_find_optional() };
    let (Some(broker), Ok(wake)) = (parent::into_child(), Wake::new()) else {
        log::server(s, Level::Crit, Code::SupervisorStart, "this child has no connection to droverd; its requests will fail");
        return;
    };
    // SAFETY: published by post_config; its pool lives as long as this child.
    let running = unsafe { RUNNING.load(Ordering::Acquire).as_ref() };
    let child_slot = running.and_then(|r| r.counters.as_ref()).and_then(SharedCounters::claim);
    // SAFETY: httpd's own pool and server, as the caller promises.
    let stores = running.and_then(|r| unsafe { sessions::in_child(pchild, s, &r.sessions, &r.caches) });
    CHILD.store(Box::into_raw(Box::new(Child { queues: Queues::new(broker), wake, child_slot, stores })), Ordering::Release);
}

/// Stops a child of httpd. Async-signal-safe.
pub fn child_stopping(graceful: bool) {
    // SAFETY: set once, never freed.
    let Some(child) = (unsafe { CHILD.load(Ordering::Acquire).as_ref() }) else { return };
    if !graceful {
        child.wake.stop();
    }
    if let Some(stores) = child.stores {
        stores.stop(graceful);
    }
}

/// The context for a request with these session settings; `None` in a process that was not set up.
///
/// # Safety
/// `'c` must end with the running request: the context lives until the cleanup of the configuration's pool, after all requests.
#[must_use]
pub unsafe fn context<'c>(session: Option<&'c Settings>) -> Option<Context<'c>> {
    // SAFETY: both live as long as requests run: one until its pool's cleanup, the other forever.
    let (running, child) = unsafe { (RUNNING.load(Ordering::Acquire).as_ref()?, CHILD.load(Ordering::Acquire).as_ref()?) };
    let admission = AdmissionCounters { shared: running.counters.as_ref(), child_slot: child.child_slot, slots: running.slots };
    let session = session.and_then(|settings| Some((settings, running.sessions.stores.get(settings.store)?)));
    let unsaid = running.sessions_used.as_ref().map(|used| (used, running.sessions.said.as_slice()));
    Some(Context {
        unsaid,
        resolved: &running.resolved,
        queues: &child.queues,
        wake: &child.wake,
        admission,
        session,
        stores: child.stores,
    })
}
