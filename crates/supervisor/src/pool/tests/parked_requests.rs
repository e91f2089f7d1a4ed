//! Tests how long a request for changed code waits, with simulated time.
//!
//! Responsible for: the complete path of such a request, including returns and requeues. Simulated
//! workers start, load and exit without extra delay. Called by: the tests.
use crate::pool::reload::PARK_LIMIT;
use crate::pool::start_limit::StartLimiter;
use crate::pool::{Action, Event, Limits, Now, Number, Phase, Pool, Reason, ReplaceReason, State, Token};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What happens to the group before its script changes.
#[derive(Debug, Clone)]
enum Op {
    Wait(u64),
    Graceful,
    Reload,
    /// A request shows a new file time.
    Touch(usize),
    /// A worker exits, or receives a signal.
    Die(usize),
    Leave(usize),
}

/// Durations in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Machine {
    processes: usize,
    rolling: bool,
    load: u64,
    /// Additional time that every third worker needs to load its script.
    straggles: u64,
    /// How long the request of a draining worker runs.
    request: u64,
    /// How long a worker that is importing takes to exit after SIGTERM.
    term: u64,
}

#[derive(Debug)]
struct Process {
    /// When it has loaded its script, and when it exits.
    loaded_at: Option<Now>,
    ends_at: Option<Now>,
    /// The file time of the code that it loaded.
    code: u64,
}

struct World {
    pool: Pool,
    machine: Machine,
    now: Now,
    start_limiter: StartLimiter<Number>,
    processes: BTreeMap<Number, Process>,
    /// The current file time.
    file: u64,
    next_token: Token,
    /// Returned requests that new code has not answered yet: since when they wait, and the file
    /// time they show.
    waiting: BTreeMap<Token, (Now, u64)>,
    /// Selects the serving worker that takes the next request.
    turn: usize,
    /// The longest wait of a request that arrived after `begun`.
    longest: Duration,
    begun: Now,
    known_bad: BTreeSet<Number>,
}

impl World {
    fn new(machine: Machine) -> Self {
        let limits = Limits {
            processes: machine.processes,
            least: machine.processes,
            rolling: machine.rolling,
            startup: Some(ms(60_000)),
            graceful: Some(ms(15_000)),
            shutdown: ms(5_000),
            eviction: None,
            inactivity: None,
            restart_interval: None,
        };
        let mut world = Self {
            pool: Pool::new(limits, 3),
            machine,
            now: ms(100_000),
            start_limiter: StartLimiter::new(4),
            processes: BTreeMap::new(),
            file: 1,
            next_token: 0,
            waiting: BTreeMap::new(),
            turn: 0,
            longest: Duration::ZERO,
            begun: Duration::ZERO,
            known_bad: BTreeSet::new(),
        };
        world.step(Event::Wanted);
        world.wait(ms(60_000));
        world
    }

    fn step(&mut self, event: Event) {
        let mut out = Vec::new();
        self.pool.step(event, self.now, &mut out);
        for action in out {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        let ends_in = |world: &mut Self, worker, time| {
            let at = world.now + ms(time);
            if let Some(p) = world.processes.get_mut(&worker) {
                p.ends_at = Some(p.ends_at.map_or(at, |before| before.min(at)));
            }
        };
        match action {
            Action::Start { worker, .. } => self.start_limiter.enqueue(worker),
            Action::Cancel(worker) | Action::Serve(worker) => self.start_limiter.release(worker),
            Action::Drain(worker) => {
                self.start_limiter.release(worker);
                ends_in(self, worker, self.machine.request);
            }
            Action::Terminate(worker) => {
                self.start_limiter.release(worker);
                ends_in(self, worker, self.machine.term);
            }
            Action::Kill(worker) => ends_in(self, worker, 0),
            Action::Requeue(token) => self.take(token),
            Action::Refuse(token) => panic!("request {token} was given up"),
            Action::MarkKnownBad { worker, .. } => drop(self.known_bad.insert(worker)),
            _ => {}
        }
    }

    /// A serving worker takes a request from the queue.
    fn take(&mut self, token: Token) {
        let serving: Vec<Number> =
            self.pool.workers.iter().filter(|(_, w)| matches!(w.state, State::Serving { .. })).map(|(n, _)| *n).collect();
        let Some((since, shows)) = self.waiting.get(&token).copied() else { return };
        self.turn += 1;
        let worker = serving[self.turn % serving.len()];
        if self.processes[&worker].code < shows && !self.known_bad.contains(&worker) {
            self.step(Event::Changed { worker, path: b"/a".to_vec(), mtime_us: shows, request: Some(token) });
        } else {
            self.waiting.remove(&token);
            if since >= self.begun {
                self.longest = self.longest.max(self.now - since);
            }
        }
    }

    fn request(&mut self) {
        self.next_token += 1;
        self.waiting.insert(self.next_token, (self.now, self.file));
        self.take(self.next_token);
    }

    /// Advances the time.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            while let Some(worker) = self.start_limiter.next(self.now) {
                let straggles = if worker % 3 == 2 && self.machine.processes > 1 { self.machine.straggles } else { 0 };
                let loaded_at = Some(self.now + ms(self.machine.load + straggles));
                self.processes.insert(worker, Process { loaded_at, ends_at: None, code: self.file });
                self.step(Event::Started(worker));
            }
            let of_processes = self.processes.values().flat_map(|p| [p.loaded_at, p.ends_at]).flatten();
            let next = of_processes.chain(self.pool.deadline()).chain(self.start_limiter.deadline()).min();
            let Some(next) = next.filter(|at| *at <= until) else { break };
            self.now = self.now.max(next);
            let due = |at: Option<Now>| at.is_some_and(|at| at <= self.now);
            if let Some(worker) = self.processes.iter().find(|(_, p)| due(p.ends_at)).map(|(n, _)| *n) {
                self.exit(worker);
            } else if let Some((worker, p)) = self.processes.iter_mut().find(|(_, p)| due(p.loaded_at)) {
                let worker = *worker;
                p.loaded_at = None;
                self.step(Event::Loaded { worker, failures: vec![], good: 1 });
            } else {
                self.step(Event::Tick);
            }
        }
        self.now = until;
    }

    fn exit(&mut self, worker: Number) {
        self.processes.remove(&worker);
        self.start_limiter.release(worker);
        self.step(Event::Exited { worker, how: "ended".into(), clean: true, killed: false });
    }

    fn apply(&mut self, op: Op) {
        let serving: Vec<Number> =
            self.pool.workers.iter().filter(|(_, w)| matches!(w.state, State::Serving { .. })).map(|(n, _)| *n).collect();
        let pick = |n: usize| serving[n % serving.len()];
        match op {
            Op::Wait(time) => self.wait(ms(time)),
            Op::Graceful => self.step(Event::Configure(self.pool.limits.clone())),
            Op::Reload => self.step(Event::Reload),
            Op::Touch(turn) => {
                self.turn = turn;
                self.file += 1;
                self.request();
            }
            Op::Die(n) if serving.len() > 1 => self.exit(pick(n)),
            Op::Leave(n) if serving.len() > 1 => self.step(Event::Replace { worker: pick(n), why: ReplaceReason::Signal }),
            Op::Die(_) | Op::Leave(_) => {}
        }
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0u64..800).prop_map(Op::Wait),
        1 => (800u64..4000).prop_map(Op::Wait),
        4 => Just(Op::Graceful),
        1 => Just(Op::Reload),
        2 => (0usize..4).prop_map(Op::Touch),
        1 => any::<usize>().prop_map(Op::Die),
        1 => any::<usize>().prop_map(Op::Leave),
    ];
    proptest::collection::vec(op, 0..40)
}

fn machines() -> impl Strategy<Value = Machine> {
    (1usize..5, any::<bool>(), 10u64..1000, 0u64..50_000, 0u64..14_000, 0u64..5000)
        .prop_map(|(processes, rolling, load, straggles, request, term)| Machine { straggles, processes, rolling, load, request, term })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn a_request_for_new_code_waits_no_longer_than_new_code_needs(ops in ops(), machine in machines(), turn in 0usize..4) {
        let mut world = World::new(machine);
        for op in ops {
            world.apply(op);
        }
        (world.longest, world.begun) = (Duration::ZERO, world.now);
        // A generation started for a change is completed first.
        let behind = matches!(&world.pool.phase, Phase::Rising(r) if r.reason == Reason::Changed);
        let begun = world.now;
        world.apply(Op::Touch(turn));
        world.wait(ms(30_000));
        prop_assert!(world.waiting.is_empty(), "{:?} wait after {:?}", world.waiting, world.now - begun);
        // The starting generation, a delay of one second, and one more with a delay for an exited
        // worker.
        let starts = ms(2 * machine.load + 2500);
        // With reload=rolling, workers start one by one, after the draining ones have exited.
        let bound = match (machine.rolling, behind) {
            (true, _) => PARK_LIMIT * 2 + starts,
            (_, true) => (starts + ms(machine.straggles)).min(PARK_LIMIT + starts),
            _ => starts,
        };
        prop_assert!(world.longest <= bound, "{:?} with {:?}", world.longest, machine);
    }
}
