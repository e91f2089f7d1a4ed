//! Locks and waits in the presence of the GIL.
//!
//! Responsible for: no thread ever waiting for a lock, a socket or another thread while it holds the GIL. The rule that makes it
//! safe: whoever holds one of these locks runs no Python code until it lets go. Called by: everything that locks.
use parking_lot::{Mutex, MutexGuard};
use pyo3::Python;

/// Locks; lets the GIL go only when the lock is not free.
pub fn lock<'m, T: Send>(py: Python<'_>, mutex: &'m Mutex<T>) -> MutexGuard<'m, T> {
    match mutex.try_lock() {
        Some(guard) => guard,
        None => py.detach(|| mutex.lock()),
    }
}
