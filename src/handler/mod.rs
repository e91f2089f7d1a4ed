//! One request, from top to bottom.
//!
//! Responsible for: the order of things. Must never: know a pointer. Called by: `httpd::module` in the handler phase.
//!
//! `checks`: whether the request may run → `select` its group → [`environ`] → read a small body → put it on the
//! queue ([`crate::dispatch`]) → `relay` both directions → an error becomes a status in [`failure`].
mod admission;
mod checks;
pub mod client;
mod download;
pub mod environ;
pub mod failure;
pub mod proxy;
mod relay;
mod select;

use crate::config::Settings;
use crate::dispatch::{DispatchError, Exchange, Outgoing, Queues, Wake};
use crate::httpd::{Level, Request};
use crate::messages::Code;
use crate::resolved::{Group, Resolved};
use crate::session::{self, RequestSession, StorePlan, Stores};
pub use admission::Gate;
use admission::Kept;
use client::{BodyError, BodyRead, Client, Pass};
use download::Download;
use drover_sys::clock::monotonic_ns;
use drover_wire::control::Script;
use drover_wire::request::{BODY_FOLLOWS, BODY_ON_DEMAND, Builder, MAX_INLINE_BODY, Prefix, SESSIONS, UNCOUNTED};
use failure::{Failed, verdict};
use relay::{Answer, Broken, Limits, Manner, Relay, Source, Upload};
use select::Selection;
use std::cell::RefCell;
use std::os::fd::AsFd;

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

/// How long a chunked body is given to show itself small, nanoseconds.
const SMALL_CHUNKED_NS: u64 = 200_000_000;
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
    let selection = select::select(r, settings, context.resolved.implicit_name());
    let group = match context.resolved.group_for(r.server_hostname(), &selection.key.group) {
        Ok(group) if settings.allows_process_group(if selection.implicit { b"" } else { &selection.key.group }) => group,
        Ok(_) => {
            let text = format!("group '{}' is not allowed here by WSGIRestrictProcess", selection.key.group.escape_ascii());
            return refuse(r, 500, Code::GroupRestricted, &text);
        }
        Err(e) => return refuse(r, 500, e.code(), &e.to_string()),
    };
    if let Some(text) = checks::wrong_owner(r, group) {
        return refuse(r, 403, Code::ScriptOwner, &text);
    }
    if selection.implicit && context.resolved.first_implicit() {
        let text = "a script runs without WSGIProcessGroup: in the implicit group 'default' (there is no embedded mode)";
        r.log(Level::Notice, Code::ImplicitGroup, text);
    }
    let Some(script) = group.inside(r.filename().unwrap_or_default()) else {
        let text = format!("the script {} lies outside of its group's chroot=", r.filename().unwrap_or_default().escape_ascii());
        return refuse(r, 500, Code::ScriptOutside, &text);
    };
    let script = group.root.as_ref().map(|_| script.to_vec());
    environ::build(r, settings, &selection);
    if let Some(script) = script {
        r.set_env(c"SCRIPT_FILENAME", &script);
    }
    // Taken out, not borrowed: an internal redirect comes back here on the same thread.
    let mut buffers = BUFFERS.take();
    let result = run(r, settings, group, &selection, context, &mut buffers);
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

fn refuse(r: &Request<'_>, status: u16, code: Code, text: &str) -> Verdict {
    r.log(Level::Error, code, text);
    Verdict::Status(status)
}

/// Puts the request on its queue and relays until its end.
fn run(
    r: &mut Request<'_>,
    settings: &Settings<'_>,
    group: &Group,
    selection: &Selection,
    context: Context<'_>,
    buffers: &mut Buffers,
) -> Result<Answer, Broken> {
    let unsent = |failed: Failed| Broken { failed, sent: false, answered: false, held: false };
    if buffers.body.is_empty() {
        buffers.body.resize(MAX_INLINE_BODY, 0);
    }
    let body_failed = |e| unsent(Failed::Body(e));
    let (inline, upload) = read_small(r, &mut buffers.body).map_err(body_failed)?;
    let mut account = context.gate.account();
    let kept = match upload {
        Upload::Open => read_moderate(r, group.body_buffer, (&mut buffers.body, inline), &mut account).map_err(body_failed)?,
        _ => None,
    };
    let read = inline + kept.as_ref().map_or(0, |kept| kept.bytes.len());
    if read > 0 && (upload == Upload::None || kept.as_ref().is_some_and(|kept| kept.whole)) {
        // RFC 3875 §4.1.2: the length after transfer codings are removed; it is known now, also for a chunked or a compressed body.
        r.set_env(c"CONTENT_LENGTH", read.to_string().as_bytes());
    } else if read > 0 && r.header(c"Content-Length").is_none() {
        r.unset_env(c"CONTENT_LENGTH"); // a filter has made it untrue
    }

    let started = monotonic_ns();
    let script = group.inside(r.filename().unwrap_or_default()).unwrap_or_default();
    let (_, mtime) = r.script_file();
    let number = context.queues.next_number();
    let limits = Limits {
        silence: group.socket_timeout_ns.unwrap_or_else(|| r.server_timeout_ns()),
        client_silence: r.server_timeout_ns(),
        take_by: group.queue_timeout_ns.map(|t| started.saturating_add(t)),
        answer_by: group.request_timeout_ns.map(|t| started.saturating_add(t)),
    };
    let mut prefix = Prefix {
        flags: match upload {
            Upload::Open => BODY_FOLLOWS,
            Upload::OnDemand => BODY_FOLLOWS | BODY_ON_DEMAND,
            Upload::None | Upload::Closed => 0,
        } | if settings.ignore_activity { UNCOUNTED } else { 0 }
            | if context.session.is_some() { SESSIONS } else { 0 },
        number,
        take_by: limits.take_by.unwrap_or(0),
        answer_by: limits.answer_by.unwrap_or(0),
        queued_at: started,
        started_us: r.started_us(),
        script_mtime_us: if settings.script_reloading { mtime } else { 0 },
        log_level: r.log_level(),
        ..Prefix::default()
    };
    let too_large = |e| unsent(DispatchError::TooLarge(e).into());
    let Buffers { message, answer, body, ahead } = buffers;
    message.begin(script, &selection.callable_object).map_err(too_large)?;
    for (name, value) in r.each_env() {
        message.pair(name, value).map_err(too_large)?;
    }
    let until = limits.take_by.unwrap_or_else(|| started.saturating_add(limits.silence));
    let most = context.resolved.most_of_a_group(group.capacity, context.gate.slots);
    let script = Script { path: script.to_vec(), callable: selection.callable_object.clone() };
    let open = || {
        let until = until.min(started.saturating_add(OPEN_NS));
        context.queues.open(&selection.key, script.clone(), context.wake, until).map_err(|e| unsent(e.into()))
    };
    // Before anything is counted: a client that makes up names of application groups must not fill the table.
    let mut queue = open()?;
    let mut ticket = context.gate.enter(&selection.key, group, most, context.wake, until).map_err(unsent)?;
    // All of the request is here, so that it can be sent again.
    let whole = upload == Upload::None || kept.as_ref().is_some_and(|kept| kept.whole);
    let harmless = settings.retry && upload == Upload::None && inline == 0 && r.method().is_some_and(is_safe);
    let scope = context.session.map(|(settings, _)| settings.scope_of(&selection.key.group, r.server_hostname())).unwrap_or_default();
    let find = || {
        let (settings, plan) = context.session.ok_or_else(|| drover_session::Error::Unavailable("off".into()))?;
        let stores = context.stores.ok_or_else(|| drover_session::Error::Unavailable("this child was not set up".into()))?;
        stores.get(settings.store, plan, &scope)
    };
    let mut session = context.session.map(|(settings, _)| {
        let https = r.env(c"wsgi.url_scheme") == Some(b"https");
        let place = context.stores.and_then(|stores| stores.seen.of(&(&scope, r.uri())));
        let cookie = settings.cookie_of(&selection.key.group);
        RequestSession::new(settings, &find, place, (scope.clone(), cookie), https, limits.answer_by)
    });
    ahead.clear();
    let (flags, token) = session.as_mut().map_or((0, None), |session| session.send_ahead(r.cookies(), ahead));
    prefix.flags |= flags;
    let bytes = message.finish(prefix, ahead, body.get(..inline).unwrap_or_default()).map_err(too_large)?;
    let message = Outgoing { bytes, number, token: token.as_ref().map(AsFd::as_fd), sessions: session.is_some() };
    let (mut opened_again, mut retried) = (false, false);
    loop {
        let mut must_wait = || {
            if let Some(session) = &mut session {
                session.withdraw(true);
            }
        };
        let mut exchange = match Exchange::send(&queue, message, std::mem::take(answer), context.wake, until, &mut must_wait) {
            // Nobody holds the other end any more: the group went and came back. Ask droverd once more.
            // (PERM: a worker has forbidden its queue to take descriptors.)
            Err(DispatchError::System(
                _,
                drover_sys::Errno::PIPE | drover_sys::Errno::CONNREFUSED | drover_sys::Errno::CONNRESET | drover_sys::Errno::PERM,
            )) if !opened_again => {
                context.queues.forget(&selection.key, &queue);
                queue = open()?;
                opened_again = true;
                continue;
            }
            other => other.map_err(|e| unsent(e.into()))?,
        };
        let manner = Manner { error_override: settings.error_override, answer_buffer: group.answer_buffer };
        let source =
            kept.as_ref().map_or(Source::Client, |kept| if kept.whole { Source::Kept(&kept.bytes) } else { Source::Begun(&kept.bytes) });
        let download = Download::new(manner, context.gate.account());
        let result = Relay::new(r, &mut exchange, limits, download, upload, source, session.as_mut())
            .run(context.wake, body, || ticket.leave_queue());
        *answer = exchange.finish(result.is_ok());
        match result {
            Err(Broken { failed: Failed::Dispatch(DispatchError::WorkerDied), sent: false, answered: false, held })
                if !retried && (harmless || (held && whole)) =>
            {
                let text = if held {
                    "droverd died while it held the request for the new code; it is put on the queue again"
                } else {
                    "the process that had taken the request died before it answered; the request runs once more, in another process"
                };
                r.log(Level::Warn, Code::Retried, &format!("{text} (group '{}')", selection.key.group.escape_ascii()));
                retried = true;
            }
            other => {
                // Its session was saved under a new name: the client must learn it although the application failed afterwards.
                if let Err(Broken { sent: false, .. }) = &other
                    && let Some(cookie) = session.as_mut().and_then(RequestSession::take_cookie)
                {
                    r.set_cookie(&cookie);
                }
                return other;
            }
        }
    }
}

/// RFC 9110 §9.2.1: asked for again, such a request does no harm.
fn is_safe(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE")
}

/// A body that was read before a worker is asked for.
struct Read {
    bytes: Vec<u8>,
    /// There is no more of it.
    whole: bool,
}

/// Reads a body that says that it is at most `most` bytes long, so that a slow client holds no worker. `None`: it says something else. A filter
/// may make more of it: then there is a rest.
fn read_moderate(
    r: &mut Request<'_>,
    most: u64,
    (buffer, inline): (&mut [u8], usize),
    account: &mut Kept<'_>,
) -> Result<Option<Read>, BodyError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let fits = checks::content_length(r).is_some_and(|n| usize::try_from(n).is_ok_and(|n| n <= most));
    // What was read already stays at its place in the buffer.
    let Some(scratch) = buffer.get_mut(inline..).filter(|room| fits && !room.is_empty() && account.has_room()) else { return Ok(None) };
    let mut bytes = Vec::new();
    while bytes.len() < most {
        match r.read_body(scratch, true) {
            BodyRead::Data(n) => bytes.extend_from_slice(scratch.get(..n).unwrap_or_default()),
            BodyRead::End => return Ok(Some(Read { bytes, whole: true })),
            BodyRead::NotYet => return Err(BodyError::ClientGone),
            BodyRead::Failed(e) => return Err(e),
        }
        account.set(bytes.len());
    }
    Ok(Some(Read { bytes, whole: false }))
}

/// Reads the body if it is small, so that a slow client holds no worker. Returns how much of it is in `buffer`, and what is
/// left to do for the rest.
fn read_small(r: &mut Request<'_>, buffer: &mut [u8]) -> Result<(usize, Upload), BodyError> {
    let length = checks::content_length(r);
    let chunked = r.header(c"Transfer-Encoding").is_some();
    match length {
        None if !chunked && !r.is_stream() => return Ok((0, Upload::None)),
        Some(0) => return Ok((0, Upload::None)),
        Some(n) if n > MAX_INLINE_BODY as u64 => return Ok((0, if r.expects_continue() { Upload::OnDemand } else { Upload::Open })),
        _ => {}
    }
    let patience = monotonic_ns() + SMALL_CHUNKED_NS;
    let mut have = 0;
    while let Some(room) = buffer.get_mut(have..).filter(|b| !b.is_empty()) {
        // A body of unknown length may be a conversation: it is not waited for longer than a moment.
        let wait = length.is_some() || (r.socket().is_none() && have == 0);
        match r.read_body(room, wait) {
            BodyRead::Data(n) => have += n,
            BodyRead::End => return Ok((have, Upload::None)),
            BodyRead::NotYet => {
                if monotonic_ns() >= patience || !wait_for_client(r, patience) {
                    return Ok((have, Upload::Open));
                }
            }
            BodyRead::Failed(e) => return Err(e),
        }
    }
    Ok((have, Upload::Open))
}

fn wait_for_client(r: &Request<'_>, until: u64) -> bool {
    use drover_sys::wait::{PollFd, PollFlags, poll_until};
    let Some(socket) = r.socket() else { return false };
    matches!(poll_until(&mut [PollFd::new(&socket, PollFlags::IN)], Some(until)), Ok(n) if n > 0)
}

/// Logs why, and answers with the status of the cause, or cuts what has been sent.
fn fail(r: &mut Request<'_>, broken: &Broken, group: &[u8]) -> Verdict {
    let v = verdict(&broken.failed);
    let of = format!("(group '{}')", group.escape_ascii());
    if broken.sent && broken.failed != Failed::Answered {
        let gone = v.code == Code::ClientGone;
        let (level, code) = if gone { (v.level, v.code) } else { (Level::Error, Code::Truncated) };
        r.log(level, code, &format!("the answer was cut short: {}: {} {of}", v.code, broken.failed));
        // The client is gone or learns it now; there is nobody else to tell.
        let _ = r.pass(&[], Pass::Cut);
        return Verdict::Done;
    }
    if broken.failed != Failed::Overloaded(None) {
        r.log(v.level, v.code, &format!("{} {of}", broken.failed));
    }
    if matches!(broken.failed, Failed::Body(BodyError::Answered) | Failed::Answered) {
        return Verdict::FilterError;
    }
    r.reset_status();
    if let Some(seconds) = v.retry_after {
        r.set_error_header(c"Retry-After", &seconds.to_string());
    }
    Verdict::Status(v.status)
}
