//! A worker's process and the pipes with its output.
//!
//! Responsible for: making and closing their descriptors, sending to the control socket without waiting, and no line of output
//! being lost when the process dies. Must never: decide when a process ends. Called by: the supervisor.
use crate::lines::Lines;
use crate::pool::{Now, Number};
use crate::settings::Settings;
use crate::spawn::{Place, SpawnError, launch};
use drover_sys::Errno;
use drover_sys::channel::{packet_pair, send};
use drover_sys::spawn::Child;
use drover_wire::control::{ToWorker, encode};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, waitpid};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// So much of one pipe is read before the loop looks at something else.
const AT_ONCE: usize = 64 * 1024;

#[derive(Debug)]
pub struct Process {
    pub unit: u32,
    pub number: Number,
    pub generation: u64,
    pub settings: Rc<Settings>,
    /// When its memory was looked at last.
    pub memory_at: Now,
    /// `None` once the worker has closed its side.
    pub control: Option<OwnedFd>,
    child: Child,
}

/// One of the two output pipes of a worker. It may outlive the worker: a program that the application started has it as well.
#[derive(Debug)]
pub struct Output {
    pub fd: OwnedFd,
    pub pid: u32,
    lines: Lines,
    settings: Rc<Settings>,
}

/// Starts a worker of a unit.
pub fn start(
    unit: u32,
    number: Number,
    generation: u64,
    settings: &Rc<Settings>,
    queue: &OwnedFd,
    place: &Place,
) -> Result<(Process, [Output; 2]), SpawnError> {
    let system = |errno| SpawnError::System("make the worker's pipes and sockets", errno);
    let (control, theirs) = packet_pair().map_err(system)?;
    let (out, out_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(system)?;
    let (error, error_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(system)?;
    // Only our end: the worker's prints must wait when the pipe is full, not fail.
    rustix::fs::fcntl_setfl(&out, OFlags::NONBLOCK).map_err(system)?;
    rustix::fs::fcntl_setfl(&error, OFlags::NONBLOCK).map_err(system)?;
    let child = launch(settings, place, theirs.as_fd(), queue.as_fd(), out_writer.as_fd(), error_writer.as_fd())?;
    let pid = child.pid.as_raw_nonzero().get().unsigned_abs();
    let output = |fd| Output { fd, pid, lines: Lines::default(), settings: settings.clone() };
    let process = Process { unit, number, generation, settings: settings.clone(), memory_at: Now::ZERO, control: Some(control), child };
    Ok((process, [output(out), output(error)]))
}

impl Process {
    pub const fn pid(&self) -> Pid {
        self.child.pid
    }

    pub fn tell(&self, message: &ToWorker) -> Result<(), Errno> {
        let Some(control) = &self.control else { return Err(Errno::PIPE) };
        let bytes = encode(message).map_err(|_| Errno::INVAL)?;
        send(control, &[&bytes], &[], false).map(drop)
    }

    /// The process is our child and not reaped yet, so the number is its own. SIGKILL also goes to the programs that it has
    /// started and that have not made themselves independent of it.
    pub fn signal(&self, signal: Signal) {
        if signal == Signal::KILL {
            let _ = kill_process_group(self.child.pid, signal);
        }
        let _ = kill_process(self.child.pid, signal);
    }

    /// How it has ended, if it has.
    pub fn reap(&self) -> Option<Ended> {
        match waitpid(Some(self.child.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => Some(self.ended(describe(status))),
            Ok(None) | Err(Errno::INTR) => None,
            Err(_) => Some(self.ended("ended, nobody knows how".to_owned())),
        }
    }

    fn ended(&self, how: String) -> Ended {
        let failure = self.child.failure().map(|failed| SpawnError::from_step(failed, &self.settings.spec));
        failure.map_or(Ended::Ran(how), Ended::NeverRan)
    }
}

/// What became of a process.
#[derive(Debug)]
pub enum Ended {
    /// Its program never ran.
    NeverRan(SpawnError),
    /// Reads as in "worker 12 was killed by signal 9".
    Ran(String),
}

fn describe(status: WaitStatus) -> String {
    let core = if status.as_raw() & 0x80 != 0 { ", core dumped" } else { "" };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => format!("exited with status {status}"),
        (_, Some(signal)) => format!("was killed by signal {signal}{core}"),
        _ => format!("ended with status {:#x}", status.as_raw()),
    }
}

impl Output {
    /// Logs what has come. False: the pipe has ended.
    pub fn read(&mut self) -> bool {
        let mut buffer = [0; 8192];
        let mut left = AT_ONCE;
        let Self { fd, pid, lines, settings } = self;
        let log = |line: &[u8]| {
            // A line without anything says nothing in a log.
            if !line.trim_ascii().is_empty() {
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
