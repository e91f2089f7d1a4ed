//! The few calls into CPython that PyO3 has no cheap safe form of, and locks that respect the GIL.
//!
//! Responsible for: converting text without extra objects, calling the application, thread
//! identifiers. Must never: hold a reference that it did not take. Called by: `request`, `threads`,
//! `process`.
use parking_lot::{Mutex, MutexGuard};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::ffi::c_char;

unsafe extern "C" {
    /// In the limited API since 3.10 only, but every CPython since 3.3 exports it with this
    /// signature: so an abi3 module for 3.9 may use it. `PyUnicode_AsLatin1String`, the alternative
    /// in 3.9's limited API, makes an object for each header.
    fn PyUnicode_AsUTF8AndSize(unicode: *mut ffi::PyObject, size: *mut ffi::Py_ssize_t) -> *const c_char;
}

fn length(bytes: &[u8]) -> ffi::Py_ssize_t {
    // A slice is never longer than isize::MAX.
    ffi::Py_ssize_t::try_from(bytes.len()).unwrap_or(ffi::Py_ssize_t::MAX)
}

/// Locks a mutex, and releases the GIL only if the mutex is not free. So no thread waits for a lock
/// while it holds the GIL, and whoever holds one of these locks runs no Python code.
pub fn lock<'m, T: Send>(py: Python<'_>, mutex: &'m Mutex<T>) -> MutexGuard<'m, T> {
    match mutex.try_lock() {
        Some(guard) => guard,
        None => py.detach(|| mutex.lock()),
    }
}

/// The system's reason as an exception.
pub fn os_error(e: drover_sys::Errno) -> PyErr {
    PyErr::from(std::io::Error::from(e))
}

/// Text from a configuration as an application sees it.
pub fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(PyString::new(py, text).into_any()),
        Err(_) => latin1(py, bytes),
    }
}

/// Bytes as PEP 3333's native string: each byte is one character.
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the pointer and the length are one slice's; the result is a new reference or NULL with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length(bytes), std::ptr::null())) }
}

/// Bytes of a path as `os.fsdecode` decodes them; as latin-1 if the filesystem encoding cannot
/// decode them, as in mod_wsgi.
pub fn path<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the pointer and the length are one slice's; the result is a new reference or NULL
    // with an exception set.
    let text = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_DecodeFSDefaultAndSize(bytes.as_ptr().cast(), length(bytes))) };
    text.or_else(|_: PyErr| latin1(py, bytes))
}

/// Appends a string to `out`, each character as one byte; UnicodeEncodeError if a character does
/// not fit.
pub fn append_latin1(text: &Bound<'_, PyString>, out: &mut Vec<u8>) -> PyResult<()> {
    let mut size: ffi::Py_ssize_t = 0;
    // SAFETY: `text` is a str; the pointer it gives stays valid while the str lives, which is
    // longer than this function.
    let data = unsafe { PyUnicode_AsUTF8AndSize(text.as_ptr(), &raw mut size) };
    if !data.is_null() {
        // SAFETY: CPython guarantees `size` bytes there and does not change a str.
        let utf8 = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(size).unwrap_or(0)) };
        if utf8.is_ascii() {
            out.extend_from_slice(utf8);
            return Ok(());
        }
    } else {
        // A lone surrogate; the codec below raises the exception that latin-1 has for it.
        drop(PyErr::take(text.py()));
    }
    // SAFETY: `text` is a str; the result is a new reference or NULL with an exception set.
    let bytes = unsafe { Bound::from_owned_ptr_or_err(text.py(), ffi::PyUnicode_AsLatin1String(text.as_ptr())) }?;
    out.extend_from_slice(bytes.cast::<pyo3::types::PyBytes>()?.as_bytes());
    Ok(())
}

/// CPython's identifier of the calling thread: `threading.get_ident()`, unless that was replaced.
pub fn thread_ident() -> std::ffi::c_long {
    // SAFETY: it asks the system for the calling thread and needs neither the GIL nor a thread state.
    let ident = unsafe { ffi::PyThread_get_thread_ident() };
    // An address of user space, which has the highest bit clear.
    std::ffi::c_long::try_from(ident).unwrap_or(std::ffi::c_long::MAX)
}

/// Raises an exception of this class in a thread when it next runs Python code; `None` withdraws
/// one that was not delivered.
pub fn raise_in_thread(ident: std::ffi::c_long, class: Option<&Bound<'_, PyAny>>) {
    let class = class.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: the caller holds the GIL, as a `Bound` or the call from `interrupt` shows; CPython takes its own reference to the class
    // and ignores a thread that does not exist.
    unsafe { ffi::PyThreadState_SetAsyncExc(ident, class) };
}

/// `application(environ, start_response)`, without making a tuple for the arguments.
pub fn call<'py>(
    application: &Bound<'py, PyAny>,
    environ: &Bound<'py, PyDict>,
    start_response: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: all three are live references, the list ends with NULL; the result is a new reference or NULL with an exception set.
    unsafe {
        let result = ffi::PyObject_CallFunctionObjArgs(
            application.as_ptr(),
            environ.as_ptr(),
            start_response.as_ptr(),
            std::ptr::null_mut::<ffi::PyObject>(),
        );
        Bound::from_owned_ptr_or_err(application.py(), result)
    }
}
