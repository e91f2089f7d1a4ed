//! The one border between C and Rust where a panic stops.
//!
//! Responsible for: no panic ever crossing into httpd. Must never: hide one (it is logged as DROVER0001 by the hook).
//! Called by: every `extern "C"` function of this folder.
use super::log;
use crate::messages::{Code, Level};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f`; a panic becomes `fail`, that hook's way of saying "error".
pub fn guard<R>(fail: R, f: impl FnOnce() -> R) -> R {
    // What `f` borrows is httpd's, and is thrown away with the request or the start-up that has failed.
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(fail)
}

/// Makes a panic one line in the error log. Set once for the life of the process: the library is never unloaded.
pub fn install_panic_line() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            log::startup(Level::Crit, Code::Panic, &format!("internal error, please report it: {info}"));
        }));
    });
}
