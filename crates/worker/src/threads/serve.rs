//! A request thread: takes requests from the queue, and has the application respond to them.
//!
//! Responsible for: a request in the worker, from its message to its end. Read this file first.
//! Must never: wait on the queue unless it leads. Called by: `request_threads`, in each request
//! thread.
use crate::cpython;
use crate::log::level::{ERROR, INFO};
use crate::log::stream::Log;
use crate::log::{stderr, streams, traceback};
use crate::messages::Code;
use crate::process::child_exit;
use crate::process::scripts::{Found, Script};
use crate::request::application::{self, Outcome};
use crate::request::body::Body;
use crate::request::environ::{EnvironError, Environs, Times};
use crate::request::failure;
use crate::request::input::Input;
use crate::request::log::RequestLog;
use crate::request::reply_fd::ReplyFd;
use crate::request::reply_socket::ReplySocket;
use crate::request::response::Response;
use crate::request::running::Request;
use crate::request::session::{Prefetched, Session};
use crate::request::session_calls;
use crate::request::start_response::StartResponse;
use crate::threads::interrupt::InApplication;
use crate::threads::monitor;
use crate::threads::slot::Slot;
use crate::worker::Worker;
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_sys::{Errno, channel, clock, memfile};
use drover_wire::control::{self, FromWorker};
use drover_wire::frame::Failure;
use drover_wire::request::{
    EXTERNAL, MAX_AHEAD, MAX_ENVIRONMENT, MAX_INLINE, MAX_INLINE_BODY, PREFIX, Payload, Prefix, RESENT, SESSIONS, UNCOUNTED,
};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A request that was queued for longer is checked, nanoseconds: its client may have disconnected.
const LONG_WAIT_NS: u64 = 50_000_000;

/// The state of one request thread.
pub struct Server {
    worker: Arc<Worker>,
    slot: Arc<Slot>,
    environs: Environs,
    errors: Py<Log>,
    timeout: Py<PyAny>,
    /// The script and the callable of the last request: mostly the next request has the same.
    last: Option<Last>,
}

/// A script, and a callable in it as the message and as Python name it.
struct Last {
    script: Arc<Script>,
    callable: Box<[u8]>,
    name: Py<PyString>,
}

/// How a wait for a request ended.
enum Taken {
    Message(usize),
    Stop,
}

impl Server {
    /// For the thread of `slot`; `base` is its own, with its `wsgi.errors` on `errors`.
    pub fn new(
        py: Python<'_>,
        worker: Arc<Worker>,
        slot: Arc<Slot>,
        base: &Bound<'_, PyDict>,
        errors: Py<Log>,
        timeout: Py<PyAny>,
    ) -> Self {
        Self { worker, slot, environs: Environs::new(py, base), errors, timeout, last: None }
    }

    /// Runs until the worker stops.
    pub fn run(&mut self, py: Python<'_>) {
        self.slot.occupy();
        let _ = self.slot.ident.set(cpython::thread_ident()); // set once
        let me = self.slot.index;
        let mut buffer = vec![0; PREFIX + MAX_INLINE];
        let mut fds = Vec::new();
        // All threads begin asleep. The leader is called when droverd says Serve.
        let mut leads = false;
        loop {
            if !leads {
                let slot = &self.slot;
                py.detach(|| slot.parker.sleep());
                if self.worker.is_stopping() {
                    return;
                }
            }
            match self.take(py, &mut buffer, &mut fds) {
                Taken::Stop => {
                    self.worker.leadership.resign();
                    return;
                }
                Taken::Message(n) => {
                    self.worker.leadership.running(me);
                    self.serve(py, buffer.get(..n).unwrap_or_default(), &mut fds);
                    fds.clear();
                    monitor::ended(&self.worker);
                }
            }
            leads = self.worker.leadership.finished(me);
        }
    }

    /// Takes the next request. Waits only when there is none, and keeps the GIL while there are.
    fn take(&self, py: Python<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Taken {
        let worker = &self.worker;
        // The kernel wakes one waiter for a request. That thread takes it, even if it is about to
        // stop.
        let mut woken = false;
        loop {
            if worker.is_stopping() && !woken {
                return Taken::Stop;
            }
            woken = false;
            match channel::receive_trusted(&worker.queue.socket, buffer, fds) {
                Ok(0) if channel::has_ended(&worker.queue.socket) => worker.stop(), // no sender is left
                Ok(0) => fds.clear(),                                               // a message without bytes: not a request
                Ok(n) => {
                    return Taken::Message(n);
                }
                Err(Errno::AGAIN) => match py.detach(|| worker.set.wait(None)) {
                    Ok(ready) => {
                        woken = ready & 1 != 0;
                        worker.clear_check(ready);
                    }
                    Err(e) => {
                        self.lost(py, &format!("cannot wait on the queue: {e}"));
                        worker.stop();
                    }
                },
                Err(Errno::MSGSIZE) => {
                    self.lost(py, "a request was lost: its descriptors could not be received (is the limit of open files too low?)")
                }
                Err(e) => {
                    self.lost(py, &format!("cannot read the queue: {e}"));
                    worker.stop();
                }
            }
        }
    }

    fn lost(&self, py: Python<'_>, why: &str) {
        let line = format!("{}: {why}\n", Code::RequestLost);
        py.detach(|| stderr::write(line.as_bytes()));
    }

    /// One request, from its message to its end.
    fn serve(&mut self, py: Python<'_>, message: &[u8], fds: &mut Vec<OwnedFd>) {
        let now = clock::monotonic_ns();
        let mut file = Vec::new();
        let (prefix, payload) = match open(message, fds, &mut file) {
            Ok(opened) => opened,
            Err(why) => return self.lost(py, &format!("a request could not be decoded: {why}")),
        };
        if fds.is_empty() {
            return self.lost(py, "a request came without its reply socket");
        }
        let socket = Arc::new(ReplyFd::new(fds.remove(0))); // a memory file, now first, may still be handed back
        let waited = if prefix.queued_at == 0 { 0 } else { now.saturating_sub(prefix.queued_at) };
        self.worker.count(waited, prefix.flags & UNCOUNTED == 0);
        if waited > LONG_WAIT_NS && has_hung_up(&socket) {
            return; // its client has disconnected
        }
        let prefetched = Prefetched::new(&prefix, payload.ahead, &self.worker.queue.tokens, waited);
        let request = self.request(prefix, &payload, &socket, prefetched);
        if prefix.take_by != 0 && now >= prefix.take_by {
            return failure::fail(py, &request, Failure::Expired, "the request was taken after its queue-timeout");
        }
        // A resent request was held: httpd must know that it runs now.
        if prefix.flags & RESENT != 0 || monitor::is_near(&request, now) {
            request.told_taken.store(true, Ordering::Relaxed);
            request.reply.tell_taken();
        }
        self.say_running(&request.prefix, self.worker.pid);
        self.slot.begin(&request, now);
        monitor::begun(&self.worker, &self.slot, now);
        self.respond(py, &request, socket, &payload, message, fds, Timing { now, waited });
        // Most forked children end where the application's code was called. This ends the others
        // before a lock is taken.
        let _ = child_exit::parent_only(py, Ok(()));
        if let Some(body) = &request.body {
            cpython::lock(py, body).close();
        }
        self.say_running(&request.prefix, 0);
        request.reply.close(py);
        request.session.end(py);
        self.slot.end();
        self.repair_errors(py);
    }

    /// Records that this process runs the request (0: no longer), in case it dies.
    fn say_running(&self, prefix: &Prefix, pid: u32) {
        if let Some(seat) = prefix.seat.checked_sub(1) {
            self.worker.queue.roster.run_by(seat, prefix.number, pid);
        }
    }

    /// The request as the threads share it.
    fn request(&self, prefix: Prefix, payload: &Payload<'_>, socket: &Arc<ReplyFd>, prefetched: Option<Prefetched>) -> Arc<Request> {
        let script = match &self.last {
            Some(last) if *last.script.path == *payload.script => Arc::clone(&last.script),
            _ => self.worker.scripts.find(payload.script),
        };
        let request = Arc::new(Request {
            reply: ReplySocket::new(prefix.number, Arc::clone(socket)),
            log: RequestLog::new(prefix.log_level),
            response: Response::default(),
            body: Body::new(&prefix, payload.body, socket).map(|body| Arc::new(Mutex::new(body))),
            session: Session::new(prefetched),
            script,
            what: OnceLock::new(),
            client_gone: AtomicBool::new(false),
            in_application: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            told_taken: AtomicBool::new(false),
            told_interrupt: AtomicBool::new(false),
            told_stuck: AtomicBool::new(false),
            prefix,
        });
        if self.worker.config.options.request_timeout_ms.is_some() {
            let _ = request.what.set(what(payload)); // set once
        }
        request
    }

    /// Finds the script and its callable, or reports the failure.
    #[allow(clippy::too_many_arguments)] // the parts of one message
    fn respond(
        &mut self,
        py: Python<'_>,
        request: &Arc<Request>,
        socket: Arc<ReplyFd>,
        payload: &Payload<'_>,
        message: &[u8],
        fds: &[OwnedFd],
        timing: Timing,
    ) {
        let found = request.script.module(py, false);
        let (mtime_us, fresh) = match &found {
            Found::Loaded { mtime_us, now, .. } => (*mtime_us, *now),
            Found::Failed { error, now } => (error.mtime_us, *now),
        };
        let handbacks = &self.worker.handbacks;
        let asks = || matches!(&found, Found::Loaded { module, .. } if handbacks.does_script_ask(py, request, module.bind(py)));
        if !fresh
            && (handbacks.is_changed(request, mtime_us) || asks())
            && handbacks.give(&self.worker.control, request, message, &socket, fds)
        {
            return; // droverd has the request now
        }
        drop(socket);
        let module = match found {
            Found::Loaded { module, now, .. } => {
                if now {
                    let path = String::from_utf8_lossy(payload.script);
                    request.write_log(py, INFO, format!("Loading WSGI script '{path}'.").as_bytes());
                    let script = control::Script { path: payload.script.to_vec(), callable: payload.callable.to_vec() };
                    // A script without its callable must not keep a later generation from serving.
                    if module.bind(py).contains(&*String::from_utf8_lossy(payload.callable)).unwrap_or(false) {
                        // If it is not sent, the next generation imports the script with a request
                        // again.
                        let _ = self.worker.control.send(&FromWorker::AlsoLoaded(script), &[]);
                    }
                }
                module
            }
            Found::Failed { error, now } => {
                if now {
                    request.write_log(py, ERROR, error.text.as_bytes());
                }
                return failure::fail(py, request, error.failure, &error.line);
            }
        };
        let callable = self.callable(py, request, payload.callable);
        match module.bind(py).get_item(&callable) {
            Ok(Some(application)) => self.run_application(py, request, &application, payload, timing),
            Ok(None) => {
                let path = String::from_utf8_lossy(payload.script);
                failure::fail(py, request, Failure::NoCallable, &traceback::one_line(&format!("{path} has no callable '{callable}'")));
            }
            Err(e) => failure::fail(py, request, Failure::Internal, &traceback::line(py, &e)),
        }
    }

    /// The callable's name as a string object, cached from one request to the next.
    fn callable<'py>(&mut self, py: Python<'py>, request: &Request, name: &[u8]) -> Bound<'py, PyString> {
        let known = self.last.as_ref().filter(|last| Arc::ptr_eq(&last.script, &request.script) && *last.callable == *name);
        if let Some(last) = known {
            return last.name.bind(py).clone();
        }
        let text = PyString::intern(py, &String::from_utf8_lossy(name));
        self.last = Some(Last { script: Arc::clone(&request.script), callable: name.into(), name: text.clone().unbind() });
        text
    }

    /// Calls the application and ends the request, however the call went.
    fn run_application(
        &mut self,
        py: Python<'_>,
        request: &Arc<Request>,
        application: &Bound<'_, PyAny>,
        payload: &Payload<'_>,
        timing: Timing,
    ) {
        let (environ, is_head) = match self.environs.build(py, payload.environment, &timing.times(&request.prefix)) {
            Ok(built) => built,
            Err(EnvironError::Wire(e)) => return failure::fail(py, request, Failure::Internal, &e.to_string()),
            Err(EnvironError::Python(e)) => return failure::fail(py, request, Failure::Internal, &traceback::line(py, &e)),
        };
        request.response.set_head_request(is_head);
        let start = match self.objects(py, request, &environ) {
            Ok(start) => start,
            Err(e) => return failure::fail(py, request, Failure::Internal, &traceback::line(py, &e)),
        };
        let running = InApplication::begin(request, &self.slot, py);
        let outcome = application::run(request, application, &environ, start.as_any(), |e| {
            // httpd does not learn of this exception, so the log must.
            let failure = match failure::classify(py, request, e, self.timeout.bind(py)) {
                Failure::Session => Failure::Exception,
                other => other,
            };
            failure::log_exception(py, request, failure, e);
        });
        running.end(py);
        match &outcome {
            Outcome::Responded | Outcome::Disconnected => {}
            Outcome::Raised(e) => {
                let failure = failure::classify(py, request, e, self.timeout.bind(py));
                failure::log_exception(py, request, failure, e);
                failure::fail(py, request, failure, &failure::summary(py, request, failure, e));
            }
            Outcome::Broke(e) => failure::fail(py, request, Failure::BadResponse, &traceback::line(py, e)),
            Outcome::Short(text) => failure::fail(py, request, Failure::BadResponse, text),
        }
        start.get().close(py);
    }

    /// The Python objects of a request: `wsgi.input` if there is a body, the session, and
    /// start_response.
    fn objects<'py>(&self, py: Python<'py>, request: &Arc<Request>, environ: &Bound<'py, PyDict>) -> PyResult<Bound<'py, StartResponse>> {
        if request.body.is_some() {
            environ.set_item(pyo3::intern!(py, "wsgi.input"), Bound::new(py, Input::new(request))?)?;
        }
        if request.prefix.flags & SESSIONS != 0 {
            environ.set_item(pyo3::intern!(py, "mod_drover.session"), session_calls::object(py, request)?)?;
        }
        Bound::new(py, StartResponse::new(Arc::clone(request)))
    }

    /// An application may have detached the stream that the next request needs.
    fn repair_errors(&self, py: Python<'_>) {
        let log = self.errors.bind(py);
        if log.get().was_touched() && !self.environs.has_sound_errors(py) {
            let repaired = streams::errors(log).and_then(|stream| self.environs.set(py, "wsgi.errors", &stream));
            if let Err(e) = repaired {
                self.lost(py, &traceback::line(py, &e));
            }
        }
    }
}

/// When a request was taken, and how long it was queued, nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Timing {
    now: u64,
    waited: u64,
}

impl Timing {
    /// The times that the application sees, in seconds since 1970.
    fn times(self, prefix: &Prefix) -> Times {
        let (mono, wall) = (clock::monotonic_ns(), clock::realtime_ns());
        let seconds = |ns: u64| ns as f64 / 1e9;
        let taken = wall.saturating_sub(mono.saturating_sub(self.now));
        Times {
            request: prefix.started_us as f64 / 1e6,
            queue: seconds(taken.saturating_sub(self.waited)),
            daemon: seconds(taken),
            application: seconds(wall),
        }
    }
}

/// Decodes a message. The payload of a large one is read from its memory file into `file`.
fn open<'a>(message: &'a [u8], fds: &[OwnedFd], file: &'a mut Vec<u8>) -> Result<(Prefix, Payload<'a>), String> {
    let prefix = Prefix::decode(message).map_err(|e| e.to_string())?;
    let rest: &[u8] = if prefix.flags & EXTERNAL != 0 {
        let fd = fds.get(1).ok_or("its memory file is missing")?;
        *file = memfile::read(fd, prefix.payload_len(), MAX_ENVIRONMENT + MAX_AHEAD + MAX_INLINE_BODY).map_err(|e| e.to_string())?;
        file
    } else {
        message.get(PREFIX..).unwrap_or_default()
    };
    let payload = Payload::decode(&prefix, rest).map_err(|e| e.to_string())?;
    Ok((prefix, payload))
}

/// Whether httpd has closed its end.
fn has_hung_up(socket: &ReplyFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    matches!(poll_until(&mut fds, Some(0)), Ok(n) if n > 0)
}

/// Method and URI, for the log.
fn what(payload: &Payload<'_>) -> Box<[u8]> {
    let value = |name: &[u8]| payload.environment.flatten().find(|(key, _)| *key == name).map_or(&b"?"[..], |(_, value)| value);
    let text = [value(b"REQUEST_METHOD"), b" ", value(b"REQUEST_URI")].concat();
    traceback::one_line(&String::from_utf8_lossy(&text)).into_bytes().into()
}
