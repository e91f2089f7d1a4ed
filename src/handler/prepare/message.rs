//! The message for a worker.
//!
//! Responsible for: what httpd tells the worker about a request. Must never: know the layout of the message, which is
//! `drover_wire::request`'s. Called by: `handler`.
use crate::dispatch::{DispatchError, Outgoing, Queue};
use crate::handler::failure::RequestError;
use crate::handler::limits::TimeLimits;
use crate::handler::request::RequestView;
use crate::handler::task::Task;
use crate::session::RequestSession;
use drover_sys::roster::MAX_TEXT;
use drover_wire::request::{Builder, Prefix, SESSIONS, UNCOUNTED};

/// What the message is made of, besides the request and its environment.
pub struct Parts<'p> {
    /// The flags about the body.
    pub body_flags: u16,
    /// The part of the body that fits into the message.
    pub body: &'p [u8],
    /// The time limits.
    pub limits: &'p TimeLimits,
    /// When the request was accepted, CLOCK_MONOTONIC nanoseconds.
    pub accepted_at: u64,
    /// Its queue.
    pub queue: &'p Queue,
}

/// Encodes it into `builder`. `about` describes the request in the log ([`about`]); `prefetched` is a buffer for the session that the worker will probably ask for.
pub fn encode<'r, 'b>(
    r: &impl RequestView<'r>,
    task: Task<'_>,
    parts: &Parts<'_>,
    about: &'b [u8],
    session: Option<&mut RequestSession<'_>>,
    builder: &'b mut Builder,
    prefetched: &mut Vec<u8>,
) -> Result<Outgoing<'b>, RequestError> {
    let Task { settings, context, .. } = task;
    let has_sessions = session.is_some();
    let (_, mtime) = r.script_file();
    let mut prefix = Prefix {
        flags: parts.body_flags | if settings.ignore_activity { UNCOUNTED } else { 0 } | if has_sessions { SESSIONS } else { 0 },
        number: context.queues.next_number(),
        take_by: parts.limits.take_by.unwrap_or(0),
        answer_by: parts.limits.answer_by.unwrap_or(0),
        queued_at: parts.accepted_at,
        started_us: r.started_us(),
        script_mtime_us: if settings.script_reloading { mtime } else { 0 },
        log_level: r.log_level(),
        ..Prefix::default()
    };
    builder.begin(task.script, &task.selection.callable_object).map_err(DispatchError::TooLarge)?;
    for (name, value) in r.each_env() {
        builder.pair(name, value).map_err(DispatchError::TooLarge)?;
    }
    prefetched.clear();
    if let Some(session) = session {
        session.prefetch(r.cookies(), parts.queue.tokens(), &mut prefix, prefetched);
    }
    let bytes = builder.finish(prefix, prefetched, parts.body).map_err(DispatchError::TooLarge)?;
    Ok(Outgoing { bytes, number: prefix.number, sessions: has_sessions, about })
}

/// Bytes of a path: with a method and an identifier it fits into a seat.
const MAX_PATH: usize = 64;

/// The request in the log: its method, its path without the query, and its identifier from mod_unique_id.
pub fn about<'r>(r: &impl RequestView<'r>) -> Vec<u8> {
    let mut about = Vec::with_capacity(MAX_TEXT);
    let mut add = |text: &[u8], most: usize| about.extend_from_slice(text.get(..most).unwrap_or(text));
    add(r.method().unwrap_or(b"?"), 16);
    add(b" ", 1);
    let path = r.request_uri();
    add(path.split(|b| *b == b'?').next().unwrap_or_default(), MAX_PATH);
    if let Some(id) = r.env(c"UNIQUE_ID") {
        add(b" ", 1);
        add(id, MAX_TEXT);
    }
    about
}
