//! One request, from top to bottom.
//!
//! Responsible for: the order of things. Must never: know a pointer. Called by: `httpd::module` in the handler phase.
//!
//! `checks`: whether the request may run → `select` its group → [`environ`] → `upload`: read a small body → `message`: all of that as one →
//! `line`: its queue, and `admission`: whether there is room → `sessions` → `delivery`: on the queue ([`crate::dispatch`]), then `relay`
//! both directions → an error becomes a status in [`failure`].
mod account;
mod admission;
mod checks;
pub mod client;
mod delivery;
mod download;
pub mod environ;
pub mod failure;
mod frames;
mod line;
mod message;
mod phase;
pub mod proxy;
mod relay;
mod select;
mod sessions;
mod upload;

use crate::config::Settings;
use crate::dispatch::{DispatchError, Outgoing, Queues, Wake};
use crate::httpd::{Level, Request};
use crate::messages::Code;
use crate::resolved::{Group, Resolved};
use crate::session::{self, StorePlan, Stores};
use account::Account;
pub use admission::Gate;
use client::{BodyError, Client, NotPassed, Pass};
use delivery::Delivery;
use drover_sys::clock::monotonic_ns;
use drover_sys::shared::Flag;
use drover_wire::request::{Builder, MAX_INLINE_BODY};
use failure::{Failed, verdict};
use line::Line;
use relay::{Answer, Broken, Limits};
use select::Selection;
use std::cell::{Cell, RefCell};

/// What a request needs that outlives it.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// The configuration, resolved.
    pub resolved: &'c Resolved,
    /// This process's queues.
    pub queues: &'c Queues,
    /// Wakes everybody when httpd stops.
    pub wake: &'c Wake,
    /// How many requests are where.
    pub gate: Gate<'c>,
    /// What holds for sessions in the request's server; `None`: they are off.
    pub session: Option<(&'c session::Settings, &'c StorePlan)>,
    /// This process's stores of sessions.
    pub stores: Option<&'static Stores>,
    /// What is to be logged of sessions when one is used for the first time; `None`: it was logged at start.
    pub unsaid: Option<(&'c Flag, &'c [String])>,
}

/// What the handler phase answers to httpd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours.
    Declined,
    /// Answered.
    Done,
    /// Answer with this status.
    Status(u16),
    /// A filter has failed: it has answered the request, or httpd does.
    FilterError,
}

/// A request that may run, with what the configuration says of it.
#[derive(Clone, Copy)]
struct Task<'t> {
    settings: &'t Settings<'t>,
    group: &'t Group,
    selection: &'t Selection,
    /// The script's path as the group's processes see it.
    script: &'t [u8],
    context: Context<'t>,
}

/// Buffers that a thread uses again and again.
#[derive(Default)]
struct Buffers {
    message: Builder,
    answer: Vec<u8>,
    body: Vec<u8>,
    ahead: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// How long droverd may take to open a queue, nanoseconds.
const OPEN_NS: u64 = 30_000_000_000;

/// Handles a request that may be ours.
pub fn handle(r: &mut Request<'_>, settings: &Settings<'_>, context: Context<'_>) -> Verdict {
    if !matches!(r.handler(), Some(b"wsgi-script" | b"application/x-httpd-wsgi")) {
        return Verdict::Declined;
    }
    if let Some(refused) = checks::refuse(r, settings) {
        return refused;
    }
    let selection = select::select(r, settings, context.resolved);
    let (group, script) = match checks::permit(r, settings, &selection, context.resolved) {
        Ok(permitted) => permitted,
        Err(refused) => return refused,
    };
    environ::build(r, settings, &selection);
    if group.root.is_some() {
        r.set_env(c"SCRIPT_FILENAME", script);
    }
    // Taken out, not borrowed: an internal redirect comes back here on the same thread.
    let mut buffers = BUFFERS.take();
    let result = run(r, Task { settings, group, selection: &selection, script, context }, &mut buffers);
    BUFFERS.set(buffers);
    match result {
        Ok(Answer::Whole) => Verdict::Done,
        Ok(Answer::Status(status)) => {
            r.reset_status();
            Verdict::Status(status)
        }
        Ok(Answer::Redirect(url)) => {
            r.redirect_internally(&url);
            Verdict::Done
        }
        Err(broken) => fail(r, &broken, &selection.key.group),
    }
}

/// Puts the request on its queue and relays until its end.
fn run(r: &mut Request<'_>, task: Task<'_>, buffers: &mut Buffers) -> Result<Answer, Broken> {
    let Task { group, selection, context, .. } = task;
    let Buffers { message, answer, body, ahead } = buffers;
    if body.is_empty() {
        body.resize(MAX_INLINE_BODY, 0);
    }
    let received = upload::receive(r, group.body_buffer, body, Account::open(&context.gate)).map_err(Failed::Body)?;
    received.correct_length(r);

    let started = monotonic_ns();
    let limits = limits(r, group, started);
    let mut prefix = message::prefix(r, task, &received, &limits, started);
    message::begin(r, task, message)?;

    let until = limits.take_by.unwrap_or_else(|| started.saturating_add(limits.silence));
    // Before anything is counted: a client that makes up names of application groups must not fill the table.
    let line = Line::open(task, until.min(started.saturating_add(OPEN_NS)))?;
    let most = context.resolved.most_of_a_group(group.capacity, context.gate.slots);
    let ticket = context.gate.enter(&selection.key, line.queue.place(), group, most, context.wake, until)?;

    let scope = sessions::scope(r, task);
    let opened = Cell::new(false);
    let find = || {
        opened.set(true);
        sessions::store(context, &scope)
    };
    let mut session = sessions::begin(r, task, &scope, &find, limits.answer_by);
    ahead.clear();
    if let Some(session) = &mut session {
        session.prefetch(r.cookies(), line.queue.tokens(), &mut prefix, ahead);
    }

    let inline = body.get(..received.inline).unwrap_or_default();
    let bytes = message.finish(prefix, ahead, inline).map_err(DispatchError::TooLarge)?;
    let about = message::about(r);
    let message = Outgoing { bytes, number: prefix.number, sessions: session.is_some(), about: &about };
    let result =
        Delivery { task, line, ticket, message, limits, until, received: &received, session: session.as_mut() }.run(r, answer, body);
    drop(session);
    if opened.get() {
        sessions::say_first_use(r, context);
    }
    result
}

/// The request's limits, from when it is put on its queue.
fn limits(r: &Request<'_>, group: &Group, started: u64) -> Limits {
    Limits {
        silence: group.socket_timeout_ns.unwrap_or_else(|| r.server_timeout_ns()),
        client_silence: r.server_timeout_ns(),
        take_by: group.queue_timeout_ns.map(|t| started.saturating_add(t)),
        answer_by: group.request_timeout_ns.map(|t| started.saturating_add(t)),
    }
}

/// Logs why, and answers with the status of the cause, or cuts what has been sent.
fn fail(r: &mut Request<'_>, broken: &Broken, group: &[u8]) -> Verdict {
    let v = verdict(&broken.failed);
    let of = format!("(group '{}')", group.escape_ascii());
    if broken.failed == Failed::Filter(NotPassed::Answered) {
        r.log(v.level, v.code, &format!("{} {of}", broken.failed));
        return Verdict::FilterError;
    }
    if broken.sent {
        let gone = v.code == Code::ClientGone;
        let (level, code) = if gone { (v.level, v.code) } else { (Level::Error, Code::Truncated) };
        let about = if v.code == Code::WorkerDied { format!(": {}", message::about(r).escape_ascii()) } else { String::new() };
        r.log(level, code, &format!("the answer was cut short: {}: {}{about} {of}", v.code, broken.failed));
        // The client is gone or learns it now; there is nobody else to tell.
        let _ = r.pass(&[], Pass::Cut);
        return Verdict::Done;
    }
    if broken.failed.is_logged() {
        let about = if v.code == Code::WorkerDied { format!(": {}", message::about(r).escape_ascii()) } else { String::new() };
        r.log(v.level, v.code, &format!("{}{about} {of}", broken.failed));
    }
    if broken.failed == Failed::Body(BodyError::Answered) {
        return Verdict::FilterError;
    }
    r.reset_status();
    if let Some(seconds) = v.retry_after {
        r.set_error_header(c"Retry-After", &seconds.to_string());
    }
    Verdict::Status(v.status)
}
