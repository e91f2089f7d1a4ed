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
    NotToBeHad = 400;
    /// A request could not be taken from the queue. The line has the reason; httpd answers it.
    RequestLost = 401;
    /// `interrupt-timeout`: `mod_wsgi.RequestTimeout` was raised in the thread of a request that runs longer than request-timeout.
    Interrupted = 402;
    /// What a worker was doing when it was found stuck, or had to be ended: the stacks of its threads follow. Threads without a request are left out.
    Stacks = 403;
    /// A worker could not be set up, and droverd could not be told. The line has the reason.
    SetupFailed = 404;
    /// The application forked (`os.fork`), and the child returned from the application's code instead of calling `os._exit`. The child was ended: it has neither the request nor the queue. The response comes from its parent alone. A child that calls `sys.exit` ends in silence.
    ChildReturned = 410;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DROVER{:04}", *self as u16)
    }
}
