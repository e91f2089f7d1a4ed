//! Starting workers, hearing what they print, and their ends.
//!
//! Responsible for: every process below droverd being known or reaped, and its pool hearing of its start and its end. Must never: decide
//! that one starts or ends (the pools do). Called by: `supervisor.rs`, the event loop; `template.rs` and `newborn.rs` for groups whose
//! workers are forked.
use crate::messages::Code;
use crate::poller::Source;
use crate::pool::{Event, Number};
use crate::process::{Ended, Output, Process, start};
use crate::supervisor::Supervisor;
use drover_sys::{Errno, roster};
use drover_wire::control::WorkerConfig;
use rustix::process::{WaitOptions, WaitStatus, wait};

/// Requests that are named of those that a process ran when it died.
const MAX_NAMED: usize = 8;
/// Pipes of workers that have ended, of each group: two a worker.
const MAX_LEFT_OUTPUTS: usize = 32;

impl Supervisor {
    /// The gate lets a worker in.
    pub fn launch(&mut self, id: u32, number: Number) {
        self.mend_queue(id);
        let Some(unit) = self.units.get_mut(&id) else { return };
        let (Some(generation), Some(queue)) = (unit.waiting.remove(&number), unit.queue.as_ref()) else { return };
        if unit.settings.spec.preload_fork {
            return self.launch_from_template(id, number, generation);
        }
        match start(id, number, generation, &unit.settings, queue, &self.place) {
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

    /// There will be no process for this worker. `killed`: somebody has ended what was to become it, or its template.
    pub fn unstarted(&mut self, id: u32, worker: Number, reason: String, killed: bool) {
        self.gate.leave((id, worker));
        self.feed(id, Event::Unstarted { worker, reason, killed });
    }

    /// Listens to a worker from now on.
    pub fn attach(&mut self, process: Process, outputs: [Output; 2]) -> Result<(), Errno> {
        let pid = process.pid().as_raw_nonzero().get().unsigned_abs();
        if let Some(unit) = self.units.get_mut(&process.unit) {
            unit.pids.insert(process.number, pid);
        }
        let watched = process.control.as_ref().map_or(Ok(()), |c| self.poller.add(c, Source::Worker(pid)));
        self.processes.insert(pid, process);
        watched.and(self.read_from(outputs))
    }

    /// Reads a process's output from now on.
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
            self.main.message(Code::System, None, None, &["cannot watch a worker".into(), e.to_string()]);
            self.feed(id, Event::Unfit { worker, reason: e.to_string() });
        }
    }

    /// What a worker has to know at its start.
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

    /// Some children have ended. Those that nobody knows are programs of applications that have lost their parent, and came to us
    /// because workers that templates fork must ([`crate::newborn`]).
    pub fn reap(&mut self) {
        // One that has said who it is and died since is known then.
        for id in self.newborns.keys().copied().collect::<Vec<_>>() {
            self.newborn_says(id);
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
        if self.templates.contains_key(&pid) {
            return self.template_ended(pid, status);
        }
        // Its last words first, so that they stand above what is said about its death.
        self.worker_says(pid);
        let Some(process) = self.processes.remove(&pid) else { return };
        self.read_last_output(pid);
        if let Some(control) = &process.control {
            self.poller.remove(control);
        }
        let worker = process.number;
        self.gate.leave((process.unit, worker));
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

    /// The requests that a process ran when it died, as httpd and it have written them down.
    fn running(&self, id: u32, pid: u32) -> String {
        let Some(queue) = self.units.get(&id).and_then(|u| u.queue.as_ref()) else { return String::new() };
        named(&roster::run_by(&queue.tokens, pid))
    }

    /// What the pipes of a process that has ended still hold.
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

    /// A program that a worker has started keeps its pipes open as long as it runs: only so many of one group are read on.
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

    /// The last of what the pipes hold, before droverd ends.
    pub fn read_all_output(&mut self) {
        for id in self.outputs.keys().copied().collect::<Vec<_>>() {
            self.read_output(id);
        }
    }
}

/// Requests in a few words; nothing if there are none.
fn named(requests: &[Vec<u8>]) -> String {
    let shown: Vec<String> = requests.iter().take(MAX_NAMED).map(|about| about.escape_ascii().to_string()).collect();
    let more = requests.len().saturating_sub(shown.len());
    match (shown.is_empty(), more) {
        (true, _) => String::new(),
        (_, 0) => format!(" (it ran {})", shown.join(", ")),
        _ => format!(" (it ran {} and {more} more requests)", shown.join(", ")),
    }
}

/// maximum-requests of one worker: up to a tenth fewer, spread so that neighbours are far from each other.
fn own_maximum(most: u64, worker: Number) -> u64 {
    let spread = u64::from(worker.wrapping_mul(0x9e37_79b9) >> 16) * (most / 10) / (1 << 16);
    most - spread
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ends;
    use crate::settings::Settings;
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
        let place = crate::spawn::Place::new(Path::new("/nowhere/droverd"), None).unwrap();
        let (read, write) = drover_sys::channel::packet_pair().unwrap();
        let store = crate::store::Store::new(read, write);
        let mut supervisor = Supervisor::new(place, crate::poller::Poller::new().unwrap(), sink.clone(), store);
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
        assert_eq!(left(b"shop").last(), Some(&1_000_099), "the newest are read on");
    }
}
