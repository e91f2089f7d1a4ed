//! httpd's and APR's own types and functions, as bindgen reads them from the installed headers.
//!
//! Responsible for: being the only place that names them, and for refusing a server too old. Must never: be used outside
//! `src/httpd/`.
#![allow(unsafe_code, non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code, missing_docs)]
#![allow(unnecessary_transmutes, clippy::all, clippy::undocumented_unsafe_blocks, clippy::indexing_slicing)]

include!(concat!(env!("OUT_DIR"), "/httpd.rs"));

// 110: ap_hook_child_stopping (httpd 2.4.49). The major number is compared by LoadModule itself.
const _: () = assert!(MODULE_MAGIC_NUMBER_MAJOR == 20120211, "only httpd 2.4 is supported");
const _: () = assert!(MODULE_MAGIC_NUMBER_MINOR >= 110, "httpd 2.4.49 or newer is needed");

// Unit tests link libapr, never httpd itself: what they reach must not call ap_*.
#[cfg(test)]
#[link(name = "apr-1")]
unsafe extern "C" {}
