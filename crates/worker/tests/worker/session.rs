//! Sessions as the worker asks for them: the frames, the moments, and what else goes on on the same socket.
use crate::harness::{Answer, Ending, Exchange, Got, Request, Worker, app, config};
use drover_wire::frame::{Failure, Kind};
use drover_wire::request::{BODY_ON_DEMAND, SESSIONS};
use drover_wire::session::{self, Op, Opened, Put, Serializer, Status, Stored};
use std::collections::HashMap;

fn get(path: &str) -> Request {
    let mut request = Request::get(path);
    request.script = app("session.wsgi");
    request.prefix.flags |= SESSIONS;
    request
}

fn serving(threads: u32) -> Worker {
    Worker::serving_with(config(threads, &[&app("session.wsgi")]))
}

/// httpd with one client, whose cookie it keeps.
#[derive(Default)]
struct Httpd {
    cookie: Option<String>,
    stored: HashMap<String, Vec<u8>>,
    made: u32,
    /// Every operation, in a word.
    asked: Vec<String>,
}

fn opened(id: Option<&str>, data: Option<&[u8]>) -> Vec<u8> {
    let record = data.map(|data| Stored { created_ms: 1_000, accessed_ms: 2_000, timeout_s: 60, data });
    let opened = Opened { id, default_timeout_s: 1800, serializer: Serializer::Json, max_size: 1 << 20, engine: "test", record };
    let mut out = Vec::new();
    opened.encode(&mut out).unwrap();
    out.extend_from_slice(data.unwrap_or_default());
    out
}

impl Httpd {
    fn with(data: &str) -> Self {
        let stored = HashMap::from([("mine".to_owned(), data.as_bytes().to_vec())]);
        Self { cookie: Some("mine".to_owned()), stored, ..Self::default() }
    }

    fn asked(&mut self, op: u16, payload: &[u8]) -> Option<(Status, Vec<u8>)> {
        let request = session::Request::decode(op, payload).unwrap();
        let mut reply = Vec::new();
        match request {
            session::Request::Open { key, lock } => {
                self.asked.push(format!("open {}", if lock { "locked" } else { "free" }));
                let key = key.or(self.cookie.as_deref()).filter(|key| self.stored.contains_key(*key));
                reply = opened(key, key.map(|key| self.stored[key].as_slice()));
            }
            session::Request::Save(save) => {
                self.asked.push(format!("save {:?} {}", save.put, if save.no_reply { "with head" } else { "alone" }));
                let lives = save.key.is_some_and(|key| self.stored.contains_key(key));
                match save.put {
                    Put::Create if lives => return Some((Status::Exists, b"it is there".to_vec())),
                    Put::Replace if !lives => return Some((Status::Missing, b"it is not there".to_vec())),
                    _ => {}
                }
                self.made += 1;
                let key = save.key.map_or_else(|| format!("made{}", self.made), str::to_owned);
                if let Some(old) = save.replaces {
                    self.stored.remove(old);
                }
                self.stored.insert(key.clone(), save.data.to_vec());
                if save.cookie {
                    self.cookie = Some(key.clone());
                }
                if save.no_reply {
                    return None;
                }
                session::encode_key(&mut reply, &key).unwrap();
            }
            session::Request::Remove { key, cookie } => {
                self.asked.push("remove".to_owned());
                session::encode_bool(&mut reply, self.stored.remove(key.unwrap()).is_some());
                self.cookie = self.cookie.take().filter(|_| !cookie);
            }
            session::Request::Exists { key } => {
                self.asked.push("exists".to_owned());
                session::encode_bool(&mut reply, self.stored.contains_key(key));
            }
            session::Request::Lock { .. } => self.asked.push("lock".to_owned()),
            session::Request::Unlock { .. } => self.asked.push("unlock".to_owned()),
            session::Request::Used { lock } => {
                self.asked.push(format!("used {}", if lock { "locked" } else { "free" }));
                return None;
            }
        }
        Some((Status::Ok, reply))
    }

    fn answer(&mut self, exchange: Exchange) -> Answer {
        self.asked.clear();
        exchange.answer_asked(&mut |op, payload| self.asked(op, payload))
    }

    fn run(&mut self, worker: &Worker, path: &str) -> String {
        self.answer(worker.request(&get(path))).good()
    }

    fn mine(&self) -> String {
        self.cookie.as_ref().map_or_else(String::new, |cookie| String::from_utf8_lossy(&self.stored[cookie]).into_owned())
    }
}

#[test]
fn a_counter_counts() {
    let (worker, mut httpd) = (serving(1), Httpd::default());
    for n in 1..4 {
        assert_eq!(httpd.run(&worker, "/count"), n.to_string());
        let put = if n == 1 { "Create" } else { "Any" };
        assert_eq!(httpd.asked, ["open locked".to_owned(), format!("save {put} with head")]);
    }
    assert_eq!(httpd.mine(), "{\"n\":3}");
    assert_eq!(worker.drain(), "");
}

/// What was sent ahead is used instead of a question, as far as it answers it, and once.
#[test]
fn what_was_sent_ahead_is_not_asked_for() {
    let (worker, mut httpd) = (serving(1), Httpd::with("{\"a\":1}"));
    let padding = "x".repeat(200_000);
    // Whether the token that comes with it is still there.
    let (new, taken) = (Some(true), Some(false));
    for (code, offered, said, asked) in [
        ("s['a']", new, "1", &["used locked"][..]),
        ("s.read_only()['a']", new, "1", &["used free"]),
        ("s.read_only()['a']", None, "1", &["used free"]),
        ("s.update(a=1)", new, "None", &["save Any with head"]),
        ("(s['a'], s.save())", new, "(1, None)", &["save Any alone", "used locked"]),
        ("(s['a'], s.unlock(), s.lock(), s['a'])", new, "(1, None, None, 1)", &["unlock", "open locked", "used locked"]),
        ("s._calls.open('mine', False)[0]", None, "'mine'", &["used free"]),
        // The lock has gone to somebody else, or was never offered.
        ("s['a']", taken, "1", &["open locked"]),
        ("s['a']", None, "1", &["open locked"]),
        // It answers another question.
        ("s._calls.open('other', False)[0]", new, "None", &["open free"]),
        ("(s._calls.exists('mine'), s['a'])", new, "(True, 1)", &["exists", "open locked"]),
        ("1", new, "1", &[]),
    ] {
        for large in [false, true] {
            let mut request = get("/eval");
            request.pairs.push(("HTTP_CODE".to_owned(), code.as_bytes().to_vec()));
            if large {
                request.pairs.push(("PADDING".to_owned(), padding.as_bytes().to_vec()));
            }
            request.ahead = opened(Some("mine"), Some(b"{\"a\":1}"));
            request.token = offered.map(|free| {
                let token = worker.tokens.put(0).unwrap();
                assert!(free || worker.tokens.take(token));
                token
            });
            assert_eq!(httpd.answer(worker.request(&request)).good(), said, "{code}");
            assert_eq!(httpd.asked, asked, "{code}");
        }
    }
    worker.drain();
}

#[test]
fn what_was_sent_ahead_of_no_session_saves_the_question_too() {
    let (worker, mut httpd) = (serving(1), Httpd::default());
    let mut request = get("/count");
    request.ahead = opened(None, None);
    assert_eq!(httpd.answer(worker.request(&request)).good(), "1");
    assert_eq!((httpd.asked.as_slice(), httpd.mine().as_str()), (&["save Create with head".to_owned()][..], "{\"n\":1}"));
    // Old by the time it is read, or sent to another process before.
    request.ahead = opened(Some("mine"), Some(b"{\"n\":7}"));
    request.prefix.flags |= drover_wire::request::RESENT;
    assert_eq!(httpd.answer(worker.request(&request)).good(), "2");
    request.prefix.flags &= !drover_wire::request::RESENT;
    request.prefix.queued_at = 1;
    assert_eq!(httpd.answer(worker.request(&request)).good(), "3");
    // Of an application that names its sessions itself.
    request.prefix.queued_at = 0;
    request.prefix.flags |= drover_wire::request::AHEAD_BY_KEY;
    assert_eq!(httpd.answer(worker.request(&request)).good(), "4");
    worker.drain();
}

#[test]
fn an_untouched_session_says_nothing() {
    let (worker, mut httpd) = (serving(1), Httpd::with("{}"));
    assert_eq!(httpd.run(&worker, "/untouched"), "<mod_drover session, not open>");
    assert_eq!(httpd.asked, [""; 0]);
    let mut off = get("/there");
    off.prefix.flags &= !SESSIONS;
    assert_eq!(worker.request(&off).answer().good(), "False");
    assert_eq!(httpd.run(&worker, "/there"), "True");
    worker.drain();
}

#[test]
fn every_call_goes_through() {
    let (worker, mut httpd) = (serving(1), Httpd::with("{\"a\":1}"));
    for (code, said, asked) in [
        ("s['a']", "1", &["open locked"][..]),
        ("s.read_only()['a']", "1", &["open free"]),
        ("(s.id, s.is_new, s.created, s.last_accessed, s.timeout, s.engine)", "('mine', False, 1.0, 2.0, 60, 'test')", &["open locked"]),
        ("(s['a'], s.unlock(), s.lock(), s['a'])", "(1, None, None, 1)", &["open locked", "unlock", "open locked"]),
        ("s.update(b=2)", "None", &["open locked", "save Any with head"]),
        ("(s.update(b=3), s.save(), s.id)", "(None, None, 'mine')", &["open locked", "save Any alone"]),
        ("mod_drover.session.current() is s", "True", &[]),
        ("s._calls.exists('mine')", "True", &["exists"]),
        ("s._calls.lock('other')", "None", &["lock"]),
        ("s.regenerate()", "None", &["open locked", "save Create alone"]),
        ("s.invalidate()", "None", &["open locked", "remove"]),
        ("s.is_new", "True", &["open locked"]),
    ] {
        let mut request = get("/eval");
        request.set("HTTP_CODE", code.as_bytes());
        assert_eq!(httpd.answer(worker.request(&request)).good(), said, "{code}");
        assert_eq!(httpd.asked, asked, "{code}");
    }
    assert_eq!((httpd.cookie, httpd.stored.len()), (None, 0));
    assert_eq!(worker.drain(), "");
}

#[test]
fn streaming_answers_save_before_the_head_and_before_the_end() {
    let worker = serving(1);
    let mut httpd = Httpd::default();
    assert_eq!(httpd.run(&worker, "/stream"), "ab");
    assert_eq!(httpd.asked, ["open locked", "save Create alone", "save Any alone"]);
    assert_eq!(httpd.mine(), "{\"n\":3}");
    assert_eq!(httpd.run(&worker, "/write"), "written");
    assert_eq!(httpd.asked, ["open locked", "save Any with head"]);
    // A file, and an answer without a body.
    assert_eq!(httpd.run(&worker, "/empty"), "");
    assert_eq!(httpd.asked, ["open locked", "save Any with head"]);
    worker.drain();
}

#[test]
fn the_session_goes_out_before_the_head() {
    let worker = serving(1);
    let mut exchange = worker.request(&get("/count"));
    let Got::Frame(Kind::Session, 1, _) = exchange.next() else { panic!("not opened") };
    exchange.frame(Kind::Session, Status::Ok as u16, &opened(None, None));
    let Got::Frame(Kind::Session, op, payload) = exchange.next() else { panic!("not saved") };
    let session::Request::Save(save) = session::Request::decode(op, &payload).unwrap() else { panic!("not saved") };
    assert_eq!((op, save.key, save.put, save.cookie, save.data), (Op::Save as u16, None, Put::Create, true, &b"{\"n\":1}"[..]));
    assert!(matches!(exchange.next(), Got::Frame(Kind::Head, ..)));
    assert_eq!(exchange.next(), Got::Body(b"1".to_vec()));
    worker.drain();
}

#[test]
fn nothing_is_saved_when_the_application_raises() {
    let (worker, mut httpd) = (serving(1), Httpd::with("{}"));
    let answer = httpd.answer(worker.request(&get("/raise")));
    assert_eq!(answer.ending, Ending::Fail(Failure::Exception, answer_line("ValueError: no")));
    assert_eq!(httpd.asked, ["open locked"]);
    worker.drain();
}

fn answer_line(what: &str) -> String {
    let path = String::from_utf8(app("session.wsgi")).unwrap();
    format!("{} exception raised processing WSGI script '{path}': {what}", what.split(':').next().unwrap())
}

#[test]
fn what_cannot_be_stored_is_the_applications_error() {
    let (worker, mut httpd) = (serving(1), Httpd::with("{}"));
    let answer = httpd.answer(worker.request(&get("/bad")));
    let Ending::Fail(Failure::Exception, line) = &answer.ending else { panic!("{answer:?}") };
    assert!(line.contains("NotSerializable") && line.contains("'bad'"), "{line}");
    assert!(answer.logged().contains("Traceback"), "{answer:?}");
    assert_eq!((answer.status, httpd.mine().as_str()), (0, "{}"));
    worker.drain();
}

#[test]
fn what_httpd_refuses_is_an_exception() {
    let worker = serving(1);
    for (status, name, unavailable) in [
        (Status::LockTimeout, "LockTimeout", true),
        (Status::Unavailable, "StoreUnavailable", true),
        (Status::Full, "StoreUnavailable", true),
        (Status::TooLarge, "TooLarge", false),
        (Status::Missing, "SessionMissing", false),
        (Status::Exists, "SessionExists", false),
        (Status::Off, "SessionsOff", false),
        (Status::HeadSent, "SessionError", false),
        (Status::BadKey, "SessionError", false),
    ] {
        let mut refuse = |_: u16, _: &[u8]| Some((status, b"the reason".to_vec()));
        let answer = worker.request(&get("/count")).answer_asked(&mut refuse);
        let expected = if unavailable {
            assert!(answer.log.is_empty(), "httpd logs the line: {answer:?}");
            Ending::Fail(Failure::Session, format!("{name}: the reason"))
        } else {
            assert!(answer.logged().contains("Traceback"), "{answer:?}");
            Ending::Fail(Failure::Exception, answer_line(&format!("{name}: the reason")))
        };
        assert_eq!(answer.ending, expected);
        let handled = worker.request(&get("/handled")).answer_asked(&mut refuse);
        assert_eq!(handled.good(), format!("{name} the reason"));
    }
    worker.drain();
}

#[test]
fn a_failure_after_the_head_is_logged() {
    let worker = serving(1);
    let mut saves = 0;
    let mut httpd = |op: u16, _: &[u8]| {
        saves += u32::from(op == Op::Save as u16);
        let mut key = Vec::new();
        session::encode_key(&mut key, "mine").unwrap();
        Some(match (op, saves) {
            (1, _) => (Status::Ok, opened(None, None)),
            (_, 1) => (Status::Ok, key),
            _ => (Status::Unavailable, b"the reason".to_vec()),
        })
    };
    let answer = worker.request(&get("/stream")).answer_asked(&mut httpd);
    assert!(answer.logged().contains("is not saved: StoreUnavailable: the reason"), "{answer:?}");
    assert_eq!(answer.good(), "ab");
    worker.drain();
}

#[test]
fn answers_that_are_none() {
    let worker = serving(1);
    for (status, payload) in [(Status::Ok, b"".to_vec()), (Status::Ok, b"\xff\xff\xff".to_vec())] {
        let answer = worker.request(&get("/count")).answer_asked(&mut |_, _| Some((status, payload.clone())));
        assert!(matches!(&answer.ending, Ending::Fail(Failure::Session, _)), "{answer:?}");
    }
    // httpd goes away instead.
    let mut exchange = worker.request(&get("/count"));
    assert!(matches!(exchange.next(), Got::Frame(Kind::Session, ..)));
    exchange.hang_up();
    // Something else comes instead.
    let mut exchange = worker.request(&get("/count"));
    assert!(matches!(exchange.next(), Got::Frame(Kind::Session, ..)));
    exchange.frame(Kind::Head, 0, b"");
    assert!(matches!(exchange.answer().ending, Ending::Fail(Failure::Session, _)));
    assert_eq!(Httpd::default().run(&worker, "/count"), "1");
    worker.drain();
}

#[test]
fn a_large_session_goes_both_ways() {
    let (worker, mut httpd) = (serving(1), Httpd::default());
    let mut request = get("/large");
    request.set("QUERY_STRING", b"900000");
    assert_eq!(httpd.answer(worker.request(&request)).good(), "0");
    assert_eq!(httpd.mine().len(), 900_000 + "{\"x\":\"\"}".len());
    assert_eq!(httpd.answer(worker.request(&request)).good(), "900000");
    worker.drain();
}

/// The body's bytes that come before an answer are the body's all the same, and in their order.
#[test]
fn bodies_and_answers_share_the_socket() {
    let worker = serving(2);
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut upload = Request::upload("/upload", body.len(), SESSIONS);
    upload.script = app("session.wsgi");
    for before in [0, 1, 100, 65_536, 500_000] {
        let mut exchange = worker.request(&upload);
        exchange.frame(Kind::Body, 0, &body[..before]);
        assert!(matches!(exchange.next(), Got::Frame(Kind::Session, 1, _)));
        exchange.frame(Kind::Body, 0, &body[before..before + 1000]);
        exchange.frame(Kind::Session, Status::Ok as u16, &opened(Some("mine"), Some(b"{\"n\":41}")));
        exchange.frame(Kind::Body, 0, &body[before + 1000..before + 3000]);
        assert!(matches!(exchange.next(), Got::Frame(Kind::Session, 1, _)), "in the middle of the body");
        exchange.frame(Kind::Session, Status::Ok as u16, &opened(Some("mine"), Some(b"{\"n\":42}")));
        exchange.upload(&body[before + 3000..]);
        let answer = exchange.answer_asked(&mut |_, _| None);
        assert_eq!(answer.body.len(), 2 + body.len(), "{before}");
        assert!(answer.body[..2] == *b"42" && answer.body[2..] == body, "{before}");
    }
    // All of the body has come before the answer, its end as well.
    let mut upload = Request::upload("/upload", 5, SESSIONS);
    upload.script = app("session.wsgi");
    let mut exchange = worker.request(&upload);
    exchange.upload(b"12345");
    for _ in 0..2 {
        assert!(matches!(exchange.next(), Got::Frame(Kind::Session, 1, _)));
        exchange.frame(Kind::Session, Status::Ok as u16, &opened(Some("mine"), Some(b"{\"n\":42}")));
    }
    assert_eq!(exchange.answer().good(), "4212345");
    // One that nobody asks for.
    let mut upload = Request::upload("/count", 5, SESSIONS | BODY_ON_DEMAND);
    upload.script = app("session.wsgi");
    assert_eq!(Httpd::default().answer(worker.request(&upload)).good(), "1");
    worker.drain();
}

/// A thread that waits for the body while another one asks: whoever receives what comes, both get what is theirs.
#[test]
fn one_thread_reads_while_another_asks() {
    let worker = serving(1);
    let body: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let mut upload = Request::upload("/both", body.len(), SESSIONS);
    upload.script = app("session.wsgi");
    for _ in 0..20 {
        let mut exchange = worker.request(&upload);
        assert!(matches!(exchange.next(), Got::Frame(Kind::Session, 1, _)));
        exchange.upload(&body);
        exchange.frame(Kind::Session, Status::Ok as u16, &opened(Some("mine"), Some(b"{\"n\":42}")));
        let answer = exchange.answer();
        assert!(answer.body[..2] == *b"42" && answer.body[2..] == body, "{} bytes", answer.body.len());
        assert!(answer.good().starts_with("42"));
    }
    worker.drain();
}

#[test]
fn what_is_kept_of_a_body_is_bounded() {
    let worker = serving(1);
    let mut upload = Request::upload("/upload", 20_000_000, SESSIONS);
    upload.script = app("session.wsgi");
    let mut exchange = worker.request(&upload);
    assert!(matches!(exchange.next(), Got::Frame(Kind::Session, 1, _)));
    exchange.frame(Kind::Body, 0, &vec![b'x'; 20_000_000]);
    assert!(matches!(exchange.answer().ending, Ending::Fail(Failure::Session, _)));
    assert_eq!(Httpd::default().run(&worker, "/count"), "1");
    worker.drain();
}

#[test]
fn a_broken_body_is_still_broken_behind_an_answer() {
    let worker = serving(1);
    let mut upload = Request::upload("/upload", 100, SESSIONS);
    upload.script = app("session.wsgi");
    let mut exchange = worker.request(&upload);
    exchange.frame(Kind::Body, 0, b"a part");
    exchange.fail(drover_wire::frame::BodyFailure::TooLarge);
    assert!(matches!(exchange.next(), Got::Frame(Kind::Session, 1, _)));
    exchange.frame(Kind::Session, Status::Ok as u16, &opened(None, None));
    let text = "OSError: request body is larger than LimitRequestBody allows".to_owned();
    assert_eq!(exchange.answer().ending, Ending::Fail(Failure::ClientGone, text));
    worker.drain();
}

#[test]
fn the_socket_is_given_up_when_its_request_is_over() {
    let worker = serving(1);
    let mut httpd = Httpd::with("{\"a\":1}");
    assert_eq!(httpd.run(&worker, "/keep"), "kept");
    assert_eq!(httpd.run(&worker, "/kept"), "RuntimeError the session is used after the end of its request");
    let mut code = get("/eval");
    code.set("HTTP_CODE", b"in_thread(mod_drover.session.current)");
    assert_eq!(httpd.answer(worker.request(&code)).good(), "SessionError this thread serves no request");
    // Another thread of the same request may use it.
    code.set("HTTP_CODE", b"in_thread(lambda: s['a'])");
    assert_eq!(httpd.answer(worker.request(&code)).good(), "1");
    // A forked child may not.
    code.set("HTTP_CODE", b"in_child(lambda: s['a'])");
    assert_eq!(httpd.answer(worker.request(&code)).good(), "RuntimeError");
    worker.drain();
}

/// What a request pays: `cargo test --release -p drover-worker -- --ignored --nocapture costs`.
#[test]
#[ignore = "measures"]
fn costs() {
    let worker = serving(1);
    let mut httpd = Httpd::with("{\"a\":1}");
    println!("{}", httpd.run(&worker, "/costs"));
}
