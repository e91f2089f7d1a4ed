//! Messages that configure and control: httpd's parent → droverd, httpd's child processes →
//! droverd, droverd ↔ worker.
//!
//! Responsible for: their types, their limits, and the version check. Must never: hold a policy.
//! Called by: `src/httpd/lifecycle.rs`, `src/dispatch/queues.rs`, the supervisor and the worker.
//!
//! Each message is one SEQPACKET datagram: magic, protocol, then the value as postcard encodes it.
//! The name of a field states its unit of time; a limit of `None` is off. Bytes from a
//! configuration file or from the filesystem need not be UTF-8.
use crate::codec::{Reader, WireError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const MAGIC: u32 = u32::from_ne_bytes(*b"DRVC");

/// The largest control message that is sent as a datagram. A configuration is sent in a memory file
/// and may be larger.
pub const MAX_CONTROL: usize = 160 * 1024;

/// Encodes a message.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut out = MAGIC.to_ne_bytes().to_vec();
    out.extend_from_slice(&crate::PROTOCOL.to_ne_bytes());
    postcard::to_extend(message, out).map_err(|_| WireError::Bad("control message"))
}

/// Decodes a message, which must use all of `bytes`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let mut r = Reader::new(bytes);
    r.opening(MAGIC)?;
    match postcard::take_from_bytes(r.rest()) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(WireError::Bad("bytes after a control message")),
        Err(_) => Err(WireError::Bad("control message")),
    }
}

/// Bytes that need not be UTF-8.
pub type Bytes = Vec<u8>;

// ---- httpd's parent → droverd ------------------------------------------------------------------------------------------

/// httpd's parent → droverd, on the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// Descriptor 0 is a memory file with a [`Configuration`] as [`encode`] makes it. Descriptors
    /// 1… are the error logs, in the order that [`GroupSpec::log`] counts; at most 250 in a
    /// message.
    Configure {
        /// Bytes in the memory file.
        len: u32,
    },
    /// More error logs for the configuration that follows: sent *before* `Configure` if not all fit
    /// into that message.
    Logs,
    /// httpd restarts or stops without grace: terminate every worker within its shutdown-timeout.
    /// In a restart, `Configure` follows.
    StopAll,
}

/// What droverd is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// [`crate::VERSION`] of the module.
    pub version: String,
    /// httpd's generation, which grows with each restart, graceful or not.
    pub generation: u64,
    /// Level of the main server's log (0 emerg … 7 debug, 8–15 trace).
    pub log_level: u8,
    /// Path of the socket for the command `drover`; `None`: no such socket.
    pub control_socket: Option<Bytes>,
    /// Where sessions are kept, and why: lines for `drover status`.
    pub sessions: Vec<String>,
    /// Every group: those of WSGIDaemonProcess first, then the implicit one.
    pub groups: Vec<GroupSpec>,
    /// Scripts that aliases name. A script that requests reach in another way is not part of the configuration.
    pub targets: Vec<Target>,
}

/// A script that an alias names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Path in the filesystem, as httpd sees it.
    pub path: Bytes,
    /// The daemon process group; `None`: only a request can tell.
    pub group: Option<Bytes>,
    /// The application group; `None`: only a request can tell.
    pub application_group: Option<Bytes>,
}

/// User and groups of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Identity {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of the primary group.
    pub gid: u32,
    /// The user's name (HOME, USER, LOGNAME are set from it); empty if the id has no name.
    pub user: Bytes,
    /// The user's home directory; empty: none.
    pub home: Bytes,
    /// `user=` names another user than httpd's: then a worker without `home=` starts in that user's
    /// home directory.
    pub differs: bool,
    /// Supplementary groups; `None`: those of the system's group database for `user`.
    pub supplementary: Option<Vec<u32>>,
}

/// One daemon process group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct GroupSpec {
    /// Name of the group.
    pub name: Bytes,
    /// Index of the group's error log (its vhost's) among those sent with the configuration.
    pub log: u16,
    /// Level of that log.
    pub log_level: u8,
    /// Maximum of worker processes of each application group.
    pub processes: u32,
    /// Minimum of worker processes; equal to the maximum if the size is fixed. 0: the first is
    /// started on demand.
    pub least_processes: u32,
    /// How a new generation replaces the old one.
    pub reload: Reload,
    /// Workers are forked from a fork server that has imported the application (`preload=On`).
    pub preload_fork: bool,
    /// Value of `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// Request threads of each worker; 0: a service process without request threads.
    pub threads: u32,
    /// User and groups of the workers; `None`: those of droverd (httpd does not run as root).
    pub identity: Option<Identity>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Directory for chroot(2).
    pub chroot: Option<Bytes>,
    /// Working directory, also first in sys.path.
    pub home: Option<Bytes>,
    /// Environment variables that are added to httpd's (LANG, LC_ALL, PYTHON_EGG_CACHE,
    /// PYTHONHASHSEED, …).
    pub environment: Vec<(Bytes, Bytes)>,
    /// The program that serves the group's requests.
    pub program: Program,
    /// Nice value.
    pub cpu_priority: Option<i32>,
    /// Settings for the worker itself.
    pub worker: WorkerOptions,
    /// The same for application groups with their own settings (`<WSGIInterpreterOptions
    /// application-group=…>`).
    pub application_options: Vec<(Bytes, WorkerOptions)>,
    /// Maximum of application groups in this group.
    pub max_application_groups: u32,
    /// Time from a worker's start until it must be ready; `None`: no limit.
    pub startup_timeout_ms: Option<u64>,
    /// Time for a worker to finish its requests when it is replaced.
    pub graceful_timeout_ms: Option<u64>,
    /// Time for a worker to finish when httpd stops; then SIGKILL.
    pub shutdown_timeout_ms: u64,
    /// Scripts to load when the group starts, each in its application group.
    pub preload: Vec<Preload>,
    /// Time for a worker to finish its requests after a signal; `None`: as when it is replaced.
    pub eviction_timeout_ms: Option<u64>,
    /// A worker without requests for this time is replaced, or terminated if the group may shrink.
    pub inactivity_timeout_ms: Option<u64>,
    /// A worker is replaced at this age.
    pub restart_interval_ms: Option<u64>,
    /// A worker with a larger proportional set size is replaced, bytes.
    pub memory_soft: Option<u64>,
    /// RLIMIT_DATA, bytes.
    pub memory_limit: Option<u64>,
    /// RLIMIT_AS, bytes.
    pub virtual_memory_limit: Option<u64>,
    /// A worker that has used this CPU time is replaced, seconds.
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

/// How a new generation replaces the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Reload {
    /// All new workers are started while the old ones serve.
    #[default]
    Overlap,
    /// One worker after the other, so that there is never more than one extra.
    Rolling,
}

/// A script that is loaded before the first request.
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

/// Settings that droverd passes to the worker unread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct WorkerOptions {
    /// Directories for the front of sys.path, with their .pth files (site.addsitedir).
    pub python_path: Vec<Bytes>,
    /// Name in process lists, `%{GROUP}` already replaced.
    pub display_name: Option<Bytes>,
    /// Stack size of a request thread, bytes.
    pub stack_size: Option<u64>,
    /// sys.setswitchinterval, microseconds.
    pub switch_interval_us: Option<u64>,
    /// The worker exits after this number of requests.
    pub maximum_requests: Option<u64>,
    /// Limit of a request's run time.
    pub request_timeout_ms: Option<u64>,
    /// After that limit `mod_wsgi.RequestTimeout` is raised in its thread, and it has this time to
    /// end; `None`: not raised.
    pub interrupt_timeout_ms: Option<u64>,
    /// The worker is deadlocked if no thread could take the GIL for this time.
    pub deadlock_timeout_ms: Option<u64>,
    /// sys.stdin raises when used.
    pub restrict_stdin: bool,
    /// sys.stdout raises when used.
    pub restrict_stdout: bool,
    /// Other processes of the user may trace the worker, and it may leave a core dump.
    pub dumpable: bool,
    /// Calls of signal.signal in the application are ignored with a warning.
    pub restrict_signal: bool,
    /// Locale for setlocale(LC_ALL).
    pub locale: Option<Bytes>,
    /// Script paths that differ only in the case of ASCII letters name one script
    /// (WSGICaseSensitivity Off).
    pub ignore_case: bool,
}

// ---- httpd's child processes → droverd ----------------------------------------------------------------------------------------

/// httpd's child process → droverd on the broker socket; descriptor 0 is a SEQPACKET socket for the
/// [`OpenReply`].
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

/// droverd → httpd's child process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenReply {
    /// Descriptor 0 is the sending end of the queue.
    Opened {
        /// A number that no other application group of the group has at this time, below the most there may be.
        place: u32,
    },
    /// The configuration that droverd runs has no such group.
    UnknownGroup,
    /// The group is at its limit of application groups.
    TooManyApplications {
        /// The limit.
        limit: u32,
    },
    /// Another reason; the text is for the log.
    Refused(String),
}

// ---- droverd ↔ worker --------------------------------------------------------------------------------------------------

/// Configuration of a worker at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerConfig {
    /// [`crate::VERSION`] of droverd.
    pub version: String,
    /// Daemon process group.
    pub group: Bytes,
    /// Application group; empty for `%{GLOBAL}`.
    pub application_group: Bytes,
    /// The worker's generation of this application group.
    pub generation: u64,
    /// It is a fork server: it imports the scripts, reports that, and forks a worker for each
    /// [`ToWorker::Fork`].
    pub is_template: bool,
    /// Maximum of worker processes of the application group (`mod_wsgi.maximum_processes`).
    pub processes: u32,
    /// Value of `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// Request threads.
    pub threads: u32,
    /// The group has memory-soft: the worker measures its memory more often.
    pub has_memory_soft: bool,
    /// Working directory, also first in sys.path.
    pub home: Option<Bytes>,
    /// The other settings.
    pub options: WorkerOptions,
    /// Scripts to load before the worker sends [`FromWorker::Loaded`].
    pub scripts: Vec<Script>,
    /// Scripts to be loaded after those. If one of them fails, the next request for it imports it again.
    pub optional: Vec<Script>,
}

/// droverd → worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message.
    Start(Box<WorkerConfig>),
    /// Take requests from the queue. A request for a script that failed to load gets its failure.
    Serve,
    /// Take no more requests, finish the running ones, then exit with status 0.
    Drain,
    /// The new generation could not start: serve requests for this script although its file has
    /// changed.
    Keep {
        /// Path of the script.
        path: Bytes,
        /// Modification time of the file that is known bad.
        mtime_us: u64,
    },
    /// Write the Python stacks of the busy threads to standard error.
    Dump,
    /// The worker will be killed soon: it is to report its unfinished requests to httpd before.
    LastWords {
        /// Milliseconds from now.
        within_ms: u64,
    },
    /// Read the queue once more: a worker that was woken for a request has died.
    Look,
    /// To a fork server: fork a worker. Descriptors 0, 1 and 2 are its control socket, standard
    /// output and standard error. It sends [`FromWorker::Hello`] on the control socket, and the
    /// kernel names its process id with that message.
    Fork,
}

/// Result of loading one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// The script.
    pub script: Script,
    /// Modification time of the file that was loaded, microseconds since 1970.
    pub mtime_us: u64,
    /// `None`: it is loaded. Else a number of [`crate::frame::Failure`] and the text (traceback)
    /// for the log.
    pub failure: Option<(u16, String)>,
}

/// Worker → droverd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The extension is running; its versions.
    Hello {
        /// [`crate::VERSION`] of the worker extension.
        version: String,
        /// `sys.version` and `sys.prefix`, for the log.
        python: String,
    },
    /// All scripts of [`WorkerConfig::scripts`] were tried. droverd replies with Serve or Drain.
    Loaded(Vec<Loaded>),
    /// The setup of the worker failed, before any script: text for the log.
    SetupFailed(String),
    /// A script was loaded on demand; the next generation loads it at its start.
    AlsoLoaded(Script),
    /// The file of a loaded script has changed, so a new generation is needed. If `request` is not
    /// empty, it is the message that revealed the change, to be requeued when the new generation
    /// serves or has failed. Its reply socket is descriptor 0, its memory file descriptor 1.
    Changed {
        /// Path of the script.
        path: Bytes,
        /// Modification time of the file as httpd saw it.
        mtime_us: u64,
        /// The request message.
        request: Bytes,
    },
    /// The worker takes no more requests for a reason of its own, and exits when the running ones
    /// are complete.
    Leaving(Leave),
    /// A request exceeded request-timeout; the worker should be replaced.
    Stuck {
        /// Its stack, for the log.
        what: String,
        /// No thread can take the GIL, so waiting for its requests is useless.
        deadlocked: bool,
    },
    /// Activity since the last such message. Sent a few times a second while there are requests,
    /// and once when there are no more.
    Activity(Activity),
    /// Proportional set size that the worker measured, bytes. Sent at its start and while it has
    /// requests.
    Memory(u64),
}

/// Recent activity of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Activity {
    /// Requests taken.
    pub taken: u64,
    /// Requests among them that count against inactivity-timeout (WSGIIgnoreActivity excludes
    /// some).
    pub counted: u64,
    /// Longest time that one of them waited in the queue, microseconds.
    pub waited_us: u64,
    /// Running requests.
    pub running: u32,
}

/// Why a worker exits by itself.
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
        assert_eq!(decode::<ToWorker>(&bytes), Err(WireError::Bad("bytes after a control message")));
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
