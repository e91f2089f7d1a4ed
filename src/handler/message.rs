//! The request as the message that is put on its queue.
//!
//! Responsible for: what httpd tells the worker besides the environment; the environment being written down. Must never: know the message's
//! layout, which is `drover_wire::request`'s. Called by: `handler::mod`.
use super::Task;
use super::failure::Failed;
use super::relay::Limits;
use super::upload::Received;
use crate::dispatch::DispatchError;
use crate::httpd::Request;
use drover_sys::roster::MAX_TEXT;
use drover_wire::request::{Builder, Prefix, SESSIONS, UNCOUNTED};

/// The fixed part, as far as it is known before the session is. `started`: CLOCK_MONOTONIC nanoseconds.
pub fn prefix(r: &Request<'_>, task: Task<'_>, received: &Received<'_>, limits: &Limits, started: u64) -> Prefix {
    let Task { settings, context, .. } = task;
    let (_, mtime) = r.script_file();
    Prefix {
        flags: received.flags()
            | if settings.ignore_activity { UNCOUNTED } else { 0 }
            | if context.session.is_some() { SESSIONS } else { 0 },
        number: context.queues.next_number(),
        take_by: limits.take_by.unwrap_or(0),
        answer_by: limits.answer_by.unwrap_or(0),
        queued_at: started,
        started_us: r.started_us(),
        script_mtime_us: if settings.script_reloading { mtime } else { 0 },
        log_level: r.log_level(),
        ..Prefix::default()
    }
}

/// What the request is about, for the log: its method, its path without the query, and its identifier where mod_unique_id gives one.
pub fn about(r: &Request<'_>) -> Vec<u8> {
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

/// Bytes of a path: with a method and an identifier it fits into a seat.
const MAX_PATH: usize = 64;

/// Begins the message: script, callable, environment.
pub fn begin(r: &Request<'_>, task: Task<'_>, message: &mut Builder) -> Result<(), Failed> {
    message.begin(task.script, &task.selection.callable_object).map_err(DispatchError::TooLarge)?;
    for (name, value) in r.each_env() {
        message.pair(name, value).map_err(DispatchError::TooLarge)?;
    }
    Ok(())
}
