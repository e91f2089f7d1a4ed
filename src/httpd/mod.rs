//! The only code that uses `ap_*` and `apr_*`. Other modules see only its safe views.
//!
//! * [`module`]: the exported record and its hooks; `guard` stops panics there.
//! * `commands`: the directive table as httpd's; `beside`: refuses mod_wsgi in the same server.
//! * [`lifecycle`]: the phases; `parent`: starts and configures droverd; `mpm`, `system`: what they report.
//! * [`request`]: one request; `client`: its body and response; `translate`: aliases; `log`.
#![allow(unsafe_code)]

mod beside;
mod client;
mod commands;
#[allow(unreachable_pub)]
mod ffi;
mod guard;
pub mod lifecycle;
mod log;
pub mod module;
mod mpm;
mod parent;
pub mod request;
mod sessions;
mod socache;
mod system;
mod translate;

pub use request::Request;

use std::ffi::CString;

/// The version of httpd's headers at build time, such as `2.4.62`.
#[must_use]
pub fn version() -> String {
    format!("{}.{}.{}", ffi::AP_SERVER_MAJORVERSION_NUMBER, ffi::AP_SERVER_MINORVERSION_NUMBER, ffi::AP_SERVER_PATCHLEVEL_NUMBER)
}

/// Compiles a pattern into a pool; `None` if it is not valid.
fn regex(pool: &mut ffi::apr_pool_t, source: &[u8]) -> Option<*mut ffi::ap_regex_t> {
    let source = CString::new(source).ok()?;
    // SAFETY: the pool is live; the result is freed with it.
    let compiled = unsafe { ffi::ap_pregcomp(pool, source.as_ptr(), 0) };
    (!compiled.is_null()).then_some(compiled)
}
