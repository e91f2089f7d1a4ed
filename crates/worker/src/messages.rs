//! The stable codes of the worker's log lines (DROVER0400–0499).
//!
//! Responsible for: defining each code once, with what the administrator should do. Must never:
//! change a code's meaning. Called by: every file that writes a log line of mod_drover's own.
use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal;)+) => {
        /// A message's code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Code { $($(#[doc = $doc])+ $name = $number),+ }
    };
}

codes! {
    /// An option of the group (`locale=`, `stack-size=`, `dumpable=`) is not available on this
    /// system and was ignored, or the worker could not drop its capabilities. The message says which.
    OptionUnavailable = 400;
    /// A request could not be taken from the queue. The message has the reason; httpd responds to
    /// the request with an error.
    RequestLost = 401;
    /// `interrupt-timeout`: `mod_wsgi.RequestTimeout` was raised in the thread of a request that
    /// exceeded request-timeout.
    Interrupted = 402;
    /// A worker was found stuck, or had to be ended. The message includes the stacks of its
    /// threads, without threads that have no request.
    Stacks = 403;
    /// A worker could not be set up, and could not report it to droverd. The message has the
    /// reason.
    SetupFailed = 404;
    /// While a process exits, work that the application gave to an executor did not end within a
    /// second. The message names the thread. The process now calls the functions registered with
    /// `atexit`, and then waits for that work until shutdown-timeout.
    ExitWaits = 405;
    /// A process has exited while code of the application still ran: a non-daemon thread, the work
    /// of an executor, or a function registered for the exit. The message names the thread and its
    /// location. Make such a thread end when the process exits (`atexit`,
    /// `mod_wsgi.subscribe_shutdown`), or start it with `daemon=True`.
    ExitForced = 406;
    /// A request thread ended because of an error inside mod_drover; the preceding lines have the
    /// reason. Running requests are finished and the process is replaced. Report this fault of
    /// mod_drover with those lines.
    ThreadLost = 407;
    /// The application forked (`os.fork`), and the child returned from the application's code
    /// instead of calling `os._exit`. The child was ended: it has neither the request nor the
    /// queue. Only its parent responds. A child that calls `sys.exit` ends without a message.
    ChildReturned = 410;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DROVER{:04}", *self as u16)
    }
}
