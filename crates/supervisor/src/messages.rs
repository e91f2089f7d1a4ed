//! The stable codes of droverd's log lines (DROVER0200–0399), each with its level, its text and what to do.
//!
//! Responsible for: each code standing in one place. Must never: change a code's meaning. Called by: everything that logs;
//! `docs/messages.md` carries the same table. In a text, `{pid}` is the process the line is about and each `{}` the next of
//! the words given.
#![forbid(unsafe_code)]
use std::fmt;

/// httpd's log levels, as far as droverd uses them.
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

            /// The level that LogLevel must have for the message to be written: what is over is told to whoever was told of the failure.
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
    /// droverd runs. Nothing to do.
    Running = 200, Info, "droverd {} runs for httpd process {}";
    /// The module and droverd are of two versions: an upgrade replaced the files under a running httpd. Stop and start httpd (graceful and restart keep the old module).
    VersionMismatch = 201, Error, "droverd is version {}, mod_drover.so is version {}: stop and start httpd, so that both parts are the same";
    /// droverd was started by hand or by something that is not mod_drover.
    BadArguments = 202, Error, "droverd is started by mod_drover.so, not by hand: {}";
    /// httpd's parent process ended without stopping its groups (it was killed). All workers are ended with it.
    ParentGone = 203, Warn, "httpd's parent process {} is gone, ending all workers";
    /// httpd stops or restarts; the workers are told to finish.
    Stopping = 204, Info, "ending all workers";
    /// The configuration that httpd sent could not be read. The groups go on as they were. Please report the line.
    BadConfiguration = 205, Error, "cannot read the configuration from httpd, the groups go on as they were: {}";
    /// The system refused something that droverd needs: descriptors, memory, processes. The line has its reason.
    System = 206, Error, "{}: {}";
    /// Queues cannot be kept for a new droverd: if droverd is killed, requests that wait at that moment are lost.
    Store = 207, Warn, "cannot keep the queue of group '{}' for a new droverd: {}";
    /// droverd was started again (it had been killed) and took over the queues with the requests in them. Look for what killed it.
    TakenOver = 208, Notice, "took over {} queues of an earlier droverd";
    /// A message on a socket was not understood. Parts of two versions may run together: stop and start httpd. If it came from a worker, that is replaced: a program in it may have written to a descriptor that is not its own.
    BadMessage = 209, Warn, "message from {} not understood: {}";
    /// A configuration was received.
    Configured = 210, Debug, "configuration {} with {} groups";

    /// A script that no alias and no WSGIImportScript names (requests reached it through a directory or a handler) cannot be loaded by a starting worker.
    /// The worker serves all the same. The next request for the script imports it again and gets its error.
    OptionalScript = 211, Warn, "worker {pid} cannot load {}, which no directive names; it serves without: {}";
    /// The group has as many application groups as it may (max-application-groups), and one more is wanted: the one that was not used for the longest
    /// time is given up, and its processes end. Its next request starts them again. If this comes often, clients make up names: see `%{RESOURCE}`,
    /// `%{SERVER}` and `%{HOST}` in WSGIApplicationGroup.
    GivenUp = 212, Info, "application group '{}' was not used for the longest time and makes room for another one";
    /// A program that a worker had started still holds the worker's standard output or error, and so do programs of many workers that have ended. droverd reads
    /// the output of the last 16 such workers of a group; the older ones' pipes are closed, and what writes to them gets SIGPIPE or EPIPE. Start programs that
    /// outlive a worker with output of their own.
    OutputClosed = 213, Info, "programs started by worker {pid}, which has ended, still hold its output; it is not read any more";
    /// A failure that was logged before (0221 to 0228, or a crash that left no worker) is over: the group serves all its scripts again. It is logged
    /// whatever LogLevel is, as long as errors are: as loudly as the failure.
    Recovered = 214, Notice, "serving again after {}, the last: {}";

    /// The worker's program could not be run. The line names the option of WSGIDaemonProcess and the system's reason.
    SpawnFailed = 220, Error, "{}";
    /// A worker ended before it was ready. Its own messages stand above.
    StartFailed = 221, Error, "worker {pid} could not start: {}";
    /// The application could not be imported within startup-timeout. The Python stacks of the worker stand near.
    StartTimeout = 222, Error, "worker {pid} was not ready within startup-timeout ({} s)";
    /// The worker extension is of another version: an upgrade is half done. Install all parts, then stop and start httpd.
    WorkerVersion = 223, Error, "worker {pid} is version {}, droverd is version {}: install all parts of one version, then stop and start httpd";
    /// A script was imported by a starting worker.
    ScriptLoaded = 224, Info, "Loading WSGI script '{}'";
    /// A script raised an exception while it was imported; the traceback follows.
    ScriptFailed = 225, Error, "worker {pid} cannot load {}: {}";
    /// The new code cannot start. Requests go on being served by the old processes. Correct the script; touching it tries again at once.
    GenerationFailed = 226, Error, "the new processes cannot start, the old ones go on serving; next try in {} s: {}";
    /// The group's processes cannot start, or can load none of its scripts, and no older ones serve. Requests get 503 at once. The reason stands in the line and above.
    CannotStart = 227, Error, "nothing can be served, requests are answered with 503; next try in {} s: {}";
    /// Some scripts of the group cannot be loaded; the others are served.
    Degraded = 228, Warn, "serving without the scripts that cannot be loaded; next try in {} s: {}";

    /// A worker is ready.
    WorkerUp = 230, Info, "worker {pid} is ready (generation {})";
    /// A generation serves: its first process is ready when nothing older serves, else all of them are. 0230 tells of each process.
    GenerationUp = 231, Info, "generation {} serves";
    /// A worker died while it served. Its requests got 502 (or were given to another one). A signal 11 or 6 is a crash in C code: look at extension modules.
    Crashed = 232, Error, "worker {pid} {} while serving; it is replaced";
    /// A worker that had been told to go died before it had finished its requests, which got 502 (or were given to another one). Look at it as at 0232.
    DiedLeaving = 271, Error, "worker {pid} {} before it had finished; it was to go anyway";
    /// A worker is replaced although nothing is wrong: maximum-requests, restart-interval, inactivity-timeout, cpu-time-limit, memory-soft, or somebody sent it SIGTERM, SIGINT or SIGUSR1.
    Leaving = 233, Info, "worker {pid} is to be replaced: {}";
    /// A request ran longer than request-timeout. The worker is replaced; what it was doing stands in the line.
    Stuck = 234, Error, "worker {pid} is stuck and is replaced: {}";
    /// A worker did not finish its requests within graceful-timeout; it was sent SIGTERM.
    SlowToEnd = 235, Warn, "worker {pid} did not finish within graceful-timeout, sending SIGTERM";
    /// A worker did not end in time and was killed.
    Killed = 236, Warn, "worker {pid} did not end in time, sending SIGKILL";
    /// A worker ended as it should.
    Ended = 237, Info, "worker {pid} {}";
    /// A script's file changed; new processes are started.
    Changed = 238, Info, "{} has changed, starting new processes";
    /// A worker was started.
    Started = 239, Debug, "worker {pid} started";
    /// A worker closed its control socket without ending, which the application must have done (closing all descriptors). It is killed.
    Lost = 241, Warn, "worker {pid} closed its connection to droverd, killing it unless it ends";
    /// Requests waited for the new processes longer than they could be held.
    HeldTooLong = 242, Warn, "a request handed back by a worker could not be queued again, answering 503";

    /// Requests wait in the queue of a group with `processes=MIN-MAX`: more processes are started.
    Grows = 243, Info, "requests wait: growing from {} to {} processes";
    /// A process of a group with `processes=MIN-MAX` has had nothing to do for inactivity-timeout: it ends.
    Shrinks = 244, Info, "worker {pid} is idle: shrinking from {} to {} processes";
    /// `drover stop` was given for the group. It is answered with 503 until `drover reload`, `apachectl graceful` or a restart.
    Halted = 245, Notice, "stopped by an administrator";
    /// `drover reload` was given for the group: new processes are started, and a stop has ended.
    Reloaded = 270, Notice, "new processes are started for an administrator";
    /// `preload=On`: the application is imported; workers are forked from this process from now on.
    TemplateUp = 246, Info, "template {pid} has imported the application (generation {})";
    /// `preload=On`: the process from which workers are forked could not set itself up, died while it imported the application, or the application has started threads. The reason stands in the line.
    TemplateFailed = 247, Error, "template {pid} could not start: {}";
    /// `preload=On`: the process from which workers are forked died. Workers that run are not touched; the next one comes from a new template, which imports the application again.
    TemplateDied = 248, Warn, "template {pid} {}; running workers are not touched, the next one needs a new template";
    /// `preload=On`: the process from which workers are forked was started.
    TemplateStarted = 249, Debug, "template {pid} started";

    /// The control socket for `drover status` could not be made. Give DroverControlSocket a path in a directory that exists and that only root may write; the server runs without it.
    NoControlSocket = 251, Notice, "no control socket at {}: {}";
    /// Lines for this log were thrown away because it took none for a while. If it is a piped log, its program is slow.
    LogFull = 250, Warn, "{} lines were lost because this log took no more";
    /// The queue of a group was shut down, which only a program in one of its processes can do (the line before may show its end). droverd has made a new one and replaces the processes; requests that waited go on waiting. Look for code that closes or shuts down sockets that it has not made.
    QueueEnded = 252, Error, "a process of the group has shut its queue down, or made it throw requests away: it has a new one, and its processes are replaced";
    /// The limit of open files is lower than what droverd needs with all workers of all groups, twice as many while new ones start. Raise it for httpd: LimitNOFILE= in its systemd unit, or `ulimit -Hn` where it is started.
    FewDescriptors = 253, Warn, "the limit of open files is {}, but all groups at full size need up to {}: raise LimitNOFILE= of httpd's systemd unit (or ulimit -Hn)";
    /// Requests were refused a queue; the message says why. Logged once a second for each group.
    Refused = 260, Warn, "queue refused: {}";
}

impl Code {
    /// The line's text: the template filled in.
    pub fn fill(self, pid: Option<u32>, words: &[String]) -> String {
        let mut out = format!("{self}: ");
        let (mut rest, mut words) = (self.text(), words.iter());
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let Some((name, behind)) = after.split_once('}') else { break };
            match (name, pid) {
                ("pid", Some(pid)) => out.push_str(&pid.to_string()),
                ("pid", None) => out.push('?'),
                _ => out.push_str(words.next().map_or("?", String::as_str)),
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
    fn templates_are_filled() {
        assert_eq!(
            Code::Crashed.fill(Some(7), &["was killed by signal 11".into()]),
            "DROVER0232: worker 7 was killed by signal 11 while serving; it is replaced"
        );
        assert_eq!(Code::System.fill(None, &["a {x}".into()]), "DROVER0206: a {x}: ?");
    }
}
