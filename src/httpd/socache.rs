//! A session engine on httpd's shared object caches (ap_socache.h).
//!
//! Responsible for: the provider's calling rules: set up in the parent, one caller at a time if it requires that. Must never: treat an
//! unreachable cache as an empty one. Called by: `sessions`.
#![allow(unsafe_code)]
use super::ffi;
use crate::resolved::Problem;
use drover_session::{Engine, Error, Figures, Key, Put, Record, Swept};
use drover_sys::filelock::{self, Hold};
use parking_lot::{Mutex, MutexGuard};
use std::ffi::{CStr, CString, c_char, c_uchar, c_uint, c_void};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;
use std::time::{Duration, Instant};

/// The buffer for a lookup. Providers report a small buffer like a missing session, so it has the maximum size; unwritten pages cost
/// no memory.
const MAX_RECORD: usize = drover_wire::session::MAX_DATA + 64;
/// The byte of the lock file for providers that allow one caller at a time.
const CALLER: i64 = 3;
/// The pause between two attempts to lock it.
const PAUSE: Duration = Duration::from_micros(200);
/// How long a call waits for other callers, in this child and in others.
const MAX_LOCK_WAIT: Duration = Duration::from_secs(5);

/// A cache that the parent set up and its children use.
#[derive(Debug, Clone, Copy)]
pub struct Cache {
    provider: *const ffi::ap_socache_provider_t,
    instance: *mut ffi::ap_socache_instance_t,
    server: *mut ffi::server_rec,
}

// SAFETY: provider, instance and server live as long as the configuration's pool, so as long as a child. Several threads may call
// the provider unless its flags forbid it; then `Socache::alone` admits one at a time.
unsafe impl Send for Cache {}
// SAFETY: as above.
unsafe impl Sync for Cache {}

/// A provider and an instance of it with its arguments.
pub struct Found {
    provider: *const ffi::ap_socache_provider_t,
    instance: *mut ffi::ap_socache_instance_t,
    init: unsafe extern "C" fn(
        *mut ffi::ap_socache_instance_t,
        *const c_char,
        *const ffi::ap_socache_hints,
        *mut ffi::server_rec,
        *mut ffi::apr_pool_t,
    ) -> ffi::apr_status_t,
}

fn wrong(name: &str, arguments: &str, what: String) -> Problem {
    let colon = if arguments.is_empty() { "" } else { ":" };
    Problem::new("DroverSession", format!("socache:{name}{colon}{arguments}").as_bytes(), what)
}

/// httpd's own providers, each in its own module.
const KNOWN: [&str; 5] = ["dbm", "dc", "memcache", "redis", "shmcb"];

fn unknown(name: &str) -> String {
    if KNOWN.contains(&name) {
        return format!("provider not loaded; load its module: LoadModule socache_{name}_module .../mod_socache_{name}.so");
    }
    let guess = crate::config::suggest::nearest(name.as_bytes(), KNOWN).map(|near: &str| format!(", did you mean socache:{near}?"));
    format!(
        "there is no such provider{} httpd has shmcb, dbm, memcache and redis, each in a module of its own",
        guess.unwrap_or(";".into())
    )
}

/// Looks up a provider and passes it its arguments, which it checks.
///
/// # Safety
/// `pconf` must be the live configuration's pool, and all modules must be loaded.
pub unsafe fn find(pconf: *mut ffi::apr_pool_t, name: &str, arguments: &str) -> Result<Found, Problem> {
    let wrong = |what| wrong(name, arguments, what);
    let text = |text: &str| CString::new(text).map_err(|_| wrong("it contains a NUL".into()));
    let (c_name, c_arguments) = (text(name)?, text(arguments)?);
    // SAFETY: NUL-terminated names; the group and version are those of ap_socache.h.
    let provider: *const ffi::ap_socache_provider_t =
        unsafe { ffi::ap_lookup_provider(c"socache".as_ptr(), c_name.as_ptr(), c"0".as_ptr()) }.cast_const().cast();
    // SAFETY: a provider (ap_socache.h) or null.
    let functions = unsafe { provider.as_ref() }.ok_or_else(|| wrong(unknown(name)))?;
    let (create, init) = functions.create.zip(functions.init).ok_or_else(|| wrong("the provider is incomplete".into()))?;
    let mut instance = ptr::null_mut();
    let arguments = if arguments.is_empty() { ptr::null() } else { c_arguments.as_ptr() };
    // SAFETY: as ap_socache.h requires; the pool may serve as the temporary pool too.
    let error: *const c_char = unsafe { create(&raw mut instance, arguments, pconf, pconf) };
    if !error.is_null() {
        // SAFETY: a NUL-terminated text of the provider.
        return Err(wrong(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned()));
    }
    Ok(Found { provider, instance, init })
}

/// Sets a cache up.
///
/// # Safety
/// `pconf` and `s` must be the live configuration's; in the parent, in post_config.
pub unsafe fn create(
    pconf: *mut ffi::apr_pool_t,
    s: *mut ffi::server_rec,
    name: &str,
    arguments: &str,
    place: usize,
) -> Result<Cache, Problem> {
    // SAFETY: the caller's promise.
    let Found { provider, instance, init } = unsafe { find(pconf, name, arguments)? };
    let wrong = |what| wrong(name, arguments, what);
    let consumer = CString::new(format!("drover-sess-{place}")).map_err(|_| wrong("it contains a NUL".into()))?;
    let hints = ffi::ap_socache_hints { avg_id_len: 32, avg_obj_size: 1024, expiry_interval: 60_000_000 };
    // SAFETY: as above.
    let status = unsafe { init(instance, consumer.as_ptr(), &raw const hints, s, pconf) };
    if status != ffi::APR_SUCCESS {
        return Err(wrong(format!("the provider failed to initialize (status {status}); see its own message before this one")));
    }
    let cache = Cache { provider, instance, server: s };
    let owned = Box::into_raw(Box::new(cache));
    // SAFETY: the cleanup frees this box, once.
    unsafe { ffi::apr_pool_cleanup_register(pconf, owned.cast(), Some(destroy), Some(ffi::apr_pool_cleanup_null)) };
    Ok(cache)
}

unsafe extern "C" fn destroy(cache: *mut c_void) -> ffi::apr_status_t {
    super::guard::guard((), || {
        // SAFETY: registered above with a pointer from Box::into_raw; run once.
        let cache = unsafe { Box::from_raw(cache.cast::<Cache>()) };
        // SAFETY: set up by this provider.
        unsafe {
            if let Some(destroy) = (*cache.provider).destroy {
                destroy(cache.instance, cache.server);
            }
        }
    });
    ffi::APR_SUCCESS
}

/// A pool for one call, used by one thread.
struct Scratch(*mut ffi::apr_pool_t);

impl Scratch {
    fn new() -> Result<Self, Error> {
        let mut pool = ptr::null_mut();
        // SAFETY: creates a pool without a parent, with its own allocator.
        let status = unsafe { ffi::apr_pool_create_unmanaged_ex(&raw mut pool, None, ptr::null_mut()) };
        if status == ffi::APR_SUCCESS && !pool.is_null() { Ok(Self(pool)) } else { Err(Error::Unavailable("no memory".into())) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: created in `new`, not shared.
        unsafe { ffi::apr_pool_destroy(self.0) };
    }
}

/// The right to call a provider that allows one caller at a time.
struct Caller<'c>(MutexGuard<'c, File>);

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        // If this fails, the kernel unlocks it when the process exits.
        let _ = filelock::set(&*self.0, CALLER, Hold::Free);
    }
}

/// Waits for other callers, in this process and in others, until a deadline; `None` when it expired.
fn only_caller(callers: &Mutex<File>, until: Instant) -> Result<Option<Caller<'_>>, Error> {
    let Some(file) = callers.try_lock_until(until) else { return Ok(None) };
    while !filelock::set(&*file, CALLER, Hold::Exclusive).map_err(|e| Error::Unavailable(e.to_string()))? {
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Some(Caller(file)))
}

/// A cache, as one child of httpd uses it.
#[derive(Debug)]
pub struct Socache {
    cache: Cache,
    name: String,
    /// For a provider that allows one caller at a time.
    callers: Option<Mutex<File>>,
}

impl Socache {
    /// `directory` contains the callers' lock file.
    pub fn new(cache: Cache, name: &str, directory: &Path) -> Result<Self, Error> {
        // SAFETY: the provider is alive.
        let one_caller = unsafe { (*cache.provider).flags } & ffi::AP_SOCACHE_FLAG_NOTMPSAFE as c_uint != 0;
        let open = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(directory.join("callers"));
            file.map(Mutex::new).map_err(|e| Error::Unavailable(e.to_string()))
        };
        Ok(Self { cache, name: name.to_owned(), callers: one_caller.then(open).transpose()? })
    }

    /// Calls the provider, alone if it requires that.
    fn alone<T>(&self, call: impl FnOnce(&ffi::ap_socache_provider_t, &Scratch) -> Result<T, Error>) -> Result<T, Error> {
        let scratch = Scratch::new()?;
        // SAFETY: the provider is alive.
        let provider = unsafe { &*self.cache.provider };
        let Some(callers) = &self.callers else { return call(provider, &scratch) };
        let _caller = only_caller(callers, Instant::now() + MAX_LOCK_WAIT)?.ok_or_else(|| self.down())?;
        call(provider, &scratch)
    }

    fn down(&self) -> Error {
        Error::Unavailable(format!("{} cannot be reached or is full; see its own messages", self.name))
    }

    fn write(&self, key: &Key, bytes: &mut [u8], expires_ms: u64) -> Result<(), Error> {
        let len = c_uint::try_from(bytes.len()).map_err(|_| Error::TooLarge(bytes.len() as u64, MAX_RECORD as u64))?;
        // Providers count whole seconds, and some treat less than one as none. One second more is safe: the record has its own expiry.
        let expires = i64::try_from(expires_ms.saturating_add(1000).saturating_mul(1000)).unwrap_or(i64::MAX);
        self.alone(|provider, scratch| {
            let store = provider.store.ok_or_else(|| self.down())?;
            // SAFETY: as ap_socache.h requires: key and data with their lengths, a pool for this call.
            let status = unsafe {
                store(
                    self.cache.instance,
                    self.cache.server,
                    key.0.as_ptr(),
                    key.0.len() as c_uint,
                    expires,
                    bytes.as_mut_ptr(),
                    len,
                    scratch.0,
                )
            };
            if status == ffi::APR_SUCCESS { Ok(()) } else { Err(self.down()) }
        })
    }

    /// The stored record; `None` when there is none.
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes = vec![0; MAX_RECORD];
        let mut len = c_uint::try_from(MAX_RECORD).unwrap_or(c_uint::MAX);
        let status = self.alone(|provider, scratch| {
            let retrieve = provider.retrieve.ok_or_else(|| self.down())?;
            let data: *mut c_uchar = bytes.as_mut_ptr();
            // SAFETY: as above; the provider writes at most `len` bytes.
            Ok(unsafe {
                retrieve(self.cache.instance, self.cache.server, key.0.as_ptr(), key.0.len() as c_uint, data, &raw mut len, scratch.0)
            })
        })?;
        if status != ffi::APR_SUCCESS {
            return Ok(None);
        }
        bytes.truncate(usize::try_from(len).unwrap_or(0));
        bytes.shrink_to_fit();
        Ok(Some(bytes))
    }

    /// A provider reports "not found" for an unreachable server too, so this stores one byte to check that it is reachable.
    fn is_there(&self, now_ms: u64) -> Result<(), Error> {
        self.write(&Key([b'?'; 32]), &mut [1], now_ms.saturating_add(60_000))
    }

    fn find(&self, key: &Key, now_ms: u64) -> Result<Option<Record>, Error> {
        match self.read(key)? {
            Some(bytes) => Ok(Some(Record::decode(&bytes)?).filter(|record| !record.is_expired(now_ms))),
            None => self.is_there(now_ms).map(|()| None),
        }
    }
}

impl Engine for Socache {
    fn load(&self, key: &Key, now_ms: u64) -> Result<Option<Record>, Error> {
        self.find(key, now_ms)
    }

    fn put(&self, key: &Key, record: &Record, how: Put, now_ms: u64) -> Result<(), Error> {
        // Between lookup and store, the session's lock excludes others on this machine; a cache offers nothing stronger.
        match how {
            Put::Create if self.find(key, now_ms)?.is_some() => return Err(Error::Exists),
            Put::Replace if self.find(key, now_ms)?.is_none() => return Err(Error::Missing),
            _ => {}
        }
        self.write(key, &mut record.encode(), record.expires_ms())
    }

    fn touch(&self, key: &Key, accessed_ms: u64) -> Result<(), Error> {
        match self.find(key, accessed_ms)? {
            Some(mut record) => {
                record.accessed_ms = record.accessed_ms.max(accessed_ms);
                self.write(key, &mut record.encode(), record.expires_ms())
            }
            None => Ok(()),
        }
    }

    fn remove(&self, key: &Key, now_ms: u64) -> Result<bool, Error> {
        let lived = self.find(key, now_ms)?.is_some();
        self.alone(|provider, scratch| {
            let remove = provider.remove.ok_or_else(|| self.down())?;
            // SAFETY: as above. Removing a missing record is no error.
            let status = unsafe { remove(self.cache.instance, self.cache.server, key.0.as_ptr(), key.0.len() as c_uint, scratch.0) };
            if status == ffi::APR_SUCCESS || !lived { Ok(lived) } else { Err(self.down()) }
        })
    }

    /// The provider removes expired records itself.
    fn sweep(&self, _: u64, _: usize) -> Result<Swept, Error> {
        Ok(Swept::default())
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    /// A cache has no figures.
    fn figures(&self) -> Result<Figures, Error> {
        Ok(Figures::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_waits_for_threads_and_processes_until_one_time() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || OpenOptions::new().read(true).write(true).open(path.path()).unwrap();
        let (callers, other) = (Mutex::new(open()), open());
        let is_let_in = || only_caller(&callers, Instant::now()).unwrap().is_some();
        assert!(is_let_in() && is_let_in(), "let go each time");
        let thread = callers.lock();
        assert!(!is_let_in(), "another thread waits or calls");
        drop(thread);
        assert_eq!(filelock::set(&other, CALLER, Hold::Exclusive), Ok(true));
        assert!(!is_let_in(), "another process calls");
        drop(other);
        assert!(is_let_in());
    }
}
