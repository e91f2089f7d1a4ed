//! Scripts: imports, failures, changes.
use crate::harness::{Ending, Request, Scratch, Worker, config, until};
use drover_wire::control::{FromWorker, Script, ToWorker};
use drover_wire::frame::Failure;
use drover_wire::request::{PREFIX, Prefix};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

fn write(scratch: &Scratch, name: &str, text: &str) -> PathBuf {
    let path = scratch.0.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn mtime(path: &PathBuf) -> u64 {
    let m = std::fs::metadata(path).unwrap();
    m.mtime() as u64 * 1_000_000 + m.mtime_nsec() as u64 / 1000
}

fn hello(says: &str) -> String {
    format!("def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{says}']\n")
}

fn request(path: &std::path::Path) -> Request {
    let mut request = Request::get("/");
    request.script = path.as_os_str().as_bytes().to_vec();
    request
}

#[test]
fn failures_at_the_start() {
    let scratch = Scratch::new();
    let paths = [
        write(&scratch, "good", &hello("good")),
        write(&scratch, "raises.wsgi", "import sys\nraise ValueError('at import')\n"),
        write(&scratch, "syntax.wsgi", "def (\n"),
        write(&scratch, "exits.wsgi", "import sys; sys.exit(3)\n"),
        scratch.0.join("missing.wsgi"),
        write(&scratch, "other.wsgi", "app = None\n"),
    ];
    let all: Vec<&[u8]> = paths.iter().map(|p| p.as_os_str().as_bytes()).collect();
    let (worker, loaded) = Worker::start(config(1, &all));
    let [good, raises, syntax, exits, missing, other] = &loaded[..] else { panic!("{loaded:?}") };
    assert_eq!((good.failure.as_ref(), good.mtime_us), (None, mtime(&paths[0])));
    let (code, text) = raises.failure.as_ref().unwrap();
    assert_eq!(*code, Failure::Import as u16);
    assert!(text.contains("raises.wsgi\", line 2") && text.contains("ValueError: at import"), "{text}");
    assert!(syntax.failure.as_ref().unwrap().1.contains("SyntaxError"));
    assert!(exits.failure.as_ref().unwrap().1.contains("SystemExit: 3"));
    assert_eq!(missing.failure.as_ref().unwrap().0, Failure::ScriptMissing as u16);
    assert_eq!(other.failure.as_ref().unwrap().0, Failure::NoCallable as u16);

    worker.say(&ToWorker::Serve);
    assert_eq!(worker.request(&request(&paths[0])).answer().good(), "good");
    let failed = |path| worker.request(&request(path)).answer().ending;
    assert_eq!(failed(&paths[1]), Ending::Fail(Failure::Import, "ValueError: at import".into()));
    assert!(matches!(failed(&paths[4]), Ending::Fail(Failure::ScriptMissing, _)));
    assert!(matches!(failed(&paths[5]), Ending::Fail(Failure::NoCallable, _)));
    assert_eq!(worker.drain(), "");
}

#[test]
fn a_script_is_loaded_with_its_first_request() {
    let scratch = Scratch::new();
    let path = write(&scratch, "late.wsgi", "import sys\nprint('importing', file=sys.stderr)\nraise ValueError('not yet')\n");
    let worker = Worker::serving(2, "app.wsgi");
    let failed = worker.request(&request(&path)).answer();
    assert!(matches!(failed.ending, Ending::Fail(Failure::Import, _)));
    assert!(failed.logged().starts_with("importing\nTraceback"), "{}", failed.logged());
    // Tried again with the next request, as in mod_wsgi.
    std::fs::write(&path, hello("now")).unwrap();
    assert_eq!(worker.request(&request(&path)).answer().good(), "now");
    let script = Script { path: request(&path).script, callable: b"application".to_vec() };
    assert_eq!(worker.hear(), FromWorker::AlsoLoaded(script));
    worker.drain();
}

#[test]
fn a_changed_script_hands_the_request_back_once() {
    let scratch = Scratch::new();
    let path = write(&scratch, "site.wsgi", &hello("old"));
    let bytes = path.as_os_str().as_bytes().to_vec();
    let worker = Worker::serving_with(config(2, &[&bytes]));
    let mut ask = request(&path);
    ask.prefix.script_mtime_us = mtime(&path);
    assert_eq!(worker.request(&ask).answer().good(), "old");
    // httpd's look at the file was older than the worker's: nothing has changed.
    ask.prefix.script_mtime_us = 1;
    assert_eq!(worker.request(&ask).answer().good(), "old");

    std::fs::write(&path, hello("new")).unwrap();
    // The clock of a filesystem is coarse: two writes in a row may have one time.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
    let new = mtime(&path);
    ask.prefix.script_mtime_us = new;
    let waiting = worker.request(&ask);
    let (changed, fds) = worker.hear_with_fds();
    let FromWorker::Changed { path: which, mtime_us, request: message } = changed else { panic!("{changed:?}") };
    assert_eq!((which, mtime_us, fds.len()), (bytes.clone(), new, 1));
    let prefix = Prefix::decode(&message).unwrap();
    assert_eq!((prefix.number, message.len()), (waiting.number, PREFIX + prefix.payload_len()));
    // The next ones with this time are served by the code that is loaded.
    assert_eq!(worker.request(&ask).answer().good(), "old");
    // Back on the queue, as droverd does when the new generation could not start.
    drover_sys::channel::send(&worker.queue, &[&message], &[std::os::fd::AsFd::as_fd(&fds[0])], true).unwrap();
    drop(fds);
    let served = waiting.answer();
    assert!(!served.held, "it has been run");
    assert_eq!(served.good(), "old");

    std::fs::write(&path, hello("newer, and longer")).unwrap();
    std::fs::File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(5))
        .unwrap();
    let newer = mtime(&path);
    worker.say(&ToWorker::Keep { path: bytes, mtime_us: newer });
    ask.prefix.script_mtime_us = newer;
    // Keep comes on another socket than requests: until it is heard, the change is reported.
    let asked = worker.request(&ask);
    if worker.speaks_before(&asked) {
        drop(worker.hear_with_fds()); // the way back with it
        let lost = asked.answer();
        assert!(lost.held && lost.ending == Ending::Closed, "{lost:?}");
    } else {
        assert_eq!(asked.answer().good(), "old");
    }
    assert_eq!(worker.request(&ask).answer().good(), "old");
    worker.drain();
}

#[test]
fn a_script_may_ask_for_a_new_process() {
    let worker = Worker::serving(2, "app.wsgi");
    let directory = Scratch::new();
    let path = directory.0.join("asks.wsgi");
    let code = "def reload_required(resource):\n    assert resource == __file__\n    return WANTED\n\ndef application(environ, start_response):\n    global WANTED\n    start_response('200 OK', [])\n    WANTED = environ['PATH_INFO'] == '/ask'\n    if environ['PATH_INFO'] == '/strip':\n        del globals()['__mtime__']\n    if environ['PATH_INFO'] == '/raise':\n        WANTED = Wrong()\n    return [b'old']\n\nclass Wrong:\n    def __bool__(self):\n        raise ValueError('on purpose')\n\nWANTED = False\n";
    std::fs::write(&path, code).unwrap();
    let bytes = path.as_os_str().as_encoded_bytes().to_vec();
    let get = |target: &str| {
        let mut request = Request::get(target);
        request.script = bytes.clone();
        request.prefix.script_mtime_us = mtime(&path);
        request
    };
    worker.request(&get("/raise")).answer().good();
    drop(worker.hear()); // AlsoLoaded
    assert_eq!(worker.request(&get("/ask")).answer().good(), "old", "an exception asks for nothing");
    let asked = worker.request(&get("/"));
    let (FromWorker::Changed { request, .. }, fds) = worker.hear_with_fds() else { panic!() };
    assert!(!request.is_empty());
    drop(fds);
    let lost = asked.answer();
    assert!(lost.held && lost.ending == Ending::Closed, "{lost:?}");
    let mut resent = get("/");
    resent.prefix.flags |= drover_wire::request::RESENT;
    let _again = worker.request(&resent);
    assert!(matches!(worker.hear(), FromWorker::Changed { .. }), "this process has asked: it is for its successor");
    worker.say(&ToWorker::Keep { path: bytes.clone(), mtime_us: mtime(&path) });
    until(|| {
        let exchange = worker.request(&resent);
        let spoke = worker.speaks_before(&exchange);
        if spoke {
            drop(worker.hear_with_fds());
        }
        !spoke
    });
    worker.drain();

    let worker = Worker::serving(2, "app.wsgi");
    assert_eq!(worker.request(&resent).answer().good(), "old", "the successor serves it without asking");
    drop(worker.hear()); // AlsoLoaded
    assert_eq!(worker.request(&get("/strip")).answer().good(), "old");
    let _stripped = worker.request(&get("/"));
    assert!(matches!(worker.hear(), FromWorker::Changed { .. }));
    worker.drain();
}
