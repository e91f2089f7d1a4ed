//! The options of WSGIDaemonProcess, one row each.
//!
//! Responsible for: the single table from which the options are parsed, checked and documented. A
//! row has the name, how the value is read and where it is stored, the unit, the default and the
//! documentation. Must never: hold a rule outside a row. Called by: `set::daemon_process` and
//! `docs`.

use super::group;
use super::scalar;
use super::take::{COUNT, Take};
use std::time::Duration;

pub struct DaemonOption {
    pub name: &'static str,
    /// How the value is read, and so its range.
    pub take: Take,
    /// "seconds", "bytes", …; empty if there is none.
    pub unit: &'static str,
    pub default: &'static str,
    /// For the administrator, in Markdown.
    pub doc: &'static str,
    /// How it differs from mod_wsgi; empty if it does not.
    pub difference: &'static str,
    /// For an option that is accepted for compatibility only: why it has no effect.
    pub notice: Option<&'static str>,
    /// The test that covers it.
    pub test: &'static str,
}

/// For settings where 0 means none.
fn some(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

fn text(value: Vec<u8>) -> Option<Vec<u8>> {
    (!value.is_empty()).then_some(value)
}

/// The defaults of a row.
const ROW: DaemonOption =
    DaemonOption { name: "", take: Take::Text(|_, _| {}), unit: "", default: "none", doc: "", difference: "", notice: None, test: "" };

pub static DAEMON_OPTIONS: &[DaemonOption] = &[
    // Identity and environment.
    DaemonOption {
        name: "user",
        take: Take::User { root: false, put: |o, v| o.user = Some(v) },
        default: "Apache's `User`",
        doc: "The user that the processes run as. It is ignored if Apache was not started as root. With `user=` alone the primary group is still Apache's `Group`.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "group",
        take: Take::Group(|o, v| o.group = Some(v)),
        default: "Apache's `Group`",
        doc: "The primary group that the processes run as. It is ignored if Apache was not started as root.",
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
        default: "the groups that the system assigns to the user",
        doc: "Supplementary groups of the processes, instead of those that the system assigns to the user. With an empty list the processes have only the primary group.",
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
        difference: "mod_wsgi accepts numbers above 0777 too, whose upper bits the system ignores.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "chroot",
        take: Take::Path(|o, v| o.chroot = Some(v)),
        doc: "The root directory of the processes. Apache must be started as root. Paths of scripts are written as Apache sees them, including this directory. `home`, `python`, `python-home` and `python-path` are written as the processes see them. The directory must contain the interpreter with its libraries, and mod_drover's `lib/mod_drover` under the same path as outside.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    DaemonOption {
        name: "home",
        take: Take::Path(|o, v| o.home = Some(v)),
        default: "the user's home directory if the user is not Apache's, else Apache's working directory (`/` if the user may not enter it)",
        doc: "The working directory of the processes. If it is given, it is also the first entry of `sys.path`.",
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
        doc: "The name of the processes in `ps`. `%{GROUP}` gives `(wsgi:name)` with the name of the group.",
        test: "daemon_options_for_identity",
        ..ROW
    },
    // Python.
    DaemonOption {
        name: "python",
        take: Take::Path(|o, v| o.python = Some(v)),
        default: "`bin/python3` of `python-home`, else of WSGIPythonHome, else the system's `python3`",
        doc: "The interpreter to run. Each group may have its own, of any Python version from 3.9.",
        difference: "Not in mod_wsgi, which is compiled for one version of Python.",
        test: "daemon_options_for_python",
        ..ROW
    },
    DaemonOption {
        name: "python-home",
        take: Take::Path(|o, v| o.python_home = Some(v)),
        default: "WSGIPythonHome",
        doc: "A virtual environment or a Python installation. Its `bin/python3` is the interpreter unless `python=` names another one.",
        difference: "Any Python version from 3.9 can be used. The path must be absolute.",
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
        doc: "Directories to add at the front of `sys.path`, each with `site.addsitedir()`, so that their `.pth` files are read.",
        test: "daemon_options_for_python",
        ..ROW
    },
    DaemonOption {
        name: "python-eggs",
        take: Take::Text(|o, v| o.python_eggs = text(v)),
        doc: "The value of `PYTHON_EGG_CACHE`.",
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
        doc: "The argument of `sys.setswitchinterval()`, which is called when a process starts.",
        test: "daemon_options_for_python",
        ..ROW
    },
    // Size.
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
        doc: "The number of processes of each application of the group. With `MIN-MAX` the number follows the load. A process is added when requests wait in the queue. The least used one stops when it was not needed for `inactivity-timeout` (30 seconds if that is 0). If MIN is 0, the first request starts the first process and waits for it. If the option is given at all, even as `processes=1`, `wsgi.multiprocess` is true.",
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
        doc: "How new code replaces old code at `apachectl graceful` or when the script was touched. `overlap`: all new processes start while the old ones serve; the old ones stop when the new ones are ready. `rolling`: processes are replaced one at a time, so there is at most one extra process. During that time some requests run the old code and some the new.",
        difference: "Not in mod_wsgi, which stops the old processes first.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "preload",
        take: Take::Flag(|o, v| o.preload = v),
        default: "Off",
        doc: "On: a fork server imports the application once, and the processes that serve requests are forked from it. They share most of their memory, and a further process starts at once. The application must not start threads during the import. Close connections and similar resources in `mod_drover.before_fork`, and open them again in `mod_drover.after_fork`.",
        difference: "Not in mod_wsgi.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "threads",
        take: Take::Number { min: 0, max: 65533, put: |o, v| o.threads = v },
        default: "15",
        doc: "How many requests a process handles at the same time. With 0 a process takes no requests and only runs its WSGIImportScript.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "max-application-groups",
        take: Take::Number { min: 1, max: 1024, put: |o, v| o.max_application_groups = Some(v) },
        default: "32, or as many as the configuration names",
        doc: "How many application groups may have processes of their own in this group at the same time. The bound matters where the application group depends on what a client sends, as with `%{HOST}`. When all are in use and one more is wanted, the one that was not used for the longest time, at least a second, is given up: its processes end, and its next request starts them again. If none is idle, the request gets 503.",
        difference: "Not in mod_wsgi, where application groups are sub-interpreters of one process and have no limit.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "stack-size",
        take: Take::Size { min: 32768, put: |o, v| o.stack_size = (v > 0).then_some(v) },
        unit: "bytes",
        default: "8388608 (8 MiB)",
        doc: "The stack size of each thread that handles requests. A value below 262144 counts as 262144. It is also the value of `threading.stack_size()` when the application is imported. What the application sets there applies only to its own threads.",
        difference: "In mod_wsgi the default is the system's. mod_wsgi accepts sizes below 32768, with which Python cannot start a thread.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "maximum-requests",
        take: Take::Number { min: 0, max: COUNT, put: |o, v| o.maximum_requests = (v > 0).then_some(v) },
        default: "0 (no limit)",
        doc: "A process is replaced after this number of requests. Each process uses a number that is up to a tenth smaller, so that not all are replaced at the same time.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "listen-backlog",
        take: Take::Number { min: 0, max: COUNT, put: |o, v| o.listen_backlog = v },
        default: "100",
        doc: "How many requests may wait in the queue of the group, beyond those that its threads run. Further requests wait outside the queue, until `queue-timeout` (or `Timeout`) expires.",
        difference: "mod_wsgi passes it to listen(2), where it limits connections.",
        test: "daemon_options_for_size",
        ..ROW
    },
    DaemonOption {
        name: "queue-depth",
        take: Take::Number { min: 0, max: COUNT, put: |o, v| o.queue_depth = Some(v) },
        default: "no limit",
        doc: "How many requests may wait for a free thread of the group. Further requests get 503 with `Retry-After` at once. With this option `listen-backlog` has no effect.",
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
        doc: "How long a process may take to load its application before it is started again.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "shutdown-timeout",
        take: Take::Seconds(|o, v| o.shutdown_timeout = v),
        unit: "seconds",
        default: "5",
        doc: "How long a process may take to shut down before it is killed.",
        difference: "0 kills at once. In mod_wsgi 0 means no limit, and Apache kills after 3 seconds whatever the value.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "graceful-timeout",
        take: Take::Seconds(|o, v| o.graceful_timeout = v),
        unit: "seconds",
        default: "15",
        doc: "How long a process that is being replaced may finish its running requests. After that `shutdown-timeout` begins.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "eviction-timeout",
        take: Take::Seconds(|o, v| o.eviction_timeout = some(v)),
        unit: "seconds",
        default: "0 (`graceful-timeout`)",
        doc: "The same for a process that receives SIGUSR1, SIGTERM or SIGINT.",
        difference: "In mod_wsgi a process stops at SIGTERM and SIGINT without waiting for its requests.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "deadlock-timeout",
        take: Take::Seconds(|o, v| o.deadlock_timeout = some(v)),
        unit: "seconds",
        default: "300",
        doc: "A process is replaced if no thread can acquire the GIL for this long. The stacks of its threads are logged, and after `shutdown-timeout` it is killed. 0: never.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "inactivity-timeout",
        take: Take::Seconds(|o, v| o.inactivity_timeout = some(v)),
        unit: "seconds",
        default: "0 (never)",
        doc: "A process that is idle for this long is replaced by a new one, which frees its memory. With `processes=MIN-MAX` it stops without a replacement, down to MIN processes. Only a process that has served a request counts as idle. Requests with WSGIIgnoreActivity do not count.",
        difference: "The new process starts first, and loads the application before it takes over.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "request-timeout",
        take: Take::Seconds(|o, v| o.request_timeout = some(v)),
        unit: "seconds",
        default: "0 (never)",
        doc: "How long a request may take before its process is replaced.",
        difference: "Measured for each request; mod_wsgi averages over the threads of the process.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "interrupt-timeout",
        take: Take::Seconds(|o, v| o.interrupt_timeout = some(v)),
        unit: "seconds",
        default: "0 (never)",
        doc: "When a request runs longer than `request-timeout`, `mod_wsgi.RequestTimeout` is raised in its thread. If the request ends within this time, the response is 504 and the process continues. Otherwise the process is replaced, as without this option. It has no effect without `request-timeout`.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "restart-interval",
        take: Take::Seconds(|o, v| o.restart_interval = some(v)),
        unit: "seconds",
        default: "0 (never)",
        doc: "The age at which a process is replaced, or up to a tenth earlier so that not all are replaced together. Two processes of an application are never replaced at the same time.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "queue-timeout",
        take: Take::Seconds(|o, v| o.queue_timeout = some(v)),
        unit: "seconds",
        default: "0 (no limit)",
        doc: "How long a request may wait for a free thread.",
        difference: "The response is 503 with `Retry-After` as soon as the time expires. mod_wsgi sends 504, and only when a thread takes the request.",
        test: "daemon_options_for_time",
        ..ROW
    },
    DaemonOption {
        name: "socket-timeout",
        take: Take::Seconds(|o, v| o.socket_timeout = some(v)),
        unit: "seconds",
        default: "0 (Apache's `Timeout`)",
        doc: "How long a process may send no part of the response and read no part of the body. Log lines do not count.",
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
        notice: Some("header-buffer-size= has no effect: the response header may have up to 1 MiB, with lines of any length"),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "response-buffer-size",
        take: Take::Size { min: 65536, put: |o, v| o.response_buffer_size = if v == 0 { 8 << 20 } else { v } },
        unit: "bytes",
        default: "8388608",
        doc: "How much of a response Apache buffers while the client is slow, so that the thread is free for other requests. A larger response occupies its thread until the rest fits.",
        difference: "In mod_wsgi a process waits for the client when Apache's buffer is full, which holds 64 KiB of a response that is not flushed.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "request-buffer-size",
        take: Take::Size { min: 1, put: |o, v| o.request_buffer_size = v },
        unit: "bytes",
        default: "1048576",
        doc: "A request body up to this size is read completely before the request is queued, so that a slow client occupies no thread of a process. A larger body, a body of unknown length and a body whose client waits for `100 Continue` are passed on as they arrive.",
        difference: "mod_wsgi has no such option: a process waits for the client.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "script-user",
        take: Take::User { root: true, put: |o, v| o.script_user = Some(v) },
        doc: "The required owner of the script file; otherwise requests get 403. Cannot be combined with `script-group`.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "script-group",
        take: Take::Group(|o, v| o.script_group = Some(v)),
        doc: "The required group of the script file; otherwise requests get 403. Cannot be combined with `script-user`.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "cpu-time-limit",
        take: Take::Seconds(|o, v| o.cpu_time_limit = some(v)),
        unit: "seconds",
        default: "0 (no limit)",
        doc: "A process that has used this much CPU time is replaced; the new process starts first. The kernel kills a process that uses twice this time plus a minute (RLIMIT_CPU).",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "cpu-priority",
        take: Take::Signed { min: -20, max: 20, put: |o, v| o.cpu_priority = v },
        default: "0",
        doc: "The scheduling priority of the processes. A smaller number means a higher priority. Numbers below 0 need root.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "memory-limit",
        take: Take::Size { min: 1, put: |o, v| o.memory_limit = (v > 0).then_some(v) },
        unit: "bytes",
        default: "0 (no limit)",
        doc: "The kernel's limit for the data of a process (RLIMIT_DATA). Beyond it the application gets MemoryError.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "memory-soft",
        take: Take::Size { min: 1, put: |o, v| o.memory_soft = (v > 0).then_some(v) },
        unit: "bytes",
        default: "0 (no limit)",
        doc: "A process that uses more memory than this is replaced. The new process starts first, and the old one finishes its requests. Memory is the proportional set size, in which shared pages count by their share. Each process measures itself, at most once a second while it has requests. With `chroot=` and no `/proc` in it, the resident set size is used.",
        difference: "Not in mod_wsgi.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "virtual-memory-limit",
        take: Take::Size { min: 1, put: |o, v| o.virtual_memory_limit = (v > 0).then_some(v) },
        unit: "bytes",
        default: "0 (no limit)",
        doc: "The kernel's limit for the address space of a process (RLIMIT_AS). Beyond it the application gets MemoryError.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    // Debugging, and options that are accepted for compatibility only.
    DaemonOption {
        name: "dumpable",
        take: Take::Flag(|o, v| o.dumpable = v),
        default: "Off",
        doc: "Whether other processes of the same user may trace the group's processes and read their memory, and whether a crash may leave a core dump. On is for debugging. It allows tracers and debuggers of the group's user (`gdb`, `py-spy`), and core dumps (with `ulimit -c` or `LimitCORE=` for Apache). Off: only root may trace, as with mod_wsgi's daemon processes, and a crash leaves no core dump. The processes cannot open some files of `/proc/self` (`environ`, `io`, `mem`, `pagemap`). Programs that the application starts are not affected.",
        difference: "Not in mod_wsgi, whose daemon processes leave core dumps if CoreDumpDirectory is set.",
        test: "daemon_options_for_limits",
        ..ROW
    },
    DaemonOption {
        name: "server-metrics",
        take: Take::Flag(|_, _| {}),
        default: "Off",
        doc: "Whether applications of the group may read Apache's scoreboard.",
        notice: Some("server-metrics= has no effect: applications get no access to Apache's scoreboard; mod_status shows it"),
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
            "connect-timeout= has no effect: requests wait in the queue of the group and need no connection; queue-timeout= limits the wait",
        ),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "socket-user",
        take: Take::User { root: true, put: |_, _| {} },
        default: "Apache's `User`",
        doc: "In mod_wsgi, the owner of the socket file.",
        notice: Some("socket-user= has no effect: there is no socket file; Apache's children inherit the queue of the group"),
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
        doc: "In mod_wsgi, how long Apache waits for more of a response before it flushes its buffer.",
        notice: Some("response-flush-delay= has no effect: each block is sent as the application yields it, without a delay"),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "newrelic-config-file",
        take: Take::Text(|_, _| {}),
        doc: "An option of mod_wsgi 4.9 and 5.0: the configuration file of the New Relic agent.",
        notice: Some(
            "newrelic-config-file= has no effect, as in mod_wsgi 6; start the New Relic agent in the script or with newrelic-admin",
        ),
        test: "daemon_options_without_effect",
        ..ROW
    },
    DaemonOption {
        name: "newrelic-environment",
        take: Take::Text(|_, _| {}),
        doc: "An option of mod_wsgi 4.9 and 5.0: the section of the New Relic configuration file.",
        notice: Some(
            "newrelic-environment= has no effect, as in mod_wsgi 6; start the New Relic agent in the script or with newrelic-admin",
        ),
        test: "daemon_options_without_effect",
        ..ROW
    },
];
