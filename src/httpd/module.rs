//! The exported record and the hooks, which call the code that does the work.
//!
//! Responsible for: the identity (`wsgi_module`, `mod_wsgi.c`), the order of hooks (mod_wsgi's), and running each entry under
//! `guard`. Must never: hold logic. Called by: httpd.
use super::guard::{guard, install_panic_line};
use super::request::Request;
use super::{commands, ffi, lifecycle};
use crate::handler::{self, Verdict};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int};
use std::ptr;

/// The record that LoadModule looks up.
#[repr(transparent)]
pub struct Record(UnsafeCell<ffi::module>);

// SAFETY: httpd writes it (index, handle, next) only while it loads modules, with one thread (mod_so.c).
unsafe impl Sync for Record {}

/// `wsgi_module`: `<IfModule wsgi_module>` and `<IfModule mod_wsgi.c>` in configurations continue to apply.
#[unsafe(no_mangle)]
pub static wsgi_module: Record = Record(UnsafeCell::new(ffi::module {
    version: ffi::MODULE_MAGIC_NUMBER_MAJOR,
    minor_version: ffi::MODULE_MAGIC_NUMBER_MINOR,
    module_index: -1,
    name: c"mod_wsgi.c".as_ptr(),
    dynamic_load_handle: ptr::null_mut(),
    next: ptr::null_mut(),
    magic: ffi::MODULE_MAGIC_COOKIE as _,
    rewrite_args: None,
    create_dir_config: Some(commands::create_dir),
    merge_dir_config: Some(commands::merge_dir),
    create_server_config: Some(commands::create_server),
    merge_server_config: Some(commands::merge_server),
    cmds: commands::COMMANDS.as_ptr(),
    register_hooks: Some(register),
    flags: 0,
}));

/// The record's address.
pub(super) const fn record() -> *mut ffi::module {
    wsgi_module.0.get()
}

/// A NULL-terminated list of module names for the order of hooks.
struct Names<const N: usize>([*const c_char; N]);
// SAFETY: pointers to static strings.
unsafe impl<const N: usize> Sync for Names<N> {}

static AFTER_ALIAS: Names<2> = Names([c"mod_alias.c".as_ptr(), ptr::null()]);
static BEFORE_USERDIR: Names<3> = Names([c"mod_userdir.c".as_ptr(), c"mod_vhost_alias.c".as_ptr(), ptr::null()]);

unsafe extern "C" fn register(_: *mut ffi::apr_pool_t) {
    guard((), || {
        install_panic_line();
        // SAFETY: hooks are registered while the module is loaded (http_config.h); the lists are static.
        unsafe {
            ffi::ap_hook_pre_config(Some(pre_config), ptr::null(), ptr::null(), ffi::APR_HOOK_MIDDLE);
            // After the MPM, which knows only then how many children it may start.
            ffi::ap_hook_check_config(Some(check_config), ptr::null(), ptr::null(), ffi::APR_HOOK_LAST);
            ffi::ap_hook_post_config(Some(post_config), ptr::null(), ptr::null(), ffi::APR_HOOK_MIDDLE);
            ffi::ap_hook_child_init(Some(child_init), ptr::null(), ptr::null(), ffi::APR_HOOK_MIDDLE);
            ffi::ap_hook_child_stopping(Some(child_stopping), ptr::null(), ptr::null(), ffi::APR_HOOK_MIDDLE);
            ffi::ap_hook_monitor(Some(monitor), ptr::null(), ptr::null(), ffi::APR_HOOK_MIDDLE);
            ffi::ap_hook_translate_name(Some(translate), AFTER_ALIAS.0.as_ptr(), BEFORE_USERDIR.0.as_ptr(), ffi::APR_HOOK_MIDDLE);
            ffi::ap_hook_handler(Some(handle), ptr::null(), ptr::null(), ffi::APR_HOOK_MIDDLE);
        }
    });
}

const FAILED: c_int = ffi::HTTP_INTERNAL_SERVER_ERROR;

unsafe extern "C" fn pre_config(_: *mut ffi::apr_pool_t, _: *mut ffi::apr_pool_t, _: *mut ffi::apr_pool_t) -> c_int {
    guard(FAILED, lifecycle::pre_config)
}

unsafe extern "C" fn check_config(
    pconf: *mut ffi::apr_pool_t,
    _: *mut ffi::apr_pool_t,
    _: *mut ffi::apr_pool_t,
    s: *mut ffi::server_rec,
) -> c_int {
    // SAFETY: `s` is the main server of the configuration just read.
    guard(FAILED, || unsafe { lifecycle::check_config(pconf, s) })
}

unsafe extern "C" fn post_config(
    pconf: *mut ffi::apr_pool_t,
    _: *mut ffi::apr_pool_t,
    _: *mut ffi::apr_pool_t,
    s: *mut ffi::server_rec,
) -> c_int {
    // SAFETY: as above.
    guard(FAILED, || unsafe { lifecycle::post_config(pconf, s) })
}

unsafe extern "C" fn child_init(pchild: *mut ffi::apr_pool_t, s: *mut ffi::server_rec) {
    // SAFETY: httpd has just forked this process (or runs in one, -X).
    guard((), || unsafe { lifecycle::child_init(pchild, s) });
}

unsafe extern "C" fn child_stopping(_: *mut ffi::apr_pool_t, graceful: c_int) {
    // Runs in signal context under prefork: an atomic load and write(2), nothing that can panic.
    lifecycle::child_stopping(graceful != 0);
}

unsafe extern "C" fn monitor(_: *mut ffi::apr_pool_t, _: *mut ffi::server_rec) -> c_int {
    guard(ffi::DECLINED, lifecycle::monitor)
}

unsafe extern "C" fn translate(r: *mut ffi::request_rec) -> c_int {
    guard(FAILED, || {
        // SAFETY: `r` is the request this hook runs for.
        if unsafe { super::translate::map(r) } { ffi::OK } else { ffi::DECLINED }
    })
}

unsafe extern "C" fn handle(r: *mut ffi::request_rec) -> c_int {
    guard(FAILED, || {
        // SAFETY: `r` is the request this hook runs for; the handler's name is null or a string.
        unsafe {
            if (*r).handler.is_null() || !matches!(CStr::from_ptr((*r).handler).to_bytes(), b"wsgi-script" | b"application/x-httpd-wsgi") {
                return ffi::DECLINED;
            }
            let server = commands::slot_of((*r).server);
            // The context outlives the request, as `lifecycle::context` requires.
            let Some(context) = lifecycle::context((*server).session.as_ref()) else { return FAILED };
            let settings = crate::config::Settings::resolve(&(*server).config.dir, commands::dir_of(r));
            match handler::handle(&mut Request::new(r), &settings, context) {
                Verdict::Declined => ffi::DECLINED,
                Verdict::Done => ffi::OK,
                Verdict::Status(status) => c_int::from(status),
                Verdict::FilterError => ffi::AP_FILTER_ERROR,
            }
        }
    })
}
