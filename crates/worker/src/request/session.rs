//! The session of one request: questions to httpd, and the session that httpd prefetched.
//!
//! Responsible for: one question and one answer at a time on the reply socket, asked without the
//! GIL; a changed session going out before the headers, in the same write. Must never: know a
//! cookie, an engine or what the data mean. Called by: `session_calls`, `running`.
use crate::cpython;
use crate::request::body::{Body, BodyError};
use crate::request::reply_socket::ReplySocket;
use crate::request::response::Response;
use drover_sys::token::{Board, Token};
use drover_wire::frame::{HEADER, Kind};
use drover_wire::request::{AHEAD_BY_KEY, Prefix, RESENT};
use drover_wire::session::{Opened, Request as Question, Status};
use parking_lot::Mutex;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A prefetched session is valid for this long, nanoseconds. A request that was queued for longer
/// asks httpd.
const PREFETCH_VALID_NS: u64 = 1_000_000_000;

/// The session of one request.
#[derive(Debug, Default)]
pub struct Session {
    /// `environ["mod_drover.session"]`.
    object: Mutex<Option<Py<PyAny>>>,
    /// That object was read or written.
    opened: AtomicBool,
    /// httpd was asked anything at all.
    asked: AtomicBool,
    /// Locked from a question to its answer.
    conversation: Mutex<Conversation>,
    /// The session that httpd prefetched, until it is used or another question is asked.
    prefetched: Mutex<Option<Prefetched>>,
}

/// The answer to the question that the application is likely to ask.
#[derive(Debug)]
pub struct Prefetched {
    /// An encoded [`Opened`], with its data.
    opened: Vec<u8>,
    /// It is not the session of the cookie of DroverSessionCookie.
    by_key: bool,
    /// Taking this token from the board takes the session's lock.
    token: Option<(Token, Arc<Board>)>,
}

impl Prefetched {
    /// What came with a request that was queued for `waited` nanoseconds.
    pub fn new(prefix: &Prefix, opened: &[u8], board: &Arc<Board>, waited: u64) -> Option<Self> {
        let is_valid = !opened.is_empty() && prefix.flags & RESENT == 0 && waited < PREFETCH_VALID_NS;
        let token = || (prefix.token != 0).then(|| (Token { place: prefix.token_place, number: prefix.token }, board.clone()));
        is_valid.then(|| Self { opened: opened.to_vec(), by_key: prefix.flags & AHEAD_BY_KEY != 0, token: token() })
    }

    /// The session if it is the one asked for, with its lock or without. `None`: httpd must be
    /// asked.
    pub fn find(&self, key: Option<&str>, lock: bool) -> Option<Opened<'_>> {
        let opened = Opened::decode(&self.opened).ok()?;
        let is_meant = if key.is_none() { !self.by_key } else { opened.id == key };
        if !is_meant {
            return None;
        }
        let has_lock = || self.token.as_ref().is_some_and(|(token, board)| board.take(*token));
        // A session that does not exist needs no lock.
        (!lock || opened.id.is_none() || has_lock()).then_some(opened)
    }
}

#[derive(Debug, Default)]
struct Conversation {
    /// Reads the answers if the request has no body on the same socket. Else the body's reader
    /// does.
    reader: Option<Body>,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// The request is over.
    Over,
    /// httpd has aborted the request.
    Lost,
    /// The question cannot be encoded.
    Wrong(String),
}

impl Session {
    /// For a request that came with this prefetched session.
    pub fn new(prefetched: Option<Prefetched>) -> Self {
        Self { prefetched: Mutex::new(prefetched), ..Self::default() }
    }

    /// Keeps the Python object until the request ends.
    pub fn set_object(&self, py: Python<'_>, object: Py<PyAny>) {
        *cpython::lock(py, &self.object) = Some(object);
    }

    /// The Python object.
    pub fn object(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        cpython::lock(py, &self.object).as_ref().map(|object| object.clone_ref(py))
    }

    /// The application has read or written its session.
    pub fn set_opened(&self) {
        self.opened.store(true, Ordering::Relaxed);
    }

    /// Whether the application has read or written its session.
    pub fn is_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }

    /// Whether httpd was asked anything.
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Takes the prefetched session. httpd keeps it valid until another question is asked.
    pub fn take_prefetched(&self) -> Option<Prefetched> {
        self.prefetched.lock().take()
    }

    /// Whether no answer is expected or left over.
    pub fn is_clean(&self) -> bool {
        self.conversation.try_lock().is_some_and(|talk| talk.reader.as_ref().is_none_or(Body::is_empty))
    }

    /// The request is over, and its reply socket closed.
    pub fn end(&self, py: Python<'_>) {
        if let Some(mut talk) = self.conversation.try_lock() {
            talk.reader = None; // else the thread that waits for an answer does so
        }
        let object = cpython::lock(py, &self.object).take();
        drop(object);
    }

    /// Tells httpd that the prefetched session was read: with the headers if they were not sent.
    pub fn tell_used(&self, py: Python<'_>, reply: &ReplySocket, response: &Response, lock: bool) -> Result<(), Unanswered> {
        let frame = encode(reply, &Question::Used { lock })?;
        self.asked.store(true, Ordering::Relaxed);
        match response.put_before_unsent_headers(py, frame) {
            Some(frame) => reply.send(py, &[&frame]).map_err(|_| Unanswered::Lost),
            None => Ok(()),
        }
    }

    /// Sends a question with the headers; httpd does not answer it. `data` follows the question.
    pub fn tell_with_headers(
        &self,
        py: Python<'_>,
        reply: &ReplySocket,
        response: &Response,
        question: &Question<'_>,
    ) -> Result<(), Unanswered> {
        let mut frame = encode(reply, question)?;
        frame.extend_from_slice(data(question));
        self.asked.store(true, Ordering::Relaxed);
        drop(self.take_prefetched());
        response.put_before_headers(py, frame);
        Ok(())
    }

    /// Asks httpd and waits for the answer.
    pub fn ask(
        &self,
        py: Python<'_>,
        reply: &ReplySocket,
        body: Option<&Mutex<Body>>,
        question: &Question<'_>,
    ) -> Result<(Status, Vec<u8>), Unanswered> {
        drop(self.take_prefetched());
        let frame = encode(reply, question)?;
        self.asked.store(true, Ordering::Relaxed);
        let mut talk = cpython::lock(py, &self.conversation);
        let socket = reply.socket(py).ok_or(Unanswered::Over)?;
        // Until the answer is here, only this thread reads the socket: a thread that reads the body
        // waits for the lock.
        let mut body = body.map(|body| cpython::lock(py, body)).filter(|body| body.reads());
        let pauses = body.as_deref_mut().is_some_and(Body::pause);
        let pause = reply.header(Kind::Pause, 0, 0);
        reply.send(py, &[if pauses { &pause } else { &[] }, &frame, data(question)]).map_err(|_| Unanswered::Lost)?;
        let reader = match body.as_deref_mut() {
            Some(body) => body,
            None => talk.reader.get_or_insert_with(|| Body::bare(reply.number(), Some(socket))),
        };
        let answer = py.detach(|| reader.answer());
        if reply.socket(py).is_none() {
            talk.reader = None; // the request has ended meanwhile
        }
        match answer {
            Ok((code, payload)) => Ok((Status::from_code(code), payload)),
            Err(BodyError::Over) => Err(Unanswered::Over),
            Err(BodyError::Lost | BodyError::Reported(_)) => Err(Unanswered::Lost),
        }
    }
}

/// The data that follow a question.
const fn data<'a>(question: &Question<'a>) -> &'a [u8] {
    if let Question::Save(save) = question { save.data } else { &[] }
}

/// The frame of a question, without its data.
fn encode(reply: &ReplySocket, question: &Question<'_>) -> Result<Vec<u8>, Unanswered> {
    let mut out = Vec::with_capacity(HEADER + 128);
    out.resize(HEADER, 0);
    question.encode(&mut out).map_err(|e| Unanswered::Wrong(e.to_string()))?;
    let header = reply.header(Kind::Session, question.op() as u16, out.len() - HEADER + data(question).len());
    if let Some(place) = out.first_chunk_mut::<HEADER>() {
        *place = header;
    }
    Ok(out)
}
