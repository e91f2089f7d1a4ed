//! Starts workers, reads their output and reaps them.
//!
//! Responsible for: knowing or reaping every process below droverd, and reporting each start and
//! exit to its pool. Must never: decide when a worker starts or exits; the pools do. Called by:
//! `supervisor.rs` and the event loop; `fork_server.rs` and `forked_worker.rs` for groups with
//! forked workers.
use crate::log::messages::Code;
use crate::pool::{Event, Number};
use crate::reactor::poller::Source;
use crate::supervisor::Supervisor;
use crate::workers::process::{Ended, Output, Process, start};
use drover_sys::{Errno, roster};
use drover_wire::control::WorkerConfig;
use rustix::process::{WaitOptions, WaitStatus, wait};

/// Requests named in the message about a crashed worker.
const MAX_NAMED: usize = 8;
/// Pipes of exited workers that are still read, for each group. Each worker has two.
const MAX_LEFT_OUTPUTS: usize = 32;

impl Supervisor {
    /// Starts a worker that the start limiter admitted.
    pub fn launch(&mut self, id: u32, number: Number) {
        self.repair_queue(id);
        let Some(unit) = self.units.get_mut(&id) else { return };
        let (Some(generation), Some(queue)) = (unit.waiting.remove(&number), unit.queue.as_ref()) else { return };
        if unit.settings.spec.preload_fork {
            return self.launch_from_fork_server(id, number, generation);
        }
        match start(id, number, generation, &unit.settings, queue, &self.spawn_context) {
            Ok((process, outputs)) => {
                let watched = self.attach(process, outputs);
                self.feed(id, Event::Started(number));
                self.unfit_unless(watched, id, number);
            }
            Err(e) => {
                unit.settings.log(Code::SpawnFailed, None, &[e.to_string()]);
                self.unstarted(id, number, e.to_string(), false);
            }
        }
    }

    /// Reports that a worker could not be started. `killed`: its process or its fork server was
    /// killed from outside.
    pub fn unstarted(&mut self, id: u32, worker: Number, reason: String, killed: bool) {
        self.start_limiter.release((id, worker));
        self.feed(id, Event::Unstarted { worker, reason, killed });
    }

    /// Registers a worker and watches its descriptors.
    pub fn attach(&mut self, process: Process, outputs: [Output; 2]) -> Result<(), Errno> {
        let pid = process.pid().as_raw_nonzero().get().unsigned_abs();
        if let Some(unit) = self.units.get_mut(&process.unit) {
            unit.pids.insert(process.number, pid);
        }
        let watched = process.control.as_ref().map_or(Ok(()), |c| self.poller.add(c, Source::Worker(pid)));
        self.processes.insert(pid, process);
        watched.and(self.read_from(outputs))
    }

    /// Watches the output pipes of a process.
    pub fn read_from(&mut self, outputs: [Output; 2]) -> Result<(), Errno> {
        let mut watched = Ok(());
        for output in outputs {
            self.next_output = self.next_output.wrapping_add(1);
            watched = watched.and(self.poller.add(&output.fd, Source::Output(self.next_output)));
            self.outputs.insert(self.next_output, output);
        }
        watched
    }

    pub fn unfit_unless(&mut self, watched: Result<(), Errno>, id: u32, worker: Number) {
        if let Err(e) = watched {
            self.main.message(Code::System, None, None, &["cannot watch a worker's descriptors".into(), e.to_string()]);
            self.feed(id, Event::Unfit { worker, reason: e.to_string() });
        }
    }

    /// The configuration sent to a worker when it starts.
    pub fn worker_config(&self, process: &Process) -> Option<WorkerConfig> {
        let unit = self.units.get(&process.unit)?;
        let spec = &process.settings.spec;
        let mut options = process.settings.worker_options(&unit.key.application).clone();
        options.maximum_requests = options.maximum_requests.map(|most| own_maximum(most, process.number));
        Some(WorkerConfig {
            version: drover_wire::VERSION.to_owned(),
            group: spec.name.clone(),
            application_group: unit.key.application.clone(),
            generation: process.generation,
            is_template: false,
            processes: spec.processes,
            multiprocess: spec.multiprocess,
            threads: spec.threads,
            has_memory_soft: spec.memory_soft.is_some(),
            home: spec.home.clone(),
            options,
            scripts: unit.scripts.required(),
            optional: unit.scripts.optional(),
        })
    }

    /// Reaps exited child processes. Unknown ones are orphaned programs of applications: droverd is
    /// a subreaper, for the sake of forked workers ([`crate::workers::forked_worker`]).
    pub fn reap(&mut self) {
        // A worker that said Hello and then exited is registered by this.
        for id in self.forked_workers.keys().copied().collect::<Vec<_>>() {
            self.read_forked_worker(id);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.child_ended(pid.as_raw_nonzero().get().unsigned_abs(), status),
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn child_ended(&mut self, pid: u32, status: WaitStatus) {
        if self.fork_servers.contains_key(&pid) {
            return self.fork_server_exited(pid, status);
        }
        // Reads the last output first, so that it is logged before the exit.
        self.read_worker(pid);
        let Some(process) = self.processes.remove(&pid) else { return };
        self.read_last_output(pid);
        if let Some(control) = &process.control {
            self.poller.remove(control);
        }
        let worker = process.number;
        self.start_limiter.release((process.unit, worker));
        let event = match process.ended(status) {
            Ended::Ran { how, clean, killed } => {
                let last_words = process.last_words();
                let running = if clean { String::new() } else { self.running(process.unit, pid) };
                Event::Exited { worker, how: how + &running + &last_words, clean, killed }
            }
            Ended::NeverRan(e) => {
                process.settings.log(Code::SpawnFailed, None, &[e.to_string()]);
                Event::Unstarted { worker, reason: e.to_string(), killed: false }
            }
        };
        self.feed(process.unit, event);
        if let Some(unit) = self.units.get_mut(&process.unit) {
            unit.pids.remove(&worker);
        }
    }

    /// The requests that a process ran when it crashed, as recorded by httpd and the worker.
    fn running(&self, id: u32, pid: u32) -> String {
        let Some(queue) = self.units.get(&id).and_then(|u| u.queue.as_ref()) else { return String::new() };
        named(&roster::run_by(&queue.tokens, pid))
    }

    /// Reads what is left in the pipes of an exited process.
    pub fn read_last_output(&mut self, pid: u32) {
        for output in self.outputs.iter().filter(|(_, o)| o.pid == pid).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.read_output(output);
        }
        let mut group = None;
        for output in self.outputs.values_mut().filter(|o| o.pid == pid) {
            output.is_left = true;
            group = Some(output.settings.spec.name.clone());
        }
        if let Some(group) = group {
            self.close_left_outputs(&group);
        }
    }

    /// A program started by a worker keeps the worker's pipes open while it runs. Only the newest
    /// pipes of a group are still read.
    fn close_left_outputs(&mut self, group: &[u8]) {
        let left: Vec<u32> = self.outputs.iter().filter(|(_, o)| o.is_left && o.settings.spec.name == group).map(|(id, _)| *id).collect();
        let closed = left.len().saturating_sub(MAX_LEFT_OUTPUTS);
        for id in left.iter().take(closed) {
            if let Some(output) = self.outputs.remove(id) {
                self.poller.remove(&output.fd);
                output.settings.log(Code::OutputClosed, Some(output.pid), &[]);
            }
        }
    }

    pub fn read_output(&mut self, id: u32) {
        if self.outputs.get_mut(&id).is_some_and(|o| !o.read())
            && let Some(o) = self.outputs.remove(&id)
        {
            self.poller.remove(&o.fd);
        }
    }

    /// Reads what is left in all pipes before droverd exits.
    pub fn read_all_output(&mut self) {
        for id in self.outputs.keys().copied().collect::<Vec<_>>() {
            self.read_output(id);
        }
    }
}

/// Names requests for a log message; empty if there are none.
fn named(requests: &[Vec<u8>]) -> String {
    let script_and_mtime: Vec<String> = requests.iter().take(MAX_NAMED).map(|about| about.escape_ascii().to_string()).collect();
    let more = requests.len().saturating_sub(script_and_mtime.len());
    match (script_and_mtime.is_empty(), more) {
        (true, _) => String::new(),
        (_, 0) => format!(" (it ran {})", script_and_mtime.join(", ")),
        _ => format!(" (it ran {} and {more} more requests)", script_and_mtime.join(", ")),
    }
}

/// maximum-requests for one worker: reduced by up to a tenth, spread so that neighbours differ
/// much.
fn own_maximum(most: u64, worker: Number) -> u64 {
    let spread = u64::from(worker.wrapping_mul(0x9e37_79b9) >> 16) * (most / 10) / (1 << 16);
    most - spread
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::settings::Settings;
    use crate::workers::process::ends;
    use drover_wire::control::GroupSpec;
    use std::path::Path;
    use std::rc::Rc;

    #[test]
    fn requests_are_named_in_bounds() {
        let requests: Vec<Vec<u8>> = (0..10).map(|n| format!("GET /{n}\x1b").into_bytes()).collect();
        assert_eq!((named(&[]), named(&requests[..2])), (String::new(), " (it ran GET /0\\x1b, GET /1\\x1b)".into()));
        assert!(named(&requests).ends_with("GET /7\\x1b and 2 more requests)"));
    }

    #[test]
    fn programs_that_outlive_their_workers_do_not_fill_droverd() {
        let sink = Rc::new(crate::log::Sink::standard_error(0));
        let place = crate::workers::spawn::SpawnContext::new(Path::new("/nowhere/droverd"), None).unwrap();
        let (read, write) = drover_sys::channel::packet_pair().unwrap();
        let store = crate::queue::store::Store::new(read, write);
        let mut supervisor = Supervisor::new(place, crate::reactor::poller::Poller::new().unwrap(), sink.clone(), store);
        let settings = |name: &str| {
            let spec = GroupSpec { name: name.into(), ..GroupSpec::default() };
            Rc::new(Settings { spec, sink: sink.clone(), targets: Rc::default() })
        };
        let (shop, blog) = (settings("shop"), settings("blog"));
        let mut programs = Vec::new();
        let mut ended = |supervisor: &mut Supervisor, number: u32, settings: &Rc<Settings>| {
            let (ours, theirs) = ends().unwrap();
            let pid = rustix::process::Pid::from_raw(1_000_000 + i32::try_from(number).unwrap()).unwrap();
            let (_, outputs) = Process::new(0, number, 1, settings, ours, pid, None);
            supervisor.read_from(outputs).unwrap();
            programs.push(theirs);
            supervisor.read_last_output(1_000_000 + number);
        };
        ended(&mut supervisor, 0, &blog);
        (1..100).for_each(|number| ended(&mut supervisor, number, &shop));
        let left = |group: &[u8]| supervisor.outputs.values().filter(|o| o.settings.spec.name == group).map(|o| o.pid).collect::<Vec<_>>();
        assert_eq!((left(b"shop").len(), left(b"blog").len()), (MAX_LEFT_OUTPUTS, 2));
        assert_eq!(left(b"shop").last(), Some(&1_000_099), "the newest are still read");
    }
}
