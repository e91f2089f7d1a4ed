//! `wsgi.input`.
//!
//! Responsible for: the behaviour of io.BufferedReader; never returning a cut body as a whole one.
//! Must never: wait with the GIL held. Called by: the application.
use crate::cpython;
use crate::process::fork;
use crate::request::body::{Body, BodyError, Fill};
use crate::request::running::Request;
use drover_sys::clock;
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_wire::frame::{BodyFailure, Kind};
use drover_wire::request::{BODY_FOLLOWS, BODY_ON_DEMAND, SESSIONS};
use parking_lot::Mutex;
use pyo3::exceptions::{PyConnectionResetError, PyOSError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// How long a thread waits for body bytes before it checks whether another thread has received
/// them.
const LOOK_AGAIN_NS: u64 = 100_000_000;

/// The request body as a Python file object.
#[pyclass(frozen, module = "mod_wsgi", name = "Input")]
pub struct Input {
    /// `None` if the request has no body.
    body: Option<Arc<Mutex<Body>>>,
    /// The message holds all of it. Otherwise a thread may hold the body's lock without the GIL.
    whole: bool,
    /// Weak: an application may keep this object.
    request: Weak<Request>,
}

impl Input {
    /// The input of a request without a body; all of them share one.
    pub const fn empty() -> Self {
        Self { body: None, whole: true, request: Weak::new() }
    }

    /// The input of a request.
    pub fn new(request: &Arc<Request>) -> Self {
        let whole = request.prefix.flags & (BODY_FOLLOWS | BODY_ON_DEMAND) == 0;
        Self { body: request.body.clone(), whole, request: Arc::downgrade(request) }
    }

    /// Passes bytes to `want` until it has enough or the body ends. `want` returns how many bytes
    /// it used, and whether it has enough.
    fn each(&self, py: Python<'_>, mut want: impl FnMut(&[u8]) -> (usize, bool)) -> PyResult<()> {
        let Some(body) = &self.body else { return Ok(()) };
        if !self.whole && fork::is_child() {
            return Err(PyOSError::new_err(
                "wsgi.input read in a forked child process: only the process that took the request receives its body",
            ));
        }
        loop {
            let mut locked = cpython::lock(py, body);
            match locked.fill() {
                Fill::Ready => {
                    let (used, enough) = want(locked.ready());
                    locked.take(used);
                    if enough {
                        return Ok(());
                    }
                }
                Fill::End => return Ok(()),
                Fill::Ask => {
                    locked.asked();
                    drop(locked);
                    if let Some(request) = self.request.upgrade() {
                        let want = request.reply.header(Kind::Want, 0, 0);
                        request.reply.send(py, &[&want]).map_err(|_| self.failure(BodyError::Lost))?;
                    }
                }
                Fill::Wait => {
                    let socket = locked.socket();
                    drop(locked);
                    if let Some(socket) = socket {
                        // httpd's time limits bound the wait: it sends FAIL, or closes. Another
                        // thread that waits for an answer to the session may receive the bytes, so
                        // this one checks at intervals.
                        let shared = self.request.upgrade().is_some_and(|request| request.prefix.flags & SESSIONS != 0);
                        let until = shared.then(|| clock::monotonic_ns().saturating_add(LOOK_AGAIN_NS));
                        let _ = py.detach(|| poll_until(&mut [PollFd::new(&*socket, PollFlags::IN)], until));
                        py.check_signals()?;
                    }
                }
                Fill::Broken(why) => {
                    drop(locked);
                    return Err(self.failure(why));
                }
            }
        }
    }

    fn failure(&self, why: BodyError) -> PyErr {
        // httpd knows what cut the body, responds and logs it.
        let broken = !matches!(why, BodyError::Over);
        if let Some(request) = self.request.upgrade().filter(|_| broken) {
            request.client_gone.store(true, Ordering::Relaxed);
        }
        match why {
            BodyError::Reported(BodyFailure::ClientGone) | BodyError::Lost => {
                PyConnectionResetError::new_err("client disconnected before the end of the request body")
            }
            BodyError::Reported(BodyFailure::Timeout) => PyTimeoutError::new_err("client was too slow with the request body"),
            BodyError::Reported(BodyFailure::TooLarge) => PyOSError::new_err("request body is larger than LimitRequestBody allows"),
            BodyError::Reported(BodyFailure::Malformed) => PyOSError::new_err("request body is malformed"),
            BodyError::Over => PyValueError::new_err("wsgi.input used after the end of its request"),
        }
    }

    /// Up to `limit` bytes; fewer only at the end of the body.
    fn collect(&self, py: Python<'_>, limit: Option<usize>) -> PyResult<Vec<u8>> {
        let mut out = Vec::new();
        if limit != Some(0) {
            self.each(py, |ready| {
                let n = limit.map_or(ready.len(), |limit| ready.len().min(limit - out.len()));
                out.extend_from_slice(ready.get(..n).unwrap_or_default());
                (n, limit == Some(out.len()))
            })?;
        }
        Ok(out)
    }

    /// One line with its end, or `limit` bytes of it, or the rest of the body.
    fn line(&self, py: Python<'_>, limit: Option<usize>) -> PyResult<Vec<u8>> {
        let mut out = Vec::new();
        if limit != Some(0) {
            self.each(py, |ready| {
                let most = limit.map_or(ready.len(), |limit| ready.len().min(limit - out.len()));
                let piece = ready.get(..most).unwrap_or_default();
                let newline = piece.iter().position(|&b| b == b'\n');
                let n = newline.map_or(most, |at| at + 1);
                out.extend_from_slice(piece.get(..n).unwrap_or_default());
                (n, newline.is_some() || limit == Some(out.len()))
            })?;
        }
        Ok(out)
    }
}

/// A size argument of io's methods: None and negative numbers mean no limit.
fn limit(size: Option<isize>) -> Option<usize> {
    size.and_then(|n| usize::try_from(n).ok())
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.collect(py, limit(size))?))
    }

    #[pyo3(signature = (size=None, /))]
    fn read1<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let most = limit(size).unwrap_or(usize::MAX);
        let mut out = Vec::new();
        if most > 0 {
            self.each(py, |ready| {
                let n = ready.len().min(most);
                out.extend_from_slice(ready.get(..n).unwrap_or_default());
                (n, true)
            })?;
        }
        Ok(PyBytes::new(py, &out))
    }

    fn readinto(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        // The limited API of 3.9 has no buffer protocol, but a memoryview of bytes accepts a slice.
        let view = PyMemoryView::from(buffer)?.call_method1("cast", ("B",))?;
        let bytes = self.collect(py, Some(view.len()?))?;
        let slice = pyo3::types::PySlice::new(py, 0, isize::try_from(bytes.len())?, 1);
        view.set_item(slice, PyBytes::new(py, &bytes))?;
        Ok(bytes.len())
    }

    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.line(py, limit(size))?))
    }

    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let lines = PyList::empty(py);
        let hint = limit(hint).filter(|&n| n > 0);
        let mut total = 0;
        loop {
            let line = self.line(py, None)?;
            if line.is_empty() {
                return Ok(lines);
            }
            total += line.len();
            lines.append(PyBytes::new(py, &line))?;
            if hint.is_some_and(|hint| total >= hint) {
                return Ok(lines);
            }
        }
    }

    const fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.line(py, None)?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }

    /// httpd owns the stream; closing it does nothing, as in mod_wsgi.
    const fn close(&self) {}

    #[getter]
    const fn closed(&self) -> bool {
        false
    }

    const fn readable(&self) -> bool {
        true
    }

    const fn writable(&self) -> bool {
        false
    }

    const fn seekable(&self) -> bool {
        false
    }
}
