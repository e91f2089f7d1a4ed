//! The exit of a process whose application has threads of its own.
use crate::harness::{Request, Scratch, Worker, config};
use drover_wire::control::ToWorker;

/// A worker that serves what `text` is, and has imported it.
fn serving(text: &str) -> (Scratch, Worker) {
    let scratch = Scratch::new();
    let path = scratch.0.join("app.wsgi");
    let whole = format!(
        "import atexit, concurrent.futures, threading, time
say = lambda text: print(text, flush=True)
never = threading.Event()
def forever():
    never.wait()
{text}
if 'application' not in globals():
    def application(environ, start_response):
        request()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'ok']
"
    );
    std::fs::write(&path, whole).unwrap();
    let path = path.to_str().unwrap().as_bytes().to_vec();
    let worker = Worker::serving_with(config(2, &[&path]));
    let mut request = Request::get("/");
    request.script = path;
    assert_eq!(worker.request(&request).answer().good(), "ok");
    (scratch, worker)
}

/// As droverd ends a process: it is told to finish, and when it will be killed.
fn end(worker: Worker, within_ms: u64) -> String {
    worker.say(&ToWorker::LastWords { within_ms });
    worker.drain()
}

#[test]
fn threads_started_at_import_do_not_keep_the_process() {
    let (_scratch, worker) = serving(
        "
atexit.register(say, 'atexit')
threading.Thread(target=forever).start()
threading.Thread(target=forever, daemon=False).start()
threading.Timer(3600, say, ['never']).start()
def again():
    timer = threading.Timer(0.01, again)
    timer.start()
again()
def request():
    threading.Thread(target=forever).start()
",
    );
    assert_eq!(end(worker, 60_000), "atexit\n");
}

#[test]
fn a_thread_that_atexit_stops_has_time_to_finish() {
    let (_scratch, worker) = serving(
        "
stop = threading.Event()
def work():
    stop.wait()
    time.sleep(0.05)
    say('finished')
@atexit.register
def end():
    say('atexit')
    stop.set()
def request():
    threading.Thread(target=work, daemon=False).start()
",
    );
    assert_eq!(end(worker, 60_000), "atexit\nfinished\n");
}

#[test]
fn executors_finish_their_work_before_atexit() {
    let (_scratch, worker) = serving(
        "
atexit.register(say, 'atexit')
pool = concurrent.futures.ThreadPoolExecutor(1)
pool.submit(int).result()
def work():
    time.sleep(0.05)
    say('worked')
def request():
    pool.submit(work)
",
    );
    assert_eq!(end(worker, 60_000), "worked\natexit\n");
}

#[test]
fn work_without_an_end_does_not_keep_atexit_from_running() {
    let (_scratch, worker) = serving(
        "
atexit.register(say, 'atexit')
pool = concurrent.futures.ThreadPoolExecutor(1, 'endless')
pool.submit(forever)
def request():
    pass
",
    );
    let printed = end(worker, 60_000);
    assert!(printed.contains("DROVER0405: an executor of the application still works"), "{printed}");
    assert!(printed.contains("thread 'endless_0' (") && printed.contains("app.wsgi:5 in forever)"), "{printed}");
    assert!(printed.ends_with("\natexit\n"), "{printed}");
}

#[test]
fn a_thread_that_holds_up_the_exit_is_named() {
    let (_scratch, worker) = serving(
        "
atexit.register(say, 'atexit')
def request():
    threading.Thread(target=forever, name='stubborn', daemon=False).start()
",
    );
    let printed = end(worker, 2000);
    assert!(printed.starts_with("atexit\nDROVER0406: the process exits although this still runs: thread 'stubborn' ("), "{printed}");
    assert!(printed.contains("app.wsgi:5 in forever)"), "{printed}");
}

#[test]
fn a_thread_that_an_atexit_function_waits_for_is_named() {
    let (_scratch, worker) = serving(
        "
thread = threading.Thread(target=forever, name='awaited')
thread.start()
atexit.register(thread.join)
def request():
    pass
",
    );
    let printed = end(worker, 2000);
    assert!(printed.contains("DROVER0406: the process exits although this still runs: thread 'awaited' ("), "{printed}");
}

#[test]
fn an_atexit_function_without_an_end_is_named() {
    let (_scratch, worker) = serving(
        "
atexit.register(forever)
def request():
    pass
",
    );
    let printed = end(worker, 2000);
    assert!(printed.contains("this still runs: a function registered for the exit (") && printed.contains("in forever)"), "{printed}");
}

#[test]
fn c_code_that_keeps_the_lock_does_not_keep_the_process() {
    let (_scratch, worker) = serving(
        "
import ctypes
atexit.register(ctypes.PyDLL(None).sleep, 3600)
def request():
    pass
",
    );
    let printed = end(worker, 2000);
    assert!(printed.contains("DROVER0406") && printed.contains("C code"), "{printed}");
}
