//! Sessions in httpd's phases: planned when the MPM can be asked, opened in the children.
//!
//! Responsible for: the store's directory belonging to httpd's user alone; sessions in memory being written down when a child ends. Must never:
//! open a store in the parent. Called by: `lifecycle`.
#![allow(unsafe_code)]
use super::mpm::Mpm;
use super::socache::{self, Cache, Socache};
use super::{commands, ffi, log};
use crate::config::ServerConfig;
use crate::messages::Code;
use crate::resolved::{Problem, System};
use crate::session::stores::MakeEngine;
use crate::session::{Plan, StorePlan, Stores, plan};
use drover_session::{Engine, Error, Kept};
use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::fs::{DirBuilder, Permissions};
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where sessions lie when nobody says and httpd starts as root.
const USUAL: &str = "/var/lib/mod_drover/sessions";

/// Plans what the servers need, puts what holds into their slots, and makes the directories.
///
/// # Safety
/// `pconf` and `s` must be the live configuration's.
pub unsafe fn prepare(
    pconf: *mut ffi::apr_pool_t,
    s: *mut ffi::server_rec,
    slots: &[*mut commands::ServerSlot],
    mpm: &Mpm,
    system: &dyn System,
) -> Result<(Plan, Vec<Option<Cache>>), Problem> {
    // SAFETY: each slot belongs to a live server_rec.
    let configs: Vec<&ServerConfig> = unsafe { slots.iter().map(|slot| &(**slot).config).collect() };
    let asked = configs.first().and_then(|config| config.session.directory.clone());
    // SAFETY: the caller's promise.
    let directory = unsafe { directory(pconf, asked.as_deref(), system) };
    let mpm = drover_session::choice::Mpm { threaded: mpm.threaded, forked: mpm.forked, max_daemons: mpm.daemons };
    let plan = plan::plan(&configs, mpm, &directory).map_err(|refused| Problem(refused.to_string()))?;
    for (slot, settings) in slots.iter().zip(&plan.servers) {
        // SAFETY: as above; the configuration pass is single-threaded, and `configs` is not used any more.
        unsafe { (**slot).session = settings.clone() };
    }
    for text in &plan.said {
        log::server(s, log::Level::Notice, Code::Sessions, text);
    }
    for store in &plan.stores {
        if let Err(e) = make_directory(&store.directory, system.httpd_identity()) {
            let text = format!("DroverSessionDirectory {}: {e}", store.directory.display());
            if asked.is_some() {
                return Err(Problem(text));
            }
            // Nobody has asked for sessions: they are missed, if at all, at their first use.
            log::server(s, log::Level::Info, Code::SessionStore, &text);
        }
    }
    let caches = plan.stores.iter().enumerate().map(|(place, store)| match &store.kept {
        // SAFETY: the caller's promise.
        Kept::Socache(provider, arguments) => unsafe { socache::create(pconf, s, provider, arguments, place) }.map(Some),
        _ => Ok(None),
    });
    let caches = caches.collect::<Result<Vec<_>, _>>()?;
    Ok((plan, caches))
}

unsafe fn directory(pconf: *mut ffi::apr_pool_t, asked: Option<&[u8]>, system: &dyn System) -> PathBuf {
    type Relative = unsafe extern "C" fn(*mut ffi::apr_pool_t, *const c_char) -> *mut c_char;
    let (name, relative): (&[u8], Relative) = match asked {
        Some(path) => (path, ffi::ap_server_root_relative),
        None if system.httpd_identity().is_some() => return PathBuf::from(USUAL),
        None => (b"drover-sessions", ffi::ap_runtime_dir_relative),
    };
    let Ok(text) = CString::new(name) else { return PathBuf::from(OsStr::from_bytes(name)) };
    // SAFETY: a NUL-terminated name; the result lies in the pool and is NUL-terminated, or null when the path makes no sense.
    unsafe {
        let path = relative(pconf, text.as_ptr());
        if path.is_null() {
            PathBuf::from(OsStr::from_bytes(name))
        } else {
            PathBuf::from(OsStr::from_bytes(CStr::from_ptr(path).to_bytes()))
        }
    }
}

/// A directory for httpd's user alone; those above it are made as well.
fn make_directory(path: &Path, owner: Option<(u32, u32)>) -> Result<(), IoError> {
    if let Some(above) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let found = std::fs::symlink_metadata(path)?;
    if !found.is_dir() {
        return Err(IoError::other("it is not a directory"));
    }
    let Some((uid, gid)) = owner else { return Ok(()) };
    // What belongs to somebody else was put there by somebody else.
    if found.uid() != 0 && found.uid() != uid {
        return Err(IoError::other(format!("it belongs to the user with the number {}, not to root or httpd's user", found.uid())));
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// A server_rec that outlives the threads it is given to.
struct MainServer(*mut ffi::server_rec);

// SAFETY: the main server of a child lives as long as the child; ap_log_error may be called by any thread.
unsafe impl Send for MainServer {}
// SAFETY: as above.
unsafe impl Sync for MainServer {}

/// The stores of a child, which lives as long as its process.
///
/// # Safety
/// `pchild` and `s` must be what httpd hands to child_init.
pub unsafe fn in_child(
    pchild: *mut ffi::apr_pool_t,
    s: *mut ffi::server_rec,
    plan: &Plan,
    caches: &[Option<Cache>],
) -> Option<&'static Stores> {
    let server = MainServer(s);
    let say = Box::leak(Box::new(move |text: &str| {
        let server = &server;
        log::server(server.0, log::Level::Error, Code::SessionStore, text);
    }));
    let caches: Vec<_> = plan.stores.iter().map(|store| store.kept.clone()).zip(caches.iter().copied()).collect();
    let make: MakeEngine = Box::leak(Box::new(move |store: &StorePlan| engine(store, &caches)));
    let stores: &'static Stores = match Stores::new(plan.stores.len(), say, make) {
        Ok(stores) => Box::leak(Box::new(stores)),
        Err(e) => {
            log::server(s, log::Level::Error, Code::SessionStore, &e.to_string());
            return None;
        }
    };
    if plan.stores.iter().any(|store| store.kept == Kept::Memory) {
        let data: *const Stores = stores;
        // SAFETY: the pool is the child's, which httpd clears in its main thread when a threaded child ends; prefork, which does so in a signal
        // handler, never has sessions in memory.
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
