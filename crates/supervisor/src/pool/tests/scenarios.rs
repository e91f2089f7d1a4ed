//! Scenarios of the pool: events and the expected actions.
use crate::pool::Pool;
use crate::pool::events::{Action, Event, Limits, Now, ReplaceReason, ScriptFailure};
use crate::pool::reload::{MAX_FILES, MAX_PARKED, PARK_LIMIT};
use drover_wire::admin::Service;
use std::time::Duration;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limits(processes: usize) -> Limits {
    Limits {
        processes,
        least: processes,
        rolling: false,
        startup: Some(s(20)),
        graceful: Some(s(15)),
        shutdown: s(5),
        eviction: None,
        inactivity: None,
        restart_interval: None,
    }
}

struct Story {
    pool: Pool,
    now: Now,
}

impl Story {
    fn new(processes: usize) -> Self {
        let limits = limits(processes);
        Self { pool: Pool::new(limits, 1), now: s(100) }
    }

    /// The codes of the logged messages.
    fn codes(&mut self, event: Event) -> Vec<u16> {
        let mut out = Vec::new();
        self.pool.step(event, self.now, &mut out);
        out.iter().filter_map(|a| if let Action::Log { code, .. } = a { Some(*code as u16) } else { None }).collect()
    }

    fn state(&self) -> &'static str {
        self.pool.report().state.text()
    }

    /// The actions other than log messages.
    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.pool.step(event, self.now, &mut out);
        out.retain(|a| !matches!(a, Action::StartFailed | Action::Log { .. }));
        out
    }

    /// Advances to the pool's next deadline.
    fn wait(&mut self) -> Vec<Action> {
        self.now = self.pool.deadline().unwrap();
        self.tell(Event::Tick)
    }

    fn up(&mut self, worker: u32) -> Vec<Action> {
        assert_eq!(self.tell(Event::Started(worker)), []);
        self.tell(Event::Loaded { worker, failures: vec![], good: 1 })
    }

    fn broken(&mut self, worker: u32, mtime_us: u64) -> Vec<Action> {
        assert_eq!(self.tell(Event::Started(worker)), []);
        let failures = vec![ScriptFailure { path: b"/a".to_vec(), mtime_us, text: "Traceback\nSyntaxError".into() }];
        self.tell(Event::Loaded { worker, failures, good: 0 })
    }

    fn changed(&mut self, worker: u32, mtime_us: u64, token: u64) -> Vec<Action> {
        self.tell(Event::Changed { worker, path: b"/a".to_vec(), mtime_us, request: Some(token) })
    }
}

fn start(worker: u32, generation: u64) -> Action {
    Action::Start { worker, generation }
}

fn keep(worker: u32, mtime_us: u64) -> Action {
    Action::MarkKnownBad { worker, path: b"/a".to_vec(), mtime_us }
}

#[test]
fn all_new_ones_are_up_before_the_old_ones_go() {
    let mut story = Story::new(2);
    assert_eq!(story.tell(Event::Wanted), [start(0, 1), start(1, 1)]);
    assert_eq!((story.up(0), story.up(1)), (vec![Action::Serve(0)], vec![Action::Serve(1)]));
    let limits = story.pool.limits.clone();
    assert_eq!(story.tell(Event::Configure(limits)), [start(2, 2), start(3, 2)]);
    assert_eq!(story.up(3), [Action::Serve(3)]);
    assert_eq!(story.up(2), [Action::Serve(2), Action::Drain(0), Action::Drain(1)]);
    // A worker that does not finish gets SIGTERM after graceful-timeout and SIGKILL after
    // shutdown-timeout.
    assert_eq!(story.tell(Event::Exited { worker: 0, how: "exited".into(), clean: true, killed: false }), []);
    assert_eq!(story.wait(), [Action::Dump(1), Action::Terminate(1)]);
    assert_eq!(story.now, s(115));
    assert_eq!(story.wait(), [Action::Kill(1)]);
    assert_eq!(story.now, s(120));
}

#[test]
fn a_broken_script_is_tried_again_with_one_process_and_at_once_when_touched() {
    let mut story = Story::new(2);
    story.tell(Event::Wanted);
    story.up(0);
    story.up(1);
    story.now += s(100);
    assert_eq!(story.changed(0, 7, 1), [start(2, 2), start(3, 2)], "the request waits");
    assert_eq!(story.changed(1, 7, 2), []);
    story.tell(Event::Started(3));
    let said = story.broken(2, 7);
    assert_eq!(said, [Action::Drain(2), Action::Terminate(3), keep(0, 7), keep(1, 7), Action::Requeue(1), Action::Requeue(2)]);
    assert_eq!(story.changed(1, 7, 3), [keep(1, 7), Action::Requeue(3)], "it had not heard yet");
    let before = story.now;
    assert_eq!(story.wait(), [start(4, 3)], "one shows the way");
    assert!(story.now - before >= s(1));
    assert_eq!(story.broken(4, 7), [Action::Drain(4), keep(0, 7), keep(1, 7)]);
    story.now += Duration::from_millis(1100);
    assert_eq!(story.changed(0, 8, 4), [start(5, 4), start(6, 4)], "touched");
    assert_eq!(story.up(5), [Action::Serve(5), Action::Requeue(4)], "the first that has the new code");
    // An old worker took it again.
    assert_eq!(story.changed(0, 8, 5), []);
    assert_eq!(story.wait(), [Action::Requeue(5)]);
    assert!(story.now < s(300));
    assert_eq!(story.changed(0, 8, 6), []);
    assert_eq!(story.up(6), [Action::Serve(6), Action::Drain(0), Action::Drain(1), Action::Requeue(6)]);
    assert_eq!(story.pool.refusal(), None);
}

#[test]
fn nobody_can_start() {
    let mut story = Story::new(3);
    story.tell(Event::Wanted);
    assert_eq!(story.tell(Event::Started(0)), []);
    let failed = |worker| Event::Unstarted { worker, reason: "no such user".into(), killed: false };
    assert_eq!(story.tell(failed(1)), [Action::Cancel(2)], "no more are started once one has failed");
    assert_eq!(story.pool.refusal(), None, "the first may still come up");
    assert_eq!(story.tell(Event::Exited { worker: 0, how: "exited with status 1".into(), clean: false, killed: false }), []);
    assert_eq!(story.pool.refusal(), Some("a worker exited with status 1 before it was ready"));
    let mut pauses = Vec::new();
    for worker in 3..8 {
        let before = story.now;
        assert_eq!(story.wait(), [start(worker, u64::from(worker) - 1)]);
        pauses.push((story.now - before).as_secs());
        assert!(story.pool.refusal().is_some(), "still refused while it is tried");
        story.tell(failed(worker));
    }
    assert!(pauses.is_sorted() && pauses[4] >= 16, "{pauses:?}");
    story.wait();
    assert_eq!(story.up(8), [Action::Serve(8), start(9, 7), start(10, 7)]);
    assert_eq!(story.pool.refusal(), None);
}

#[test]
fn a_leaving_worker_goes_when_its_replacement_is_up() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(100);
    assert_eq!(story.tell(Event::Replace { worker: 0, why: ReplaceReason::MaximumRequests }), [start(1, 1)]);
    assert_eq!(story.up(1), [Action::Serve(1), Action::Drain(0)]);
    story.now += s(100);
    assert_eq!(story.tell(Event::Replace { worker: 1, why: ReplaceReason::Signal }), [Action::Drain(1), start(2, 1)]);
    assert_eq!(story.up(2), [Action::Serve(2)]);
}

#[test]
fn the_stacks_of_a_stuck_worker_are_written_once() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(100);
    let said = story.tell(Event::Stuck { worker: 0, what: "in sleep()".into(), deadlocked: false });
    assert_eq!(said, [Action::Drain(0), start(1, 1)], "it has written its stacks itself");
    story.up(1);
    assert_eq!(story.wait(), [Action::Terminate(0)], "and they are in the log once");
}

#[test]
fn a_crash_is_replaced_at_once_but_not_more_than_once_a_second() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(2);
    let died = |worker| Event::Exited { worker, how: "was killed by signal 11".into(), clean: false, killed: false };
    assert_eq!(story.tell(died(0)), [start(1, 1)]);
    story.up(1);
    assert_eq!(story.tell(died(1)), []);
    let before = story.now;
    assert_eq!(story.wait(), [start(2, 1)]);
    assert_eq!(story.now - before, s(1));
}

#[test]
fn a_start_that_is_killed_is_no_failure_of_the_application() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    let killed = |worker| Event::Exited { worker, how: "was killed by signal 9".into(), clean: false, killed: true };
    for n in 0..3 {
        let worker = u32::try_from(n).unwrap();
        assert_eq!(story.tell(killed(worker)), [start(worker + 1, n + 2)], "another one at once");
        assert_eq!(story.pool.refusal(), None, "requests wait for it");
    }
    assert_eq!(story.tell(killed(3)), [], "something kills whatever starts");
    assert!(story.pool.refusal().is_some());
    story.wait();
    story.up(4);
    story.now += s(2);
    assert_eq!(story.tell(killed(4)), [start(5, 5)]);
    assert_eq!(story.tell(killed(5)), [start(6, 6)], "one that came up has ended the row");
}

#[test]
fn while_an_older_generation_serves_starts_that_are_killed_refuse_nobody_later() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(100);
    let killed = |worker| Event::Exited { worker, how: "was killed by signal 9".into(), clean: false, killed: true };
    assert_eq!(story.tell(Event::Reload), [start(1, 2)]);
    for worker in 1..4 {
        assert_eq!(story.tell(killed(worker)), [start(worker + 1, u64::from(worker) + 2)]);
    }
    assert_eq!(story.codes(killed(4)), [221, 226], "the old one goes on serving");
    let began = story.now;
    story.now += Duration::from_millis(500);
    // No worker serves, but the application is not known to be at fault: queued requests wait for
    // the next attempt, which comes soon.
    assert_eq!(story.tell(Event::Replace { worker: 0, why: ReplaceReason::Signal }), [Action::Drain(0)]);
    assert_eq!(story.pool.refusal(), None);
    assert_eq!((story.wait(), story.now - began), (vec![start(5, 6)], s(1)));
    for worker in 5..8 {
        assert_eq!((story.tell(killed(worker)).len(), story.pool.refusal()), (1, None), "a row of its own");
    }
    story.tell(killed(8));
    assert!(story.pool.refusal().is_some(), "something kills whatever starts, and nobody else can serve");
}

#[test]
fn what_is_known_against_the_new_code_is_not_forgotten_when_its_start_is_killed() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(100);
    story.tell(Event::Reload);
    story.broken(1, 7);
    story.wait();
    for worker in 2..6 {
        story.tell(Event::Exited { worker, how: "was killed by signal 9".into(), clean: false, killed: true });
    }
    story.tell(Event::Replace { worker: 0, why: ReplaceReason::Signal });
    assert!(story.pool.refusal().is_some_and(|why| why.contains("SyntaxError")), "{:?}", story.pool.refusal());
}

#[test]
fn a_worker_that_is_sent_a_signal_while_it_starts_never_serves() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(100);
    let told = |worker| Event::Replace { worker, why: ReplaceReason::Signal };
    story.tell(Event::Reload);
    story.tell(Event::Started(1));
    assert_eq!(story.tell(told(1)), [Action::Drain(1), start(2, 3)], "another one at once, as if it had been killed");
    // It finishes the import and reports it before it exits.
    assert_eq!(story.tell(Event::Loaded { worker: 1, failures: vec![], good: 1 }), [], "the old one does not go for it");
    assert_eq!(story.tell(Event::Exited { worker: 1, how: "exited with status 0".into(), clean: true, killed: false }), []);
    assert_eq!(story.up(2), [Action::Serve(2), Action::Drain(0)]);
    // One of the serving workers is being replaced.
    story.now += s(2);
    story.tell(Event::Replace { worker: 2, why: ReplaceReason::MaximumRequests });
    story.tell(Event::Started(3));
    assert_eq!(story.tell(told(3)), [Action::Drain(3)]);
    assert_eq!(story.wait(), [start(4, 3)], "after a pause");
    assert_eq!(story.up(4), [Action::Serve(4), Action::Drain(2)]);
    assert_eq!(story.pool.refusal(), None);
}

#[test]
fn requests_are_not_held_without_bound() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(100);
    assert_eq!(story.changed(0, 7, 0), [start(1, 2)]);
    for token in 1..MAX_PARKED as u64 {
        assert_eq!(story.changed(0, 7, token), []);
    }
    assert_eq!(story.changed(0, 7, 1000), [keep(0, 7), Action::Requeue(1000)], "the old code serves what is too much");
    let before = story.now;
    assert_eq!(story.wait().len(), 2 * MAX_PARKED, "and what has waited too long");
    assert_eq!(story.now - before, PARK_LIMIT);
}

#[test]
fn a_full_queue_is_tried_again_and_then_given_up() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(100);
    story.changed(0, 7, 1);
    assert_eq!(story.up(1), [Action::Serve(1), Action::Drain(0), Action::Requeue(1)]);
    let before = story.now;
    assert_eq!(story.tell(Event::Full(1)), []);
    loop {
        match story.wait().as_slice() {
            [Action::Requeue(1)] => match story.tell(Event::Full(1)).as_slice() {
                [] => {}
                [Action::Refuse(1)] => break,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    assert!(story.now - before >= s(10));
}

#[test]
fn requests_that_find_the_queue_full_are_bounded() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    let most = MAX_PARKED as u64;
    for token in 0..most {
        assert_eq!(story.tell(Event::Full(token)), []);
    }
    let mut out = Vec::new();
    for token in [most, most + 1] {
        story.pool.step(Event::Full(token), story.now, &mut out);
    }
    assert!(matches!(out[..], [Action::Log { .. }, Action::Refuse(a), Action::Refuse(b)] if (a, b) == (most, most + 1)), "{out:?}");
    assert_eq!(story.wait().len(), MAX_PARKED, "the others are tried again");
    for token in 0..most {
        assert_eq!(story.tell(Event::Full(token)), []);
    }
    assert_eq!((story.tell(Event::Full(most + 2)), story.pool.full.len()), (vec![Action::Refuse(most + 2)], MAX_PARKED));
}

#[test]
fn files_are_not_remembered_without_bound() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(100);
    let changed = |path: Vec<u8>, mtime_us, request| Event::Changed { worker: 0, path, mtime_us, request };
    assert_eq!(story.tell(changed(vec![b'x'; 5000], 7, Some(1))), [Action::Refuse(1)], "no file has such a name");
    assert_eq!(story.tell(changed(b"0".to_vec(), 7, None)), [start(1, 2)]);
    let mut lines = Vec::new();
    for n in 0..2000 {
        story.pool.step(changed(n.to_string().into_bytes(), 7, None), story.now, &mut lines);
        story.pool.step(changed(b"0".to_vec(), n, None), story.now, &mut lines);
    }
    assert_eq!((story.pool.changed.len(), lines.len()), (MAX_FILES, 0), "and an old worker is not believed while the new one starts");
    let keep = Action::MarkKnownBad { worker: 0, path: b"new".to_vec(), mtime_us: 7 };
    assert_eq!(story.tell(changed(b"new".to_vec(), 7, Some(2))), [keep, Action::Requeue(2)], "the old code serves what is too much");
    story.tell(Event::Started(1));
    story.tell(Event::Unfit { worker: 1, reason: "no".into() });
    assert_eq!((story.pool.known_bad.len(), story.pool.changed.len()), (MAX_FILES, 0));
    for n in 0..2000u64 {
        story.pool.shows_new_file(&n.to_le_bytes(), 7);
        story.pool.step(changed(b"0".to_vec(), 10_000 + n, None), story.now, &mut lines);
    }
    let logged = lines.iter().filter(|a| matches!(a, Action::Log { .. })).count();
    assert!(story.pool.known_bad.len() <= MAX_FILES && logged == 1, "{logged} lines");
}

#[test]
fn a_degraded_generation_is_replaced_only_by_a_better_one() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    assert_eq!(story.broken(0, 7), [Action::Serve(0)], "other scripts work");
    assert_eq!(story.wait(), [start(1, 2)]);
    assert_eq!(story.broken(1, 7), [Action::Drain(1), keep(0, 7)]);
    story.now += Duration::from_millis(1100);
    assert_eq!(
        story.tell(Event::Exited { worker: 0, how: "crashed".into(), clean: false, killed: false }),
        [start(2, 2)],
        "its dead are replaced meanwhile"
    );
    assert_eq!(story.broken(2, 7), [Action::Serve(2)]);
    assert_eq!(story.wait(), [start(3, 3)]);
    assert_eq!(story.up(3), [Action::Serve(3), Action::Drain(2)]);
}

#[test]
fn a_worker_that_serves_and_is_not_understood_is_replaced() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(100);
    let unfit = || Event::Unfit { worker: 0, reason: "not a mod_drover message".into() };
    assert_eq!(story.tell(unfit()), [Action::Drain(0), start(1, 1)]);
    assert_eq!(story.tell(unfit()), [], "once");
    assert_eq!(story.up(1), [Action::Serve(1)]);
}

#[test]
fn nobody_keeps_an_old_queue() {
    let mut story = Story::new(2);
    story.tell(Event::Wanted);
    story.up(0);
    story.tell(Event::Started(1));
    story.now += s(2);
    assert_eq!(story.tell(Event::QueueReplaced), [Action::Terminate(1), Action::Drain(0), start(2, 1), start(3, 1)]);
    assert_eq!(story.tell(Event::QueueReplaced), [], "those that are to be started get the newest");
    assert_eq!((story.up(2), story.up(3)), (vec![Action::Serve(2)], vec![Action::Serve(3)]));
    assert_eq!(story.tell(Event::QueueReplaced), [Action::Drain(2), Action::Drain(3)], "at most once a second");
    assert_eq!((story.wait(), story.now), (vec![start(4, 1), start(5, 1)], s(103)));
}

#[test]
fn stop_and_retire() {
    let mut story = Story::new(2);
    story.tell(Event::Wanted);
    story.up(0);
    story.tell(Event::Started(1));
    assert_eq!(story.tell(Event::Stop { within: Some(s(1)) }), [Action::Terminate(1), Action::Drain(0)]);
    assert_eq!((story.wait(), story.now), (vec![Action::Kill(0), Action::Kill(1)], s(101)));
    story.tell(Event::Exited { worker: 0, how: String::new(), clean: true, killed: false });
    story.tell(Event::Exited { worker: 1, how: String::new(), clean: true, killed: false });
    assert!(story.pool.is_empty());
    let limits = story.pool.limits.clone();
    assert_eq!(story.tell(Event::Configure(limits)), [start(2, 2), start(3, 2)], "restart");
    story.up(2);
    assert_eq!(story.tell(Event::Retire), [Action::Cancel(3)]);
    assert_eq!((story.wait(), story.now), (vec![Action::Drain(2)], s(116)), "it had graceful-timeout to see the queue's end");
}

/// Each row: the scripts of `/a` and `/b` that a generation cannot load, the codes logged, and the
/// state shown.
#[test]
fn what_is_said_of_scripts_that_cannot_be_loaded() {
    type Row = (&'static [&'static str], usize, &'static [u16], &'static str);
    const FIRST_AND_AGAIN: [[Row; 2]; 3] = [
        [(&["/a"], 0, &[225, 230, 231, 227], "failing"), (&["/a"], 0, &[227], "failing")],
        [
            (&["/a", "/b"], 0, &[225, 225, 230, 231, 227], "failing"),
            (&["/a"], 1, &[230, 231, 228], "serving (some scripts cannot be loaded)"),
        ],
        [
            (&["/a"], 1, &[225, 230, 231, 228], "serving (some scripts cannot be loaded)"),
            (&["/a"], 1, &[226], "serving (some scripts cannot be loaded)"),
        ],
    ];
    let failure = |path: &&str| ScriptFailure { path: path.as_bytes().to_vec(), mtime_us: 1, text: "SyntaxError".into() };
    for rows in FIRST_AND_AGAIN {
        let mut story = Story::new(1);
        story.tell(Event::Wanted);
        for (worker, (broken, good, codes, state)) in (0..).zip(rows) {
            story.tell(Event::Started(worker));
            // Each script is known by two names.
            let failures = broken.iter().chain(broken).map(failure).collect();
            assert_eq!(story.codes(Event::Loaded { worker, failures, good }), codes, "{rows:?}");
            assert_eq!(story.state(), state, "{rows:?}");
            story.wait();
        }
    }
    // A script unknown at the start is served all the same.
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.broken(0, 1);
    assert_eq!((story.state(), story.pool.refusal()), ("failing", None));
    story.tell(Event::AlsoLoaded);
    assert_eq!(story.state(), "serving (some scripts cannot be loaded)");
}

#[test]
fn old_code_that_serves_is_not_called_failing() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    assert_eq!(story.state(), "serving");
    story.tell(Event::Reload);
    story.tell(Event::Started(1));
    let failures = vec![ScriptFailure { path: b"/a".to_vec(), mtime_us: 1, text: "SyntaxError".into() }];
    assert_eq!(story.codes(Event::Loaded { worker: 1, failures, good: 0 }), [225, 226]);
    assert_eq!(story.state(), "serving (new code cannot start)");
    story.tell(Event::Exited { worker: 0, how: "was killed by signal 9".into(), clean: false, killed: false });
    assert_eq!(story.state(), "failing");
}

#[test]
fn a_reload_ends_a_stop_at_once_and_says_how_it_went() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    assert_eq!(story.pool.outcome(), Some(Ok(())));
    assert_eq!(story.tell(Event::Halt), [Action::Drain(0)]);
    assert!(story.pool.refusal().is_some_and(|why| why.contains("administrator")));
    assert_eq!((story.state(), story.pool.failure()), ("halted", None), "nothing has failed");
    assert_eq!(story.tell(Event::Reload), [start(1, 2)]);
    assert_eq!((story.pool.refusal(), story.pool.outcome()), (None, None), "requests wait");
    story.up(1);
    assert_eq!(story.pool.outcome(), Some(Ok(())));
    story.tell(Event::Halt);
    let limits = story.pool.limits.clone();
    assert_eq!(story.tell(Event::Configure(limits)), [start(2, 3)]);
    assert_eq!(story.pool.refusal(), None, "graceful ends it just so");
    story.up(2);
    story.tell(Event::Reload);
    story.broken(3, 1);
    assert_eq!(story.pool.outcome(), Some(Err("Traceback\nSyntaxError".to_owned())));
}

/// Each row: what happened to the worker before it exited, whether it exited with status 0, and the
/// code logged.
#[test]
fn a_death_is_told_also_of_a_worker_that_is_to_go() {
    let being_replaced = || Event::Replace { worker: 0, why: ReplaceReason::MaximumRequests };
    let signalled = || Event::Replace { worker: 0, why: ReplaceReason::Signal };
    let stuck = || Event::Stuck { worker: 0, what: String::new(), deadlocked: true };
    let rows: [(&[Event], bool, u16); 8] = [
        (&[], false, 232),
        (&[being_replaced()], false, 232),
        (&[being_replaced()], true, 232),
        (&[signalled()], false, 271),
        (&[signalled()], true, 237),
        (&[stuck()], false, 237),
        (&[Event::Retire], true, 237),
        (&[Event::Retire], false, 271),
    ];
    for (before, clean, code) in rows {
        let mut story = Story::new(1);
        story.tell(Event::Wanted);
        story.up(0);
        for event in before {
            story.tell(event.clone());
        }
        assert_eq!(story.codes(Event::Exited { worker: 0, how: "ended".into(), clean, killed: false })[0], code, "{before:?} {clean}");
    }
    // Its successor was ready, and it was draining.
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.now += s(2);
    story.tell(being_replaced());
    story.up(1);
    assert_eq!(story.codes(Event::Exited { worker: 0, how: "was killed by signal 11".into(), clean: false, killed: false }), [271]);
}

#[test]
fn a_program_that_is_no_python_is_suspected() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.tell(Event::Started(0));
    story.tell(Event::Exited { worker: 0, how: "exited with status 0".into(), clean: true, killed: false });
    assert!(
        story.pool.refusal().is_some_and(|why| why.contains("before it was ready (check that python= is Python")),
        "{:?}",
        story.pool.refusal()
    );
}

/// Each row: how long after its first worker was ready an elastic pool learns of a request, how
/// long the request waited, and whether the pool grows.
#[test]
fn a_request_that_waited_for_the_first_worker_calls_no_second() {
    let ms = Duration::from_millis;
    for (after, waited_ms, grows) in
        [(ms(20), 1020, false), (ms(200), 1000, false), (ms(200), 60, false), (ms(400), 60, true), (s(3), 1000, true)]
    {
        let mut story = Story::new(3);
        story.pool.limits.least = 0;
        story.tell(Event::Wanted);
        story.now += s(1);
        story.up(0);
        story.now += after;
        let activity = drover_wire::control::Activity { taken: 1, counted: 1, waited_us: waited_ms * 1000, running: 0 };
        story.tell(Event::Activity { worker: 0, activity });
        assert_eq!(story.wait(), [Action::CheckQueue]);
        let starts = story.tell(Event::QueueChecked { waiting: false }).len();
        assert_eq!(starts == 1, grows, "{after:?} {waited_ms}");
    }
}

/// Each row: whether the group was stopped, the result of the reload's one worker, and which
/// generation the administrator is told serves.
#[test]
fn a_reload_says_who_serves() {
    let failure = || ScriptFailure { path: b"/a".to_vec(), mtime_us: 1, text: "SyntaxError".into() };
    let rows = [
        (false, vec![], 1, Service::New),
        (false, vec![failure()], 1, Service::Old),
        (false, vec![failure()], 0, Service::Old),
        (true, vec![], 1, Service::New),
        (true, vec![failure()], 1, Service::Partial),
        (true, vec![failure()], 0, Service::Nobody),
    ];
    for (stopped, failures, good, service) in rows {
        let mut story = Story::new(1);
        story.tell(Event::Wanted);
        story.up(0);
        if stopped {
            story.tell(Event::Halt);
            assert_eq!(story.pool.service(), Service::Nobody, "its requests are finished, others are refused");
        }
        story.tell(Event::Reload);
        story.tell(Event::Started(1));
        story.tell(Event::Loaded { worker: 1, failures: failures.clone(), good });
        assert_eq!((story.pool.service(), story.pool.outcome().is_some()), (service, true), "{stopped} {failures:?} {good}");
    }
    let mut story = Story::new(1);
    story.tell(Event::Reload);
    assert_eq!((story.pool.service(), story.pool.outcome()), (Service::OnDemand, Some(Ok(()))), "nobody has asked for it yet");
}

/// Both a failure and its end are logged, and a traceback only once.
#[test]
fn recovery_is_told_and_the_same_traceback_is_not() {
    let mut story = Story::new(1);
    story.tell(Event::Wanted);
    story.up(0);
    story.tell(Event::Reload);
    let failed = |mtime_us| vec![ScriptFailure { path: b"/a".to_vec(), mtime_us, text: "Traceback\nSyntaxError".into() }];
    story.tell(Event::Started(1));
    assert_eq!(story.codes(Event::Loaded { worker: 1, failures: failed(1), good: 0 }), [225, 226]);
    let gone = |story: &mut Story, worker| story.tell(Event::Exited { worker, how: String::new(), clean: true, killed: false });
    gone(&mut story, 1);
    for worker in 2..5 {
        story.wait();
        story.tell(Event::Started(worker));
        let mut out = Vec::new();
        story.pool.step(Event::Loaded { worker, failures: failed(1), good: 0 }, story.now, &mut out);
        let lines: Vec<_> = out.iter().filter_map(|a| if let Action::Log { args, .. } = a { Some(args.join(" ")) } else { None }).collect();
        assert!(lines.len() == 1 && lines[0].contains(&format!("same failure as before, {worker} attempts: /a: SyntaxError")), "{lines:?}");
        gone(&mut story, worker);
    }
    story.wait();
    story.tell(Event::Started(5));
    assert_eq!(story.codes(Event::Loaded { worker: 5, failures: failed(2), good: 0 }), [225, 226], "the file was changed");
    gone(&mut story, 5);
    story.wait();
    story.tell(Event::Started(6));
    assert_eq!(story.codes(Event::Loaded { worker: 6, failures: vec![], good: 1 }), [230, 231, 214]);
    story.tell(Event::Reload);
    story.tell(Event::Started(7));
    assert_eq!(story.codes(Event::Loaded { worker: 7, failures: vec![], good: 1 }), [230, 231], "once");
    // A crash that leaves no worker.
    let crash = |worker| Event::Exited { worker, how: "was killed by signal 11".into(), clean: false, killed: false };
    gone(&mut story, 6);
    story.tell(crash(7));
    story.now += s(2);
    story.tell(Event::Tick);
    story.tell(Event::Started(8));
    assert_eq!(story.codes(Event::Loaded { worker: 8, failures: vec![], good: 1 }), [230, 214]);
    assert_eq!(crate::log::messages::Code::Recovered.threshold(), crate::log::messages::Level::Error, "as loud as the failure");
}
