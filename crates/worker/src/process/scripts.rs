//! The scripts of this process, each imported once: at the start or with its first request.
//!
//! Responsible for: one import of a script at a time, with other threads waiting for that script
//! only. Must never: reload (a changed file needs a new process). Called by: `lifecycle` (at the
//! start), `threads::serve`.
use crate::log::traceback;
use crate::process::child_exit;
use crate::process::hooks;
use drover_wire::frame::Failure;
use parking_lot::{Condvar, Mutex};
use pyo3::exceptions::{PyFileNotFoundError, PyNotADirectoryError, PyPermissionError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// One script.
#[derive(Debug)]
pub struct Script {
    /// Its path.
    pub path: Vec<u8>,
    /// The path as [`Scripts`] compares it.
    key: Vec<u8>,
    state: Mutex<State>,
    settled: Condvar,
}

/// The state of a script.
#[derive(Debug, Clone)]
enum State {
    /// No thread has tried to import it.
    New,
    /// A thread imports it.
    Loading,
    /// Its module's dictionary, and the time of the file that was read.
    Loaded(Arc<Py<PyDict>>, u64),
    /// It failed at the start of the process, which is final for this process.
    Failed(ImportError),
}

/// A script that could not be imported.
#[derive(Debug, Clone)]
pub struct ImportError {
    /// [`Failure::Import`] or [`Failure::ScriptMissing`].
    pub failure: Failure,
    /// One line.
    pub line: String,
    /// The traceback, or another text for the log.
    pub text: String,
    /// The file's time; 0 if there is no file.
    pub mtime_us: u64,
}

/// The result of looking for a script's module.
#[derive(Debug)]
pub enum Found {
    /// It is imported.
    Loaded {
        /// The module's dictionary.
        module: Arc<Py<PyDict>>,
        /// The file's time when it was read, microseconds since 1970.
        mtime_us: u64,
        /// This call has imported it.
        now: bool,
    },
    /// It cannot be imported.
    Failed {
        /// Why.
        error: ImportError,
        /// This call has tried to import it.
        now: bool,
    },
}

/// All scripts.
#[derive(Debug, Default)]
pub struct Scripts {
    /// WSGICaseSensitivity Off.
    ignore_case: bool,
    all: Mutex<HashMap<Vec<u8>, Arc<Script>>>,
}

/// A file's time as httpd counts it, microseconds since 1970; 0 if it has none.
pub fn mtime_us(path: &[u8]) -> u64 {
    let Ok(stat) = rustix::fs::stat(Path::new(std::ffi::OsStr::from_bytes(path))) else { return 0 };
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1000)
}

impl Scripts {
    /// No scripts yet. With `ignore_case`, paths that differ only in the case of ASCII letters are
    /// one script.
    pub fn new(ignore_case: bool) -> Self {
        Self { ignore_case, ..Self::default() }
    }

    /// The script at a path.
    pub fn find(&self, path: &[u8]) -> Arc<Script> {
        let key = if self.ignore_case { path.to_ascii_lowercase() } else { path.to_vec() };
        let mut all = self.all.lock();
        if let Some(script) = all.get(&key) {
            return Arc::clone(script);
        }
        let script = Arc::new(Script { path: path.to_vec(), key: key.clone(), state: Mutex::new(State::New), settled: Condvar::new() });
        all.insert(key, Arc::clone(&script));
        script
    }
}

impl Script {
    /// The module, imported now if no thread has. With `start` a failure is final; otherwise the
    /// next request tries again, as in mod_wsgi.
    pub fn module(&self, py: Python<'_>, start: bool) -> Found {
        match self.claim(py) {
            State::Loaded(module, mtime_us) => return Found::Loaded { module, mtime_us, now: false },
            State::Failed(error) => return Found::Failed { error, now: false },
            State::New | State::Loading => {}
        }
        // Before the file is read: a change while it is read is noticed later.
        let mtime_us = mtime_us(&self.path);
        let imported = child_exit::parent_only(py, import(py, &self.path, &self.key, mtime_us));
        // At the start the caller does this after all imports.
        let imported = if start { imported } else { imported.and_then(|module| hooks::after_fork(py).map(|()| module)) };
        let (state, found) = match imported {
            Ok(module) => {
                let module = Arc::new(module.unbind());
                (State::Loaded(Arc::clone(&module), mtime_us), Found::Loaded { module, mtime_us, now: true })
            }
            Err(e) => {
                let error = ImportError::new(py, &self.path, &e, mtime_us);
                let state = if start { State::Failed(error.clone()) } else { State::New };
                (state, Found::Failed { error, now: true })
            }
        };
        *self.state.lock() = state;
        self.settled.notify_all();
        found
    }

    /// If the import has failed, the next request tries again.
    pub fn forget_failure(&self) {
        let mut state = self.state.lock();
        if matches!(*state, State::Failed(_)) {
            *state = State::New;
        }
    }

    /// Waits while another thread imports it. If the result is New, the caller must import it.
    fn claim(&self, py: Python<'_>) -> State {
        let mut state = self.state.lock();
        if matches!(*state, State::Loading) {
            drop(state);
            return py.detach(|| {
                let mut state = self.state.lock();
                while matches!(*state, State::Loading) {
                    self.settled.wait(&mut state);
                }
                take(&mut state)
            });
        }
        take(&mut state)
    }
}

fn take(state: &mut State) -> State {
    if matches!(state, State::New) {
        *state = State::Loading;
    }
    state.clone()
}

impl ImportError {
    fn new(py: Python<'_>, path: &[u8], error: &PyErr, mtime_us: u64) -> Self {
        let missing =
            mtime_us == 0 && (error.is_instance_of::<PyFileNotFoundError>(py) || error.is_instance_of::<PyNotADirectoryError>(py));
        if missing {
            let line = traceback::one_line(&format!("script {} does not exist", String::from_utf8_lossy(path)));
            return Self { failure: Failure::ScriptMissing, text: line.clone(), line, mtime_us };
        }
        Self { failure: Failure::Import, line: traceback::line(py, error), text: traceback::format(py, error), mtime_us }
    }
}

/// A permission error that names the user and the directory that denies access.
fn forbidden(script: &Path) -> PyErr {
    let uid = rustix::process::geteuid().as_raw();
    let user = drover_sys::users::user_by_id(uid).map_or_else(|| uid.to_string(), |u| String::from_utf8_lossy(&u.name).into_owned());
    let closed = |dir: &&Path| rustix::fs::access(*dir, rustix::fs::Access::EXEC_OK).is_err();
    let above: Vec<&Path> = script.ancestors().skip(1).collect();
    let barrier = above.iter().rev().copied().find(closed);
    let why = barrier.map_or_else(|| "its mode or owner".to_owned(), |dir| format!("the directory {}", dir.display()));
    PyPermissionError::new_err(format!("user {user} may not read {}, because of {why}", script.display()))
}

/// Runs a script in a module of its own, named after `key`, and returns the module's dictionary.
fn import<'py>(py: Python<'py>, path: &[u8], key: &[u8], mtime_us: u64) -> PyResult<Bound<'py, PyDict>> {
    let place = Path::new(std::ffi::OsStr::from_bytes(path));
    let source = std::fs::read(place).map_err(|e| if e.kind() == ErrorKind::PermissionDenied { forbidden(place) } else { e.into() })?;
    let file = py.import("os")?.call_method1("fsdecode", (PyBytes::new(py, path),))?;
    let options = PyDict::new(py);
    options.set_item("usedforsecurity", false)?;
    let digest = py.import("hashlib")?.getattr("md5")?.call((PyBytes::new(py, key),), Some(&options))?.call_method0("hexdigest")?;
    let name = PyString::new(py, &format!("_mod_wsgi_{digest}"));
    let builtins = py.import("builtins")?;
    let code = builtins.call_method1("compile", (PyBytes::new(py, &source), &file, "exec", 0, true))?;
    let module = py.import("types")?.call_method1("ModuleType", (&name,))?;
    module.setattr("__file__", &file)?;
    let modules = py.import("sys")?.getattr("modules")?;
    modules.set_item(&name, &module)?;
    let dict = module.getattr("__dict__")?.cast_into::<PyDict>()?;
    match builtins.call_method1("exec", (code, &dict)) {
        Ok(_) => {
            // An application may delete it to ask for a reload ([`crate::request::handback`]).
            dict.set_item("__mtime__", mtime_us)?;
            Ok(dict)
        }
        Err(e) => {
            modules.del_item(&name)?;
            Err(e)
        }
    }
}
