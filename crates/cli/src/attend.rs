//! The lifecycle of httpd, and the meaning of signals during it.
//!
//! Responsible for: draining before httpd stops, a deadline for each step of the shutdown, and
//! reaping every process that becomes a child of drover (in a container drover is process 1). Must
//! never: leave httpd running, or abort a request during the grace period unless a second signal
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

/// Time for httpd to stop without a drain: workers get their shutdown-timeout (5 s), httpd's child
/// processes about 10 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for killed processes to disappear. droverd notices within 2 s that httpd has exited.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// A stop signal this soon after another one is the same request: timeout(1) and shells signal a
/// process and then its group.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// An event.
#[derive(Debug)]
pub enum Event {
    /// A signal to drover.
    Signal(i32),
    /// httpd accepts connections.
    Ready,
    /// The application was loaded, or why not.
    Loaded(Result<(), String>),
}

/// A signal to httpd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// No new connections; finish the running requests.
    Drain,
    /// Stop at once.
    Stop,
    /// SIGKILL to httpd and its child processes.
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// httpd does not handle the drain signal yet.
    Starting,
    Serving,
    Ending(Order),
}

/// The state of httpd's lifecycle. Pure: it signals no process and reads no clock.
#[derive(Debug)]
struct Lifecycle {
    phase: Phase,
    grace: Duration,
    /// When the phase began, and when the next one begins without a signal.
    since: Instant,
    until: Option<Instant>,
}

impl Lifecycle {
    fn new(grace: Duration, now: Instant) -> Lifecycle {
        Lifecycle { phase: Phase::Starting, grace, since: now, until: None }
    }

    fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }

    fn ready(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Serving;
        }
    }

    /// A stop signal. A second one skips the drain.
    fn asked(&mut self, at_once: bool, now: Instant) -> Option<Order> {
        if self.is_ending() && now.saturating_duration_since(self.since) < SAME_REQUEST {
            return None;
        }
        Some(self.advance(at_once, now))
    }

    /// The next step of the shutdown.
    fn advance(&mut self, at_once: bool, now: Instant) -> Order {
        let order = match self.phase {
            Phase::Serving if !at_once && !self.grace.is_zero() => Order::Drain,
            Phase::Starting | Phase::Serving | Phase::Ending(Order::Drain) => Order::Stop,
            Phase::Ending(Order::Stop | Order::Kill) => Order::Kill,
        };
        let time = match order {
            Order::Drain => self.grace,
            Order::Stop => STOP_TIMEOUT,
            Order::Kill => KILL_TIMEOUT,
        };
        (self.phase, self.since, self.until) = (Phase::Ending(order), now, now.checked_add(time));
        order
    }
}

/// What SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hangup {
    /// drover was started from a terminal, which is being closed.
    Stop,
    /// There is no terminal, so the signal asks for a reload.
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

/// Whether a signal has asked drover to stop before there is an httpd. A reload has no meaning then.
pub fn is_stopped(events: &Receiver<Event>) -> bool {
    let hangup = Hangup::find();
    events.try_iter().any(|event| match event {
        Event::Signal(SIGHUP) => hangup == Hangup::Stop,
        Event::Signal(signal) => ![SIGCHLD, SIGUSR1].contains(&signal),
        _ => false,
    })
}

/// Delivers signals as events. Called before anything else, so that none ends drover while it starts.
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

/// Watches httpd until it has exited.
pub struct Watch<'a> {
    pub httpd: Pid,
    pub program: PathBuf,
    pub file: PathBuf,
    pub grace: Duration,
    pub events: &'a Receiver<Event>,
    /// Called once, when httpd accepts connections; [`Event::Loaded`] follows.
    pub on_ready: &'a mut dyn FnMut(),
    /// Printed once the application is loaded.
    pub serving: String,
}

impl Watch<'_> {
    /// Runs until httpd has exited. The inner result is drover's own.
    pub fn run(self) -> Result<Result<ExitCode, Error>, Error> {
        let hangup = Hangup::find();
        let mut life = Lifecycle::new(self.grace, Instant::now());
        let (mut failure, mut check) = (None, None);
        let status = loop {
            let event = match life.until {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => self.events.recv_timeout(until.saturating_duration_since(Instant::now())),
            };
            let order = match event {
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Httpd("signals can no longer be received".into())),
                Err(RecvTimeoutError::Timeout) if life.phase == Phase::Ending(Order::Kill) => {
                    return Err(Error::Httpd(format!("process {} was killed but does not exit", self.httpd)));
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
                    // A closed standard output is no reason to stop.
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
            self.reap_the_rest();
        }
        Ok(match failure {
            Some(why) => Err(Error::NotLoaded(why)),
            None if life.is_ending() => Ok(ExitCode::SUCCESS),
            None => Err(Error::Httpd(format!("exited by itself ({}); its last log messages give the reason", describe(status)))),
        })
    }

    fn order(&self, order: Order) {
        // Fails for a process that has just exited, which is reaped next.
        let _ = match order {
            Order::Drain => {
                say(format_args!("stopping; running requests have {} s to finish, a second signal aborts them", self.grace.as_secs()));
                kill_process(self.httpd, Signal::WINCH)
            }
            Order::Stop => kill_process(self.httpd, Signal::TERM),
            Order::Kill => kill_process_group(self.httpd, Signal::KILL),
        };
    }

    /// Checks the configuration before httpd reads it again: an invalid one would terminate httpd.
    fn reload(&self, check: &mut Option<Pid>, life: &Lifecycle) -> Option<Order> {
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

    /// Reaps every child that has exited, also those that drover adopted. Returns the status of
    /// httpd if it is among them.
    fn reap(&self, check: &mut Option<Pid>, ending: bool) -> Option<WaitStatus> {
        let mut httpd = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.httpd {
                httpd = Some(status);
            } else if *check == Some(pid) {
                *check = None;
                if status.exit_status() != Some(0) {
                    say(format_args!("not reloaded: httpd refuses its configuration (see above); the old one stays in effect"));
                } else if !ending {
                    let _ = kill_process(self.httpd, Signal::USR1);
                }
            }
        }
        httpd
    }

    /// httpd was killed: its child processes and droverd are children of drover now.
    fn reap_the_rest(&self) {
        let _ = kill_process_group(self.httpd, Signal::KILL);
        let until = Instant::now().checked_add(KILL_TIMEOUT);
        loop {
            match wait(WaitOptions::NOHANG) {
                Err(_) => return, // no child is left
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

/// How a process exited.
fn describe(status: WaitStatus) -> String {
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
    fn the_steps_of_a_shutdown_follow_each_other() {
        let start = Instant::now();
        let later = |s: u64| start + Duration::from_secs(s);
        let mut life = Lifecycle::new(Duration::from_secs(30), start);
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
        let mut young = Lifecycle::new(Duration::from_secs(30), now);
        assert_eq!(young.asked(false, now), Some(Order::Stop));
        young.ready();
        assert!(young.is_ending(), "a stopping httpd does not serve again");
        for (grace, at_once) in [(0, false), (30, true)] {
            let mut life = Lifecycle::new(Duration::from_secs(grace), now);
            life.ready();
            assert_eq!(life.asked(at_once, now), Some(Order::Stop));
        }
    }

    #[test]
    fn only_a_stop_counts_before_there_is_an_httpd() {
        let (sender, events) = std::sync::mpsc::channel();
        for (signals, stopped) in
            [(vec![], false), (vec![SIGUSR1, SIGCHLD], false), (vec![SIGUSR1, SIGTERM], true), (vec![SIGINT], true), (vec![SIGQUIT], true)]
        {
            signals.iter().for_each(|signal| sender.send(Event::Signal(*signal)).unwrap());
            assert_eq!(is_stopped(&events), stopped, "{signals:?}");
        }
    }

    #[test]
    fn an_ignored_hangup_is_seen() {
        assert!(ignores("Name:\tx\nSigIgn:\t0000000000000001\n", SIGHUP));
        assert!(!ignores("SigIgn:\t0000000000001000\n", SIGHUP) && !ignores("", SIGHUP));
    }
}
