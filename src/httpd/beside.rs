//! Refuses mod_wsgi in the same server: both are named `wsgi_module`, and httpd would silently skip the second.
//!
//! Responsible for: detecting a LoadModule line of mod_wsgi after ours, and mod_wsgi compiled into httpd. (httpd calls every module
//! that implements a directive, so this module implements LoadModule too. If mod_wsgi's line comes first, httpd skips ours before any
//! of our code runs.) Must never: load anything; mod_so does. Called by: httpd while it reads its configuration; `lifecycle`.
use super::{commands, ffi, parent};
use crate::config::arguments::Arguments;
use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;

/// LoadModule, as mod_so declares it.
pub(super) const LOAD_MODULE: ffi::command_rec = ffi::command_rec {
    name: c"LoadModule".as_ptr(),
    func: ffi::cmd_func { raw_args: Some(load_module) },
    cmd_data: std::ptr::null_mut(),
    req_override: ffi::RSRC_CONF | ffi::EXEC_ON_READ,
    args_how: ffi::cmd_how_RAW_ARGS,
    errmsg: c"a module name and the name of a shared object file to load it from".as_ptr(),
};

unsafe extern "C" fn load_module(cmd: *mut ffi::cmd_parms, _: *mut c_void, args: *const c_char) -> *const c_char {
    super::guard::guard(c"internal error; see the error log".as_ptr(), || {
        // SAFETY: httpd passes a live cmd_parms and the rest of the line.
        let (pool, args) = unsafe { ((*cmd).pool, CStr::from_ptr(args).to_bytes()) };
        let mut args = Arguments::new(args);
        let (Some(name), Some(file)) = (args.next(), args.next()) else { return std::ptr::null() };
        let Some(ours) = parent::library().filter(|_| name == b"wsgi_module") else { return std::ptr::null() };
        let Ok(file) = CString::new(file) else { return std::ptr::null() };
        // SAFETY: returns an absolute path in the configuration's pool, or null.
        let full = unsafe { ffi::ap_server_root_relative(pool, file.as_ptr()) };
        if full.is_null() {
            return std::ptr::null();
        }
        // SAFETY: returned by httpd, NUL-terminated.
        let path = unsafe { CStr::from_ptr(full) }.to_bytes();
        if std::fs::canonicalize(OsStr::from_bytes(path)).is_ok_and(|other| other == ours) {
            return std::ptr::null(); // our own line twice: mod_so reports and skips it
        }
        let code = crate::messages::Code::BesideModWsgi;
        commands::pooled(
            pool,
            &format!(
                "{code}: cannot load {}: mod_drover replaces mod_wsgi and was already loaded from {}; remove one of the two LoadModule lines",
                path.escape_ascii(),
                ours.display()
            ),
        )
    })
}

/// Whether a mod_wsgi is compiled into httpd.
pub(super) fn is_linked_in() -> bool {
    // SAFETY: compares pointers of httpd's module list.
    unsafe { ffi::drover_is_loaded(c"mod_wsgi.c".as_ptr(), super::module::record().cast()) != 0 }
}
