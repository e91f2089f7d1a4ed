//! Messages that configure and steer: httpd's parent → droverd, httpd's children → droverd, droverd ↔ worker.
//!
//! Responsible for: their types, their limits, and the version check. Must never: hold a policy. Called by:
//! `src/httpd/lifecycle.rs`, `src/dispatch/queues.rs`, the supervisor and the worker.
//!
//! Each message is one SEQPACKET datagram: magic, protocol, then the value as postcard encodes it. Times are seconds or
//! milliseconds as the field's name says; a limit of `None` is off. Bytes that came from a configuration file or from the
//! filesystem stay bytes.
use crate::codec::{Reader, WireError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const MAGIC: u32 = u32::from_ne_bytes(*b"DRVC");

/// The largest control message that is sent as a datagram. A configuration may be larger: it is sent in a memory file.
pub const MAX_CONTROL: usize = 160 * 1024;

/// Encodes a message.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut out = MAGIC.to_ne_bytes().to_vec();
    out.extend_from_slice(&crate::PROTOCOL.to_ne_bytes());
    postcard::to_extend(message, out).map_err(|_| WireError::Bad("control message"))
}

/// Decodes a message; the whole of `bytes` must be used.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let mut r = Reader::new(bytes);
    r.opening(MAGIC)?;
    match postcard::take_from_bytes(r.rest()) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(WireError::Bad("bytes behind a control message")),
        Err(_) => Err(WireError::Bad("control message")),
    }
}

/// Bytes that need not be UTF-8.
pub type Bytes = Vec<u8>;

// ---- httpd's parent → droverd ------------------------------------------------------------------------------------------

/// httpd's parent → droverd, on the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// A [`Configuration`], encoded with [`encode`], is in the memory file that comes as descriptor 0; the error logs follow as
    /// descriptors 1…, in the order that [`GroupSpec::log`] counts. At most 250 logs a message.
    Configure {
        /// Bytes in the memory file.
        len: u32,
    },
    /// More error logs for the configuration that follows: sent *before* `Configure` when there are more than fit beside it.
    Logs,
    /// httpd restarts or stops at once: end every worker within its shutdown-timeout. After `restart` a `Configure` follows.
    StopAll,
}

/// What droverd has to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// [`crate::VERSION`] of the module.
    pub version: String,
    /// httpd's generation: grows with each graceful or restart.
    pub generation: u64,
    /// Level of the main server's log (0 emerg … 7 debug, 8–15 trace).
    pub log_level: u8,
    /// Path of the socket for the command `drover`; `None`: there is none.
    pub control_socket: Option<Bytes>,
    /// Where sessions are kept, and why: lines for `drover status`.
    pub sessions: Vec<String>,
    /// Every group, those defined by WSGIDaemonProcess first, then the implicit one.
    pub groups: Vec<GroupSpec>,
}

/// User and groups a worker runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Identity {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of the primary group.
    pub gid: u32,
    /// The user's name as the system knows it (HOME, USER, LOGNAME are set from it); empty when the id has no name.
    pub user: Bytes,
    /// The user's home directory, empty when there is none.
    pub home: Bytes,
    /// `user=` names another user than httpd's: then a process without `home=` begins in that user's home directory.
    pub differs: bool,
    /// Supplementary groups; `None`: those of the system's group database for `user`.
    pub supplementary: Option<Vec<u32>>,
}

/// One daemon process group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct GroupSpec {
    /// Name of the group.
    pub name: Bytes,
    /// Which of the error logs that came with the configuration is the group's (its vhost's).
    pub log: u16,
    /// Level of that log.
    pub log_level: u8,
    /// Worker processes of each application group, at most.
    pub processes: u32,
    /// And at least; the same number when the size is fixed. 0: the first is started on demand.
    pub least_processes: u32,
    /// How a new generation takes the old one's place.
    pub reload: Reload,
    /// Workers are forked from a template process that has imported the application (`preload=On`).
    pub preload_fork: bool,
    /// What `wsgi.multiprocess` says.
    pub multiprocess: bool,
    /// Request threads of each process; 0: a service process without request threads.
    pub threads: u32,
    /// Who the workers are; `None`: nobody changes anything (httpd does not run as root).
    pub identity: Option<Identity>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Directory for chroot(2).
    pub chroot: Option<Bytes>,
    /// Working directory, also first in sys.path.
    pub home: Option<Bytes>,
    /// Environment of the process that is set on top of httpd's (LANG, LC_ALL, PYTHON_EGG_CACHE, PYTHONHASHSEED, …).
    pub environment: Vec<(Bytes, Bytes)>,
    /// The program that serves the group's requests.
    pub program: Program,
    /// Nice value.
    pub cpu_priority: Option<i32>,
    /// What the worker itself has to know.
    pub worker: WorkerOptions,
    /// The same for application groups that have settings of their own (`<WSGIInterpreterOptions application-group=…>`).
    pub application_options: Vec<(Bytes, WorkerOptions)>,
    /// Limit of application groups in this group.
    pub max_application_groups: u32,
    /// Time for a worker from its start until it is ready; `None`: no limit.
    pub startup_timeout_ms: Option<u64>,
    /// Time a worker gets to finish its requests when it is replaced.
    pub graceful_timeout_ms: Option<u64>,
    /// Time a worker gets to finish when httpd stops; then SIGKILL.
    pub shutdown_timeout_ms: u64,
    /// Scripts that are loaded when the group starts, each in its application group.
    pub preload: Vec<Preload>,
    /// Time a worker gets to finish its requests when it was sent a signal; `None`: as when it is replaced.
    pub eviction_timeout_ms: Option<u64>,
    /// A worker without requests for so long is replaced, or ended where the size may shrink.
    pub inactivity_timeout_ms: Option<u64>,
    /// A worker is replaced at this age.
    pub restart_interval_ms: Option<u64>,
    /// A worker whose proportional set size is above this is replaced, bytes.
    pub memory_soft: Option<u64>,
    /// RLIMIT_DATA, bytes.
    pub memory_limit: Option<u64>,
    /// RLIMIT_AS, bytes.
    pub virtual_memory_limit: Option<u64>,
    /// A worker that has used so much CPU time is replaced, seconds.
    pub cpu_time_limit_s: Option<u64>,
}

/// The program of a group's workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A Python interpreter, which runs the worker's extension.
    Python {
        /// The interpreter executable.
        interpreter: Bytes,
        /// Options for it (`-O`, `-B`, `-W…`).
        arguments: Vec<Bytes>,
    },
}

impl Program {
    /// A Python interpreter without options.
    #[must_use]
    pub fn python(interpreter: impl Into<Bytes>) -> Self {
        Self::Python { interpreter: interpreter.into(), arguments: Vec::new() }
    }

    /// The file to execute.
    #[must_use]
    pub fn executable(&self) -> &Bytes {
        match self {
            Self::Python { interpreter, .. } => interpreter,
        }
    }

    /// The first arguments of the executable.
    #[must_use]
    pub fn arguments(&self) -> &[Bytes] {
        match self {
            Self::Python { arguments, .. } => arguments,
        }
    }
}

impl Default for Program {
    fn default() -> Self {
        Self::python(Bytes::new())
    }
}

/// How a new generation takes the old one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Reload {
    /// All its workers are started beside the old ones.
    #[default]
    Overlap,
    /// One worker after the other, so that there is never more than one too many.
    Rolling,
}

/// A script to be loaded before the first request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preload {
    /// The application group; empty for `%{GLOBAL}`.
    pub application_group: Bytes,
    /// The script.
    pub script: Script,
}

/// A script and the name of the object in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Script {
    /// Path in the filesystem.
    pub path: Bytes,
    /// Name of the callable; empty: none is needed (WSGIImportScript).
    pub callable: Bytes,
}

/// Settings that go through droverd to the worker unread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct WorkerOptions {
    /// Directories for sys.path, in front, .pth files honoured (site.addsitedir).
    pub python_path: Vec<Bytes>,
    /// Name for process lists, `%{GROUP}` already replaced.
    pub display_name: Option<Bytes>,
    /// Stack of a request thread, bytes.
    pub stack_size: Option<u64>,
    /// sys.setswitchinterval, microseconds.
    pub switch_interval_us: Option<u64>,
    /// The process goes after so many requests.
    pub maximum_requests: Option<u64>,
    /// A request may run so long.
    pub request_timeout_ms: Option<u64>,
    /// Then `mod_wsgi.RequestTimeout` is raised in its thread, and it has so long to end; `None`: nothing is raised.
    pub interrupt_timeout_ms: Option<u64>,
    /// No thread could take Python's lock for so long: the process is stuck.
    pub deadlock_timeout_ms: Option<u64>,
    /// sys.stdin raises when used.
    pub restrict_stdin: bool,
    /// sys.stdout raises when used.
    pub restrict_stdout: bool,
    /// The process may be traced by others of its user, and may leave a core dump.
    pub dumpable: bool,
    /// signal.signal from the application is ignored with a warning.
    pub restrict_signal: bool,
    /// Locale for setlocale(LC_ALL).
    pub locale: Option<Bytes>,
    /// Paths of scripts that differ only in the case of ASCII letters are one script (WSGICaseSensitivity Off).
    pub ignore_case: bool,
}

// ---- httpd's children → droverd ----------------------------------------------------------------------------------------

/// httpd's child → droverd on the broker socket; descriptor 0 is where the [`OpenReply`] goes (a SEQPACKET socket).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenQueue {
    /// [`crate::VERSION`] of the module.
    pub version: String,
    /// Daemon process group.
    pub group: Bytes,
    /// Application group; empty for `%{GLOBAL}`.
    pub application_group: Bytes,
    /// The script of the request that needs the queue.
    pub script: Script,
}

/// droverd → httpd's child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenReply {
    /// Descriptor 0 is the sending end of the queue.
    Opened,
    /// There is no such group in the configuration that droverd runs.
    UnknownGroup,
    /// The group has as many application groups as it may have.
    TooManyApplications {
        /// The limit.
        limit: u32,
    },
    /// Something else; the text is for the log.
    Refused(String),
}

// ---- droverd ↔ worker --------------------------------------------------------------------------------------------------

/// Everything a worker is told at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerConfig {
    /// [`crate::VERSION`] of droverd.
    pub version: String,
    /// Daemon process group.
    pub group: Bytes,
    /// Application group; empty for `%{GLOBAL}`.
    pub application_group: Bytes,
    /// Which generation of this application group the worker belongs to.
    pub generation: u64,
    /// It imports the scripts, says so, and then forks workers whenever it is told to ([`ToWorker::Fork`]).
    pub is_template: bool,
    /// Worker processes of the application group (`mod_wsgi.maximum_processes`).
    pub processes: u32,
    /// What `wsgi.multiprocess` says.
    pub multiprocess: bool,
    /// Request threads.
    pub threads: u32,
    /// The group has memory-soft: the worker measures its memory more often.
    pub has_memory_soft: bool,
    /// Working directory, also first in sys.path.
    pub home: Option<Bytes>,
    /// The rest.
    pub options: WorkerOptions,
    /// Scripts to be loaded before the worker says [`FromWorker::Loaded`].
    pub scripts: Vec<Script>,
}

/// droverd → worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message.
    Start(Box<WorkerConfig>),
    /// Take requests from the queue. Scripts that failed to load are answered with their failure.
    Serve,
    /// Take no more requests, finish those that run, then exit with status 0.
    Drain,
    /// The new generation could not be started: serve requests for this script although its file has another time now.
    Keep {
        /// Path of the script.
        path: Bytes,
        /// The file's time that is known to fail.
        mtime_us: u64,
    },
    /// Write the Python stacks of the threads that do something to standard error.
    Dump,
    /// You are killed in so many milliseconds: tell httpd before of requests that will not be finished.
    LastWords {
        /// Milliseconds from now.
        within_ms: u64,
    },
    /// Look at the queue once more: a worker that was woken for a request has died.
    Look,
    /// To a template: fork a worker. Descriptors 0, 1 and 2 are its control socket, standard output and standard error; it says
    /// [`FromWorker::Hello`] on the former, from which droverd reads its process id as the kernel knows it.
    Fork,
}

/// Outcome of loading one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// The script.
    pub script: Script,
    /// The time of the file that was loaded, microseconds since 1970.
    pub mtime_us: u64,
    /// `None`: it is loaded. Else one of [`crate::frame::Failure`]'s numbers and the text (traceback) for the log.
    pub failure: Option<(u16, String)>,
}

/// Worker → droverd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The extension runs; what it is.
    Hello {
        /// [`crate::VERSION`] of the worker extension.
        version: String,
        /// `sys.version` and `sys.prefix`, for the log.
        python: String,
    },
    /// All scripts of [`WorkerConfig::scripts`] were tried. droverd answers with Serve or Drain.
    Loaded(Vec<Loaded>),
    /// The worker could not set itself up (before any script): text for the log.
    SetupFailed(String),
    /// A script was loaded on demand; droverd loads it at start in the next generation.
    AlsoLoaded(Script),
    /// The file of a loaded script has another time now: a new generation is wanted. When `request` is not empty it is the
    /// message that showed it, to be put on the queue again when the new generation serves or has failed; its way back is
    /// descriptor 0 (and its memory file descriptor 1).
    Changed {
        /// Path of the script.
        path: Bytes,
        /// The file's time as httpd saw it.
        mtime_us: u64,
        /// The request message.
        request: Bytes,
    },
    /// The worker takes no more requests on its own account and goes when the running ones are done.
    Leaving(Leave),
    /// A request has run longer than request-timeout; the worker should be replaced.
    Stuck {
        /// What it is doing, for the log.
        what: String,
        /// Nothing runs any more: no thread can take Python's lock. Waiting for its requests is of no use.
        deadlocked: bool,
    },
    /// What the worker did since it last said so; sent a few times a second while there are requests, and once when there are none
    /// any more.
    Activity(Activity),
    /// Proportional set size of the process as it has measured it, bytes. Sent at its start and while it has requests.
    Memory(u64),
}

/// What a worker did lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Activity {
    /// Requests taken.
    pub taken: u64,
    /// Those of them that count against inactivity-timeout (WSGIIgnoreActivity leaves requests out).
    pub counted: u64,
    /// The longest that one of them had waited in the queue, microseconds.
    pub waited_us: u64,
    /// Requests that run now.
    pub running: u32,
}

/// Why a worker goes of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leave {
    /// maximum-requests.
    MaximumRequests,
    /// cpu-time-limit.
    CpuTime,
    /// It was sent SIGTERM, SIGINT or SIGUSR1.
    Signal,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip_and_version() {
        let m = ToWorker::Keep { path: b"/srv/\xff.wsgi".to_vec(), mtime_us: 7 };
        let mut bytes = encode(&m).unwrap();
        assert_eq!(decode::<ToWorker>(&bytes).unwrap(), m);
        bytes.push(0);
        assert_eq!(decode::<ToWorker>(&bytes), Err(WireError::Bad("bytes behind a control message")));
        bytes.pop();
        bytes[4] ^= 0xff;
        assert!(matches!(decode::<ToWorker>(&bytes), Err(WireError::Protocol(_))));
    }

    proptest! {
        #[test]
        fn never_panics(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = MAGIC.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&crate::PROTOCOL.to_ne_bytes());
            bytes.extend_from_slice(&tail);
            let _ = decode::<FromWorker>(&bytes);
            let _ = decode::<ToWorker>(&bytes);
            let _ = decode::<OpenQueue>(&bytes);
            let _ = decode::<OpenReply>(&bytes);
            let _ = decode::<Configuration>(&bytes);
        }
    }
}
