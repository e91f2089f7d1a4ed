//! The calls that `python/mod_drover/session.py` makes for an application's session.
//!
//! Responsible for: the request's session object, and each refused question becoming the right
//! exception. Must never: keep a request alive that is over. Called by: `mod_drover.session`,
//! `mod_drover.contrib`; `threads::serve` (the environ), `application` and `start_response` (before
//! the headers and before the end), `failure`.
use crate::log::level::ERROR;
use crate::log::traceback;
use crate::process::fork;
use crate::request::running::Request;
use crate::request::session::Unanswered;
use crate::threads::slot::Slot;
use drover_wire::request::SESSIONS;
use drover_wire::session::{Opened, Put, Request as Question, Save, Status, decode_bool, decode_key};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};
use std::sync::{Arc, Weak};

/// The Python half.
const MODULE: &str = "mod_drover.session";
/// Its class, found with the first request that has sessions.
static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The session of a request, for its environ. httpd is not asked before the application uses it.
pub fn object<'py>(py: Python<'py>, request: &Arc<Request>) -> PyResult<Bound<'py, PyAny>> {
    let class = CLASS.get_or_try_init(py, || py.import(MODULE)?.getattr("Session").map(Bound::unbind))?;
    let object = class.bind(py).call1((SessionCalls { request: Arc::downgrade(request) },))?;
    request.session.set_object(py, object.clone().unbind());
    Ok(object)
}

/// Puts a changed session before the headers that go out next; `last` says that none of the
/// application's code runs any more. An exception means that the session cannot be saved.
pub fn before_headers(py: Python<'_>, request: &Request, last: bool) -> PyResult<()> {
    if !request.session.is_opened() || !request.response.are_headers_due(py) {
        return Ok(());
    }
    match request.session.object(py) {
        Some(object) => object.bind(py).call_method1(pyo3::intern!(py, "_before_head"), (last,)).map(drop),
        None => Ok(()),
    }
}

/// The same at the end of the response. A change after the headers is saved by itself: an error
/// there can only be logged.
pub fn before_end(py: Python<'_>, request: &Request) -> PyResult<()> {
    if !request.session.is_opened() || !request.response.are_headers_sent(py) {
        return before_headers(py, request, true);
    }
    let Some(object) = request.session.object(py) else { return Ok(()) };
    if let Err(e) = object.bind(py).call_method0(pyo3::intern!(py, "_before_end")) {
        let line = format!("the session was changed after the headers were sent; the change is not saved: {}", traceback::line(py, &e));
        request.write_log(py, ERROR, line.as_bytes());
    }
    Ok(())
}

/// Whether an exception says that a session is not available now.
pub fn is_unavailable(py: Python<'_>, request: &Request, error: &PyErr) -> bool {
    let is = |name: &str| py.import(MODULE).and_then(|m| m.getattr(name)).is_ok_and(|class| error.is_instance(py, &class));
    request.session.was_asked() && (is("LockTimeout") || is("StoreUnavailable"))
}

/// The exception for a question that httpd has refused.
fn refused(py: Python<'_>, status: Status, text: &str) -> PyErr {
    let name = match status {
        Status::LockTimeout => "LockTimeout",
        Status::Unavailable | Status::Full => "StoreUnavailable",
        Status::TooLarge => "TooLarge",
        Status::Exists => "SessionExists",
        Status::Missing => "SessionMissing",
        Status::Off => "SessionsOff",
        Status::Ok | Status::HeadSent | Status::BadKey => "SessionError",
    };
    let make = || py.import(MODULE)?.getattr(name)?.call1((text,));
    make().map_or_else(|e| e, PyErr::from_value)
}

/// The exception for a question without an answer.
fn unanswered(py: Python<'_>, why: &Unanswered) -> PyErr {
    match why {
        Unanswered::Over => over(),
        Unanswered::Lost => refused(py, Status::Unavailable, "httpd has aborted the request"),
        Unanswered::Wrong(why) => refused(py, Status::BadKey, why),
    }
}

fn over() -> PyErr {
    PyRuntimeError::new_err("the session is used after the end of its request")
}

/// The exception for an answer that cannot be decoded.
fn undecoded(py: Python<'_>, why: drover_wire::WireError) -> PyErr {
    refused(py, Status::Unavailable, &why.to_string())
}

/// The calls of one request's session.
#[pyclass(frozen, module = "mod_drover.session", name = "SessionCalls")]
pub struct SessionCalls {
    /// Weak: an application may keep this object.
    request: Weak<Request>,
}

impl SessionCalls {
    fn request(&self) -> PyResult<Arc<Request>> {
        if fork::is_child() {
            return Err(PyRuntimeError::new_err(
                "the session is used in a forked child process: only the process that took the request can",
            ));
        }
        self.request.upgrade().ok_or_else(over)
    }

    fn ask(&self, py: Python<'_>, question: &Question<'_>) -> PyResult<Vec<u8>> {
        let request = self.request()?;
        match request.session.ask(py, &request.reply, request.body.as_deref(), question) {
            Ok((Status::Ok, payload)) => Ok(payload),
            Ok((status, text)) => Err(refused(py, status, &traceback::one_line(&String::from_utf8_lossy(&text)))),
            Err(why) => Err(unanswered(py, &why)),
        }
    }
}

/// A stored session for Python: created, accessed (milliseconds), timeout (seconds), data.
type Record<'py> = (u64, u64, u32, Bound<'py, PyBytes>);
/// An opened session for Python: key, record, default timeout, serializer, largest size, engine.
type OpenedSession<'py> = (Option<Bound<'py, PyString>>, Option<Record<'py>>, u32, u8, u32, Bound<'py, PyString>);

#[pymethods]
impl SessionCalls {
    /// Reads a session; `key` None is the session of the request's cookie.
    fn open<'py>(&self, py: Python<'py>, key: Option<PyBackedStr>, lock: bool) -> PyResult<OpenedSession<'py>> {
        let request = self.request()?;
        if key.is_none() {
            request.session.set_opened();
        }
        let prefetched = request.session.take_prefetched();
        let payload;
        let opened = match prefetched.as_ref().and_then(|prefetched| prefetched.find(key.as_deref(), lock)) {
            Some(opened) => {
                request.session.tell_used(py, &request.reply, &request.response, lock).map_err(|why| unanswered(py, &why))?;
                opened
            }
            None => {
                payload = self.ask(py, &Question::Open { key: key.as_deref(), lock })?;
                Opened::decode(&payload).map_err(|e| undecoded(py, e))?
            }
        };
        let record = opened.record.map(|r| (r.created_ms, r.accessed_ms, r.timeout_s, PyBytes::new(py, r.data)));
        let id = opened.id.map(|id| PyString::new(py, id));
        let engine = PyString::new(py, opened.engine);
        Ok((id, record, opened.default_timeout_s, opened.serializer as u8, opened.max_size, engine))
    }

    /// Writes a session and returns its key; `put` is 0 create, 1 replace, 2 either.
    #[allow(clippy::too_many_arguments)] // they are one message
    fn save<'py>(
        &self,
        py: Python<'py>,
        key: Option<PyBackedStr>,
        data: &Bound<'py, PyBytes>,
        put: u8,
        timeout_s: u32,
        created_ms: u64,
        cookie: bool,
        replaces: Option<PyBackedStr>,
        keep_lock: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let (key, replaces) = (key.as_deref(), replaces.as_deref());
        let (put, data) = (condition(put)?, data.as_bytes());
        let save = Save { key, put, timeout_s, created_ms, cookie, replaces, no_reply: false, keep_lock, data };
        let payload = self.ask(py, &Question::Save(save))?;
        decode_key(&payload).map(|key| PyString::new(py, key)).map_err(|e| undecoded(py, e))
    }

    /// Has the cookie's session saved before httpd uses the headers, without waiting for it.
    #[allow(clippy::too_many_arguments)] // they are one message
    fn save_with_head(
        &self,
        py: Python<'_>,
        key: Option<PyBackedStr>,
        data: &Bound<'_, PyBytes>,
        put: u8,
        timeout_s: u32,
        created_ms: u64,
        cookie: bool,
    ) -> PyResult<()> {
        let (key, put, data) = (key.as_deref(), condition(put)?, data.as_bytes());
        let save = Save { key, put, timeout_s, created_ms, cookie, replaces: None, no_reply: true, keep_lock: true, data };
        let request = self.request()?;
        let told = request.session.tell_with_headers(py, &request.reply, &request.response, &Question::Save(save));
        told.map_err(|why| unanswered(py, &why))
    }

    /// Removes a session; returns whether it existed.
    fn remove(&self, py: Python<'_>, key: Option<PyBackedStr>, cookie: bool) -> PyResult<bool> {
        let payload = self.ask(py, &Question::Remove { key: key.as_deref(), cookie })?;
        decode_bool(&payload).map_err(|e| undecoded(py, e))
    }

    /// Whether a session exists.
    fn exists(&self, py: Python<'_>, key: PyBackedStr) -> PyResult<bool> {
        let payload = self.ask(py, &Question::Exists { key: &key })?;
        decode_bool(&payload).map_err(|e| undecoded(py, e))
    }

    /// Waits for a session's lock, which is held until the request ends.
    fn lock(&self, py: Python<'_>, key: Option<PyBackedStr>) -> PyResult<()> {
        self.ask(py, &Question::Lock { key: key.as_deref() }).map(drop)
    }

    /// Releases a session's lock.
    fn unlock(&self, py: Python<'_>, key: Option<PyBackedStr>) -> PyResult<()> {
        self.ask(py, &Question::Unlock { key: key.as_deref() }).map(drop)
    }
}

fn condition(put: u8) -> PyResult<Put> {
    match put {
        0 => Ok(Put::Create),
        1 => Ok(Put::Replace),
        2 => Ok(Put::Any),
        _ => Err(PyValueError::new_err("put must be 0, 1 or 2")),
    }
}

/// `environ["mod_drover.session"]` of the request that the calling thread serves.
#[pyfunction]
pub fn current_session(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let request = Slot::mine().filter(|_| !fork::is_child()).and_then(|slot| slot.request());
    let object = request.as_ref().and_then(|request| request.session.object(py));
    object.ok_or_else(|| match request {
        Some(request) if request.prefix.flags & SESSIONS == 0 => refused(py, Status::Off, "DroverSession is off for this request"),
        _ => refused(py, Status::BadKey, "this thread serves no request"),
    })
}
