//! One request, from top to bottom.
//!
//! Responsible for: the order of the steps. Must never: know a pointer or a type of httpd. Called by: `httpd::module` in the
//! handler phase.
//!
//! `prepare`: check the request, select its group, fill the environment. `exchange`: read a small body, open the queue.
//! `limits`: count the request. `prepare` again: set up its session, encode the message. `exchange`: put it on the
//! queue and relay both directions. [`failure`]: an error becomes a status.
mod exchange;
pub mod failure;
mod head;
mod limits;
mod prepare;
pub mod request;
mod task;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use crate::config::Settings;
use crate::messages::{Code, Level};
use crate::resolved::Group;
use drover_sys::clock::monotonic_ns;
use drover_wire::request::{Builder, MAX_INLINE_BODY};
use exchange::delivery::Delivery;
use exchange::outcome::{Outcome, RelayError, Stage};
use exchange::queue::RequestQueue;
use exchange::upload;
use failure::{RequestError, error_response};
use head::RequestHead;
pub use limits::AdmissionCounters;
use limits::{MemoryAccount, TimeLimits};
pub use prepare::proxy;
use prepare::{checks, environ, message, select, sessions};
use request::{BodyError, NotPassed, Pass, RequestView};
use std::cell::{Cell, RefCell};
use task::Task;
pub use task::{Context, Verdict};

/// Buffers that a thread reuses for each request.
#[derive(Default)]
struct Buffers {
    message: Builder,
    response: Vec<u8>,
    body: Vec<u8>,
    prefetched: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// How long droverd may take to open a queue, in nanoseconds.
const OPEN_NS: u64 = 30_000_000_000;

/// Handles a request that may be ours.
pub fn handle<'r>(r: &mut impl RequestView<'r>, settings: &Settings<'_>, context: Context<'_>) -> Verdict {
    if !matches!(r.handler(), Some(b"wsgi-script" | b"application/x-httpd-wsgi")) {
        return Verdict::Declined;
    }
    let head = match checks::check(r, settings) {
        Ok(head) => head,
        Err(refused) => return refused,
    };
    let selection = select::select(r, settings, context.resolved);
    let (group, script) = match checks::permit(r, settings, &selection, context.resolved) {
        Ok(permitted) => permitted,
        Err(refused) => return refused,
    };
    environ::build(r, settings, &selection);
    if group.root.is_some() {
        r.set_env(c"SCRIPT_FILENAME", script);
    }
    // Taken out, not borrowed: an internal redirect runs this function again on the same thread.
    let mut buffers = BUFFERS.take();
    let result = run(r, head, Task { settings, group, selection: &selection, script, context }, &mut buffers);
    BUFFERS.set(buffers);
    match result {
        Ok(Outcome::Complete) => Verdict::Done,
        Ok(Outcome::Status(status)) => {
            r.reset_status();
            Verdict::Status(status)
        }
        Ok(Outcome::Redirect(url)) => {
            r.redirect_internally(&url);
            Verdict::Done
        }
        Err(error) => fail(r, &error, &selection.key.group),
    }
}

/// Puts the request on its queue and relays it until its end.
fn run<'r>(r: &mut impl RequestView<'r>, head: RequestHead, task: Task<'_>, buffers: &mut Buffers) -> Result<Outcome, RelayError> {
    let Task { group, selection, context, .. } = task;
    let Buffers { message, response, body, prefetched } = buffers;
    if body.is_empty() {
        body.resize(MAX_INLINE_BODY, 0);
    }
    let account = MemoryAccount::open(&context.admission);
    let received = upload::receive(r, head.body, group.body_buffer, body, account).map_err(RequestError::Body)?;
    received.correct_length(r);

    let accepted_at = monotonic_ns();
    let limits = time_limits(r, group, accepted_at);
    let until = limits.take_by.unwrap_or_else(|| accepted_at.saturating_add(limits.silence));
    // Before the request is counted: a client that invents names of application groups must not fill the table of counters.
    let queue = RequestQueue::open(task, until.min(accepted_at.saturating_add(OPEN_NS)))?;
    let most = context.resolved.most_of_a_group(group.capacity, context.admission.slots);
    let ticket = context.admission.enter(&selection.key, queue.queue.place(), group, most, context.wake, until)?;

    let scope = sessions::scope(r, task);
    let opened = Cell::new(false);
    let find = || {
        opened.set(true);
        sessions::store(context, &scope)
    };
    let mut session = sessions::begin(r, task, &scope, &find, limits.answer_by);
    let about = message::about(r);
    let inline = body.get(..received.inline).unwrap_or_default();
    let parts = message::Parts { body_flags: received.flags(), body: inline, limits: &limits, accepted_at, queue: &queue.queue };
    let message = message::encode(r, task, &parts, &about, session.as_mut(), message, prefetched)?;
    let delivery = Delivery { task, queue, ticket, message, limits, until, received: &received, session: session.as_mut() };
    let result = delivery.run(r, response, body);
    drop(session);
    if opened.get() {
        sessions::log_first_use(r, context);
    }
    result
}

/// The time limits of a request that was accepted at `accepted_at`.
fn time_limits<'r>(r: &impl RequestView<'r>, group: &Group, accepted_at: u64) -> TimeLimits {
    TimeLimits {
        silence: group.socket_timeout_ns.unwrap_or_else(|| r.server_timeout_ns()),
        client_silence: r.server_timeout_ns(),
        take_by: group.queue_timeout_ns.map(|t| accepted_at.saturating_add(t)),
        answer_by: group.request_timeout_ns.map(|t| accepted_at.saturating_add(t)),
    }
}

/// Logs the cause. Responds with its status, or cuts a response that has begun.
fn fail<'r>(r: &mut impl RequestView<'r>, error: &RelayError, group: &[u8]) -> Verdict {
    let cause = &error.cause;
    let response = error_response(cause);
    let group = format!("group '{}'", group.escape_ascii());
    if *cause == RequestError::Filter(NotPassed::Answered) {
        r.log(response.level, response.code, &format!("{group}: {cause}"));
        return Verdict::FilterError;
    }
    let about = if response.code == Code::WorkerDied { format!(": {}", message::about(r).escape_ascii()) } else { String::new() };
    if error.stage == Stage::Sent {
        let gone = response.code == Code::ClientGone;
        let (level, code) = if gone { (response.level, response.code) } else { (Level::Error, Code::Truncated) };
        r.log(level, code, &format!("{group}: the response was cut: {}: {cause}{about}", response.code));
        // This fails only when the client is gone, and then nothing is left to do.
        let _ = r.pass(&[], Pass::Cut);
        return Verdict::Done;
    }
    if cause.is_logged() {
        r.log(response.level, response.code, &format!("{group}: {cause}{about}"));
    }
    if *cause == RequestError::Body(BodyError::Answered) {
        return Verdict::FilterError;
    }
    r.reset_status();
    if let Some(seconds) = response.retry_after {
        r.set_error_header(c"Retry-After", &seconds.to_string());
    }
    Verdict::Status(response.status)
}
