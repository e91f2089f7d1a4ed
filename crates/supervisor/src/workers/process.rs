//! A worker's process and its output pipes.
//!
//! Responsible for: creating and closing their descriptors, sending to the control socket without
//! waiting, and losing no output when the process exits. Must never: decide when a process exits.
//! Called by: the supervisor.
use crate::control::settings::Settings;
use crate::pool::{Now, Number};
use crate::queue::store::Queue;
use crate::reactor::peer::Peer;
use crate::workers::lines::Lines;
use crate::workers::spawn::{SpawnContext, SpawnError, launch};
use drover_sys::channel::{packet_pair, send};
use drover_sys::clock;
use drover_sys::spawn::Child;
use drover_sys::{Errno, signals};
use drover_wire::control::{ToWorker, encode};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitStatus, kill_process, kill_process_group};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Bytes read from one pipe before the loop serves another descriptor.
const MAX_PER_TURN: usize = 64 * 1024;

#[derive(Debug)]
pub struct Process {
    pub unit: u32,
    pub number: Number,
    pub generation: u64,
    pub settings: Rc<Settings>,
    /// In bytes, as reported by the worker or measured by droverd.
    pub memory: Option<u64>,
    /// The worker cannot measure itself; droverd measured it at `memory_at`.
    pub memory_is_resident: bool,
    pub memory_at: Now,
    /// `None` once the worker closed its side.
    pub control: Option<Peer>,
    /// It sent an invalid message: it is being replaced, and its messages are ignored.
    pub distrusted: bool,
    /// When it was first sent SIGKILL.
    killed_at: Cell<Option<Now>>,
    pid: Pid,
    /// `None` if a fork server forked it.
    start: Option<Child>,
    tail: Rc<RefCell<Tail>>,
}

/// The last lines of standard error before a process was ready; they explain an early exit.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    is_ready: bool,
}

/// How long a process that was sent SIGKILL may take to exit, when droverd itself exits.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

const MAX_TAIL_LINES: usize = 10;
const MAX_TAIL_LINE: usize = 500;

impl Tail {
    fn add(&mut self, line: &[u8]) {
        if self.is_ready {
            return;
        }
        if self.lines.len() == MAX_TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.get(..MAX_TAIL_LINE).unwrap_or(line).to_vec());
    }
}

/// droverd's ends of a worker's control socket and output pipes.
#[derive(Debug)]
pub struct Ends {
    pub control: Peer,
    output: OwnedFd,
    error: OwnedFd,
}

/// One of a worker's two output pipes. It may outlive the worker: programs started by the
/// application inherit it.
#[derive(Debug)]
pub struct Output {
    pub fd: OwnedFd,
    pub pid: u32,
    /// The worker has exited.
    pub is_left: bool,
    pub settings: Rc<Settings>,
    lines: Lines,
    /// Only for standard error.
    tail: Option<Rc<RefCell<Tail>>>,
}

/// Creates a worker's control socket and output pipes: droverd's ends, and the worker's in the
/// order control, output, error.
pub fn ends() -> Result<(Ends, [OwnedFd; 3]), SpawnError> {
    let system = |errno| SpawnError::System("create the worker's pipes and sockets", errno);
    let (control, theirs) = packet_pair().map_err(system)?;
    let (output, output_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(system)?;
    let (error, error_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(system)?;
    // Only droverd's end is non-blocking: a worker's print must wait for a full pipe, not fail.
    rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).map_err(system)?;
    rustix::fs::fcntl_setfl(&error, OFlags::NONBLOCK).map_err(system)?;
    Ok((Ends { control: control.into(), output, error }, [theirs, output_writer, error_writer]))
}

/// Starts a worker of a unit.
pub fn start(
    unit: u32,
    number: Number,
    generation: u64,
    settings: &Rc<Settings>,
    queue: &Queue,
    place: &SpawnContext,
) -> Result<(Process, [Output; 2]), SpawnError> {
    let (ours, [control, output, error]) = ends()?;
    let child = launch(settings, place, control.as_fd(), queue, output.as_fd(), error.as_fd())?;
    Ok(Process::new(unit, number, generation, settings, ours, child.pid, Some(child)))
}

impl Process {
    /// A running worker; `start` reports the result of its start, unless it was forked by a fork
    /// server.
    pub fn new(
        unit: u32,
        number: Number,
        generation: u64,
        settings: &Rc<Settings>,
        ends: Ends,
        pid: Pid,
        start: Option<Child>,
    ) -> (Self, [Output; 2]) {
        let Ends { control, output, error } = ends;
        let settings = settings.clone();
        let number_of = pid.as_raw_nonzero().get().unsigned_abs();
        let tail = Rc::new(RefCell::new(Tail::default()));
        let piped = |fd, tail| Output { fd, pid: number_of, is_left: false, lines: Lines::default(), settings: settings.clone(), tail };
        let outputs = [piped(output, None), piped(error, Some(tail.clone()))];
        let process = Self {
            unit,
            number,
            generation,
            settings,
            memory: None,
            memory_is_resident: false,
            memory_at: Now::ZERO,
            control: Some(control),
            distrusted: false,
            killed_at: Cell::new(None),
            pid,
            start,
            tail,
        };
        (process, outputs)
    }

    /// The worker has imported its scripts: later output does not explain a failed start.
    pub fn is_ready(&self) {
        *self.tail.borrow_mut() = Tail { is_ready: true, ..Tail::default() };
    }

    /// Its last output if it was not ready, each line preceded by a line feed.
    pub fn last_words(&self) -> String {
        self.tail.borrow().lines.iter().map(|line| format!("\n{}", String::from_utf8_lossy(line))).collect()
    }

    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// True if a fork server forked it.
    pub const fn is_forked(&self) -> bool {
        self.start.is_none()
    }

    pub fn tell(&self, message: &ToWorker) -> Result<(), Errno> {
        let Some(control) = &self.control else { return Err(Errno::PIPE) };
        let bytes = encode(message).map_err(|_| Errno::INVAL)?;
        send(control, &[&bytes], &[], false).map(drop)
    }

    /// The process is an unreaped child, so its process id is valid. SIGKILL also goes to programs
    /// that it started in its process group.
    pub fn signal(&self, signal: Signal) {
        if signal == Signal::KILL {
            self.killed_at.set(self.killed_at.get().or_else(|| Some(Now::from_nanos(clock::monotonic_ns()))));
            let _ = kill_process_group(self.pid, signal);
        }
        let _ = kill_process(self.pid, signal);
    }

    /// When it counts as unkillable: the kernel waits inside it for a file system or a device.
    pub fn unkillable_at(&self) -> Option<Now> {
        self.killed_at.get().map(|at| at + KILL_PATIENCE)
    }

    /// How it exited, from the status of waitpid(2).
    pub fn ended(&self, status: WaitStatus) -> Ended {
        let failed = self.start.as_ref().and_then(Child::failure);
        let failure = failed.map(|failed| SpawnError::from_step(failed, &self.settings.spec));
        failure.map_or_else(
            || Ended::Ran { how: describe(status), clean: status.exit_status() == Some(0), killed: is_killed(status) },
            Ended::NeverRan,
        )
    }
}

/// How a process ended.
#[derive(Debug)]
pub enum Ended {
    /// The program could not be run.
    NeverRan(SpawnError),
    /// `how` completes "worker 12 …", as in "was killed by signal 9". `clean`: it exited with
    /// status 0. `killed`: see [`is_killed`].
    Ran { how: String, clean: bool, killed: bool },
}

/// True for signals that are sent to end a process, not those caused by its own fault.
fn is_killed(status: WaitStatus) -> bool {
    // SIGUSR1 ends a worker too, as it does httpd's children.
    status.terminating_signal().is_some_and(|signal| signals::is_sent_to_end(signal) || signal == signals::USER1)
}

fn describe(status: WaitStatus) -> String {
    let core = if status.as_raw() & 0x80 != 0 { ", core dumped" } else { "" };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => format!("exited with status {status}"),
        (_, Some(signal)) => format!("was killed by signal {signal}{core}"),
        _ => format!("exited with wait status {:#x}", status.as_raw()),
    }
}

impl Output {
    /// Logs the available output. False if the pipe was closed.
    pub fn read(&mut self) -> bool {
        let mut buffer = [0; 8192];
        let mut left = MAX_PER_TURN;
        let Self { fd, pid, lines, settings, tail, .. } = self;
        let log = |line: &[u8]| {
            // Empty lines are useless in a log.
            if !line.trim_ascii().is_empty() {
                if let Some(tail) = &tail {
                    tail.borrow_mut().add(line);
                }
                settings.sink.output(&settings.spec.name, *pid, line);
            }
        };
        while left > 0 {
            match rustix::io::read(&*fd, &mut buffer) {
                Ok(0) => {
                    lines.end(log);
                    return false;
                }
                Ok(n) => {
                    lines.push(buffer.get(..n).unwrap_or_default(), log);
                    left = left.saturating_sub(n);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}
