//! The stable codes of droverd's log messages (DROVER0200–0399): level, text and documentation.
//!
//! Responsible for: defining each code once. Must never: change the meaning of a code. Called by:
//! everything that logs; `docs/messages.md` is generated from this file. In a text, `{pid}` is the
//! process that the message is about, and each `{}` is the next argument.
#![forbid(unsafe_code)]
use std::fmt;

/// The log levels of httpd that droverd uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Error = 3,
    Warn = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

impl Level {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $level:ident, $text:literal;)+) => {
        /// A message's code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Code { $($(#[doc = $doc])+ $name = $number),+ }

        impl Code {
            /// Every code with its documentation.
            #[cfg(test)]
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, concat!($($doc),+))),+];

            pub const fn level(self) -> Level {
                match self { $(Self::$name => Level::$level),+ }
            }

            /// The lowest LogLevel at which the message is logged. A recovery is logged wherever
            /// the failure was.
            pub const fn threshold(self) -> Level {
                if matches!(self, Self::Recovered) { Level::Error } else { self.level() }
            }

            const fn text(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

codes! {
    /// droverd is running. No action is needed.
    Running = 200, Info, "droverd {} is running for httpd process {}";
    /// An upgrade replaced the files of a running httpd, so the module and droverd have different versions. Stop and start httpd; a graceful or plain restart keeps the old module.
    VersionMismatch = 201, Error, "droverd is version {} but mod_drover.so is version {}; stop and start httpd";
    /// droverd was started by hand or by another program. Only mod_drover may start it.
    BadArguments = 202, Error, "invalid arguments (droverd is started by mod_drover.so, not by hand): {}";
    /// httpd's parent process exited without stopping its groups, for example because it was killed. All workers are shut down.
    ParentExited = 203, Warn, "httpd's parent process {} exited; shutting down all workers";
    /// httpd is stopping or restarting. The workers finish their requests and exit.
    Stopping = 204, Info, "httpd is stopping or restarting; shutting down all workers";
    /// The configuration that httpd sent could not be decoded. The groups keep their previous configuration. Please report the message.
    BadConfiguration = 205, Error, "cannot read the configuration from httpd; all groups keep their previous configuration: {}";
    /// The system denied something that droverd needs: descriptors, memory or processes. The message includes the system's reason.
    System = 206, Error, "{}: {}";
    /// A queue could not be saved for a later droverd, or not removed from the store. If droverd is killed, requests waiting in an unsaved queue are lost.
    Store = 207, Warn, "cannot update the saved queue of {}: {}";
    /// droverd was restarted after it was killed, and recovered the queues with their requests. Find out what killed it.
    TakenOver = 208, Notice, "took over {} queues from a previous droverd";
    /// A message on a socket could not be decoded. Two versions may be running together: stop and start httpd.
    /// A worker that sent such a message is replaced; a program in it may have written to a descriptor it does not own.
    BadMessage = 209, Warn, "invalid message from {}: {}";
    /// A configuration was received.
    Configured = 210, Debug, "configuration {} received, {} groups";

    /// A starting worker could not load a script that no alias and no WSGIImportScript names. Requests reached it through a directory or a handler.
    /// The worker serves all other scripts. The next request for this script imports it again and gets its error.
    OptionalScript = 211, Warn, "worker {pid} cannot load {}, which no directive names; serving without it: {}";
    /// A new application group was needed, but the group is at its limit (max-application-groups). The least recently used application group was evicted
    /// and its workers exit; its next request starts them again. If this happens often, clients make up names: see `%{RESOURCE}`,
    /// `%{SERVER}` and `%{HOST}` in WSGIApplicationGroup.
    ApplicationEvicted = 212, Info, "application group '{}' evicted, as the least recently used, to stay within max-application-groups";
    /// Programs started by workers that have exited still hold the standard output or error of those workers. droverd reads the output of the last 16 such
    /// workers of a group and closes the pipes of older ones; programs that write to those get SIGPIPE or EPIPE. Give programs that outlive a worker
    /// their own output.
    OutputClosed = 213, Info, "worker {pid} exited but programs it started still hold its output; droverd no longer reads it";
    /// A logged failure is over (0221 to 0228, or a crash that left no worker): the group serves all its scripts again. This message is as loud as
    /// the failure: it is logged at every LogLevel that shows errors.
    Recovered = 214, Notice, "serving again after {}, the last: {}";
    /// The process did not exit within 5 seconds of SIGKILL, and droverd exits without it. The kernel waits inside the process, for a
    /// file system or a device that does not respond. Look at `ps -o stat,wchan`.
    Unkillable = 215, Error, "worker {pid} did not exit after SIGKILL; droverd exits without it";

    /// The worker's program could not be run. The message names the WSGIDaemonProcess option and the system's reason.
    SpawnFailed = 220, Error, "{}";
    /// A worker failed before it was ready. Its own messages are logged before this one.
    StartFailed = 221, Error, "worker {pid} could not start: {}";
    /// The application was not imported within startup-timeout. The worker's Python stacks are logged nearby.
    StartTimeout = 222, Error, "worker {pid} was not ready within startup-timeout ({} s)";
    /// An upgrade is incomplete: the worker extension has another version than droverd. Install all parts, then stop and start httpd.
    WorkerVersion = 223, Error, "worker {pid} is version {} but droverd is version {}; install one version of all parts, then stop and start httpd";
    /// A starting worker imported a script.
    ScriptLoaded = 224, Info, "Loading WSGI script '{}'";
    /// A script raised an exception while it was imported. The traceback follows.
    ScriptFailed = 225, Error, "worker {pid} cannot load {}: {}";
    /// The new code cannot start, and the old workers keep serving. Correct the script; touching the file retries at once.
    GenerationFailed = 226, Error, "the new workers could not start; the old workers keep serving (next attempt in {} s): {}";
    /// The group's workers cannot start, or can load none of its scripts, and no older worker serves. Requests get 503 at once. The message includes the reason.
    CannotStart = 227, Error, "no worker could start; requests get 503 until one does (next attempt in {} s): {}";
    /// Some scripts of the group cannot be loaded. The others are served.
    Degraded = 228, Warn, "some scripts cannot be loaded; serving the others (next attempt in {} s): {}";

    /// A worker is ready.
    WorkerUp = 230, Info, "worker {pid} is ready (generation {})";
    /// A new generation of workers serves. When no older generation serves, this is logged once its first worker is ready, otherwise once all are. 0230 reports each worker.
    GenerationUp = 231, Info, "generation {} serves";
    /// A worker crashed, was killed or exited while it served. Its requests got 502 or were retried. Signal 11 or 6 is a crash in C code: check the extension modules.
    Crashed = 232, Error, "worker {pid} {} while serving; starting a replacement";
    /// A draining worker crashed, was killed or exited before it finished its requests, which got 502 or were retried. Investigate it like 0232.
    CrashedDraining = 271, Error, "worker {pid} {} before it had finished its requests; it was already draining";
    /// A healthy worker is replaced. The message gives the reason: maximum-requests, restart-interval, inactivity-timeout, cpu-time-limit, memory-soft, or a SIGTERM, SIGINT or SIGUSR1 that it received.
    Replacing = 233, Info, "replacing worker {pid}: {}";
    /// A request exceeded request-timeout, and its worker is replaced. The message includes what the worker was doing.
    Stuck = 234, Error, "worker {pid} is stuck; starting a replacement: {}";
    /// A worker did not finish its requests within graceful-timeout. droverd sent it SIGTERM.
    DrainTimeout = 235, Warn, "worker {pid} did not finish within graceful-timeout; sending SIGTERM";
    /// A worker did not exit in time. droverd sent it SIGKILL.
    Killed = 236, Warn, "worker {pid} did not exit in time; sending SIGKILL";
    /// A worker exited as intended.
    Exited = 237, Info, "worker {pid} {}";
    /// A script's file changed, and new workers are started to load it.
    Changed = 238, Info, "{} changed; starting new workers";
    /// A worker was started.
    Started = 239, Debug, "worker {pid} started";
    /// A worker closed its control socket without exiting; the application probably closed all descriptors. The worker is killed if it does not exit.
    ControlClosed = 241, Warn, "worker {pid} closed its connection to droverd; killing it unless it exits";
    /// A request could not be queued again for the new workers before its deadline.
    RequeueFailed = 242, Warn, "cannot requeue a request that a worker returned; refusing it with 503";

    /// Requests are queueing in a group with `processes=MIN-MAX`, so more workers are started.
    ScaleUp = 243, Info, "requests are queueing; scaling up from {} to {} workers";
    /// A worker of a group with `processes=MIN-MAX` was idle for inactivity-timeout and exits.
    ScaleDown = 244, Info, "worker {pid} is idle; scaling down from {} to {} workers";
    /// An administrator ran `drover stop` for the group. Its requests get 503 until `drover reload`, `apachectl graceful` or a restart.
    Halted = 245, Notice, "stopped by an administrator";
    /// An administrator ran `drover reload` for the group. New workers are started; a previous `drover stop` no longer applies.
    Reloaded = 270, Notice, "reload requested by an administrator; starting new workers";
    /// `preload=On`: the template process imported the application. New workers are forked from it.
    ForkServerUp = 246, Info, "template {pid} has imported the application (generation {})";
    /// `preload=On`: the template process, from which workers are forked, could not start. Its setup failed, it exited during the import, or the application started threads. The message includes the reason.
    ForkServerFailed = 247, Error, "template {pid} could not start: {}";
    /// `preload=On`: the template process exited. Running workers continue; the next worker needs a new template, which imports the application again.
    ForkServerExited = 248, Warn, "template {pid} {}; running workers continue, the next one needs a new template";
    /// `preload=On`: the template process was started.
    ForkServerStarted = 249, Debug, "template {pid} started";

    /// The control socket for `drover status` could not be created. The server runs without it. Set DroverControlSocket to a path in an existing directory that only root may write.
    NoControlSocket = 251, Notice, "cannot create the control socket {}: {}";
    /// This log did not accept writes for a while and lines for it were dropped. If it is a piped log, its program is slow.
    LogFull = 250, Warn, "{} lines were lost because this log did not accept them";
    /// The group's queue was shut down or made to drop requests, which only a program in one of its workers can do. droverd recreated the queue, kept the waiting requests
    /// and replaces the workers. Look for code that closes or shuts down sockets it did not create.
    QueueShutDown = 252, Error, "a worker shut down the group's request queue or made it drop requests; the queue was recreated and the workers are being replaced";
    /// The limit of open files is lower than droverd needs when all groups have all their workers (twice as many during a reload). Raise it for httpd: LimitNOFILE= in its systemd unit, or `ulimit -Hn` where it is started.
    OpenFilesLimit = 253, Warn, "the limit of open files is {}, but all groups at full size need up to {}; raise LimitNOFILE= of httpd's systemd unit (or ulimit -Hn)";
    /// A child process of httpd was denied a queue. The message includes the reason. Logged at most once a second for each group.
    Refused = 260, Warn, "queue refused: {}";
}

impl Code {
    /// The message's text with its arguments filled in.
    pub fn fill(self, pid: Option<u32>, args: &[String]) -> String {
        let mut out = format!("{self}: ");
        let (mut rest, mut args) = (self.text(), args.iter());
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let Some((name, behind)) = after.split_once('}') else { break };
            match (name, pid) {
                ("pid", Some(pid)) => out.push_str(&pid.to_string()),
                ("pid", None) => out.push('?'),
                _ => out.push_str(args.next().map_or("?", String::as_str)),
            }
            rest = behind;
        }
        out.push_str(rest);
        out
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DROVER{:04}", *self as u16)
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
        assert!(numbers.iter().all(|n| (200..400).contains(n)));
        assert!(Code::ALL.iter().all(|(_, doc)| doc.len() > 10));
    }

    #[test]
    fn arguments_are_filled_in() {
        assert_eq!(
            Code::Crashed.fill(Some(7), &["was killed by signal 11".into()]),
            "DROVER0232: worker 7 was killed by signal 11 while serving; starting a replacement"
        );
        assert_eq!(Code::System.fill(None, &["a {x}".into()]), "DROVER0206: a {x}: ?");
    }
}
