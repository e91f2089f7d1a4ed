//! The stable codes of the worker's log lines (DROVER0400–0499).
//!
//! Responsible for: each code standing in one place with what the administrator should do. Must never: change a code's meaning. Called
//! by: whoever writes a line that is ours and not the application's.
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
    /// Something of the group's configuration (`locale=`, `stack-size=`) is not to be had here; the worker goes on without it.
    OptionUnavailable = 400;
    /// A request could not be taken from the queue. The line has the reason; httpd answers it.
    RequestLost = 401;
    /// `interrupt-timeout`: `mod_wsgi.RequestTimeout` was raised in the thread of a request that runs longer than request-timeout.
    Interrupted = 402;
    /// What a worker was doing when it was found stuck, or had to be ended: the stacks of its threads follow. Threads without a request are left out.
    Stacks = 403;
    /// A worker could not be set up, and droverd could not be told. The line has the reason.
    SetupFailed = 404;
    /// At the exit of a process, work that the application gave to an executor did not end within a second. The line names the thread.
    /// The functions registered with `atexit` run now; the process goes on to wait for that work until shutdown-timeout is near.
    ExitWaits = 405;
    /// A process has exited although code of the application still ran: a non-daemon thread, the work of an executor, or a
    /// function registered for the exit. The line names the thread and where it was. Make such a thread end when the process exits
    /// (`atexit`, `mod_wsgi.subscribe_shutdown`), or start it with `daemon=True`.
    ExitForced = 406;
    /// A request thread ended because of an error inside mod_drover; the lines before it have the reason. Running requests are
    /// finished and the process is replaced. This is a fault of mod_drover: report it with those lines.
    ThreadLost = 407;
    /// The application forked (`os.fork`), and the child returned from the application's code instead of calling `os._exit`. The child was ended: it has neither the request nor the queue. The response comes from its parent alone. A child that calls `sys.exit` ends in silence.
    ChildReturned = 410;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DROVER{:04}", *self as u16)
    }
}
