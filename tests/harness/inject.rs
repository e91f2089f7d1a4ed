//! Fault injection into running processes: failing system calls (strace), limits (prlimit), small
//! buffers.
//!
//! Responsible for: a fault is active before the test continues, it is counted, and it is removed
//! afterwards. Must never: let a test pass because nothing was injected; without permission for
//! ptrace the test fails with that reason. Called by: `faults.rs`.
use super::processes;
use super::site::is_root;
use super::wait::{PATIENCE, poll};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};

/// What the machine must permit.
const PERMISSION: &str = "this test needs ptrace(2) of its own processes: run it as root or with kernel.yama.ptrace_scope=0, in a container \
                          with --cap-add=SYS_PTRACE and without a seccomp filter that forbids it";

/// strace, attached to some processes.
pub struct Injection {
    strace: Child,
    trace: PathBuf,
    pids: Vec<i32>,
}

/// Processes to trace.
#[derive(Debug, Clone, Copy)]
pub enum Scope {
    /// With all their threads.
    Threads,
    /// Only these, not the processes that they start.
    Alone,
}

impl Injection {
    /// From now on the system calls `calls` (syntax of strace's `trace=`) of these processes behave
    /// as `how` says (syntax of strace's `inject=…:`). Each thread counts its own calls.
    #[track_caller]
    pub fn attach(dir: &Path, pids: &[i32], scope: Scope, calls: &str, how: &str) -> Injection {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let trace = dir.join(format!("strace-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut command = Command::new("strace");
        if matches!(scope, Scope::Threads) {
            command.arg("-f");
        }
        command.arg("-o").arg(&trace).args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}"), "-e", "signal=none"]);
        command.args(pids.iter().flat_map(|pid| ["-p".to_string(), pid.to_string()]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut strace = command.spawn().unwrap_or_else(|e| panic!("strace: {e}; run: make deps"));
        let said = lines(strace.stderr.take().expect("stderr"));
        let injection = Injection { strace, trace, pids: pids.to_vec() };
        wait_until_attached(&said, pids);
        injection
    }

    /// Detaches; returns the number of changed calls.
    #[track_caller]
    pub fn detach(mut self) -> usize {
        self.end();
        self.count()
    }

    /// The number of calls changed so far.
    pub fn count(&self) -> usize {
        let text = std::fs::read(&self.trace).unwrap_or_default();
        String::from_utf8_lossy(&text).matches("(INJECTED)").count()
    }

    /// Waits until every thread is inside an unchanged call: a thread that strace releases while it
    /// skips a call gets ENOSYS.
    fn wait_for_rest(&self) {
        let _ = poll(|| self.pids.iter().all(|pid| processes::is_at_rest(*pid)).then_some(()));
    }

    fn end(&mut self) {
        self.wait_for_rest();
        // It may have exited with the last of its processes. It is reaped only here, so the process
        // id is still its own.
        let pid = Pid::from_raw(self.strace.id() as i32).expect("pid");
        let _ = kill_process(pid, Signal::TERM);
        if poll(|| self.strace.try_wait().ok().flatten()).is_none() {
            let _ = self.strace.kill();
            let _ = self.strace.wait();
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

fn lines(stderr: ChildStderr) -> Receiver<String> {
    let (sender, receiver) = channel();
    // Reads to the end, even if the receiver is closed: strace reports each new thread.
    std::thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    receiver
}

#[track_caller]
fn wait_until_attached(said: &Receiver<String>, pids: &[i32]) {
    let mut missing: BTreeSet<i32> = pids.iter().copied().collect();
    let mut text = String::new();
    while !missing.is_empty() {
        let Ok(line) = said.recv_timeout(PATIENCE) else {
            panic!("strace did not attach to {missing:?}: {text}\n{PERMISSION}");
        };
        let attached = line.split_once("Process ").filter(|(_, rest)| rest.contains(" attached"));
        if let Some(pid) = attached.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok()) {
            missing.remove(&pid);
        }
        text.push_str(&line);
        text.push('\n');
    }
}

/// A resource limit.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// RLIMIT_NOFILE.
    OpenFiles,
    /// RLIMIT_AS.
    AddressSpace,
}

impl Limit {
    /// The names in /proc/PID/limits and in prlimit(1).
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Limit::OpenFiles => ("Max open files", "nofile"),
            Limit::AddressSpace => ("Max address space", "as"),
        }
    }

    fn soft(self, pid: i32) -> Option<String> {
        let table = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        let line = table.lines().find_map(|line| line.strip_prefix(self.names().0))?;
        line.split_whitespace().next().map(String::from)
    }

    /// Sets the soft limit as the user of the process: root needs CAP_SYS_RESOURCE for other users.
    fn set(self, pid: i32, value: &str) -> Output {
        let mut command = Command::new("prlimit");
        command.arg("--pid").arg(pid.to_string()).arg(format!("--{}={value}:", self.names().1));
        if is_root() {
            let id = |field| super::processes::status(pid, field).split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
            command.gid(id("Gid")).uid(id("Uid"));
        }
        command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("prlimit (util-linux): {e}"))
    }
}

/// A soft limit of processes, restored when dropped.
pub struct Lowered {
    limit: Limit,
    was: Vec<(i32, String)>,
}

impl Lowered {
    /// Lowers the limit of each process to `value` of it.
    #[track_caller]
    pub fn new(pids: &[i32], limit: Limit, value: impl Fn(i32) -> u64) -> Lowered {
        let mut was = Vec::new();
        for &pid in pids {
            was.push((pid, limit.soft(pid).expect("limits of the process")));
            let output = limit.set(pid, &value(pid).to_string());
            assert!(output.status.success(), "prlimit of {pid}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Lowered { limit, was }
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        for (pid, value) in self.was.drain(..) {
            let _ = self.limit.set(pid, &value); // of one that has ended there is nothing to restore
        }
    }
}

/// The lowest number that a new descriptor of the process can get.
pub fn lowest_free(pid: i32) -> u64 {
    let numbers = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let used: BTreeSet<u64> = numbers.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    (0..).find(|n| !used.contains(n)).expect("a number")
}

/// Sets the send buffer of every Unix stream socket of these processes to the minimum, so that each
/// larger write of either side is partial. Returns the number of sockets.
#[track_caller]
pub fn shrink_buffers(pids: &[i32]) -> usize {
    let mut count = 0;
    for &pid in pids {
        let handle = pidfd_open(Pid::from_raw(pid).expect("pid"), PidfdFlags::empty()).expect("pidfd");
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten() {
            let number: ForeignRawFd = entry.file_name().to_str().and_then(|n| n.parse().ok()).expect("number");
            if !std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")) {
                continue;
            }
            let copy = match pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()) {
                Err(rustix::io::Errno::BADF) => continue, // closed meanwhile
                other => other.unwrap_or_else(|e| panic!("pidfd_getfd: {e}; {PERMISSION}")),
            };
            if sockopt::socket_domain(&copy) == Ok(AddressFamily::UNIX) && sockopt::socket_type(&copy) == Ok(SocketType::STREAM) {
                sockopt::set_socket_send_buffer_size(&copy, 1).expect("SO_SNDBUF");
                count += 1;
            }
        }
    }
    count
}
