//! The event loop: wait, read, notify the supervisor.
//!
//! Responsible for: droverd's own lifetime (stop from httpd, exit of httpd, signals) and for no
//! descriptor blocking the others. Called by: main.
use crate::arguments::Inherited;
use crate::log::messages::Code;
use crate::pool::Event;
use crate::queue::store::Stored;
use crate::reactor::fd_reserve::FdReserve;
use crate::reactor::poller::Source;
use crate::supervisor::{Supervisor, now};
use drover_sys::Errno;
use drover_sys::channel::{dispose, has_ended, receive};
use drover_sys::signals::{CHILD, Signals};
use drover_wire::control::{MAX_CONTROL, OpenQueue, ToSupervisor, decode};
use rustix::process::{Pid, getppid};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Workers are killed this long after httpd's parent was killed, so that all exit within two
/// seconds.
const ORPHANED: Duration = Duration::from_millis(1500);
/// Messages read from one socket before the loop serves another descriptor.
const MAX_PER_TURN: usize = 64;

pub struct EventLoop {
    supervisor: Supervisor,
    signals: Signals,
    control: Option<OwnedFd>,
    broker: OwnedFd,
    fd_reserve: FdReserve,
    parent: Pid,
    /// Error logs that arrived before their configuration.
    logs: Vec<OwnedFd>,
    /// Queues of a previous droverd, until the first configuration.
    taken: Vec<Stored>,
    configured: bool,
    /// StopAll was received, and no configuration since.
    stopped: bool,
    /// droverd exits when the last process has exited.
    exiting: bool,
    buffer: Vec<u8>,
}

impl EventLoop {
    pub fn new(supervisor: Supervisor, signals: Signals, inherited: Inherited, parent: Pid) -> Result<Self, Errno> {
        let Inherited { control, broker } = inherited;
        supervisor.poller.add(&signals, Source::Signals)?;
        supervisor.poller.add(&control, Source::Control)?;
        let taken = match supervisor.store.round(|_| true) {
            Ok(taken) => taken,
            Err(e) => {
                supervisor.main.message(Code::System, None, None, &["cannot read the store of queues".into(), e.to_string()]);
                Vec::new()
            }
        };
        if !taken.is_empty() {
            supervisor.main.message(Code::TakenOver, None, None, &[taken.len().to_string()]);
        }
        let buffer = vec![0; MAX_CONTROL];
        Ok(Self {
            supervisor,
            signals,
            control: Some(control),
            broker,
            fd_reserve: FdReserve::default(),
            parent,
            logs: Vec::new(),
            taken,
            configured: false,
            stopped: false,
            exiting: false,
            buffer,
        })
    }

    /// Runs until everything has exited.
    pub fn run(mut self) -> Result<(), Errno> {
        // The parent may have exited before PR_SET_PDEATHSIG took effect.
        if getppid() != Some(self.parent) {
            self.parent_gone();
        }
        while !(self.exiting && self.supervisor.is_empty()) {
            self.fd_reserve.fill();
            self.supervisor.tick();
            let abandon_at = self.supervisor.abandon_at().filter(|_| self.exiting);
            if abandon_at.is_some_and(|at| at <= now()) {
                self.supervisor.log_abandoned();
                break;
            }
            let until =
                self.supervisor.deadline().into_iter().chain(abandon_at).min().map(|at| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
            for source in self.supervisor.poller.wait(until)? {
                match source {
                    Source::Signals => self.on_signal(),
                    Source::Control => self.on_control(),
                    Source::Broker => self.on_broker(),
                    Source::Worker(pid) => self.supervisor.read_worker(pid),
                    Source::Output(id) => self.supervisor.read_output(id),
                    Source::Queue(id) => self.supervisor.answer_queue(id),
                    Source::ForkServer(pid) => self.supervisor.read_fork_server(pid),
                    Source::ForkedWorker(id) => self.supervisor.read_forked_worker(id),
                    Source::Admin => self.supervisor.accept_admin_clients(),
                    Source::AdminClient(id) => self.supervisor.read_admin_client(id, self.parent.as_raw_nonzero().get().unsigned_abs()),
                }
            }
            self.supervisor.answer_reloads();
        }
        self.supervisor.read_all_output();
        Ok(())
    }

    fn on_signal(&mut self) {
        while let Some(signal) = self.signals.next() {
            if signal == CHILD {
                self.supervisor.reap();
            } else if getppid() != Some(self.parent) {
                self.parent_gone();
            } else {
                self.stop(None);
                self.exiting = true;
            }
        }
    }

    /// httpd's parent exited. After a StopAll the workers keep their shutdown-timeout.
    fn parent_gone(&mut self) {
        if !self.stopped && !self.exiting {
            self.supervisor.main.message(Code::ParentExited, None, None, &[self.parent.as_raw_nonzero().to_string()]);
            self.stop(Some(ORPHANED));
        }
        self.exiting = true;
        if let Some(control) = self.control.take() {
            self.supervisor.poller.remove(&control);
        }
    }

    fn stop(&mut self, within: Option<Duration>) {
        self.supervisor.main.message(Code::Stopping, None, None, &[]);
        self.stopped = true;
        self.supervisor.feed_all(&Event::Stop { within });
    }

    fn on_control(&mut self) {
        for _ in 0..MAX_PER_TURN {
            let Some(control) = &self.control else { return };
            let mut fds = Vec::new();
            match self.fd_reserve.lend(|| receive(control, &mut self.buffer, &mut fds, false)) {
                Ok(0) | Err(Errno::CONNRESET) => return self.parent_gone(),
                Ok(n) => match decode::<ToSupervisor>(self.buffer.get(..n).unwrap_or_default()) {
                    Ok(message) => self.on_message(message, fds),
                    Err(e) => self.log_invalid("httpd's parent", &e.to_string()),
                },
                Err(Errno::AGAIN) => return,
                Err(e) => return self.log_invalid("httpd's parent", &e.to_string()),
            }
        }
    }

    fn on_message(&mut self, message: ToSupervisor, mut fds: Vec<OwnedFd>) {
        match message {
            ToSupervisor::Logs => self.logs.append(&mut fds),
            ToSupervisor::StopAll => self.stop(None),
            ToSupervisor::Configure { len } => {
                let mut logs = std::mem::take(&mut self.logs);
                let mut fds = fds.into_iter();
                let file = fds.next().ok_or_else(|| "it has no memory file".to_owned());
                logs.extend(fds);
                match file.and_then(|file| self.supervisor.read_configuration(&file, len)) {
                    Ok(_) if self.exiting => {}
                    Ok(configuration) => {
                        self.stopped = false;
                        let taken = std::mem::take(&mut self.taken);
                        self.supervisor.configure(configuration, logs, taken);
                        self.listen_to_children();
                    }
                    Err(e) => self.supervisor.main.message(Code::BadConfiguration, None, None, &[e]),
                }
            }
        }
    }

    /// Queue requests are read only once there is a configuration to answer them from.
    fn listen_to_children(&mut self) {
        if !self.configured {
            match self.supervisor.poller.add(&self.broker, Source::Broker) {
                Ok(()) => self.configured = true,
                Err(e) => {
                    self.supervisor.main.message(Code::System, None, None, &["cannot listen to httpd's children".into(), e.to_string()])
                }
            }
        }
    }

    fn on_broker(&mut self) {
        for _ in 0..MAX_PER_TURN {
            let mut fds = Vec::new();
            match self.fd_reserve.lend(|| receive(&self.broker, &mut self.buffer, &mut fds, false)) {
                Ok(0) if has_ended(&self.broker) => return self.supervisor.poller.remove(&self.broker),
                Ok(n) => {
                    match (decode::<OpenQueue>(self.buffer.get(..n).unwrap_or_default()), fds.first()) {
                        (Ok(open), Some(reply_to)) => self.supervisor.open_queue(open, reply_to),
                        (Ok(_), None) => self.log_invalid("a child of httpd", "no descriptor for the reply"),
                        (Err(e), _) => self.log_invalid("a child of httpd", &e.to_string()),
                    }
                    dispose(fds);
                }
                Err(Errno::AGAIN) => return,
                Err(e) => return self.log_invalid("a child of httpd", &e.to_string()),
            }
        }
    }

    fn log_invalid(&self, whom: &str, why: &str) {
        self.supervisor.main.message(Code::BadMessage, None, None, &[whom.to_owned(), why.to_owned()]);
    }
}
