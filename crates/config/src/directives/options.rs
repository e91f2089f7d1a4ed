//! The options of WSGIDaemonProcess, one row each.
//!
//! Responsible for the single table from which the options are parsed, checked and documented: a row says the name, how its value is read and
//! where it goes, the unit, the default and what it means. Must never hold a rule that is not in a row. Read by `set::daemon_process` and `docs`.

use super::group;
use super::scalar;
use super::take::{COUNT, Take};
use std::time::Duration;

pub struct DaemonOption {
    pub name: &'static str,
    /// How the value is read, which also gives its range.
    pub take: Take,
    /// "seconds", "bytes", …; empty where there is none.
    pub unit: &'static str,
    pub default: &'static str,
    /// For the administrator, in Markdown.
    pub doc: &'static str,
    /// In what it differs from mod_wsgi; empty if in nothing.
    pub difference: &'static str,
    /// Accepted for mod_wsgi's sake, and this is why it changes nothing.
    pub notice: Option<&'static str>,
    /// The test that covers it.
    pub test: &'static str,
}

/// For settings where 0 means "none".
fn some(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

fn text(value: Vec<u8>) -> Option<Vec<u8>> {
    (!value.is_empty()).then_some(value)
}

/// The common parts of a row; a row names what it changes.
const ROW: DaemonOption =
    DaemonOption { name: "", take: Take::Text(|_, _| {}), unit: "", default: "none", doc: "", difference: "", notice: None, test: "" };

pub static DAEMON_OPTIONS: &[DaemonOption] = &[
    // Who the processes are and what they see.
    DaemonOption {
        name: "user",
        take: Take::User { root: false, put: |o, v| o.user = Some(v) },
        default: "Apache's `User`",
        doc: "The user that the processes run as. Ignored when Apache was not started as root. With `user=` alone the primary group stays Apache's `Group`.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "group",
        take: Take::Group(|o, v| o.group = Some(v)),
        default: "Apache's `Group`",
        doc: "The primary group that the processes run as. Ignored when Apache was not started as root.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "supplementary-groups",
        take: Take::Own {
            range: "group names or #gid, separated by commas",
            read: |o, v| {
                o.supplementary_groups = Some(group::groups(v)?);
                Ok(())
            },
        },
        default: "the groups the system has for the user",
        doc: "Further groups of the processes, instead of those the system has for the user. An empty list leaves only the primary group.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "umask",
        take: Take::Own {
            range: "an octal number from 0 to 0777",
            read: |o, v| {
                o.umask = Some(scalar::umask(v)?);
                Ok(())
            },
        },
        default: "inherited from Apache",
        doc: "The file mode creation mask of the processes.",
        difference: "mod_wsgi takes numbers above 0777 too, of which the system ignores the upper bits.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "chroot",
        take: Take::Path(|o, v| o.chroot = Some(v)),
        doc: "Run the processes inside this directory as their root. Needs Apache to be started as root. Scripts are named as Apache sees them, with this directory in front; `home`, `python`, `python-home` and `python-path` as the processes see them. The directory must hold the interpreter with its libraries, and mod_drover's `lib/mod_drover` under the same path as outside.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "home",
        take: Take::Path(|o, v| o.home = Some(v)),
        default: "the user's home directory if the user is not Apache's, else Apache's working directory (`/` where the user may not be there)",
        doc: "The working directory of the processes; when given, it is also the first entry of `sys.path`.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "lang",
        take: Take::Text(|o, v| o.lang = text(v)),
        default: "inherited from Apache",
        doc: "The environment variable `LANG` of the processes, such as `en_US.UTF-8`.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "locale",
        take: Take::Text(|o, v| o.locale = text(v)),
        default: "inherited from Apache",
        doc: "The environment variable `LC_ALL` of the processes, such as `C.UTF-8`.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "display-name",
        take: Take::Text(|o, v| o.display_name = text(v)),
        doc: "What `ps` shows for the processes. `%{GROUP}` gives `(wsgi:name)` with the name of the group.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    // Python.
    DaemonOption {
        name: "python",
        take: Take::Path(|o, v| o.python = Some(v)),
        default: "`bin/python3` of `python-home`, else of WSGIPythonHome, else the system's `python3`",
        doc: "The interpreter to run. Every group may have one of its own, of any Python version from 3.9 on.",
        difference: "Not in mod_wsgi, which is compiled for one version of Python.",
        test: "daemon_options_for_python",
        ..ROW
    },
    DaemonOption {
        name: "python-home",
        take: Take::Path(|o, v| o.python_home = Some(v)),
        default: "WSGIPythonHome",
        doc: "A virtual environment or a Python installation. Its `bin/python3` is the interpreter, unless `python=` names another one.",
        difference: "May be of any Python version; the path must be absolute.",
        test: "daemon_options_for_python",
        ..ROW
    },
    DaemonOption {
        name: "python-path",
        take: Take::Own {
            range: "directories separated by colons",
            read: |o, v| {
                o.python_path = scalar::path_list(v);
                Ok(())
            },
        },
        doc: "Directories to put in front of `sys.path`, each through `site.addsitedir()`, so that their `.pth` files are read.",
        test: "daemon_options_for_python",
        ..ROW
    },
    DaemonOption {
        name: "python-eggs",
        take: Take::Text(|o, v| o.python_eggs = text(v)),
        doc: "The directory that `PYTHON_EGG_CACHE` names.",
        test: "daemon_options_for_python",
        ..ROW
    },
    DaemonOption {
        name: "switch-interval",
        take: Take::Own {
            range: "a positive number, such as 0.005",
            read: |o, v| {
                o.switch_interval = Some(scalar::switch_interval(v)?);
                Ok(())
            },
        },
        unit: "seconds",
        default: "Python's",
        doc: "The argument of `sys.setswitchinterval()`, called when a process starts.",
        test: "daemon_options_for_python",
        ..ROW
    },
    // How many.
    DaemonOption {
        name: "processes",
        take: Take::Own {
            range: group::PROCESSES,
            read: |o, v| {
                (o.least_processes, o.processes) = group::processes(v)?;
                o.processes_given = true;
                Ok(())
            },
        },
        default: "1",
        doc: "How many processes each application of the group has. `MIN-MAX`: as many as the load needs; one is added when requests wait in the queue, the least used is ended after `inactivity-timeout` (30 seconds when that is 0) without need. With a MIN of 0 the first request starts the first process, and waits for it. Writing the option at all, even `processes=1`, makes `wsgi.multiprocess` true.",
        difference: "mod_wsgi has no `MIN-MAX`.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "reload",
        take: Take::Own {
            range: "overlap or rolling",
            read: |o, v| {
                o.reload = group::reload(v)?;
                Ok(())
            },
        },
        default: "overlap",
        doc: "How new code takes the place of the old at `apachectl graceful` or when the script was touched. `overlap`: all new processes are started beside the old ones, which go when the new ones are up. `rolling`: one after the other, so that there is never more than one process too many; for a while some requests are answered by the old code and some by the new.",
        difference: "Not in mod_wsgi, which ends the old processes first.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "preload",
        take: Take::Flag(|o, v| o.preload = v),
        default: "Off",
        doc: "On: one process imports the application once, and the processes that answer requests are forked from it. They share most of their memory, and a further one is there at once. The application must not start threads while it is imported; connections and the like are closed and made again in `mod_drover.before_fork` and `mod_drover.after_fork`.",
        difference: "Not in mod_wsgi.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "threads",
        take: Take::Number { min: 0, max: 65533, put: |o, v| o.threads = v },
        default: "15",
        doc: "How many requests a process handles at the same time. 0 is for a process that takes no requests and only runs its WSGIImportScript.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "max-application-groups",
        take: Take::Number { min: 1, max: 1024, put: |o, v| o.max_application_groups = v },
        default: "32",
        doc: "How many application groups may have processes of their own in this group. The bound matters where the application group depends on what a client sends, as with `%{HOST}`.",
        difference: "Not in mod_wsgi, where application groups are sub-interpreters of one process and have no bound.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "stack-size",
        take: Take::Size { min: 32768, put: |o, v| o.stack_size = (v > 0).then_some(v) },
        unit: "bytes",
        default: "8388608 (8 MiB)",
        doc: "The stack of each thread that handles requests. A value below 262144 counts as 262144. It is also the size that `threading.stack_size()` has when the application is imported; what the application sets there applies to its own threads only.",
        difference: "In mod_wsgi the default is the system's. mod_wsgi accepts sizes below 32768, with which Python cannot start a thread.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "maximum-requests",
        take: Take::Number { min: 0, max: COUNT, put: |o, v| o.maximum_requests = (v > 0).then_some(v) },
        default: "0 (no limit)",
        doc: "After so many requests a process is replaced by a new one. Each process has a number of its own, up to a tenth smaller, so that they do not all go together.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "listen-backlog",
        take: Take::Number { min: 0, max: COUNT, put: |o, v| o.listen_backlog = v },
        default: "100",
        doc: "How many requests may wait in the queue of the group, beyond those that its threads run. Further ones wait outside of it, as long as `queue-timeout` (or `Timeout`) lets them.",
        difference: "mod_wsgi hands it to listen(2), where it bounds connections.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "queue-depth",
        take: Take::Number { min: 0, max: COUNT, put: |o, v| o.queue_depth = Some(v) },
        default: "no limit",
        doc: "How many requests may wait for a free thread of the group; further ones are answered at once with 503 and `Retry-After`. With it, `listen-backlog` has no effect.",
        difference: "mod_wsgi has no such option.",
        test: "daemon_options_for_size",
        ..ROW
    },
    // Time.
    DaemonOption {
        name: "startup-timeout",
        take: Take::Seconds(|o, v| o.startup_timeout = some(v)),
        unit: "seconds",
        default: "0 (no limit)",
        doc: "How long a process may try to load its application before it is started again.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "shutdown-timeout",
        take: Take::Seconds(|o, v| o.shutdown_timeout = v),
        unit: "seconds",
        default: "5",
        doc: "How long a process that was told to end may take before it is killed.",
        difference: "0 means at once; in mod_wsgi it means no limit, and Apache kills after 3 seconds whatever the value.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "graceful-timeout",
        take: Take::Seconds(|o, v| o.graceful_timeout = v),
        unit: "seconds",
        default: "15",
        doc: "How long a process that is to be replaced may go on with the requests it has. Then `shutdown-timeout` begins.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "eviction-timeout",
        take: Take::Seconds(|o, v| o.eviction_timeout = some(v)),
        unit: "seconds",
        default: "0 (`graceful-timeout`)",
        doc: "The same for a process that was sent SIGUSR1, SIGTERM or SIGINT.",
        difference: "mod_wsgi ends a process at SIGTERM and SIGINT without waiting for its requests.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "deadlock-timeout",
        take: Take::Seconds(|o, v| o.deadlock_timeout = some(v)),
        unit: "seconds",
        default: "300",
        doc: "A process in which no thread can take Python's lock for so long is replaced: the stacks of its threads are logged, it gets `shutdown-timeout`, then it is killed. 0: never.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "inactivity-timeout",
        take: Take::Seconds(|o, v| o.inactivity_timeout = some(v)),
        unit: "seconds",
        default: "0 (never)",
        doc: "A process without requests for so long is replaced by a fresh one, which gives its memory back; with `processes=MIN-MAX` it is ended without a successor, down to MIN. Only a process that has had a request is idle in this sense. WSGIIgnoreActivity leaves requests out.",
        difference: "The successor is started first, and loads the application before it takes over.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "request-timeout",
        take: Take::Seconds(|o, v| o.request_timeout = some(v)),
        unit: "seconds",
        default: "0 (never)",
        doc: "How long a request may take before its process is replaced.",
        difference: "Counted for each request; mod_wsgi averages over the threads of the process.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "interrupt-timeout",
        take: Take::Seconds(|o, v| o.interrupt_timeout = some(v)),
        unit: "seconds",
        default: "0 (never)",
        doc: "When a request runs longer than `request-timeout`, `mod_wsgi.RequestTimeout` is raised in its thread, and it gets so long to end: the answer is 504 and the process stays. If it does not end, the process is replaced as without this option. Without `request-timeout` it has no effect.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "restart-interval",
        take: Take::Seconds(|o, v| o.restart_interval = some(v)),
        unit: "seconds",
        default: "0 (never)",
        doc: "A process is replaced at this age, up to a tenth earlier so that not all go together, and never two of an application at the same time.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "queue-timeout",
        take: Take::Seconds(|o, v| o.queue_timeout = some(v)),
        unit: "seconds",
        default: "0 (no limit)",
        doc: "How long a request may wait for a free thread.",
        difference: "Answered with 503 and Retry-After as soon as the time is over; mod_wsgi answers 504, and only when a thread comes to the request.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "socket-timeout",
        take: Take::Seconds(|o, v| o.socket_timeout = some(v)),
        unit: "seconds",
        default: "0 (Apache's `Timeout`)",
        doc: "How long a process may send nothing of a response, and take nothing of a body. Log lines do not count.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "response-socket-timeout",
        take: Take::Seconds(|o, v| o.response_socket_timeout = some(v)),
        unit: "seconds",
        default: "0 (`socket-timeout`)",
        doc: "The same for the response only.",
        test: "daemon_options_for_time",
        ..ROW
    },
    // Limits.
    DaemonOption {
        name: "header-buffer-size",
        take: Take::Size { min: 8192, put: |_, _| {} },
        unit: "bytes",
        default: "32768",
        doc: "In mod_wsgi, the longest response header line that an application may send.",
        notice: Some("header-buffer-size= has no effect: the head of a response may have 1 MiB, in lines of any length"),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "response-buffer-size",
        take: Take::Size { min: 65536, put: |o, v| o.response_buffer_size = if v == 0 { 8 << 20 } else { v } },
        unit: "bytes",
        default: "8388608",
        doc: "How much of a response Apache takes over from the process while the client is slow, so that the process is free for other requests. A larger response holds its thread until the rest fits.",
        difference: "mod_wsgi's processes wait for the client when its buffer in Apache is full, which it is at 64 KiB of a response that is not flushed.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "request-buffer-size",
        take: Take::Size { min: 1, put: |o, v| o.request_buffer_size = v },
        unit: "bytes",
        default: "1048576",
        doc: "A request's body up to this size is read whole before a process is given the request, so that a slow client holds none. A larger body, one of unknown length and one whose client waits for `100 Continue` is passed on while it comes.",
        difference: "mod_wsgi has no such option: a process waits for the client.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "script-user",
        take: Take::User { root: true, put: |o, v| o.script_user = Some(v) },
        doc: "The script file must belong to this user, or requests are answered with 403. Not together with `script-group`.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "script-group",
        take: Take::Group(|o, v| o.script_group = Some(v)),
        doc: "The script file must belong to this group, or requests are answered with 403. Not together with `script-user`.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "cpu-time-limit",
        take: Take::Seconds(|o, v| o.cpu_time_limit = some(v)),
        unit: "seconds",
        default: "0 (no limit)",
        doc: "A process that has used so much CPU time is replaced, the new one first. One that goes on to twice this and a minute is killed by the kernel (RLIMIT_CPU).",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "cpu-priority",
        take: Take::Signed { min: -20, max: 20, put: |o, v| o.cpu_priority = v },
        default: "0",
        doc: "The scheduling priority of the processes; a smaller number is more urgent. Numbers below 0 need root.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "memory-limit",
        take: Take::Size { min: 1, put: |o, v| o.memory_limit = (v > 0).then_some(v) },
        unit: "bytes",
        default: "0 (no limit)",
        doc: "The kernel's limit of the data of a process (RLIMIT_DATA): beyond it the application gets MemoryError.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "memory-soft",
        take: Take::Size { min: 1, put: |o, v| o.memory_soft = (v > 0).then_some(v) },
        unit: "bytes",
        default: "0 (no limit)",
        doc: "A process whose memory (proportional set size: shared pages count by their share) is above this is replaced: the new one is started first, and the old one finishes its requests. The process measures itself, at most once a second while it has requests; with `chroot=` and no `/proc` in it, its resident set size counts.",
        difference: "Not in mod_wsgi.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "virtual-memory-limit",
        take: Take::Size { min: 1, put: |o, v| o.virtual_memory_limit = (v > 0).then_some(v) },
        unit: "bytes",
        default: "0 (no limit)",
        doc: "The kernel's limit of the address space of a process (RLIMIT_AS): beyond it the application gets MemoryError.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    // Accepted for mod_wsgi's sake.
    DaemonOption {
        name: "dumpable",
        take: Take::Flag(|o, v| o.dumpable = v),
        default: "Off",
        doc: "Whether other processes of the same user may trace the group's processes and read their memory, and whether a crash may leave a core dump. On is for debugging: tracers and debuggers of the group's user (`gdb`, `py-spy`), and core dumps (with `ulimit -c` or `LimitCORE=` for Apache). Off: as with mod_wsgi's daemon processes, root only, no core dump, and some files of `/proc/self` (`environ`, `io`, `mem`, `pagemap`) cannot be opened. Programs that the application starts are not affected.",
        difference: "Not in mod_wsgi, whose daemon processes leave core dumps where CoreDumpDirectory is set.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "server-metrics",
        take: Take::Flag(|_, _| {}),
        default: "Off",
        doc: "Whether applications of the group may read Apache's scoreboard.",
        notice: Some("server-metrics= has no effect: Apache's scoreboard is not handed to applications, mod_status shows it"),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "connect-timeout",
        take: Take::Seconds(|_, _| {}),
        unit: "seconds",
        default: "15",
        doc: "In mod_wsgi, how long Apache tries to connect to a process.",
        notice: Some(
            "connect-timeout= has no effect: requests wait in the queue of the group, no connection is made; queue-timeout= bounds the wait",
        ),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "socket-user",
        take: Take::User { root: true, put: |_, _| {} },
        default: "Apache's `User`",
        doc: "In mod_wsgi, the owner of the socket file.",
        notice: Some("socket-user= has no effect: there is no socket file, Apache's children inherit the queue of the group"),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "send-buffer-size",
        take: Take::Size { min: 512, put: |_, _| {} },
        unit: "bytes",
        default: "0 (the system's)",
        doc: "In mod_wsgi, the send buffer of the socket.",
        notice: Some("send-buffer-size= has no effect: the module chooses the buffers of its own sockets"),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "receive-buffer-size",
        take: Take::Size { min: 512, put: |_, _| {} },
        unit: "bytes",
        default: "0 (the system's)",
        doc: "In mod_wsgi, the receive buffer of the socket.",
        notice: Some("receive-buffer-size= has no effect: the module chooses the buffers of its own sockets"),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "response-flush-delay",
        take: Take::Number { min: 0, max: COUNT, put: |_, _| {} },
        unit: "milliseconds",
        default: "5",
        doc: "In mod_wsgi, how long Apache waits for more of a response before it flushes what it has.",
        notice: Some(
            "response-flush-delay= has no effect: blocks arrive whole and go out as the application yields them, nothing has to be waited for",
        ),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "newrelic-config-file",
        take: Take::Text(|_, _| {}),
        doc: "Of mod_wsgi 4.9 and 5.0: the configuration file of the New Relic agent.",
        notice: Some(
            "newrelic-config-file= has no effect, as in mod_wsgi 6: start the New Relic agent in the script or with newrelic-admin",
        ),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "newrelic-environment",
        take: Take::Text(|_, _| {}),
        doc: "Of mod_wsgi 4.9 and 5.0: the section of the New Relic configuration file.",
        notice: Some(
            "newrelic-environment= has no effect, as in mod_wsgi 6: start the New Relic agent in the script or with newrelic-admin",
        ),
        test: "daemon_options_without_effect",
        ..ROW
    },
];
