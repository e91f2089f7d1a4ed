//! The status report for administrators.
//!
//! Responsible for: the report. Must never: change anything. Called by: `admin.rs`.
use crate::pool::{Now, WorkerReport};
use crate::supervisor::{Supervisor, Unit, now};
use crate::workers::fork_server::ForkServer;
use drover_wire::admin::{Application, Group, Server, Worker, WorkerState};
use drover_wire::control::GroupSpec;
use std::time::Duration;

/// A longer traceback loses its beginning.
const MAX_FAILURE_BYTES: usize = 64 * 1024;

impl Supervisor {
    /// Reports the groups for which `which` is true.
    pub fn report(&self, httpd: u32, which: impl Fn(&GroupSpec) -> bool) -> Server {
        let now = now();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let of_group = |(name, settings): (&Vec<u8>, &std::rc::Rc<crate::control::settings::Settings>)| {
            let spec = &settings.spec;
            Group {
                name: text(name),
                user: spec.identity.as_ref().map(|i| text(&i.user)).unwrap_or_default(),
                python: text(spec.program.executable()),
                least: spec.least_processes,
                most: spec.processes,
                threads: spec.threads,
                halted: self.halted.contains(name),
                applications: self
                    .units
                    .iter()
                    .filter(|(_, u)| u.key.group == *name)
                    .map(|(id, u)| self.application(*id, u, now))
                    .collect(),
            }
        };
        Server {
            version: drover_wire::VERSION.to_owned(),
            droverd: std::process::id(),
            httpd,
            generation: self.httpd_generation,
            sessions: self.sessions.clone(),
            groups: self.groups.iter().filter(|(_, settings)| which(&settings.spec)).map(of_group).collect(),
        }
    }

    fn application(&self, id: u32, unit: &Unit, now: Now) -> Application {
        let pool = unit.pool.report();
        let worker = |w: &WorkerReport| {
            let pid = unit.pids.get(&w.number).copied().unwrap_or(0);
            Worker {
                pid,
                generation: w.generation,
                state: w.state,
                age_ms: ms(now.saturating_sub(w.since)),
                requests: w.taken,
                running: w.running,
                memory: self.processes.get(&pid).and_then(|p| p.memory).unwrap_or(0),
            }
        };
        let fork_server = |(pid, t): (&u32, &ForkServer)| Worker {
            pid: *pid,
            generation: t.process.generation,
            state: WorkerState::Template,
            age_ms: ms(now.saturating_sub(t.since)),
            requests: 0,
            running: 0,
            memory: t.process.memory.unwrap_or(0),
        };
        let fork_servers = self.fork_servers.iter().filter(|(_, t)| t.process.unit == id).map(fork_server);
        Application {
            name: String::from_utf8_lossy(&unit.key.application).into_owned(),
            state: pool.state,
            generation: pool.generation,
            target: count(pool.target),
            failure: pool.failure.map(cut),
            next_try_ms: pool.next_attempt.map(|at| ms(at.saturating_sub(now))),
            waiting: unit.queue.as_ref().is_some_and(|q| drover_sys::wait::readable_now(&q.receive)),
            held: count(pool.parked),
            workers: fork_servers.chain(pool.workers.iter().map(worker)).collect(),
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Cuts a long text; the end of a traceback says more than its beginning.
pub fn cut(text: &str) -> String {
    drover_wire::text::end(text, MAX_FAILURE_BYTES).into_owned()
}
