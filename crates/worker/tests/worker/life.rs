//! The life of the process.
use crate::harness::{Got, Request, Worker, app, config, until};
use drover_wire::control::{FromWorker, Leave, ToWorker, encode};
use drover_wire::frame::Kind;
use rustix::process::Signal;

#[test]
fn drain_finishes_what_runs_and_takes_no_more() {
    let worker = Worker::serving(3, "app.wsgi");
    let mut slow = worker.request(&Request::get("/blocks"));
    assert_eq!(slow.body(), b"one");
    worker.get("/go?gate=two").good();
    let last = worker.request(&Request::get("/wait?gate=last"));
    worker.get("/wait?gate=waits-last").good();
    worker.get("/go?gate=one").good();
    assert_eq!(slow.body(), b"two");
    worker.get("/go?gate=last").good();
    worker.say(&ToWorker::Drain);
    assert_eq!(last.answer().good(), "waited");
    assert_eq!(slow.body(), b"end");
    assert_eq!(slow.next(), Got::Frame(Kind::End, 0, Vec::new()));
    assert!(worker.end().0.success());
}

#[test]
fn a_request_that_was_not_taken_stays_on_the_queue() {
    let worker = Worker::serving(1, "app.wsgi");
    worker.get("/hello").good();
    let receiving = worker.receiving_end();
    let queue = worker.queue.try_clone().unwrap();
    worker.drain();
    drover_sys::channel::send(&queue, &[b"x"], &[], true).unwrap();
    assert!(drover_sys::wait::readable_now(&receiving));
}

#[test]
fn a_message_without_bytes_is_not_the_end_of_the_queue() {
    let worker = Worker::serving(1, "app.wsgi");
    worker.get("/hello").good();
    for _ in 0..3 {
        drover_sys::channel::send(&worker.queue, &[b""], &[], true).unwrap();
        worker.get("/hello").good();
    }
    worker.drain();
}

#[test]
fn the_death_of_droverd_ends_it() {
    let mut worker = Worker::serving(2, "app.wsgi");
    let slow = worker.request(&Request::get("/wait?gate=slow"));
    worker.get("/wait?gate=waits-slow").good();
    worker.get("/go?gate=slow").good();
    worker.forsake();
    assert_eq!(slow.answer().good(), "waited");
    let (status, printed) = worker.end();
    assert!(status.success(), "{status} {printed}");
}

#[test]
fn signals_ask_it_to_go() {
    for signal in [Signal::TERM, Signal::INT, Signal::USR1] {
        let worker = Worker::serving(2, "app.wsgi");
        worker.get("/hello").good();
        rustix::process::kill_process(worker.pid(), signal).unwrap();
        assert_eq!(worker.hear(), FromWorker::Leaving(Leave::Signal));
        let (status, printed) = worker.end();
        assert!(status.success() && printed.is_empty(), "{signal:?}: {status} {printed}");
    }
}

#[test]
fn what_is_registered_for_the_end_runs() {
    let worker = Worker::serving(1, "app.wsgi");
    worker.get("/at_the_end").good();
    assert_eq!(worker.drain(), "callback process_stopping\natexit\n");
}

#[test]
fn a_thread_of_the_application_does_not_hold_up_the_end() {
    let worker = Worker::serving(1, "app.wsgi");
    worker.get("/hang_at_the_end").good();
    worker.drain();
}

#[test]
fn versions_must_be_the_same() {
    let worker = Worker::spawn();
    worker.hear();
    let mut other = config(1, &[]);
    other.version = "0.0.0".into();
    worker.say(&ToWorker::Start(Box::new(other)));
    let FromWorker::SetupFailed(why) = worker.hear() else { panic!() };
    assert!(why.contains("0.0.0"), "{why}");
    assert!(!worker.end().0.success());

    let worker = Worker::spawn();
    worker.hear();
    let mut bytes = encode(&ToWorker::Drain).unwrap();
    bytes[4] ^= 0x55;
    worker.say_raw(&bytes);
    let FromWorker::SetupFailed(why) = worker.hear() else { panic!() };
    assert!(why.contains("protocol"), "{why}");
}

#[test]
fn the_interpreter_is_set_up() {
    let scratch = crate::harness::Scratch::new();
    let (home, extra) = (scratch.0.join("home"), scratch.0.join("extra"));
    for directory in [&home, &extra, &extra.join("deep")] {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::fs::write(extra.join("more.pth"), "deep\n").unwrap();
    let script = home.join("s.wsgi");
    std::fs::write(
        &script,
        "import sys, signal, threading\n\
         old = signal.getsignal(signal.SIGALRM)\n\
         signal.signal(signal.SIGALRM, print)\n\
         assert signal.getsignal(signal.SIGALRM) == old\n\
         try:\n    sys.stdin.read()\n    raise SystemExit('stdin')\nexcept OSError as e:\n    print(e)\n\
         print(sys.path[:3], sys.path[-1][-18:], 'boot' in sys.modules)\n\
         print(sys.getswitchinterval(), threading.stack_size())\n\
         print(open('/proc/self/cmdline', 'rb').read().rstrip(b'\\0'), open('/proc/self/comm').read().strip())\n",
    )
    .unwrap();
    let bytes = |p: &std::path::Path| p.to_str().unwrap().as_bytes().to_vec();
    let mut c = config(1, &[&bytes(&script)]);
    c.scripts[0].callable = Vec::new();
    c.home = Some(bytes(&home));
    c.options.python_path = vec![bytes(&extra)];
    c.options.display_name = Some(b"(wsgi:shop)".to_vec());
    c.options.switch_interval_us = Some(2000);
    c.options.stack_size = Some(600_000);
    c.options.restrict_stdin = true;
    c.options.restrict_signal = true;
    let (worker, loaded) = Worker::start(c);
    assert_eq!(loaded[0].failure, None);
    worker.say(&ToWorker::Serve);
    let printed = worker.drain();
    let (home, extra, deep) = (home.display(), extra.display(), extra.join("deep"));
    assert!(printed.contains("s.wsgi:3: signal.signal(14, …) is ignored"), "{printed}");
    assert!(printed.contains("sys.stdin access restricted by mod_wsgi\n"), "{printed}");
    assert!(printed.contains(&format!("['{home}', '{extra}', '{}'] /mod_drover/python False\n", deep.display())), "{printed}");
    assert!(printed.contains("0.002 602112\n"), "{printed}");
    assert!(printed.contains("b'(wsgi:shop)' (wsgi:shop)\n"), "{printed}");
}

#[test]
fn a_crash_shows_where() {
    let scratch = crate::harness::Scratch::new();
    let script = scratch.0.join("crash.wsgi");
    std::fs::write(&script, "def application(environ, start_response):\n    import ctypes\n    ctypes.string_at(0)\n").unwrap();
    let worker = Worker::serving_with(config(1, &[&app("app.wsgi")]));
    let mut request = Request::get("/");
    request.script = script.to_str().unwrap().as_bytes().to_vec();
    let answer = worker.request(&request).answer();
    assert_eq!(answer.ending, crate::harness::Ending::Closed);
    until(|| worker.printed().contains("crash.wsgi\", line 3"));
}
