//! Several requests at a time.
use crate::harness::{Ending, Got, Request, Worker, app, config, until};
use drover_wire::control::{FromWorker, Leave, ToWorker};
use drover_wire::frame::{Failure, Kind};

#[test]
fn slow_requests_do_not_block_quick_ones() {
    let worker = Worker::serving(4, "app.wsgi");
    let slow: Vec<_> = ["a", "b", "c"].map(|gate| worker.request(&Request::get(&format!("/wait?gate={gate}")))).into_iter().collect();
    for _ in 0..20 {
        worker.get("/hello").good();
    }
    for gate in ["a", "b", "c"] {
        worker.get(&format!("/go?gate={gate}")).good();
    }
    for request in slow {
        assert_eq!(request.answer().good(), "waited");
    }
    worker.drain();
}

#[test]
fn a_computing_request_does_not_block_a_quick_one() {
    let worker = Worker::serving(2, "app.wsgi");
    let busy = worker.request(&Request::get("/spin?gate=stop"));
    for _ in 0..5 {
        worker.get("/hello").good();
    }
    worker.get("/go?gate=stop").good();
    assert_eq!(busy.answer().good(), "spun");
    worker.drain();
}

#[test]
fn many_at_once_are_all_answered() {
    let worker = Worker::serving(5, "app.wsgi");
    for _ in 0..20 {
        let all: Vec<_> = (0..40).map(|n| worker.request(&Request::get(if n % 7 == 0 { "/with_close" } else { "/hello" }))).collect();
        for request in all {
            assert_eq!(request.answer().ending, Ending::End(true));
        }
    }
    worker.drain();
}

#[test]
fn a_mixed_load_stalls_nowhere() {
    let worker = Worker::serving(5, "app.wsgi");
    let mut running = std::collections::VecDeque::new();
    for n in 0..3000u32 {
        let path = match n * 7919 % 31 {
            0..=2 => "/sleep?ms=3",
            3 => "/compute?ms=15",
            4 => "/log",
            5 => "/raise_late",
            6 => "/unread",
            _ => "/hello",
        };
        running.push_back(worker.request(&Request::get(path)));
        if running.len() >= 30 {
            assert_ne!(running.pop_front().unwrap().answer().ending, Ending::Closed);
        }
    }
    for last in running {
        assert_ne!(last.answer().ending, Ending::Closed);
    }
    assert_eq!(worker.drain(), "");
}

#[test]
fn one_thread_is_strictly_serial() {
    let worker = Worker::serving(1, "app.wsgi");
    let first = worker.request(&Request::get("/wait?gate=never-opened-by-others"));
    let second = worker.request(&Request::get("/go?gate=never-opened-by-others"));
    // Nobody takes the second while the first waits for it: it is still on the queue when the worker is asked to show its stacks.
    until(|| {
        worker.say(&ToWorker::Dump);
        std::thread::sleep(std::time::Duration::from_millis(20));
        worker.printed().contains("in wait")
    });
    assert!(drover_sys::wait::readable_now(worker.receiving()));
    drop((first, second));
}

#[test]
fn threads_are_ordinary() {
    let worker = Worker::serving(1, "app.wsgi");
    assert_eq!(worker.get("/thread").good(), "Thread mod_drover-0 True");
    worker.drain();
}

#[test]
fn no_request_threads() {
    let mut config = config(0, &[&app("app.wsgi")]);
    config.scripts[0].callable = Vec::new();
    let worker = Worker::serving_with(config);
    let _waiting = worker.request(&Request::get("/hello"));
    worker.drain();
}

#[test]
fn maximum_requests() {
    let mut config = config(2, &[&app("app.wsgi")]);
    config.options.maximum_requests = Some(3);
    let worker = Worker::serving_with(config);
    worker.get("/hello").good();
    worker.get("/hello").good();
    let third = worker.request(&Request::get("/hello"));
    assert_eq!(worker.hear(), FromWorker::Leaving(Leave::MaximumRequests));
    assert_eq!(third.answer().good(), "hello");
    worker.get("/hello").good(); // until its replacement is up
    worker.drain();
}

#[test]
fn what_droverd_had_no_room_for_is_said_later() {
    let mut config = config(2, &[&app("app.wsgi")]);
    config.options.maximum_requests = Some(1);
    let (worker, mut filled) = Worker::unheard(config);
    let mut request = Request::get("/wait?gate=slow");
    let now = drover_sys::clock::monotonic_ns();
    (request.prefix.queued_at, request.prefix.take_by) = (now - 3_000_000_000, now + 1_500_000_000);
    let mut slow = worker.request(&request);
    // This the monitor says after it has tried to report.
    assert_eq!(slow.next(), Got::Frame(Kind::Taken, 0, Vec::new()));
    worker.get("/go?gate=slow").good();
    assert_eq!(slow.answer().good(), "waited");
    let (mut asked, mut taken, mut longest) = (0, 0, 0);
    while asked == 0 || taken < 2 {
        match worker.hear_any() {
            FromWorker::Leaving(Leave::MaximumRequests) => asked += 1,
            FromWorker::Activity(_) if filled > 0 => filled -= 1,
            FromWorker::Activity(activity) => (taken, longest) = (taken + activity.taken, longest.max(activity.waited_us)),
            other => panic!("{other:?}"),
        }
    }
    assert!(longest >= 3_000_000, "{longest}");
    worker.drain();
}

#[test]
fn a_request_that_runs_too_long_is_reported_once() {
    let mut config = config(2, &[&app("app.wsgi")]);
    config.options.request_timeout_ms = Some(50);
    let worker = Worker::serving_with(config);
    let mut request = Request::get("/wait?gate=slow");
    request.set("REQUEST_URI", b"/wait?gate=slow");
    let slow = worker.request(&request);
    let FromWorker::Stuck { what, .. } = worker.hear() else { panic!() };
    assert!(what.contains("GET /wait?gate=slow"), "{what}");
    until(|| worker.printed().contains("in wait"));
    worker.get("/go?gate=slow").good();
    assert_eq!(slow.answer().good(), "waited");
    worker.drain();
}

#[test]
fn httpd_is_told_that_a_slow_request_was_taken() {
    let worker = Worker::serving(2, "app.wsgi");
    let mut request = Request::get("/wait?gate=told");
    request.prefix.take_by = drover_sys::clock::monotonic_ns() + 2_000_000_000;
    let mut slow = worker.request(&request);
    assert_eq!(slow.next(), Got::Frame(Kind::Taken, 0, Vec::new()));
    worker.get("/go?gate=told").good();
    assert_eq!(slow.answer().good(), "waited");
    request = Request::get("/hello");
    request.prefix.take_by = 1;
    assert!(matches!(worker.request(&request).answer().ending, Ending::Fail(Failure::Expired, _)));
    request = Request::get("/raise_early");
    request.prefix.queued_at -= 100_000_000;
    worker.request_of_nobody(&request);
    worker.get("/hello").good();
    assert_eq!(worker.drain(), "", "nobody waited for it, so it did not run");
}

#[test]
fn an_interrupted_request_is_504_and_the_worker_stays() {
    let mut config = config(2, &[&app("app.wsgi")]);
    (config.options.request_timeout_ms, config.options.interrupt_timeout_ms) = (Some(50), Some(60_000));
    let worker = Worker::serving_with(config);
    for _ in 0..3 {
        let spinning = worker.get("/spin?gate=never");
        assert!(matches!(spinning.ending, Ending::Fail(Failure::Timeout, _)), "{spinning:?}");
        worker.get("/hello").good();
    }
    assert_eq!(worker.get("/swallow").good(), "swallowed", "it may be caught");
    worker.get("/hello").good();
    worker.drain();
}

#[test]
fn a_request_that_cannot_be_interrupted_is_reported() {
    let mut config = config(2, &[&app("app.wsgi")]);
    (config.options.request_timeout_ms, config.options.interrupt_timeout_ms) = (Some(50), Some(100));
    let worker = Worker::serving_with(config);
    let slow = worker.request(&Request::get("/wait?gate=deaf"));
    let FromWorker::Stuck { deadlocked: false, .. } = worker.hear() else { panic!() };
    worker.get("/go?gate=deaf").good();
    // The exception was raised when the wait was over.
    assert!(matches!(slow.answer().ending, Ending::Fail(Failure::Timeout, _)));
    worker.drain();
}

#[test]
fn a_deadlock_is_reported_with_the_stacks() {
    let mut config = config(2, &[&app("app.wsgi")]);
    config.options.deadlock_timeout_ms = Some(300);
    let worker = Worker::serving_with(config);
    let _stuck = worker.request(&Request::get("/hold_the_lock"));
    let FromWorker::Stuck { deadlocked: true, what } = worker.hear() else { panic!() };
    assert!(what.contains("Python's lock"), "{what}");
    until(|| worker.printed().contains("in hold_the_lock"));
}

#[test]
fn what_was_done_is_reported() {
    let worker = Worker::serving(2, "app.wsgi");
    let mut ignored = Request::get("/hello");
    ignored.prefix.flags |= drover_wire::request::UNCOUNTED;
    for _ in 0..3 {
        worker.get("/hello").good();
        worker.request(&ignored).answer().good();
    }
    let (mut taken, mut counted) = (0, 0);
    while taken < 6 {
        let activity = worker.activity();
        (taken, counted) = (taken + activity.taken, counted + activity.counted);
    }
    assert_eq!((taken, counted), (6, 3));
    let waiting = worker.request(&Request::get("/wait?gate=long"));
    while worker.activity().running == 0 {}
    worker.get("/go?gate=long").good();
    assert_eq!(waiting.answer().good(), "waited");
    while worker.activity().running > 0 {}
    worker.drain();
}

#[test]
fn used_up_cpu_time_asks_for_a_successor_and_serves_on() {
    let worker = Worker::serving(2, "app.wsgi");
    rustix::process::kill_process(worker.pid(), rustix::process::Signal::XCPU).unwrap();
    assert_eq!(worker.hear(), FromWorker::Leaving(Leave::CpuTime));
    rustix::process::kill_process(worker.pid(), rustix::process::Signal::XCPU).unwrap();
    worker.get("/hello").good();
    worker.say(&ToWorker::Look);
    worker.get("/hello").good();
    worker.drain();
}
