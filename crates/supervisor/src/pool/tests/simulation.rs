//! Property tests of the pool with random events.
use crate::pool::{Action, Event, Limits, Now, Number, Phase, Pool, ReplaceReason, ScriptFailure, State, Token};
use drover_wire::control::Activity;
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

#[derive(Debug, Clone)]
enum Op {
    Wait(u64),
    Fork {
        fails: bool,
    },
    Load {
        pick: usize,
        broken: u8,
    },
    Exit {
        pick: usize,
    },
    Obey,
    Leave {
        pick: usize,
        signalled: bool,
    },
    Stuck {
        pick: usize,
    },
    Change {
        pick: usize,
        path: u8,
        mtime: u64,
        request: bool,
    },
    Configure(usize),
    Stop,
    Unfit {
        pick: usize,
    },
    Lost {
        pick: usize,
    },
    QueueFull(bool),
    /// A worker reports activity; `waiting` sets whether requests wait from now on.
    Activity {
        pick: usize,
        running: u32,
        waited_ms: u64,
        waiting: bool,
    },
    Reload,
    Halt,
    QueueReplaced,
    Touched {
        path: u8,
        mtime: u64,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0u64..3000).prop_map(Op::Wait),
        1 => (10_000u64..100_000).prop_map(Op::Wait),
        8 => prop::bool::weighted(0.1).prop_map(|fails| Op::Fork { fails }),
        8 => (any::<usize>(), prop_oneof![4 => Just(0u8), 1 => 1u8..4]).prop_map(|(pick, broken)| Op::Load { pick, broken }),
        2 => any::<usize>().prop_map(|pick| Op::Exit { pick }),
        4 => Just(Op::Obey),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(pick, signalled)| Op::Leave { pick, signalled }),
        1 => any::<usize>().prop_map(|pick| Op::Stuck { pick }),
        4 => (any::<usize>(), 1u8..3, 1u64..6, prop::bool::weighted(0.8)).prop_map(|(pick, path, mtime, request)| Op::Change { pick, path, mtime, request }),
        1 => (1usize..5).prop_map(Op::Configure),
        1 => Just(Op::Stop),
        1 => any::<usize>().prop_map(|pick| Op::Unfit { pick }),
        1 => any::<usize>().prop_map(|pick| Op::Lost { pick }),
        1 => any::<bool>().prop_map(Op::QueueFull),
        5 => (any::<usize>(), 0u32..3, 0u64..200, prop::bool::weighted(0.3)).prop_map(|(pick, running, waited_ms, waiting)| Op::Activity { pick, running, waited_ms, waiting }),
        1 => Just(Op::Reload),
        1 => Just(Op::Halt),
        1 => Just(Op::QueueReplaced),
        1 => (1u8..3, 1u64..6).prop_map(|(path, mtime)| Op::Touched { path, mtime }),
    ];
    proptest::collection::vec(op, 1..250)
}

fn limits(processes: usize, kind: Kind) -> Limits {
    let at = Duration::from_secs;
    Limits {
        processes,
        least: if kind.elastic { kind.least.min(processes) } else { processes },
        rolling: kind.rolling,
        startup: Some(at(20)),
        graceful: Some(at(15)),
        shutdown: at(5),
        eviction: None,
        inactivity: kind.limited.then_some(at(7)),
        restart_interval: kind.limited.then_some(at(11)),
    }
}

/// The kind of group.
#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    elastic: bool,
    least: usize,
    rolling: bool,
    limited: bool,
}

fn kinds() -> impl Strategy<Value = Kind> {
    (any::<bool>(), 0usize..3, any::<bool>(), any::<bool>()).prop_map(|(elastic, least, rolling, limited)| Kind {
        elastic,
        least,
        rolling,
        limited,
    })
}

/// Processes and requests outside the pool.
struct World {
    pool: Pool,
    kind: Kind,
    now: Now,
    to_fork: VecDeque<Number>,
    alive: BTreeSet<Number>,
    told_to_go: BTreeSet<Number>,
    killed: BTreeSet<Number>,
    /// Tokens that the pool holds.
    outstanding: BTreeSet<Token>,
    next_token: Token,
    queue_full: bool,
    /// Requests wait in the queue.
    waiting: bool,
    starts: VecDeque<Now>,
    causes: VecDeque<Now>,
    most_processes: usize,
    retired: bool,
}

impl World {
    fn new(kind: Kind) -> Self {
        Self {
            pool: Pool::new(limits(2, kind), 7),
            kind,
            now: Duration::from_secs(1000),
            to_fork: VecDeque::new(),
            alive: BTreeSet::new(),
            told_to_go: BTreeSet::new(),
            killed: BTreeSet::new(),
            outstanding: BTreeSet::new(),
            next_token: 0,
            queue_full: false,
            waiting: false,
            starts: VecDeque::new(),
            causes: VecDeque::new(),
            most_processes: 2,
            retired: false,
        }
    }

    fn serving(&self) -> Vec<Number> {
        self.pool.workers.iter().filter(|(_, w)| matches!(w.state, State::Serving { .. })).map(|(n, _)| *n).collect()
    }

    fn starting(&self) -> Vec<Number> {
        self.pool.workers.iter().filter(|(_, w)| matches!(w.state, State::Starting { .. })).map(|(n, _)| *n).collect()
    }

    fn step(&mut self, event: Event) {
        self.feed(event);
        self.check();
    }

    fn feed(&mut self, event: Event) {
        let served_before = self.serving();
        let may_end_all = matches!(
            event,
            Event::Stop { .. }
                | Event::Halt
                | Event::QueueReplaced
                | Event::Unfit { .. }
                | Event::Stuck { .. }
                | Event::Replace { why: ReplaceReason::Signal, .. }
        );
        // An elastic group may shrink to nothing.
        let may_end_all = may_end_all || (matches!(event, Event::QueueChecked { .. }) && self.pool.limits.least == 0);
        let mut out = Vec::new();
        self.pool.step(event.clone(), self.now, &mut out);
        let (mut again, mut checks) = (Vec::new(), 0);
        for action in out {
            match action {
                Action::Start { worker, .. } => {
                    self.to_fork.push_back(worker);
                    self.starts.push_back(self.now);
                }
                Action::Cancel(n) => {
                    assert!(self.to_fork.contains(&n), "cancels what was not asked for");
                    self.to_fork.retain(|k| *k != n);
                }
                Action::Serve(n) => assert!(self.alive.contains(&n) && !self.told_to_go.contains(&n)),
                Action::Drain(n) => {
                    if served_before.contains(&n) && !may_end_all && !self.retired {
                        assert!(!self.serving().is_empty(), "the last one that served was drained by {event:?}");
                    }
                    self.told_to_go.insert(n);
                }
                Action::Terminate(n) => {
                    self.told_to_go.insert(n);
                }
                Action::Kill(n) => {
                    assert!(self.alive.contains(&n));
                    self.killed.insert(n);
                }
                Action::MarkKnownBad { worker, .. } | Action::Dump(worker) | Action::Wake(worker) => assert!(self.alive.contains(&worker)),
                Action::Requeue(t) => {
                    assert!(self.outstanding.contains(&t), "resent twice");
                    if self.queue_full { again.push(t) } else { assert!(self.outstanding.remove(&t)) }
                }
                Action::Refuse(t) => assert!(self.outstanding.remove(&t), "answered twice"),
                Action::CheckQueue => checks += 1,
                Action::StartFailed | Action::Log { .. } => {}
            }
        }
        for t in again {
            self.feed(Event::Full(t));
        }
        for _ in 0..checks {
            self.feed(Event::QueueChecked { waiting: self.waiting });
        }
    }

    fn check(&mut self) {
        let second = Duration::from_secs(1);
        while self.starts.front().is_some_and(|t| *t + second <= self.now) {
            self.starts.pop_front();
        }
        while self.causes.front().is_some_and(|t| *t + second <= self.now) {
            self.causes.pop_front();
        }
        let bound = self.most_processes * (3 + self.causes.len());
        assert!(self.starts.len() <= bound, "a fork storm: {} starts in a second, {bound} allowed", self.starts.len());
        let being_replaced = self.pool.workers.values().filter(|w| w.state == State::Serving { being_replaced: true }).count();
        let going = self.pool.workers.values().filter(|w| matches!(w.state, State::Draining { .. })).count();
        let staying = self.pool.workers.len() - being_replaced - going;
        assert!(staying <= 2 * self.most_processes, "{staying} workers");
        assert_eq!(self.pool.workers.len(), self.alive.len() + self.to_fork.len(), "the pool and the world count alike");
        let parked: BTreeSet<Token> = self.pool.parked.iter().map(|h| h.token).chain(self.pool.full.iter().map(|f| f.0)).collect();
        assert_eq!(parked, self.outstanding, "every request is somewhere");
        if self.pool.refusal().is_some() {
            assert!(self.serving().is_empty(), "requests are refused although somebody serves");
        }
    }

    /// Advances the time, with a tick at every deadline.
    fn wait(&mut self, until: Now) {
        for _ in 0..100_000 {
            match self.pool.deadline().filter(|at| *at <= until) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.step(Event::Tick);
                    assert!(self.pool.deadline().is_none_or(|next| next > self.now), "a deadline that does not pass");
                }
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("too many deadlines");
    }

    fn exit(&mut self, n: Number) {
        assert!(self.alive.remove(&n));
        self.told_to_go.remove(&n);
        self.killed.remove(&n);
        self.step(Event::Exited { worker: n, how: "ended".into(), clean: true, killed: false });
    }

    fn obey(&mut self) {
        for n in self.alive.clone() {
            if self.told_to_go.contains(&n) || self.killed.contains(&n) {
                self.exit(n);
            }
        }
    }

    fn apply(&mut self, op: Op) {
        let pick = |from: Vec<Number>, pick: usize| if from.is_empty() { None } else { Some(from[pick % from.len()]) };
        match op {
            Op::Wait(ms) => self.wait(self.now + Duration::from_millis(ms)),
            Op::Fork { fails } => {
                if let Some(n) = self.to_fork.pop_front() {
                    if fails {
                        self.step(Event::Unstarted { worker: n, reason: "no such user".into(), killed: false });
                    } else {
                        self.alive.insert(n);
                        self.step(Event::Started(n));
                    }
                }
            }
            Op::Load { pick: p, broken } => {
                if let Some(worker) = pick(self.starting(), p) {
                    let failure = |path: u8| ScriptFailure { path: vec![path], mtime_us: 1, text: "SyntaxError".into() };
                    let failures: Vec<_> = [1u8, 2].into_iter().filter(|bit| broken & bit != 0).map(failure).collect();
                    let good = 2 - failures.len();
                    self.step(Event::Loaded { worker, failures, good });
                }
            }
            Op::Exit { pick: p } => {
                if let Some(n) = pick(self.alive.iter().copied().collect(), p) {
                    self.exit(n);
                }
            }
            Op::Obey => self.obey(),
            Op::Leave { pick: p, signalled } => {
                if let Some(worker) = pick(self.serving(), p) {
                    let why = if signalled { ReplaceReason::Signal } else { ReplaceReason::MaximumRequests };
                    self.step(Event::Replace { worker, why });
                }
            }
            Op::Stuck { pick: p } => {
                if let Some(worker) = pick(self.serving(), p) {
                    self.step(Event::Stuck { worker, what: "sleeping".into(), deadlocked: p % 2 == 0 });
                }
            }
            Op::Change { pick: p, path, mtime, request } => {
                if let Some(worker) = pick(self.alive.iter().copied().collect(), p) {
                    let token = request.then(|| {
                        self.next_token += 1;
                        self.outstanding.insert(self.next_token);
                        self.next_token
                    });
                    self.step_change(worker, path, mtime, token);
                }
            }
            Op::Configure(processes) => {
                self.most_processes = self.most_processes.max(processes);
                self.causes.push_back(self.now);
                self.step(Event::Configure(limits(processes, self.kind)));
            }
            Op::Stop => self.step(Event::Stop { within: None }),
            Op::Unfit { pick: p } => {
                if let Some(worker) = pick(self.alive.iter().copied().collect(), p) {
                    self.step(Event::Unfit { worker, reason: "version".into() });
                    assert!(!self.serving().contains(&worker) && !self.starting().contains(&worker), "it goes");
                }
            }
            Op::Lost { pick: p } => {
                if let Some(worker) = pick(self.alive.iter().copied().collect(), p) {
                    self.step(Event::ControlClosed(worker));
                }
            }
            Op::QueueFull(full) => self.queue_full = full,
            Op::Activity { pick: p, running, waited_ms, waiting } => {
                self.waiting = waiting;
                if let Some(worker) = pick(self.alive.iter().copied().collect(), p) {
                    let activity = Activity { taken: 1, counted: 1, waited_us: waited_ms * 1000, running };
                    self.step(Event::Activity { worker, activity });
                }
            }
            Op::Reload => {
                self.causes.push_back(self.now);
                self.step(Event::Reload);
            }
            Op::Halt => self.step(Event::Halt),
            Op::QueueReplaced => {
                self.step(Event::QueueReplaced);
                assert!(self.serving().is_empty() && self.starting().is_empty(), "somebody keeps the old queue");
            }
            Op::Touched { path, mtime } => {
                if self.pool.refusal().is_some() && self.pool.shows_new_file(&[path], mtime) {
                    self.next_token += 1;
                    self.outstanding.insert(self.next_token);
                    self.step(Event::Touched { path: vec![path], mtime_us: mtime, request: self.next_token });
                }
            }
        }
    }

    fn step_change(&mut self, worker: Number, path: u8, mtime_us: u64, request: Option<Token>) {
        self.step(Event::Changed { worker, path: vec![path], mtime_us, request });
    }

    /// From now on everything succeeds: eventually all workers serve and no request is parked.
    fn settle(&mut self) {
        self.queue_full = false;
        self.step(Event::Configure(limits(3, Kind::default())));
        self.step(Event::Wanted);
        for _ in 0..400 {
            while !self.to_fork.is_empty() {
                self.apply(Op::Fork { fails: false });
            }
            while let Some(worker) = self.starting().first().copied() {
                self.step(Event::Loaded { worker, failures: vec![], good: 2 });
            }
            self.obey();
            self.wait(self.now + Duration::from_millis(500));
        }
        assert!(matches!(self.pool.phase, Phase::Steady), "{:?}", self.pool.phase);
        assert_eq!(self.serving().len(), 3);
        assert_eq!(self.alive.len(), 3, "old ones are gone");
        assert!(self.outstanding.is_empty(), "every handed-back request was put back or answered");
        assert_eq!(self.pool.refusal(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens(ops in ops(), kind in kinds()) {
        let mut world = World::new(kind);
        world.most_processes = 3;
        world.step(Event::Wanted);
        for op in ops {
            world.apply(op);
        }
        world.settle();
    }

    /// All workers of a group that is no longer configured exit within their limits.
    #[test]
    fn retire_ends_everything(ops in ops(), kind in kinds()) {
        let mut world = World::new(kind);
        world.step(Event::Wanted);
        for op in ops {
            world.apply(op);
        }
        world.retired = true;
        world.step(Event::Retire);
        prop_assert!(world.outstanding.is_empty());
        let starts = world.starts.len();
        world.wait(world.now + Duration::from_secs(36));
        let not_killed: Vec<_> = world.alive.difference(&world.killed).collect();
        prop_assert!(not_killed.is_empty(), "{:?} go on running", not_killed);
        prop_assert!(world.to_fork.is_empty() && world.starts.len() <= starts);
    }

    /// Nothing survives, however often httpd stops.
    #[test]
    fn stop_ends_everything(ops in ops(), kind in kinds()) {
        let mut world = World::new(kind);
        world.step(Event::Wanted);
        for op in ops {
            world.apply(op);
        }
        world.step(Event::Stop { within: Some(Duration::from_secs(1)) });
        world.wait(world.now + Duration::from_secs(2));
        let not_killed: Vec<_> = world.alive.difference(&world.killed).collect();
        prop_assert!(not_killed.is_empty(), "{:?} go on running", not_killed);
        prop_assert!(world.to_fork.is_empty());
    }
}
