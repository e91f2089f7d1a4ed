//! The environ of a request.
//!
//! Responsible for: PEP 3333's dictionary from the pairs of the message, as fast as CPython allows.
//! Must never: be shared between threads. Each thread has its own, so it needs no lock and no
//! Python code can interfere. Called by: `threads::serve`.
use crate::cpython;
use drover_wire::WireError;
use drover_wire::request::Pairs;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyString, PyTuple};
use std::collections::HashMap;

/// Names that are cached, at most. Clients choose names too (HTTP_*), so there must be a bound.
const MAX_NAMES: usize = 512;
/// Longer values are not cached, bytes.
const MAX_CACHED_VALUE: usize = 256;
/// After this many changes in a row a value is not cached any more.
const MAX_CHANGES: u8 = 8;

/// How a value is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// In the filesystem's encoding, as in mod_wsgi.
    Path,
    /// `2.4.65` as a tuple of numbers.
    Version,
    /// REQUEST_METHOD.
    Method,
}

/// A cached name.
struct Known {
    key: Box<[u8]>,
    name: Py<PyString>,
    kind: Kind,
    /// Its last value, except for credentials.
    last: Option<(Box<[u8]>, Py<PyAny>)>,
    changes: u8,
    /// The index of the name that followed it the last time.
    next: usize,
}

/// Times of a request, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// httpd received it.
    pub request: f64,
    /// It was queued.
    pub queue: f64,
    /// A worker took it.
    pub daemon: f64,
    /// The application was called.
    pub application: f64,
}

/// The cache from which one thread makes environs.
pub struct Environs {
    base: Py<PyDict>,
    known: Vec<Known>,
    index: HashMap<Box<[u8]>, usize>,
    times: [Py<PyString>; 4],
}

/// Why there is no environ.
#[derive(Debug)]
pub enum EnvironError {
    /// The message is wrong.
    Wire(WireError),
    /// Python raised an exception.
    Python(PyErr),
}

impl From<PyErr> for EnvironError {
    fn from(e: PyErr) -> Self {
        Self::Python(e)
    }
}

fn kind_of(key: &[u8]) -> Kind {
    match key {
        b"DOCUMENT_ROOT" | b"SCRIPT_FILENAME" => Kind::Path,
        b"apache.version" => Kind::Version,
        b"REQUEST_METHOD" => Kind::Method,
        _ => Kind::Text,
    }
}

fn is_secret(key: &[u8]) -> bool {
    matches!(key, b"HTTP_AUTHORIZATION" | b"HTTP_PROXY_AUTHORIZATION" | b"HTTP_COOKIE")
        || key.windows(4).any(|w| w.eq_ignore_ascii_case(b"pass"))
}

fn decode<'py>(py: Python<'py>, kind: Kind, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match kind {
        Kind::Text | Kind::Method => cpython::latin1(py, value),
        Kind::Path => cpython::path(py, value),
        Kind::Version => {
            let numbers =
                value.split(|&b| b == b'.').map(|part| std::str::from_utf8(part).ok().and_then(|p| p.parse::<u32>().ok()).unwrap_or(0));
            Ok(PyTuple::new(py, numbers.collect::<Vec<_>>())?.into_any())
        }
    }
}

impl Known {
    fn value<'py>(&mut self, py: Python<'py>, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if let Some((_, object)) = self.last.as_ref().filter(|(bytes, _)| **bytes == *value) {
            self.changes = 0;
            return Ok(object.bind(py).clone());
        }
        let object = decode(py, self.kind, value)?;
        if self.changes < MAX_CHANGES && value.len() <= MAX_CACHED_VALUE {
            self.changes += 1;
            if self.changes == MAX_CHANGES {
                self.last = None;
            } else {
                self.last = Some((value.into(), object.clone().unbind()));
            }
        }
        Ok(object)
    }
}

impl Environs {
    /// Based on the entries that all requests of a thread have in common.
    pub fn new(py: Python<'_>, base: &Bound<'_, PyDict>) -> Self {
        let name = |text| PyString::intern(py, text).unbind();
        Self {
            base: base.clone().unbind(),
            known: Vec::new(),
            index: HashMap::new(),
            times: [
                name("mod_wsgi.request_start"),
                name("mod_wsgi.queue_start"),
                name("mod_wsgi.daemon_start"),
                name("mod_wsgi.application_start"),
            ],
        }
    }

    /// Replaces a common entry.
    pub fn set(&self, py: Python<'_>, key: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.base.bind(py).set_item(key, value)
    }

    /// Whether `wsgi.errors` can still be written to.
    pub fn has_sound_errors(&self, py: Python<'_>) -> bool {
        // `closed` asks the stream below, and raises if that was detached.
        let errors = self.base.bind(py).get_item("wsgi.errors").ok().flatten();
        errors.is_some_and(|stream| stream.getattr("closed").is_ok())
    }

    /// The index of a name in the cache, `None` if the cache is full. Names mostly come in the same
    /// order as before.
    fn place(&mut self, py: Python<'_>, before: Option<usize>, key: &[u8]) -> Option<usize> {
        let expected = before.map_or(0, |at| self.known.get(at).map_or(0, |k| k.next));
        if self.known.get(expected).is_some_and(|k| *k.key == *key) {
            return Some(expected);
        }
        let place = match self.index.get(key) {
            Some(&place) => place,
            None if self.known.len() < MAX_NAMES => {
                let text: String = key.iter().map(|&b| char::from(b)).collect();
                let name = PyString::intern(py, &text).unbind();
                let changes = if is_secret(key) { MAX_CHANGES } else { 0 };
                self.known.push(Known { key: key.into(), name, kind: kind_of(key), last: None, changes, next: 0 });
                self.index.insert(key.into(), self.known.len() - 1);
                self.known.len() - 1
            }
            None => return None,
        };
        if let Some(known) = before.and_then(|at| self.known.get_mut(at)) {
            known.next = place;
        }
        Some(place)
    }

    /// Makes the environ; also returns whether the application sees the method HEAD.
    pub fn build<'py>(&mut self, py: Python<'py>, pairs: Pairs<'_>, times: &Times) -> Result<(Bound<'py, PyDict>, bool), EnvironError> {
        let environ = self.base.bind(py).copy()?;
        for (name, time) in self.times.iter().zip([times.request, times.queue, times.daemon, times.application]) {
            environ.set_item(name.bind(py), PyFloat::new(py, time))?;
        }
        let mut is_head = false;
        let mut before = None;
        for pair in pairs {
            let (key, value) = pair.map_err(EnvironError::Wire)?;
            let place = self.place(py, before, key);
            let known = place.and_then(|at| self.known.get_mut(at));
            before = place.or(before);
            match known {
                Some(known) => {
                    let object = known.value(py, value)?;
                    environ.set_item(known.name.bind(py), object)?;
                    is_head |= known.kind == Kind::Method && value == b"HEAD";
                }
                None => environ.set_item(cpython::latin1(py, key)?, decode(py, kind_of(key), value)?)?,
            }
        }
        Ok((environ, is_head))
    }
}
