//! Request threads, whatever the application has made of `threading`.
use crate::harness::{Request, Scratch, Worker, config};
use drover_wire::control::{FromWorker, ToWorker};

/// What each application here answers with: the thread as `threading` sees it.
const SEEN: &str = "
import threading
def application(environ, start_response):
    nested = []
    for _ in range(int(environ['QUERY_STRING'])):
        nested = [nested]
    me = threading.current_thread()
    seen = (type(me).__name__, me.name, me.daemon, me.is_alive(), me in threading.enumerate(), len(repr(nested)))
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [' '.join(map(str, seen)).encode()]
";

fn script(text: &str) -> (Scratch, Vec<u8>) {
    let scratch = Scratch::new();
    let path = scratch.0.join("app.wsgi");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().as_bytes().to_vec();
    (scratch, path)
}

fn get(worker: &Worker, path: &[u8], query: &str) -> String {
    let mut request = Request::get(&format!("/?{query}"));
    request.script = path.to_vec();
    worker.request(&request).answer().good()
}

#[test]
fn a_broken_threading_module_does_not_matter() {
    let (_scratch, path) = script(&format!(
        "{SEEN}
def broken(*args, **more):
    raise RuntimeError('not for the worker')
class Broken(threading.Thread):
    start = run = broken
threading.stack_size(65536)
threading.Thread.__init__ = threading.Thread.start = threading.Thread.run = threading.Thread._bootstrap_inner = broken
threading.Thread = Broken
threading.excepthook = broken
threading.settrace(broken)
threading.setprofile(broken)
"
    ));
    let worker = Worker::serving_with(config(3, &[&path]));
    for _ in 0..5 {
        // So deep a repr() needs more than the 64 KiB that the application has set.
        let seen = get(&worker, &path, "400");
        assert!(seen.starts_with("Thread mod_drover-") && seen.ends_with(" True True True 802"), "{seen}");
    }
    assert_eq!(worker.drain(), "");
}

#[test]
fn a_stack_that_is_too_small_is_made_larger() {
    let (_scratch, path) = script(SEEN);
    let mut config = config(1, &[&path]);
    config.options.stack_size = Some(32_768);
    let worker = Worker::serving_with(config);
    assert_eq!(get(&worker, &path, "300"), "Thread mod_drover-0 True True True 602");
    worker.drain();
}

#[test]
fn a_worker_whose_threads_cannot_start_is_not_ready_and_says_why() {
    let (_scratch, path) = script(&format!(
        "{SEEN}
import resource
pages = int(open('/proc/self/statm').read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (4 << 20), resource.RLIM_INFINITY))
"
    ));
    let worker = Worker::spawn();
    worker.hear();
    worker.say(&ToWorker::Start(Box::new(config(3, &[&path]))));
    let FromWorker::SetupFailed(why) = worker.hear() else { panic!("it says that it is ready") };
    assert!(why.contains("cannot start the worker's thread") && why.contains("raise the limit of processes and threads"), "{why}");
    assert!(!worker.end().0.success());
}

#[test]
fn a_child_forked_by_a_request_ends_like_one_of_any_thread() {
    let (_scratch, path) = script(
        "
import multiprocessing, sys, threading
def child():
    assert threading.main_thread() is threading.current_thread()
    assert [t for t in threading.enumerate() if t is not threading.current_thread()] == []
    more = threading.Thread(target=print, daemon=False)
    more.start(); more.join()
def application(environ, start_response):
    process = multiprocessing.get_context('fork').Process(target=child)
    process.start(); process.join()
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [str(process.exitcode).encode()]
",
    );
    let worker = Worker::serving_with(config(3, &[&path]));
    assert_eq!(get(&worker, &path, ""), "0");
    worker.drain();
}

#[test]
fn request_threads_are_gone_when_they_have_ended() {
    let (_scratch, path) = script(&format!(
        "{SEEN}
import atexit
kept = []
def inner(environ, start_response, application=application):
    kept.append(threading.current_thread())
    kept[0].join(0.001) if len(kept) > 1 and kept[0] is not kept[-1] else None
    return application(environ, start_response)
application = inner
@atexit.register
def end():
    print([t.name for t in threading.enumerate()], [t.is_alive() for t in kept], threading.main_thread().is_alive(), flush=True)
    kept[0].join()
"
    ));
    let worker = Worker::serving_with(config(3, &[&path]));
    get(&worker, &path, "1");
    assert_eq!(worker.drain(), "['MainThread'] [False] False\n");
}
