//! What an application's session asks of httpd: the calls below `python/mod_drover/session.py`.
//!
//! Responsible for: one question and one answer at a time on a request's way back, asked without the GIL; a changed session going out
//! before the head, in the same write. Must never: know a cookie, an engine or what the data mean. Called by: `mod_drover.session`,
//! `mod_drover.contrib`; `serve` (the environ), `application` and `start` (before the head, before the end), `failure`.
use crate::body::{Body, Broken};
use crate::errors::{self, ERROR};
use crate::exchange::{Exchange, Slot};
use crate::failure;
use crate::fork;
use crate::gil;
use drover_sys::token::{Board, Token};
use drover_wire::frame::{HEADER, Kind};
use drover_wire::request::{AHEAD_BY_KEY, Prefix, RESENT, SESSIONS};
use drover_wire::session::{Opened, Put, Request, Save, Status, decode_bool, decode_key};
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// The Python half.
const MODULE: &str = "mod_drover.session";
/// Its class, found with the first request that has sessions.
static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// What was sent ahead is true for so long, nanoseconds: who waited longer in the queue asks.
const FRESH_NS: u64 = 1_000_000_000;

/// What one request has to do with sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    /// `environ["mod_drover.session"]`.
    object: Mutex<Option<Py<PyAny>>>,
    /// That object has been read or written.
    opened: AtomicBool,
    /// httpd has been asked anything at all.
    asked: AtomicBool,
    /// Held from a question to its answer.
    talk: Mutex<Talk>,
    /// What httpd has sent without being asked, until it is used or anything else is asked.
    ahead: Mutex<Option<Ahead>>,
}

/// The answer to the question that the application is likely to ask.
#[derive(Debug)]
pub struct Ahead {
    /// As `Opened`, with its data.
    opened: Vec<u8>,
    /// It is not the session of DroverSessionCookie.
    by_key: bool,
    /// Whoever takes this from there has the session's lock.
    token: Option<(Token, Arc<Board>)>,
}

impl Ahead {
    /// What came with a request that was `waited` nanoseconds on its way.
    pub fn new(prefix: &Prefix, opened: &[u8], board: &Arc<Board>, waited: u64) -> Option<Self> {
        let good = !opened.is_empty() && prefix.flags & RESENT == 0 && waited < FRESH_NS;
        let token = || (prefix.token != 0).then(|| (Token { place: prefix.token_place, number: prefix.token }, board.clone()));
        good.then(|| Self { opened: opened.to_vec(), by_key: prefix.flags & AHEAD_BY_KEY != 0, token: token() })
    }

    /// What the application gets if it asks for this session, with its lock or without. `None`: it has to ask httpd.
    fn answers(&self, key: Option<&str>, lock: bool) -> Option<Opened<'_>> {
        let opened = Opened::decode(&self.opened).ok()?;
        let is_meant = if key.is_none() { !self.by_key } else { opened.id == key };
        if !is_meant {
            return None;
        }
        let has_lock = || self.token.as_ref().is_some_and(|(token, board)| board.take(*token));
        // What is not there cannot be locked.
        (!lock || opened.id.is_none() || has_lock()).then_some(opened)
    }
}

#[derive(Debug, Default)]
struct Talk {
    /// Reads the answers, unless the body's reader has to, which reads the same socket.
    alone: Option<Body>,
}

/// Why there is no answer.
enum Unanswered {
    /// The request is over.
    Over,
    /// httpd has given the request up.
    Lost,
    /// The question cannot be asked.
    Wrong(String),
}

impl Sessions {
    /// For a request that this came with.
    pub fn new(ahead: Option<Ahead>) -> Self {
        Self { ahead: Mutex::new(ahead), ..Self::default() }
    }

    fn object(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        gil::lock(py, &self.object).as_ref().map(|object| object.clone_ref(py))
    }

    /// Whether no answer is under way or left over.
    pub fn is_clean(&self) -> bool {
        self.talk.try_lock().is_some_and(|talk| talk.alone.as_ref().is_none_or(Body::is_empty))
    }

    /// The request is over, and its way closed.
    pub fn end(&self, py: Python<'_>) {
        if let Some(mut talk) = self.talk.try_lock() {
            talk.alone = None; // else the thread that awaits an answer does so
        }
        let object = gil::lock(py, &self.object).take();
        drop(object);
    }
}

/// The session of a request, for its environ. Nothing is asked before the application touches it.
pub fn object<'py>(py: Python<'py>, exchange: &Arc<Exchange>) -> PyResult<Bound<'py, PyAny>> {
    let class = CLASS.get_or_try_init(py, || py.import(MODULE)?.getattr("Session").map(Bound::unbind))?;
    let object = class.bind(py).call1((SessionCalls { exchange: Arc::downgrade(exchange) },))?;
    *gil::lock(py, &exchange.sessions.object) = Some(object.clone().unbind());
    Ok(object)
}

/// A changed session is put before the head that goes out next; `last`: none of the application's code runs any more. An exception is
/// the application's: its session cannot be saved.
pub fn before_head(py: Python<'_>, exchange: &Exchange, last: bool) -> PyResult<()> {
    if !exchange.sessions.opened.load(Ordering::Relaxed) || !gil::lock(py, &exchange.response).is_head_due() {
        return Ok(());
    }
    match exchange.sessions.object(py) {
        Some(object) => object.bind(py).call_method1(pyo3::intern!(py, "_before_head"), (last,)).map(drop),
        None => Ok(()),
    }
}

/// As [`before_head`]; what was changed after the head is saved by itself. That cannot fail any more, only be logged.
pub fn before_end(py: Python<'_>, exchange: &Exchange) -> PyResult<()> {
    if !exchange.sessions.opened.load(Ordering::Relaxed) || !gil::lock(py, &exchange.response).is_head_sent() {
        return before_head(py, exchange, true);
    }
    let Some(object) = exchange.sessions.object(py) else { return Ok(()) };
    if let Err(e) = object.bind(py).call_method0(pyo3::intern!(py, "_before_end")) {
        let line = format!("a session that was changed after the head was sent is not saved: {}", failure::line(py, &e));
        errors::log(py, exchange, ERROR, line.as_bytes());
    }
    Ok(())
}

/// Whether an exception says that a session cannot be had now.
pub fn is_unavailable(py: Python<'_>, exchange: &Exchange, error: &PyErr) -> bool {
    let is = |name: &str| py.import(MODULE).and_then(|m| m.getattr(name)).is_ok_and(|class| error.is_instance(py, &class));
    exchange.sessions.asked.load(Ordering::Relaxed) && (is("LockTimeout") || is("StoreUnavailable"))
}

/// The exception for a question that was refused.
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

impl Unanswered {
    fn exception(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Over => PyRuntimeError::new_err("the session is used after the end of its request"),
            Self::Lost => refused(py, Status::Unavailable, "httpd has given the request up"),
            Self::Wrong(why) => refused(py, Status::BadKey, &why),
        }
    }
}

impl Exchange {
    /// The frame of a question, without a save's data.
    fn question(&self, request: &Request<'_>) -> Result<Vec<u8>, Unanswered> {
        let mut out = Vec::with_capacity(HEADER + 128);
        out.resize(HEADER, 0);
        request.encode(&mut out).map_err(|e| Unanswered::Wrong(e.to_string()))?;
        let data = if let Request::Save(save) = request { save.data.len() } else { 0 };
        let header = self.way.header(Kind::Session, request.op() as u16, out.len() - HEADER + data);
        if let Some(place) = out.first_chunk_mut::<HEADER>() {
            *place = header;
        }
        Ok(out)
    }

    /// Tells httpd that the session it sent ahead was read: with the head if that is still to come.
    fn tell_used(&self, py: Python<'_>, lock: bool) -> Result<(), Unanswered> {
        let frame = self.question(&Request::Used { lock })?;
        self.sessions.asked.store(true, Ordering::Relaxed);
        let mut response = gil::lock(py, &self.response);
        if response.is_head_sent() {
            drop(response);
            return self.way.send(py, &[&frame]).map_err(|_| Unanswered::Lost);
        }
        response.put_before_head(frame);
        Ok(())
    }

    /// Asks httpd and waits for the answer.
    fn ask(&self, py: Python<'_>, request: &Request<'_>) -> Result<(Status, Vec<u8>), Unanswered> {
        drop(self.sessions.ahead.lock().take());
        let question = self.question(request)?;
        let data = if let Request::Save(save) = request { save.data } else { &[] };
        self.sessions.asked.store(true, Ordering::Relaxed);
        let mut talk = gil::lock(py, &self.sessions.talk);
        let socket = self.way.socket(py).ok_or(Unanswered::Over)?;
        // Nobody else reads what comes before the answer is here: a thread that reads the body waits for this one.
        let mut body = self.body.as_ref().map(|body| gil::lock(py, body)).filter(|body| body.reads());
        let pauses = body.as_deref_mut().is_some_and(Body::pause);
        let pause = self.way.header(Kind::Pause, 0, 0);
        self.way.send(py, &[if pauses { &pause } else { &[] }, &question, data]).map_err(|_| Unanswered::Lost)?;
        let reader = match body.as_deref_mut() {
            Some(body) => body,
            None => talk.alone.get_or_insert_with(|| Body::bare(self.prefix.number, Some(socket))),
        };
        let answer = py.detach(|| reader.answer());
        if self.way.socket(py).is_none() {
            talk.alone = None; // the request has ended meanwhile
        }
        match answer {
            Ok((code, payload)) => Ok((Status::from_code(code), payload)),
            Err(Broken::Over) => Err(Unanswered::Over),
            Err(Broken::Lost | Broken::Told(_)) => Err(Unanswered::Lost),
        }
    }
}

/// The calls of one request's sessions.
#[pyclass(frozen, module = "mod_drover.session", name = "SessionCalls")]
pub struct SessionCalls {
    /// Not kept alive by an application that keeps this object.
    exchange: Weak<Exchange>,
}

impl SessionCalls {
    fn exchange(&self) -> PyResult<Arc<Exchange>> {
        if fork::is_child() {
            return Err(PyRuntimeError::new_err(
                "the session is used in a forked child process: only the process that took the request can",
            ));
        }
        self.exchange.upgrade().ok_or_else(|| PyRuntimeError::new_err("the session is used after the end of its request"))
    }

    fn ask(&self, py: Python<'_>, request: &Request<'_>) -> PyResult<Vec<u8>> {
        match self.exchange()?.ask(py, request) {
            Ok((Status::Ok, payload)) => Ok(payload),
            Ok((status, text)) => Err(refused(py, status, &failure::one_line(&String::from_utf8_lossy(&text)))),
            Err(why) => Err(why.exception(py)),
        }
    }
}

/// An answer that cannot be read.
fn unread(py: Python<'_>, why: drover_wire::WireError) -> PyErr {
    refused(py, Status::Unavailable, &why.to_string())
}

/// What Python gets of a stored session: created, accessed (milliseconds), timeout (seconds), data.
type Record<'py> = (u64, u64, u32, Bound<'py, PyBytes>);
/// What Python gets of an opened session: key, record, default timeout, serializer, largest size, engine.
type Session<'py> = (Option<Bound<'py, PyString>>, Option<Record<'py>>, u32, u8, u32, Bound<'py, PyString>);

#[pymethods]
impl SessionCalls {
    /// Reads a session; `key` None: that of the request's cookie.
    fn open<'py>(&self, py: Python<'py>, key: Option<PyBackedStr>, lock: bool) -> PyResult<Session<'py>> {
        let exchange = self.exchange()?;
        if key.is_none() {
            exchange.sessions.opened.store(true, Ordering::Relaxed);
        }
        let ahead = exchange.sessions.ahead.lock().take();
        let payload;
        let opened = match ahead.as_ref().and_then(|ahead| ahead.answers(key.as_deref(), lock)) {
            Some(opened) => {
                exchange.tell_used(py, lock).map_err(|why| why.exception(py))?;
                opened
            }
            None => {
                payload = self.ask(py, &Request::Open { key: key.as_deref(), lock })?;
                Opened::decode(&payload).map_err(|e| unread(py, e))?
            }
        };
        let record = opened.record.map(|r| (r.created_ms, r.accessed_ms, r.timeout_s, PyBytes::new(py, r.data)));
        let id = opened.id.map(|id| PyString::new(py, id));
        let engine = PyString::new(py, opened.engine);
        Ok((id, record, opened.default_timeout_s, opened.serializer as u8, opened.max_size, engine))
    }

    /// Writes a session and gives its key; `put` is 0 create, 1 replace, 2 any.
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
        let payload = self.ask(py, &Request::Save(save))?;
        decode_key(&payload).map(|key| PyString::new(py, key)).map_err(|e| unread(py, e))
    }

    /// Has the session of the cookie written before the head is used, without waiting for it.
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
        let exchange = self.exchange()?;
        let mut frame = exchange.question(&Request::Save(save)).map_err(|why| why.exception(py))?;
        frame.extend_from_slice(data);
        exchange.sessions.asked.store(true, Ordering::Relaxed);
        drop(exchange.sessions.ahead.lock().take());
        gil::lock(py, &exchange.response).put_before_head(frame);
        Ok(())
    }

    /// Removes a session; whether there was one.
    fn remove(&self, py: Python<'_>, key: Option<PyBackedStr>, cookie: bool) -> PyResult<bool> {
        let payload = self.ask(py, &Request::Remove { key: key.as_deref(), cookie })?;
        decode_bool(&payload).map_err(|e| unread(py, e))
    }

    /// Whether a session lives.
    fn exists(&self, py: Python<'_>, key: PyBackedStr) -> PyResult<bool> {
        let payload = self.ask(py, &Request::Exists { key: &key })?;
        decode_bool(&payload).map_err(|e| unread(py, e))
    }

    /// Waits for a session's lock; it is kept until the request ends.
    fn lock(&self, py: Python<'_>, key: Option<PyBackedStr>) -> PyResult<()> {
        self.ask(py, &Request::Lock { key: key.as_deref() }).map(drop)
    }

    /// Gives a session's lock back.
    fn unlock(&self, py: Python<'_>, key: Option<PyBackedStr>) -> PyResult<()> {
        self.ask(py, &Request::Unlock { key: key.as_deref() }).map(drop)
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
    let exchange = Slot::mine().filter(|_| !fork::is_child()).and_then(|slot| slot.exchange());
    let object = exchange.as_ref().and_then(|exchange| exchange.sessions.object(py));
    object.ok_or_else(|| match exchange {
        Some(exchange) if exchange.prefix.flags & SESSIONS == 0 => refused(py, Status::Off, "DroverSession is off for this request"),
        _ => refused(py, Status::BadKey, "this thread serves no request"),
    })
}
