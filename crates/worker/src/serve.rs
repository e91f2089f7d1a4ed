//! A request thread: takes requests from the queue and has the application answer them.
//!
//! Responsible for: a request's way through the worker, from its message to its end; read this first. Must never: wait on the
//! queue unless it leads. Called by: `threads`, in each request thread.
use crate::application::{self, Outcome};
use crate::body::Body;
use crate::environ::{Environs, Times, Unfit};
use crate::errors::{self, ERROR, Log};
use crate::exchange::{Exchange, Slot};
use crate::failure;
use crate::fast;
use crate::fork;
use crate::gil;
use crate::handback;
use crate::input::Input;
use crate::interrupt::Running;
use crate::messages::Code;
use crate::monitor;
use crate::reply::ReplySocket;
use crate::response::Response;
use crate::scripts::{Found, Script};
use crate::session::{self, Ahead, Sessions};
use crate::start::StartResponse;
use crate::streams;
use crate::way::Way;
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

/// A request that has waited longer is looked at: perhaps nobody waits for it any more.
const LONG_WAIT_NS: u64 = 50_000_000;

/// What one request thread has.
pub struct Server {
    worker: Arc<Worker>,
    slot: Arc<Slot>,
    environs: Environs,
    errors: Py<Log>,
    timeout: Py<PyAny>,
    /// The script and the callable of the last request: mostly those of the next one.
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
    /// For the thread of `slot`; `template` is its own, with its `wsgi.errors` on `errors`.
    pub fn new(
        py: Python<'_>,
        worker: Arc<Worker>,
        slot: Arc<Slot>,
        template: &Bound<'_, PyDict>,
        errors: Py<Log>,
        timeout: Py<PyAny>,
    ) -> Self {
        Self { worker, slot, environs: Environs::new(py, template), errors, timeout, last: None }
    }

    /// Runs until the worker stops.
    pub fn run(&mut self, py: Python<'_>) {
        self.slot.occupy();
        let _ = self.slot.ident.set(fast::thread_ident()); // once for each thread
        let me = self.slot.index;
        let mut buffer = vec![0; PREFIX + MAX_INLINE];
        let mut fds = Vec::new();
        // All begin asleep; the first one, which leads, is called when droverd says Serve.
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
            leads = self.worker.leadership.come_back(me);
        }
    }

    /// Takes the next request. Asks first and waits only when there is none; the GIL is kept while there are.
    fn take(&self, py: Python<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Taken {
        let worker = &self.worker;
        // The kernel wakes one waiter for a request. Whoever was woken takes it, also when it is about to stop.
        let mut woken = false;
        loop {
            if worker.is_stopping() && !woken {
                return Taken::Stop;
            }
            woken = false;
            match channel::receive_trusted(&worker.queue.socket, buffer, fds) {
                Ok(0) if channel::has_ended(&worker.queue.socket) => worker.stop(), // nobody can send any more
                Ok(0) => fds.clear(),                                               // a message without bytes: no request of ours
                Ok(n) => {
                    return Taken::Message(n);
                }
                Err(Errno::AGAIN) => match py.detach(|| worker.set.wait(None)) {
                    Ok(ready) => {
                        woken = ready & 1 != 0;
                        worker.looked(ready);
                    }
                    Err(e) => {
                        self.lost(py, &format!("cannot wait on the queue: {e}"));
                        worker.stop();
                    }
                },
                Err(Errno::MSGSIZE) => self.lost(py, "a request was lost: its descriptors did not fit (limit of open files?)"),
                Err(e) => {
                    self.lost(py, &format!("cannot read the queue: {e}"));
                    worker.stop();
                }
            }
        }
    }

    fn lost(&self, py: Python<'_>, why: &str) {
        let line = format!("{}: {why}\n", Code::RequestLost);
        py.detach(|| errors::write_plainly(line.as_bytes()));
    }

    /// One request, from its message to its end.
    fn serve(&mut self, py: Python<'_>, message: &[u8], fds: &mut Vec<OwnedFd>) {
        let now = clock::monotonic_ns();
        let mut file = Vec::new();
        let (prefix, payload) = match open(message, fds, &mut file) {
            Ok(opened) => opened,
            Err(why) => return self.lost(py, &format!("a request was not understood: {why}")),
        };
        if fds.is_empty() {
            return self.lost(py, "a request came without its way back");
        }
        let way = Arc::new(ReplySocket::new(fds.remove(0))); // a memory file, now first, is still needed for a handback
        let waited = if prefix.queued_at == 0 { 0 } else { now.saturating_sub(prefix.queued_at) };
        self.worker.count(waited, prefix.flags & UNCOUNTED == 0);
        if waited > LONG_WAIT_NS && has_hung_up(&way) {
            return; // nobody waits for it
        }
        let ahead = Ahead::new(&prefix, payload.ahead, &self.worker.queue.tokens, waited);
        let exchange = self.exchange(prefix, &payload, &way, ahead);
        if prefix.take_by != 0 && now >= prefix.take_by {
            return failure::fail(py, &exchange, Failure::Expired, "the request was taken too late");
        }
        // Of one that was held before httpd must know that somebody runs it.
        if prefix.flags & RESENT != 0 || monitor::is_near(&exchange, now) {
            exchange.told_taken.store(true, Ordering::Relaxed);
            exchange.way.tell_taken();
        }
        self.say_running(&exchange.prefix, self.worker.pid);
        self.slot.begin(&exchange, now);
        monitor::begun(&self.worker, &self.slot, now);
        self.answer(py, &exchange, way, &payload, message, fds, Timing { now, waited });
        // Most forked children have ended where the application's code was called. This ends the rest, before locks are taken.
        let _ = fork::parent_only(py, Ok(()));
        if let Some(body) = &exchange.body {
            gil::lock(py, body).close();
        }
        self.say_running(&exchange.prefix, 0);
        exchange.way.close(py);
        exchange.sessions.end(py);
        self.slot.end();
        self.repair_errors(py);
    }

    /// Writes down that this process runs the request (or, with 0, does not any more), in case it dies.
    fn say_running(&self, prefix: &Prefix, pid: u32) {
        if let Some(seat) = prefix.seat.checked_sub(1) {
            self.worker.queue.roster.run_by(seat, prefix.number, pid);
        }
    }

    /// The request as its threads share it.
    fn exchange(&self, prefix: Prefix, payload: &Payload<'_>, way: &Arc<ReplySocket>, ahead: Option<Ahead>) -> Arc<Exchange> {
        let script = match &self.last {
            Some(last) if *last.script.path == *payload.script => Arc::clone(&last.script),
            _ => self.worker.scripts.find(payload.script),
        };
        let exchange = Arc::new(Exchange {
            way: Way::new(prefix.number, Arc::clone(way)),
            response: Mutex::new(Response::default()),
            body: Body::new(&prefix, payload.body, way).map(|body| Arc::new(Mutex::new(body))),
            sessions: Sessions::new(ahead),
            script,
            partial: Mutex::new(Vec::new()),
            is_head: AtomicBool::new(false),
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
            let _ = exchange.what.set(what(payload)); // set once
        }
        exchange
    }

    /// Finds the script and its callable, or says why not.
    #[allow(clippy::too_many_arguments)] // the parts of one message
    fn answer(
        &mut self,
        py: Python<'_>,
        exchange: &Arc<Exchange>,
        way: Arc<ReplySocket>,
        payload: &Payload<'_>,
        message: &[u8],
        fds: &[OwnedFd],
        timing: Timing,
    ) {
        let found = exchange.script.module(py, false);
        let (mtime_us, fresh) = match &found {
            Found::Loaded { mtime_us, now, .. } => (*mtime_us, *now),
            Found::Broken { broken, now } => (broken.mtime_us, *now),
        };
        let asks = || matches!(&found, Found::Loaded { module, .. } if handback::script_asks(py, &self.worker, exchange, module.bind(py)));
        if !fresh
            && (handback::wanted(&self.worker, exchange, mtime_us) || asks())
            && handback::give(&self.worker, exchange, message, &way, fds)
        {
            return; // droverd has it now
        }
        drop(way);
        let module = match found {
            Found::Loaded { module, now, .. } => {
                if now {
                    let path = String::from_utf8_lossy(payload.script);
                    errors::log(py, exchange, errors::INFO, format!("Loading WSGI script '{path}'.").as_bytes());
                    let script = control::Script { path: payload.script.to_vec(), callable: payload.callable.to_vec() };
                    // What never had its callable must not keep a later generation from serving.
                    if module.bind(py).contains(&*String::from_utf8_lossy(payload.callable)).unwrap_or(false) {
                        // When droverd does not hear it, the next generation imports the script with a request again.
                        let _ = self.worker.control.send(&FromWorker::AlsoLoaded(script), &[]);
                    }
                }
                module
            }
            Found::Broken { broken, now } => {
                if now {
                    errors::log(py, exchange, ERROR, broken.text.as_bytes());
                }
                return failure::fail(py, exchange, broken.failure, &broken.line);
            }
        };
        let callable = self.callable(py, exchange, payload.callable);
        match module.bind(py).get_item(&callable) {
            Ok(Some(application)) => self.run_application(py, exchange, &application, payload, timing),
            Ok(None) => {
                let path = String::from_utf8_lossy(payload.script);
                failure::fail(py, exchange, Failure::NoCallable, &failure::one_line(&format!("{path} has no callable '{callable}'")));
            }
            Err(e) => failure::fail(py, exchange, Failure::Internal, &failure::line(py, &e)),
        }
    }

    /// The callable's name as a string object, kept from one request to the next.
    fn callable<'py>(&mut self, py: Python<'py>, exchange: &Exchange, name: &[u8]) -> Bound<'py, PyString> {
        let known = self.last.as_ref().filter(|last| Arc::ptr_eq(&last.script, &exchange.script) && *last.callable == *name);
        if let Some(last) = known {
            return last.name.bind(py).clone();
        }
        let text = PyString::intern(py, &String::from_utf8_lossy(name));
        self.last = Some(Last { script: Arc::clone(&exchange.script), callable: name.into(), name: text.clone().unbind() });
        text
    }

    /// Calls the application and ends the request, however it went.
    fn run_application(
        &mut self,
        py: Python<'_>,
        exchange: &Arc<Exchange>,
        application: &Bound<'_, PyAny>,
        payload: &Payload<'_>,
        timing: Timing,
    ) {
        let (environ, is_head) = match self.environs.build(py, payload.environment, &timing.times(&exchange.prefix)) {
            Ok(built) => built,
            Err(Unfit::Wire(e)) => return failure::fail(py, exchange, Failure::Internal, &e.to_string()),
            Err(Unfit::Python(e)) => return failure::fail(py, exchange, Failure::Internal, &failure::line(py, &e)),
        };
        exchange.is_head.store(is_head, Ordering::Relaxed);
        let start = match self.objects(py, exchange, &environ) {
            Ok(start) => start,
            Err(e) => return failure::fail(py, exchange, Failure::Internal, &failure::line(py, &e)),
        };
        let running = Running::begin(exchange, &self.slot, py);
        let outcome = application::run(exchange, application, &environ, start.as_any(), |e| {
            // httpd is not told of it, so the log must be.
            let failure = match failure::classify(py, exchange, e, self.timeout.bind(py)) {
                Failure::Session => Failure::Exception,
                other => other,
            };
            failure::log_exception(py, exchange, failure, e);
        });
        running.end(py);
        match &outcome {
            Outcome::Answered | Outcome::Gone => {}
            Outcome::Raised(e) => {
                let failure = failure::classify(py, exchange, e, self.timeout.bind(py));
                failure::log_exception(py, exchange, failure, e);
                failure::fail(py, exchange, failure, &failure::summary(py, exchange, failure, e));
            }
            Outcome::Broke(e) => failure::fail(py, exchange, Failure::BadResponse, &failure::line(py, e)),
            Outcome::Short(text) => failure::fail(py, exchange, Failure::BadResponse, text),
        }
        start.get().close(py);
    }

    /// The objects of this request: into the environ wsgi.input if there is a body, and the session; and start_response.
    fn objects<'py>(&self, py: Python<'py>, exchange: &Arc<Exchange>, environ: &Bound<'py, PyDict>) -> PyResult<Bound<'py, StartResponse>> {
        if exchange.body.is_some() {
            environ.set_item(pyo3::intern!(py, "wsgi.input"), Bound::new(py, Input::new(exchange))?)?;
        }
        if exchange.prefix.flags & SESSIONS != 0 {
            environ.set_item(pyo3::intern!(py, "mod_drover.session"), session::object(py, exchange)?)?;
        }
        Bound::new(py, StartResponse::new(Arc::clone(exchange)))
    }

    /// An application may have detached the stream that the next request needs.
    fn repair_errors(&self, py: Python<'_>) {
        let log = self.errors.bind(py);
        if log.get().was_touched() && !self.environs.has_sound_errors(py) {
            let repaired = streams::errors(log).and_then(|stream| self.environs.set(py, "wsgi.errors", &stream));
            if let Err(e) = repaired {
                self.lost(py, &failure::line(py, &e));
            }
        }
    }
}

/// When a request was taken, and how long it had waited; nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Timing {
    now: u64,
    waited: u64,
}

impl Timing {
    /// The times that an application is told: seconds since 1970.
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

/// Decodes a message; what is too large for one is read from its memory file into `file`.
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
fn has_hung_up(way: &ReplySocket) -> bool {
    let mut fds = [PollFd::new(way, PollFlags::RDHUP)];
    matches!(poll_until(&mut fds, Some(0)), Ok(n) if n > 0)
}

/// A request in a few words, for the log.
fn what(payload: &Payload<'_>) -> Box<[u8]> {
    let value = |name: &[u8]| payload.environment.flatten().find(|(key, _)| *key == name).map_or(&b"?"[..], |(_, value)| value);
    let text = [value(b"REQUEST_METHOD"), b" ", value(b"REQUEST_URI")].concat();
    failure::one_line(&String::from_utf8_lossy(&text)).into_bytes().into()
}
