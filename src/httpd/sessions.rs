//! Sessions in httpd's phases: planned once the MPM is known, opened in the children.
//!
//! Responsible for: refusing an unavailable store at `apachectl -t`, without stopping a running server; saving sessions in memory
//! when a child exits. Must never: open a store in the parent. Called by: `lifecycle`.
#![allow(unsafe_code)]
use super::mpm::Mpm;
use super::socache::{self, Cache, Socache};
use super::{commands, ffi, log};
use crate::config::ServerConfig;
use crate::messages::{Code, Level};
use crate::resolved::{Problem, System};
use crate::session::stores::MakeEngine;
use crate::session::{Plan, StorePlan, Stores, plan};
use drover_session::{Asked, Engine, Error, Kept, store_directory};
use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The default directory when httpd starts as root.
const DEFAULT_DIRECTORY: &str = "/var/lib/mod_drover/sessions";

/// The stores that the servers need, and their directories.
struct Planned {
    plan: Plan,
    /// The directory that contains those of all stores, or the only one.
    base: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Planned {
    /// # Safety
    /// `pconf` must be the live configuration's pool.
    unsafe fn new(pconf: *mut ffi::apr_pool_t, configs: &[&ServerConfig], mpm: &Mpm, system: &dyn System) -> Result<Self, Problem> {
        let asked = configs.first().and_then(|config| config.session.directory.clone());
        // SAFETY: the caller's promise.
        let base = unsafe { directory(pconf, asked.as_deref(), system) };
        let plan = plan::plan(configs, mpm.for_sessions(), &base)
            .map_err(|refused| Problem::new("DroverSession", b"memory", refused.to_string()))?;
        Ok(Self { plan, base, owner: system.httpd_identity() })
    }

    /// The directories, parents first.
    fn directories(&self) -> impl Iterator<Item = &Path> {
        let within = self.plan.stores.iter().map(|store| store.directory.as_path()).filter(|directory| *directory != self.base);
        self.plan.stores.first().map(|_| self.base.as_path()).into_iter().chain(within)
    }

    fn trouble(&self, path: &Path, e: &IoError) -> Problem {
        let user = self.owner.filter(|_| e.kind() == ErrorKind::PermissionDenied).and_then(|(uid, _)| drover_sys::users::user_by_id(uid));
        let advice = match user {
            Some(user) => format!("Give it to httpd's User (chown -R {} {}), name another", user.name.escape_ascii(), path.display()),
            None => "Name an empty or a new".to_owned(),
        };
        let what = format!("sessions cannot be kept there: {e}. {advice} DroverSessionDirectory, or say DroverSession off");
        Problem::new("DroverSessionDirectory", path.as_os_str().as_bytes(), what)
    }
}

/// # Safety
/// Each slot must belong to a live server_rec, and must not be written to while the result lives.
unsafe fn configs<'a>(slots: &[*mut commands::ServerSlot]) -> Vec<&'a ServerConfig> {
    // SAFETY: the caller's promise.
    unsafe { slots.iter().map(|slot| &(**slot).config).collect() }
}

/// Checks whether the configured sessions are available, without creating anything. Returns a warning. For `apachectl -t`.
///
/// # Safety
/// `pconf` and `slots` must be of the configuration just read, and the MPM must have checked its own part of it.
pub unsafe fn check(
    pconf: *mut ffi::apr_pool_t,
    slots: &[*mut commands::ServerSlot],
    mpm: &Mpm,
    system: &dyn System,
) -> Result<Option<Problem>, Problem> {
    // SAFETY: the caller's promise.
    let planned = unsafe { Planned::new(pconf, &configs(slots), mpm, system)? };
    for store in &planned.plan.stores {
        if let Kept::Socache(provider, arguments) = &store.kept {
            // SAFETY: the caller's promise.
            unsafe { socache::find(pconf, provider, arguments)? };
        }
    }
    for path in planned.directories() {
        match store_directory::check(path, planned.owner) {
            // Not root: perhaps an unprivileged check of a configuration that root will use.
            Err(e) if planned.owner.is_none() && e.kind() == ErrorKind::PermissionDenied => {}
            Err(e) if planned.plan.wanted => return Err(planned.trouble(path, &e)),
            Err(e) => return Ok(Some(planned.trouble(path, &e))),
            Ok(()) => {}
        }
    }
    Ok(None)
}

/// Plans the stores, puts the settings into the servers' slots, and creates directories and caches. A running server continues
/// without those that fail.
///
/// # Safety
/// `pconf` and `s` must be the live configuration's, and `slots` its servers'.
pub unsafe fn prepare(
    pconf: *mut ffi::apr_pool_t,
    s: *mut ffi::server_rec,
    slots: &[*mut commands::ServerSlot],
    mpm: &Mpm,
    system: &dyn System,
) -> Result<(Plan, Vec<Option<Cache>>), Problem> {
    let ground = Ground { pconf, s, system };
    // SAFETY: the caller's promise.
    let planned = unsafe { ground.plan(slots, mpm)? };
    for (slot, settings) in slots.iter().zip(&planned.plan.servers) {
        // SAFETY: the caller's promise; the configuration pass is single-threaded.
        unsafe { (**slot).session = settings.clone() };
    }
    for text in planned.plan.said.iter().filter(|_| planned.plan.configured) {
        log::server(s, Level::Notice, Code::Sessions, text);
    }
    ground.make_directories(&planned)?;
    let caches = ground.make_caches(&planned)?;
    Ok((planned.plan, caches))
}

/// The effect on requests when sessions are not available.
const WITHOUT: &str = "A request that touches its session gets 503";

/// A live configuration, its main server and the system.
struct Ground<'s> {
    pconf: *mut ffi::apr_pool_t,
    s: *mut ffi::server_rec,
    system: &'s dyn System,
}

impl Ground<'_> {
    /// Returns a problem at start. For a running server logs it, with what happens `instead`.
    fn survive(&self, problem: Problem, instead: &str) -> Result<(), Problem> {
        if !self.system.is_running() {
            return Err(problem);
        }
        // SAFETY: the configuration is live.
        let at = unsafe { commands::place_of(self.pconf, &problem) };
        log::server(self.s, Level::Crit, Code::SessionsRefused, &format!("{problem}{at}. {instead}"));
        Ok(())
    }

    /// # Safety
    /// `slots` must be the live configuration's servers'.
    unsafe fn plan(&self, slots: &[*mut commands::ServerSlot], mpm: &Mpm) -> Result<Planned, Problem> {
        // SAFETY: the caller's promise; the references end with this function.
        let configs = unsafe { configs(slots) };
        // SAFETY: the pool is the live configuration's.
        let problem = match unsafe { Planned::new(self.pconf, &configs, mpm, self.system) } {
            Ok(planned) => return Ok(planned),
            Err(problem) => problem,
        };
        self.survive(problem, "httpd is running, so sessions are kept as with DroverSession auto")?;
        let mut others: Vec<ServerConfig> = configs.into_iter().cloned().collect();
        for config in others.iter_mut().filter(|config| config.session.asked == Some(Asked::Memory)) {
            config.session.asked = Some(Asked::Auto);
        }
        // SAFETY: as above.
        unsafe { Planned::new(self.pconf, &others.iter().collect::<Vec<_>>(), mpm, self.system) }
    }

    fn make_directories(&self, planned: &Planned) -> Result<(), Problem> {
        for path in planned.directories() {
            match store_directory::make(path, planned.owner) {
                Err(e) if planned.plan.wanted => self.survive(planned.trouble(path, &e), WITHOUT)?,
                // No directive asks for sessions, so only their first use fails.
                Err(e) => {
                    let text = format!("{}. {WITHOUT}", planned.trouble(path, &e));
                    log::server(self.s, Level::Warn, Code::SessionsRefused, &text);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// The object caches, at the indexes of the stores that use one.
    fn make_caches(&self, planned: &Planned) -> Result<Vec<Option<Cache>>, Problem> {
        let mut caches = Vec::new();
        for (place, store) in planned.plan.stores.iter().enumerate() {
            let Kept::Socache(provider, arguments) = &store.kept else {
                caches.push(None);
                continue;
            };
            // SAFETY: pool and server are the live configuration's.
            match unsafe { socache::create(self.pconf, self.s, provider, arguments, place) } {
                Ok(cache) => caches.push(Some(cache)),
                Err(problem) => {
                    self.survive(problem, WITHOUT)?;
                    caches.push(None);
                }
            }
        }
        Ok(caches)
    }
}

unsafe fn directory(pconf: *mut ffi::apr_pool_t, asked: Option<&[u8]>, system: &dyn System) -> PathBuf {
    type Relative = unsafe extern "C" fn(*mut ffi::apr_pool_t, *const c_char) -> *mut c_char;
    let (name, relative): (&[u8], Relative) = match asked {
        Some(path) => (path, ffi::ap_server_root_relative),
        None if system.httpd_identity().is_some() => return PathBuf::from(DEFAULT_DIRECTORY),
        None => (b"drover-sessions", ffi::ap_runtime_dir_relative),
    };
    let Ok(text) = CString::new(name) else { return PathBuf::from(OsStr::from_bytes(name)) };
    // SAFETY: a NUL-terminated name; the result lies in the pool and is NUL-terminated, or null for an invalid path.
    unsafe {
        let path = relative(pconf, text.as_ptr());
        if path.is_null() {
            PathBuf::from(OsStr::from_bytes(name))
        } else {
            PathBuf::from(OsStr::from_bytes(CStr::from_ptr(path).to_bytes()))
        }
    }
}

/// A server_rec that outlives the threads that use it.
struct MainServer(*mut ffi::server_rec);

// SAFETY: the main server of a child lives as long as the child; ap_log_error may be called by any thread.
unsafe impl Send for MainServer {}
// SAFETY: as above.
unsafe impl Sync for MainServer {}

/// The stores of a child, which lives as long as its process.
///
/// # Safety
/// `pchild` and `s` must be those that httpd passes to child_init.
pub unsafe fn in_child(
    pchild: *mut ffi::apr_pool_t,
    s: *mut ffi::server_rec,
    plan: &Plan,
    caches: &[Option<Cache>],
) -> Option<&'static Stores> {
    let server = MainServer(s);
    let say = Box::leak(Box::new(move |text: &str| {
        let server = &server;
        log::server(server.0, Level::Error, Code::SessionStore, text);
    }));
    let caches: Vec<_> = plan.stores.iter().map(|store| store.kept.clone()).zip(caches.iter().copied()).collect();
    let make: MakeEngine = Box::leak(Box::new(move |store: &StorePlan| engine(store, &caches)));
    let stores: &'static Stores = match Stores::new(&plan.stores, say, make) {
        Ok(stores) => Box::leak(Box::new(stores)),
        Err(e) => {
            log::server(s, Level::Error, Code::SessionStore, &e.to_string());
            return None;
        }
    };
    if plan.stores.iter().any(|store| store.kept == Kept::Memory) {
        let data: *const Stores = stores;
        // SAFETY: the child's pool, which httpd clears in the main thread when a threaded child exits. prefork does that in a
        // signal handler, but never has sessions in memory.
        unsafe { ffi::apr_pool_cleanup_register(pchild, data.cast(), Some(finish), Some(ffi::apr_pool_cleanup_null)) };
    }
    Some(stores)
}

unsafe extern "C" fn finish(stores: *mut c_void) -> ffi::apr_status_t {
    // SAFETY: registered above with a reference that lives as long as the process.
    super::guard::guard((), || unsafe { (*stores.cast::<Stores>()).finish() });
    ffi::APR_SUCCESS
}

fn engine(store: &StorePlan, caches: &[(Kept, Option<Cache>)]) -> Result<Box<dyn Engine>, Error> {
    let cache = caches.iter().find(|(kept, _)| *kept == store.kept).and_then(|(_, cache)| *cache);
    let cache = cache.ok_or_else(|| Error::Unavailable(format!("{} was not set up", store.kept)))?;
    Ok(Box::new(Socache::new(cache, &store.kept.to_string(), &store.directory)?))
}
