//! Stops panics between Rust and C.
//!
//! Responsible for: keeping every panic out of httpd. Must never: hide one; the hook logs it as DROVER0001.
//! Called by: every `extern "C"` function of this folder.
use super::log;
use crate::messages::{Code, Level};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f`. After a panic, returns `fail`, the error value of the hook.
pub fn guard<R>(fail: R, f: impl FnOnce() -> R) -> R {
    // What `f` borrows belongs to httpd, which discards it with the failed request or start.
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(fail)
}

/// Makes a panic one message in the error log. Set once per process: the library is never unloaded.
pub fn install_panic_line() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            log::startup(Level::Crit, Code::Panic, &format!("internal error, please report it: {info}"));
        }));
    });
}
