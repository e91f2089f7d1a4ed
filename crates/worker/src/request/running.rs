//! One request while it runs, as the threads of the worker share it.
//!
//! Responsible for: holding the request's parts, and the steps that need several of them. Must
//! never: be reachable after its end (a slot forgets it). Called by: the thread that serves it,
//! threads to which the application gave its objects, the monitor.
use crate::log::level::WARNING;
use crate::process::scripts::Script;
use crate::request::body::Body;
use crate::request::log::RequestLog;
use crate::request::reply_socket::ReplySocket;
use crate::request::response::{End, Response, SendError, Sent};
use crate::request::session::Session;
use drover_wire::request::Prefix;
use parking_lot::Mutex;
use pyo3::Python;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// One request while it runs.
#[derive(Debug)]
pub struct Request {
    /// What httpd said about it.
    pub prefix: Prefix,
    /// Where its response goes.
    pub reply: ReplySocket,
    /// Its log.
    pub log: RequestLog,
    /// The response as the application has made it so far.
    pub response: Response,
    /// Its body, if it has one.
    pub body: Option<Arc<Mutex<Body>>>,
    /// Its session.
    pub session: Session,
    /// The script that responds to it.
    pub script: Arc<Script>,
    /// Method and URI for the log; set only if the request can exceed a time limit.
    pub what: OnceLock<Box<[u8]>>,
    /// The client has disconnected.
    pub client_gone: AtomicBool,
    /// The application's code runs ([`crate::threads::interrupt`]).
    pub in_application: AtomicBool,
    /// RequestTimeout was raised in its thread.
    pub interrupted: AtomicBool,
    /// The monitor has told httpd that the request runs.
    pub told_taken: AtomicBool,
    /// The monitor has had RequestTimeout raised.
    pub told_interrupt: AtomicBool,
    /// The monitor has told droverd that the request exceeds its time limit.
    pub told_stuck: AtomicBool,
}

impl Request {
    /// Sends text to the request's log.
    pub fn write_log(&self, py: Python<'_>, level: u16, text: &[u8]) {
        self.log.send(py, &self.reply, level, text);
    }

    /// Sends one block of the response; `whole` says that there is no other. Returns false when the
    /// application has produced more than Content-Length allows: then it need not produce more.
    pub fn send_block(&self, py: Python<'_>, block: &[u8], whole: bool) -> Result<bool, SendError> {
        match self.response.block(py, &self.reply, block, whole)? {
            Sent::Whole => Ok(true),
            Sent::Excess { first } => {
                if first {
                    self.write_log(py, WARNING, b"response is longer than its Content-Length; the rest is cut off");
                }
                Ok(false)
            }
        }
    }

    /// Sends the only block and END in one system call. `Ok(false)`: that is not possible, and
    /// nothing was sent. Only for results that need no `close`.
    pub fn send_only_block(&self, py: Python<'_>, block: &[u8]) -> Result<bool, SendError> {
        self.response.only_block(py, &self.reply, block, || self.finish(py))
    }

    /// Ends the response.
    pub fn end(&self, py: Python<'_>) -> Result<End, SendError> {
        self.response.end(py, &self.reply, || self.finish(py))
    }

    /// Before END: ends the log's last line. Returns whether httpd can use the socket pair again.
    fn finish(&self, py: Python<'_>) -> bool {
        self.log.finish_line(py, &self.reply);
        self.is_body_clean(py)
    }

    /// Whether no part of the request's body is on the socket or can still come.
    fn is_body_clean(&self, py: Python<'_>) -> bool {
        if !self.session.is_clean() {
            return false; // another thread waits for an answer
        }
        self.body.as_ref().is_none_or(|body| match body.try_lock() {
            Some(mut body) => body.settle(),
            None => {
                // Another thread of the application still reads from it.
                self.reply.close(py);
                false
            }
        })
    }
}
