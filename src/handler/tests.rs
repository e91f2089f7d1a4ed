//! Tests of the whole handler: a request of plain data on one side, workers on real sockets on the other, no httpd.
use super::fake::{FakeRequest, Message, Worker, queues, take};
use super::request::{BodyError, BodyRead, FileKind, Pass};
use super::{AdmissionCounters, Context, Verdict, handle};
use crate::config::{Context as Where, DirConfig, ServerConfig, Settings, Target, directive};
use crate::dispatch::Wake;
use crate::messages::{Code, Level};
use crate::resolved::{Access, Account, Credentials, FirstTime, Server, System, resolve};
use drover_sys::counters::SharedCounters;
use drover_wire::frame::{Failure, Kind};
use drover_wire::request::{BODY_FOLLOWS, BODY_ON_DEMAND, MAX_INLINE_BODY};

/// What a worker does with the next request of the queue.
type Story = fn(Worker, Message);

const GROUP: &str = "WSGIDaemonProcess shop processes=1 threads=1 python=/usr/bin/python3 user=#33";

/// Handles one request in the group "shop" with these further directives; one worker after the other takes it.
fn run(directives: &[&str], r: &mut FakeRequest, stories: Vec<Story>) -> Verdict {
    run_busy(directives, r, stories, 0)
}

/// As [`run`], while the group has `busy` other requests.
fn run_busy(directives: &[&str], r: &mut FakeRequest, stories: Vec<Story>, busy: usize) -> Verdict {
    let (mut server, mut dir, mut names) = (ServerConfig::default(), DirConfig::default(), Vec::new());
    let defaults: &[&str] = if directives.iter().any(|line| line.starts_with("WSGIDaemonProcess")) { &[] } else { &[GROUP] };
    let used = &["WSGIProcessGroup shop", "WSGIApplicationGroup %{GLOBAL}"];
    // The directives of the test come last, so that they win.
    for line in defaults.iter().chain(used).chain(directives) {
        let (name, arguments) = line.split_once(' ').unwrap();
        let (context, scope) = (Where::Server, None);
        let mut target = Target { server: &mut server, dir: &mut dir, context, scope, defined_groups: &names };
        directive(name.as_bytes()).unwrap().apply(&mut target, arguments.as_bytes()).unwrap();
        names = server.groups.iter().map(|g| g.name.clone()).collect();
    }
    let view = Server { config: &server, name: b"main.example", is_virtual: false, log: 0, log_level: 4, sections_choose: false };
    let (resolved, _) = resolve(&[view], &Host).unwrap();
    let (queues, receiving) = queues();
    let (wake, counters) = (Wake::new().unwrap(), SharedCounters::new(2).unwrap());
    let child_slot = counters.claim();
    for _ in 0..busy {
        let _ = counters.enter(child_slot.unwrap(), counters.find(&b"shop".to_vec()).unwrap());
    }
    let admission = AdmissionCounters { shared: Some(&counters), child_slot, slots: 10 };
    let context = Context { resolved: &resolved, queues: &queues, wake: &wake, admission, session: None, stores: None, unsaid: None };
    let workers = std::thread::spawn(move || {
        for story in stories {
            let (worker, message) = take(&receiving);
            story(worker, message);
        }
    });
    let verdict = handle(r, &Settings::resolve(&server.dir, &dir), context);
    workers.join().unwrap();
    verdict
}

/// A system without users or files.
struct Host;

impl System for Host {
    fn user_by_name(&self, _: &[u8]) -> Option<Account> {
        None
    }
    fn user_by_id(&self, uid: u32) -> Option<Account> {
        Some(Account { uid, gid: uid, name: b"www-data".to_vec(), home: b"/".to_vec() })
    }
    fn group_by_name(&self, _: &[u8]) -> Option<u32> {
        None
    }
    fn is_executable(&self, _: &[u8]) -> bool {
        true
    }
    fn is_directory(&self, _: &[u8]) -> bool {
        true
    }
    fn is_missing(&self, _: &[u8]) -> bool {
        false
    }
    fn is_running(&self) -> bool {
        false
    }
    fn cores(&self) -> u32 {
        1
    }
    fn path(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn groups_of(&self, _: &[u8], gid: u32) -> Vec<u32> {
        vec![gid]
    }
    fn own(&self) -> Credentials {
        Credentials { uid: 0, gid: 0, groups: vec![] }
    }
    fn barrier(&self, _: &Credentials, _: &[u8], _: Access) -> Option<String> {
        None
    }
    fn python_version(&self, _: &[u8]) -> Option<(u32, u32)> {
        None
    }
    fn first_time(&self) -> FirstTime {
        FirstTime(Box::new(|| true))
    }
    fn httpd_identity(&self) -> Option<(u32, u32)> {
        Some((33, 33))
    }
}

fn hello(w: Worker, _: Message) {
    w.head(200, &[("Content-Length", "5")]);
    w.send(Kind::Body, 0, b"hello");
    w.end();
}

#[test]
fn what_is_refused_never_reaches_a_worker() {
    let fake = FakeRequest::default;
    let chunked = || vec![(c"Transfer-Encoding", "chunked")];
    let table: Vec<(FakeRequest, &[&str], u16, Code)> = vec![
        (FakeRequest { may_run: false, ..fake() }, &[], 403, Code::NoExecCgi),
        (FakeRequest { file: FileKind::Missing, ..fake() }, &[], 404, Code::ScriptMissing),
        (FakeRequest { file: FileKind::Directory, ..fake() }, &[], 403, Code::ScriptIsDirectory),
        (FakeRequest { rejects_path_info: true, ..fake() }, &[], 404, Code::PathInfo),
        (FakeRequest { headers: vec![(c"Transfer-Encoding", "gzip")], ..fake() }, &[], 501, Code::TransferEncoding),
        (FakeRequest { headers: chunked(), ..fake() }, &[], 411, Code::ChunkedOff),
        (FakeRequest { headers: vec![(c"Content-Length", "-1")], ..fake() }, &[], 400, Code::ContentLength),
        (FakeRequest { headers: vec![(c"Content-Length", "11")], body_limit: 10, ..fake() }, &[], 413, Code::BodyRead),
        (fake(), &["WSGIProcessGroup none"], 500, Code::UnknownGroup),
        (fake(), &["WSGIRestrictProcess other"], 500, Code::GroupRestricted),
    ];
    for (mut r, directives, status, code) in table {
        let verdict = run(directives, &mut r, Vec::new());
        assert_eq!((verdict, r.codes()), (Verdict::Status(status), vec![code]));
        assert_eq!((r.client.status, r.client.passes.len()), (None, 0), "{code}");
    }
}

#[test]
fn another_handlers_request_is_declined() {
    let mut r = FakeRequest { handler: "cgi-script", ..FakeRequest::default() };
    assert_eq!(run(&[], &mut r, Vec::new()), Verdict::Declined);
    assert_eq!((r.env.len(), r.codes()), (0, vec![]));
}

#[test]
fn a_request_is_answered() {
    let mut r = FakeRequest::default();
    let verdict = run(
        &[],
        &mut r,
        vec![|w, message| {
            assert_eq!((&message.script[..], message.prefix.script_mtime_us, message.prefix.flags), (&b"/srv/shop.wsgi"[..], 77, 0));
            for (name, value) in [
                ("REQUEST_METHOD", "GET"),
                ("SCRIPT_NAME", "/shop"),
                ("PATH_INFO", "/cart"),
                ("PATH_TRANSLATED", "/var/www/cart"),
                ("QUERY_STRING", "page=2"),
                ("HTTP_HOST", "shop.example"),
                ("wsgi.url_scheme", "http"),
                ("apache.version", "2.4.99"),
            ] {
                assert_eq!(message.env.get(name).map(String::as_str), Some(value), "{name}");
            }
            hello(w, message);
        }],
    );
    assert_eq!((verdict, r.client.status, &r.client.out[..]), (Verdict::Done, Some(200), &b"hello"[..]));
    assert_eq!((r.client.passes.last(), r.codes()), (Some(&Pass::End), vec![]));
}

#[test]
fn a_client_cannot_set_a_reserved_variable() {
    let mut r = FakeRequest { env: vec![(c"WSGI.version".to_owned(), b"9"), (c"FROM_SETENV".to_owned(), b"1")], ..FakeRequest::default() };
    run(
        &[],
        &mut r,
        vec![|w, message| {
            assert!(message.env.contains_key("FROM_SETENV") && !message.env.contains_key("WSGI.version"));
            hello(w, message);
        }],
    );
}

#[test]
fn a_small_body_rides_in_the_message_with_its_true_length() {
    let body = [BodyRead::Data(700), BodyRead::Data(300), BodyRead::End];
    let mut r = FakeRequest { method: "POST", headers: vec![(c"Transfer-Encoding", "chunked")], ..FakeRequest::default() };
    r.client.body = body.into();
    let verdict = run(
        &["WSGIChunkedRequest On"],
        &mut r,
        vec![|w, message| {
            assert_eq!((message.body, message.prefix.flags & BODY_FOLLOWS), (vec![b'b'; 1000], 0));
            assert_eq!(message.env["CONTENT_LENGTH"], "1000");
            w.head(204, &[]);
            w.end();
        }],
    );
    assert_eq!((verdict, r.client.status), (Verdict::Done, Some(204)));
}

#[test]
fn a_large_body_follows_the_message() {
    const PIECES: usize = 200;
    let mut r = FakeRequest { method: "POST", headers: vec![(c"Content-Length", "3276800")], ..FakeRequest::default() };
    r.client.body = std::iter::repeat_n(BodyRead::Data(16384), PIECES).chain([BodyRead::End]).collect();
    let verdict = run(
        &[&format!("{GROUP} request-buffer-size=1024")],
        &mut r,
        vec![|w, message| {
            assert_eq!((message.body.len(), message.prefix.flags), (0, BODY_FOLLOWS));
            assert_eq!(w.body(), (Kind::End, 0, PIECES * 16384));
            hello(w, message);
        }],
    );
    assert_eq!((verdict, r.client.status, r.codes()), (Verdict::Done, Some(200), vec![]));
}

#[test]
fn a_body_that_waits_for_100_continue_is_read_on_demand() {
    let length: &'static str = (MAX_INLINE_BODY + 1).to_string().leak();
    let headers = vec![(c"Content-Length", length)];
    let mut r = FakeRequest { method: "POST", headers, expects_continue: true, ..FakeRequest::default() };
    r.client.body = [BodyRead::Data(1), BodyRead::End].into();
    let verdict = run(
        &[],
        &mut r,
        vec![|w, message| {
            assert_eq!(message.prefix.flags, BODY_FOLLOWS | BODY_ON_DEMAND);
            hello(w, message);
        }],
    );
    assert_eq!((verdict, r.client.body.len()), (Verdict::Done, 2), "the application did not read it");
}

#[test]
fn a_body_that_fails_ends_the_request_before_a_worker_is_needed() {
    for (failed, status) in [(BodyError::Timeout, 408), (BodyError::TooLarge, 413), (BodyError::Malformed, 400)] {
        let mut r = FakeRequest { method: "POST", headers: vec![(c"Content-Length", "10")], ..FakeRequest::default() };
        r.client.body = [BodyRead::Failed(failed)].into();
        assert_eq!((run(&[], &mut r, Vec::new()), r.codes()), (Verdict::Status(status), vec![Code::BodyRead]));
    }
}

#[test]
fn only_a_safe_request_is_retried_and_only_once() {
    let dies: Story = |w, _| drop(w);
    type Row = (&'static str, &'static [&'static str], Vec<Story>, Verdict, &'static [Code]);
    let table: [Row; 4] = [
        ("GET", &[], vec![dies, hello], Verdict::Done, &[Code::Retried]),
        ("GET", &[], vec![dies, dies], Verdict::Status(502), &[Code::Retried, Code::WorkerDied]),
        ("POST", &[], vec![dies], Verdict::Status(502), &[Code::WorkerDied]),
        ("GET", &["DroverRetry Off"], vec![dies], Verdict::Status(502), &[Code::WorkerDied]),
    ];
    for (method, directives, stories, expected, codes) in table {
        let mut r = FakeRequest { method, ..FakeRequest::default() };
        assert_eq!((run(directives, &mut r, stories), &r.codes()[..]), (expected, codes), "{method} {directives:?}");
    }
}

#[test]
fn a_request_that_droverd_held_is_retried_with_its_body() {
    let mut r = FakeRequest { method: "POST", headers: vec![(c"Content-Length", "3")], ..FakeRequest::default() };
    r.client.body = [BodyRead::Data(3), BodyRead::End].into();
    let held: Story = |w, _| w.send(Kind::Held, 0, b"");
    let again: Story = |w, message| {
        assert_eq!(message.body, b"bbb");
        hello(w, message);
    };
    assert_eq!((run(&[], &mut r, vec![held, again]), r.codes()), (Verdict::Done, vec![Code::Retried]));
}

#[test]
fn a_failure_before_the_headers_is_a_status_and_after_them_a_cut() {
    let mut r = FakeRequest::default();
    let verdict = run(&[], &mut r, vec![|w, _| w.send(Kind::Fail, Failure::Import as u16, b"no module")]);
    assert_eq!((verdict, r.codes()), (Verdict::Status(503), vec![Code::Import]));
    assert_eq!(r.error_headers, [(c"Retry-After", "10".to_owned())]);
    assert_eq!(r.messages.borrow()[0].2, "group 'shop': no module");

    let mut r = FakeRequest::default();
    let verdict = run(
        &[],
        &mut r,
        vec![|w, _| {
            w.head(200, &[]);
            w.send(Kind::Body, 0, b"part");
            w.send(Kind::Fail, Failure::Exception as u16, b"ValueError");
        }],
    );
    assert_eq!((verdict, r.codes(), r.client.passes.last()), (Verdict::Done, vec![Code::Truncated], Some(&Pass::Cut)));
    assert_eq!(r.messages.borrow()[0].0, Level::Error);
}

#[test]
fn error_override_and_local_redirects_leave_the_response_to_httpd() {
    let mut r = FakeRequest::default();
    let verdict = run(
        &["WSGIErrorOverride On"],
        &mut r,
        vec![|w, _| {
            w.head(404, &[]);
            w.end();
        }],
    );
    assert_eq!((verdict, r.client.passes.len()), (Verdict::Status(404), 0));
    let mut r = FakeRequest::default();
    let verdict = run(
        &[],
        &mut r,
        vec![|w, _| {
            w.head(200, &[("Location", "/other")]);
            w.end();
        }],
    );
    assert_eq!((verdict, r.redirected.as_deref()), (Verdict::Done, Some(&b"/other"[..])));
}

#[test]
fn a_request_beyond_the_limit_is_refused() {
    let mut r = FakeRequest::default();
    let verdict = run_busy(&["DroverMaxWaiting 2"], &mut r, vec![], 2);
    assert_eq!((verdict, r.codes()), (Verdict::Status(503), vec![Code::Overloaded]));
    assert_eq!(r.error_headers, [(c"Retry-After", "5".to_owned())]);
    assert_eq!(run_busy(&["DroverMaxWaiting 2"], &mut FakeRequest::default(), vec![hello], 1), Verdict::Done);
}

#[test]
fn a_length_that_a_filter_changed_is_not_passed_on() {
    let body = std::iter::repeat_n(BodyRead::Data(16384), 20).chain([BodyRead::End]).collect();
    let (headers, env) = (vec![(c"Content-Length", "100")], vec![(c"CONTENT_LENGTH".to_owned(), &b"100"[..])]);
    let mut r = FakeRequest { method: "POST", headers, env, filter_changes_length: true, ..FakeRequest::default() };
    r.client.body = body;
    let verdict = run(
        &[],
        &mut r,
        vec![|w, message| {
            assert_eq!((message.env.get("CONTENT_LENGTH"), message.prefix.flags), (None, BODY_FOLLOWS));
            assert_eq!((w.body().0, message.body.is_empty()), (Kind::End, false));
            hello(w, message);
        }],
    );
    assert_eq!(verdict, Verdict::Done);
}
