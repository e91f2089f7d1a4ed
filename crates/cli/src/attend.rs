//! httpd's life, from its start to its end, and what signals mean meanwhile.
//!
//! Responsible for: draining before the end, each step towards the end having a deadline, and reaping whatever becomes a child of drover (in
//! a container drover is process 1). Must never: leave httpd running, or cut a request before the grace is over unless a second signal
//! asks for it. Called by: `serve.rs`.
use crate::error::Error;
use crate::say;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How long httpd may take to stop without a drain: workers get their shutdown-timeout (5 s), children of httpd about 10 s.
const STOP: Duration = Duration::from_secs(20);
/// How long killed processes may take to disappear. droverd notices within 2 s that httpd is gone.
const KILL: Duration = Duration::from_secs(5);
/// A stop signal so soon after another one is the same request: timeout(1) and shells signal a process and then its group.
const SAME: Duration = Duration::from_millis(500);

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A signal to drover.
    Signal(i32),
    /// httpd accepts connections.
    Ready,
    /// The application was loaded, or cannot be.
    Loaded(Result<(), String>),
}

/// What is sent to httpd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// No new connections; finish the running requests.
    Drain,
    /// End at once.
    Stop,
    /// SIGKILL to httpd and its children.
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// httpd does not know the signal for a drain yet.
    Starting,
    Serving,
    Ending(Order),
}

/// How far httpd's life has come. Knows no process and reads no clock.
#[derive(Debug)]
struct Life {
    phase: Phase,
    grace: Duration,
    /// When the present phase began, and when the next one begins by itself.
    since: Instant,
    until: Option<Instant>,
}

impl Life {
    fn new(grace: Duration, now: Instant) -> Life {
        Life { phase: Phase::Starting, grace, since: now, until: None }
    }

    fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }

    fn ready(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Serving;
        }
    }

    /// A signal asks for the end. A second one asks for it at once.
    fn asked(&mut self, at_once: bool, now: Instant) -> Option<Order> {
        if self.is_ending() && now.saturating_duration_since(self.since) < SAME {
            return None;
        }
        Some(self.advance(at_once, now))
    }

    /// The next step towards the end.
    fn advance(&mut self, at_once: bool, now: Instant) -> Order {
        let order = match self.phase {
            Phase::Serving if !at_once && !self.grace.is_zero() => Order::Drain,
            Phase::Starting | Phase::Serving | Phase::Ending(Order::Drain) => Order::Stop,
            Phase::Ending(Order::Stop | Order::Kill) => Order::Kill,
        };
        let time = match order {
            Order::Drain => self.grace,
            Order::Stop => STOP,
            Order::Kill => KILL,
        };
        (self.phase, self.since, self.until) = (Phase::Ending(order), now, now.checked_add(time));
        order
    }
}

/// What the terminal's end or `kill -HUP` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hangup {
    /// The terminal that drover was started from is gone.
    Stop,
    /// There is no terminal, so somebody asks for new code.
    Reload,
    /// Started with nohup.
    Ignore,
}

impl Hangup {
    fn find() -> Hangup {
        let ignored = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, SIGHUP));
        match std::fs::File::open("/dev/tty") {
            _ if ignored => Hangup::Ignore,
            Ok(_) => Hangup::Stop,
            Err(_) => Hangup::Reload,
        }
    }
}

/// Whether a process with this /proc/PID/status ignores a signal.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Passes signals on as events. Called before httpd starts, so that a Ctrl-C in that moment ends both.
pub fn watch_signals(events: Sender<Event>) -> Result<(), Error> {
    let mut wanted = vec![SIGCHLD, SIGINT, SIGTERM, SIGQUIT, SIGUSR1];
    if Hangup::find() != Hangup::Ignore {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).map_err(|e| Error::io("signals", e))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// httpd and what drover knows of it.
pub struct Attendant<'a> {
    pub httpd: Pid,
    pub program: PathBuf,
    pub file: PathBuf,
    pub grace: Duration,
    pub events: &'a Receiver<Event>,
    /// Called once, when httpd accepts connections; an [`Event::Loaded`] is to follow.
    pub on_ready: &'a mut dyn FnMut(),
    /// Printed when the application was loaded.
    pub serving: String,
}

impl Attendant<'_> {
    /// Until httpd has ended. The inner result is what becomes of drover.
    pub fn attend(self) -> Result<Result<ExitCode, Error>, Error> {
        let hangup = Hangup::find();
        let mut life = Life::new(self.grace, Instant::now());
        let (mut failure, mut check) = (None, None);
        let status = loop {
            let event = match life.until {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => self.events.recv_timeout(until.saturating_duration_since(Instant::now())),
            };
            let order = match event {
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Httpd("no signals can be received any more".into())),
                Err(RecvTimeoutError::Timeout) if life.phase == Phase::Ending(Order::Kill) => {
                    return Err(Error::Httpd(format!("process {} does not end although it was killed", self.httpd)));
                }
                Err(RecvTimeoutError::Timeout) => Some(life.advance(true, Instant::now())),
                Ok(Event::Signal(SIGCHLD)) => match self.reap(&mut check, life.is_ending()) {
                    Some(status) => break status,
                    None => None,
                },
                Ok(Event::Signal(SIGUSR1)) => self.reload(&mut check, &life),
                Ok(Event::Signal(SIGHUP)) if hangup == Hangup::Reload => self.reload(&mut check, &life),
                Ok(Event::Signal(signal)) => life.asked(signal == SIGQUIT, Instant::now()),
                Ok(Event::Ready) => {
                    if life.phase == Phase::Starting {
                        (self.on_ready)();
                    }
                    life.ready();
                    None
                }
                Ok(Event::Loaded(_)) if life.is_ending() => None,
                Ok(Event::Loaded(Ok(()))) => {
                    // Standard output may have been closed; that is no reason to stop.
                    let _ = writeln!(std::io::stdout(), "{}", self.serving);
                    None
                }
                Ok(Event::Loaded(Err(why))) => {
                    failure = Some(why);
                    Some(life.advance(true, Instant::now()))
                }
            };
            if let Some(order) = order {
                self.order(order);
            }
        };
        if !status.exited() {
            self.end_the_rest();
        }
        Ok(match failure {
            Some(why) => Err(Error::NotLoaded(why)),
            None if life.is_ending() => Ok(ExitCode::SUCCESS),
            None => Err(Error::Httpd(format!("ended by itself ({}); its last messages say why", told(status)))),
        })
    }

    fn order(&self, order: Order) {
        // A process that has ended in this moment is reaped next.
        let _ = match order {
            Order::Drain => {
                say(format_args!("stopping; running requests have {} s, a second signal ends them at once", self.grace.as_secs()));
                kill_process(self.httpd, Signal::WINCH)
            }
            Order::Stop => kill_process(self.httpd, Signal::TERM),
            Order::Kill => kill_process_group(self.httpd, Signal::KILL),
        };
    }

    /// httpd reads its configuration again, when it accepts it: one that it refuses would end it.
    fn reload(&self, check: &mut Option<Pid>, life: &Life) -> Option<Order> {
        if life.phase == Phase::Serving && check.is_none() {
            let started =
                Command::new(&self.program).arg("-f").arg(&self.file).arg("-t").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            match started {
                Ok(child) => *check = Some(Pid::from_child(&child)),
                Err(e) => say(format_args!("not reloaded: {}: {e}", self.program.display())),
            }
        }
        None
    }

    /// Reaps every child that has ended, also those that drover adopted; the status when httpd is among them.
    fn reap(&self, check: &mut Option<Pid>, ending: bool) -> Option<WaitStatus> {
        let mut httpd = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.httpd {
                httpd = Some(status);
            } else if *check == Some(pid) {
                *check = None;
                if status.exit_status() != Some(0) {
                    say(format_args!("not reloaded: httpd refuses its configuration (above); the old one stays in effect"));
                } else if !ending {
                    let _ = kill_process(self.httpd, Signal::USR1);
                }
            }
        }
        httpd
    }

    /// httpd was killed: its children and droverd are drover's now.
    fn end_the_rest(&self) {
        let _ = kill_process_group(self.httpd, Signal::KILL);
        let until = Instant::now().checked_add(KILL);
        loop {
            match wait(WaitOptions::NOHANG) {
                Err(_) => return, // there is no child any more
                Ok(Some(_)) => continue,
                Ok(None) => {}
            }
            let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() || self.events.recv_timeout(left).is_err() {
                return;
            }
        }
    }
}

/// A process's end in words.
fn told(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("killed by signal {signal}"),
        _ => "status unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_towards_the_end_follows_the_other() {
        let start = Instant::now();
        let later = |s: u64| start + Duration::from_secs(s);
        let mut life = Life::new(Duration::from_secs(30), start);
        life.ready();
        assert_eq!(life.asked(false, later(1)), Some(Order::Drain));
        assert_eq!(life.until, Some(later(31)));
        assert_eq!(life.asked(false, later(1) + Duration::from_millis(100)), None, "the same request, delivered twice");
        assert_eq!(life.asked(false, later(2)), Some(Order::Stop));
        assert_eq!(life.asked(false, later(4)), Some(Order::Kill));
        assert_eq!(life.advance(true, later(5)), Order::Kill);
    }

    #[test]
    fn nothing_is_drained_before_httpd_serves_or_without_grace() {
        let now = Instant::now();
        let mut young = Life::new(Duration::from_secs(30), now);
        assert_eq!(young.asked(false, now), Some(Order::Stop));
        young.ready();
        assert!(young.is_ending(), "it does not come back to life");
        for (grace, at_once) in [(0, false), (30, true)] {
            let mut life = Life::new(Duration::from_secs(grace), now);
            life.ready();
            assert_eq!(life.asked(at_once, now), Some(Order::Stop));
        }
    }

    #[test]
    fn an_ignored_hangup_is_seen() {
        assert!(ignores("Name:\tx\nSigIgn:\t0000000000000001\n", SIGHUP));
        assert!(!ignores("SigIgn:\t0000000000001000\n", SIGHUP) && !ignores("", SIGHUP));
    }
}
