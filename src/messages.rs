//! The levels and the stable codes of the module's log messages (DROVER0001–0199; droverd has 0200–0399, the worker 0400–0499).
//!
//! Responsible for: each code with what the administrator should do. Must never: change the meaning of a code. Called by:
//! everything that logs; `docs/messages.md` is generated from it.
use crate::resolved::GroupError;
use std::fmt;

/// The levels of httpd's error log that mod_drover uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// Action must be taken now.
    Crit = 2,
    /// Something failed.
    Error = 3,
    /// Something may be wrong.
    Warn = 4,
    /// Normal but significant.
    Notice = 5,
    /// Information for administrators.
    Info = 6,
    /// Information for finding a fault.
    Debug = 7,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal;)+) => {
        /// A message's code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Code { $($(#[doc = $doc])+ $name = $number),+ }

        impl Code {
            /// Every code with what it means and what to do.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, concat!($($doc),+))),+];
        }
    };
}

codes! {
    /// A bug in mod_drover. The request in which it happened got status 500; nothing else is affected. Please report the message.
    Panic = 1;
    /// At start: the version, the MPM, and how many requests httpd handles at once.
    Mpm = 2;
    /// A directive or option has no effect here; the message says why nothing is lost. Remove it when convenient.
    NoEffect = 3;
    /// A script without WSGIProcessGroup runs in the implicit group `default`. Define a WSGIDaemonProcess to choose its size and user.
    ImplicitGroup = 4;
    /// mod_wsgi and mod_drover are both loaded. Remove one of the two LoadModule lines; the message names both files.
    BesideModWsgi = 5;
    /// The supervisor droverd or its sockets could not be created. The message includes the system's reason.
    SupervisorStart = 6;
    /// droverd exited and is restarted. Requests wait in their queues meanwhile.
    SupervisorDied = 7;
    /// The configuration could not be sent to droverd, so httpd does not start. The message includes the system's reason.
    Configure = 8;
    /// httpd does not run as root, so `user=`, `group=` and `chroot=` of a group have no effect. A `cpu-priority=` above httpd's own has
    /// none either.
    NotRoot = 9;
    /// Where sessions are kept, and why. Logged at start if a DroverSession directive is configured, else when an application first uses a
    /// session.
    Sessions = 10;
    /// The session store has a problem; the message says which. A damaged store is moved aside and replaced by a new one.
    /// A full store evicts sessions that were not used after the request that created them; raise DroverSessionDiskSize.
    SessionStore = 11;
    /// The configuration needs something that is not available: a user, a directory, an interpreter. httpd does not start, and `apachectl
    /// graceful` keeps the running configuration. The message names the directive with its file and line.
    Refused = 12;
    /// Sessions cannot be kept as configured. httpd does not start, and `apachectl graceful` keeps the running configuration. A server that
    /// must reload anyway continues, and the message says with what. Without a DroverSession directive, only requests that touch their session
    /// fail (503).
    SessionsRefused = 13;
    /// The configuration names a group, script or directory that does not exist. It is accepted, as by mod_wsgi, but requests that need it
    /// will fail. The message names the file and line.
    Doubtful = 14;
    /// At `apachectl -t` and at start: an application has more processes than it needs, because its application group is `%{RESOURCE}`, the
    /// default. Write `application-group=%{GLOBAL}` for the only application of a group. The message names the file and line.
    Doubled = 36;
    /// The configuration names more application groups in a group than max-application-groups= allows. They take turns, and each turn starts
    /// workers. Raise the option, remove it, or let applications share an application group.
    CrowdedGroup = 34;
    /// Options ExecCGI is off in the script's directory. Map the script with WSGIScriptAlias, or allow ExecCGI.
    NoExecCgi = 20;
    /// The script does not exist, or httpd's user cannot access it.
    ScriptMissing = 21;
    /// The URL maps to a directory, not to a script.
    ScriptIsDirectory = 22;
    /// AcceptPathInfo Off forbids a path after the script's name.
    PathInfo = 23;
    /// The request has an unknown Transfer-Encoding.
    TransferEncoding = 24;
    /// The request body is chunked and WSGIChunkedRequest is Off.
    ChunkedOff = 25;
    /// The request's Content-Length is not a number.
    ContentLength = 26;
    /// WSGIProcessGroup names a group that no WSGIDaemonProcess defines.
    UnknownGroup = 27;
    /// The group is defined in a virtual host with another ServerName. Define it outside, or use a group of this virtual host.
    GroupElsewhere = 28;
    /// WSGIRestrictProcess does not list the group.
    GroupRestricted = 29;
    /// The group is at its limit of application groups (max-application-groups, or as many as the configuration names), and all are in use.
    /// Logged once a second by each child process.
    TooManyApplications = 30;
    /// The request's header fields and variables are too large to be sent to a worker.
    RequestTooLarge = 31;
    /// The script's file does not belong to the user or group that script-user= or script-group= names.
    ScriptOwner = 32;
    /// The script lies outside the group's chroot=, so its workers cannot see it. Move it inside, and configure its full path.
    ScriptOutside = 33;
    /// The request body could not be read. The status says why: 408 too slow, 413 too large, 400 malformed.
    BodyRead = 40;
    /// The group's queue was full, or no worker took the request, until queue-timeout expired. Raise processes= or threads=.
    QueueTimeout = 50;
    /// droverd did not reply in time. See its own messages in this log.
    SupervisorSilent = 51;
    /// droverd refused to open the group's queue; the message says why.
    OpenRefused = 52;
    /// The worker exited while it ran the request. See its own message (signal, exit status) in the group's log.
    WorkerDied = 53;
    /// The application took longer than request-timeout.
    RequestTimeout = 54;
    /// The application sent nothing for longer than socket-timeout (or Timeout).
    SocketTimeout = 55;
    /// The worker sent invalid data. The request was ended and its socket was closed.
    BadFrame = 56;
    /// A system call for a socket or descriptor failed.
    System = 57;
    /// The group is at its limit of requests (queue-depth or DroverMaxWaiting); further requests get 503. Raise processes= or threads=, or find
    /// out what makes the application slow. Logged once a second, with the number of requests refused since the last message.
    Overloaded = 58;
    /// A worker exited before it responded, and its request was retried on another one because it is safe to repeat; or droverd exited while
    /// it held a request that no worker had run. See the message of the process that exited.
    Retried = 59;
    /// The application raised an exception; see the traceback before this message.
    Exception = 60;
    /// The script could not be imported; see the traceback before this message or in the group's log.
    Import = 61;
    /// The script has no callable with the name in WSGICallableObject.
    NoCallable = 62;
    /// The application called sys.exit.
    SystemExit = 63;
    /// The application broke a rule of PEP 3333; the message says which.
    BadResponse = 64;
    /// The group's workers cannot start; see the group's log for the reason.
    CannotStart = 65;
    /// The response was cut after its headers were sent. The connection was closed so that the client can detect it.
    Truncated = 66;
    /// The worker was stopping and could not run the request.
    Stopping = 67;
    /// An internal error of the worker.
    WorkerInternal = 68;
    /// The client closed the connection, or a filter of httpd sent its own response.
    ClientGone = 69;
    /// The application's session was not available, and the application did not handle that. Another request held its lock for longer than
    /// DroverSessionLockTimeout, or the store is not reachable; the message says which.
    SessionUnavailable = 70;
    /// An output filter of httpd (SetOutputFilter and the like) failed; see its own message before this one. The client gets 500 if nothing was
    /// sent yet, else the connection is closed.
    FilterFailed = 71;
    /// The limit of open files is lower than what a child of httpd needs when all its threads are busy. Requests that need one more get 503. Raise
    /// it where httpd is started: LimitNOFILE= in its systemd unit, `ulimit -n`, or APACHE_ULIMIT_MAX_FILES in Debian's envvars.
    FewDescriptors = 72;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DROVER{:04}", *self as u16)
    }
}

impl From<&GroupError> for Code {
    fn from(error: &GroupError) -> Self {
        match error {
            GroupError::Unknown(_) => Self::UnknownGroup,
            GroupError::Elsewhere(..) => Self::GroupElsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_once_and_in_our_range() {
        let mut numbers: Vec<u16> = Code::ALL.iter().map(|(c, _)| *c as u16).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Code::ALL.len());
        assert!(numbers.iter().all(|n| (1..200).contains(n)));
        assert_eq!(Code::Panic.to_string(), "DROVER0001");
    }
}
