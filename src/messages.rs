//! The stable codes of the module's log lines (DROVER0001–0199; droverd has 0200–0399, the worker 0400–0499).
//!
//! Responsible for: each code standing in one place with what the administrator should do. Must never: change a code's
//! meaning. Called by: everything that logs; `docs/messages.md` carries the same table.
use crate::resolved::GroupError;
use std::fmt;

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
    /// A bug in mod_drover. The request it happened in got status 500, nothing else is harmed. Please report the line.
    Panic = 1;
    /// At start: the version, the MPM, and how many requests httpd handles at once.
    Mpm = 2;
    /// A directive or option that has no effect here was found; the line says why nothing is lost. Remove it when convenient.
    NoEffect = 3;
    /// A script runs without WSGIProcessGroup, so in the implicit group `default`. Define a WSGIDaemonProcess to choose its size and user.
    ImplicitGroup = 4;
    /// mod_wsgi and mod_drover are both loaded. Remove one of the two LoadModule lines; the message names both files.
    BesideModWsgi = 5;
    /// The supervisor droverd could not be started, or its sockets could not be made. The line has the reason of the system.
    SupervisorStart = 6;
    /// droverd ended. It is started again; requests wait in their queues meanwhile.
    SupervisorDied = 7;
    /// The configuration could not be handed to droverd; the line has the system's reason. httpd does not go on.
    Configure = 8;
    /// httpd does not run as root, so `user=`, `group=` and `chroot=` of a group have no effect, nor has a `cpu-priority=` above httpd's own.
    NotRoot = 9;
    /// Where sessions are kept, and why: at start where a DroverSession directive is configured, else when an application first uses a session.
    Sessions = 10;
    /// The store of sessions has trouble; the line says which. A damaged one is moved aside, and the service goes on with a new one.
    /// A full one evicts sessions that were never used again; raise DroverSessionDiskSize.
    SessionStore = 11;
    /// What the configuration asks for cannot be had: a user, a directory, an interpreter. httpd does not start, and `apachectl graceful` leaves the
    /// running one alone. The line names the directive with its file and line.
    Refused = 12;
    /// Sessions cannot be kept as the configuration asks. httpd does not start, and `apachectl graceful` leaves the running one alone; one that is told
    /// to read its configuration all the same goes on, and the line says with what. Where no DroverSession directive asks for them, only a request that
    /// touches its session fails (503).
    SessionsRefused = 13;
    /// The configuration names something that is not there: a group, a script, a directory. It is accepted, as by mod_wsgi, but what depends on it will
    /// fail. The line has file and line.
    Doubtful = 14;
    /// At `apachectl -t` and at start: an application has more processes than it needs, because its application group is `%{RESOURCE}`, the default.
    /// Write `application-group=%{GLOBAL}` for the only application of a group. The line has file and line.
    Doubled = 36;
    /// At start: the configuration names more application groups in a group than its max-application-groups= allows. They take turns, and each turn starts
    /// processes. Raise the option, leave it out, or let applications share an application group.
    CrowdedGroup = 34;
    /// Options ExecCGI is off where the script lies. Map it with WSGIScriptAlias, or allow ExecCGI.
    NoExecCgi = 20;
    /// The script is not there, or httpd's user cannot look at it.
    ScriptMissing = 21;
    /// The URL leads to a directory, not to a script.
    ScriptIsDirectory = 22;
    /// AcceptPathInfo Off forbids what stands behind the script's name.
    PathInfo = 23;
    /// The request's Transfer-Encoding is not known.
    TransferEncoding = 24;
    /// The request's body is chunked and WSGIChunkedRequest is Off.
    ChunkedOff = 25;
    /// The request's Content-Length is not a number.
    ContentLength = 26;
    /// WSGIProcessGroup names a group that no WSGIDaemonProcess defines.
    UnknownGroup = 27;
    /// The group is defined in a virtual host with another ServerName. Define it outside, or use one of this host's.
    GroupElsewhere = 28;
    /// The group is not among those of WSGIRestrictProcess.
    GroupRestricted = 29;
    /// All application groups that the group may have are in use (max-application-groups, or as many as the configuration names), so one more cannot be
    /// started. Logged once a second by each child process.
    TooManyApplications = 30;
    /// The request's headers and variables are larger than can be passed on.
    RequestTooLarge = 31;
    /// The script's file does not belong to the user or group that script-user= or script-group= names.
    ScriptOwner = 32;
    /// The script lies outside of the group's chroot=, so its processes cannot see it. Put it inside, and name it with the whole path.
    ScriptOutside = 33;
    /// The client's body could not be read. The status says why: 408 too slow, 413 too large, 400 malformed.
    BodyRead = 40;
    /// The queue of the group was full, or no process took the request, until queue-timeout. Raise processes= or threads=.
    QueueTimeout = 50;
    /// droverd did not answer in time. Look for its own messages in this log.
    SupervisorSilent = 51;
    /// droverd refused to open the group's queue; the line says why.
    OpenRefused = 52;
    /// The process that ran the request is gone. Look for its own message (signal, exit status) in the group's log.
    WorkerDied = 53;
    /// The application took longer than request-timeout.
    RequestTimeout = 54;
    /// The application sent nothing for longer than socket-timeout (or Timeout).
    SocketTimeout = 55;
    /// What came from the worker was not understood. The request ended; the socket was thrown away.
    BadFrame = 56;
    /// The system refused a socket or descriptor.
    System = 57;
    /// The group has as many requests as queue-depth or DroverMaxWaiting lets it have; further ones get 503. Raise processes= or threads=, or look
    /// for what makes the application slow. Logged once a second, with the number of requests since the last time.
    Overloaded = 58;
    /// A process died before it answered, and the request, which changes nothing, was given to another one; or droverd died with a request that nobody
    /// had run yet. Look for the dead process's own message.
    Retried = 59;
    /// The application raised an exception; its traceback stands above.
    Exception = 60;
    /// The script could not be imported; the traceback stands above or in the group's log.
    Import = 61;
    /// The script has no callable of the name that WSGICallableObject gives.
    NoCallable = 62;
    /// The application called sys.exit.
    SystemExit = 63;
    /// The application broke a rule of PEP 3333; the line says which.
    BadResponse = 64;
    /// The group's processes cannot start; the group's log has the reason.
    CannotStart = 65;
    /// The answer was cut after its head was sent: the connection is closed so that the client can see it.
    Truncated = 66;
    /// The process was stopping and could not run the request.
    Stopping = 67;
    /// Something failed inside the worker.
    WorkerInternal = 68;
    /// The client went away, or a filter of httpd has answered it in the application's place.
    ClientGone = 69;
    /// The application's session could not be had, and the application did not handle that: another request holds it for longer than
    /// DroverSessionLockTimeout, or the store is out of reach. The line says which.
    SessionUnavailable = 70;
    /// One of httpd's output filters (SetOutputFilter and the like) failed with the answer; what it says of it stands above. Before anything had gone out
    /// the client gets 500, else the connection is cut.
    FilterFailed = 71;
    /// The limit of open files is lower than what a child of httpd needs when all of its threads are busy. Requests that need one more get 503. Raise
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
