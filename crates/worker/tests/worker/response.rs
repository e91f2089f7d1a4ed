//! Answers: what goes out, in which order, and how it ends.
use crate::harness::{Ending, Got, Request, Worker, app, until};
use drover_wire::frame::{Failure, Kind};

#[test]
fn hello() {
    let worker = Worker::serving(1, "app.wsgi");
    for _ in 0..3 {
        let answer = worker.get("/hello");
        assert_eq!((answer.status, answer.reason.as_str(), answer.header("content-length")), (200, "OK", Some("5")));
        assert_eq!(answer.good(), "hello");
    }
    assert_eq!(worker.drain(), "");
}

#[test]
fn the_environ() {
    let worker = Worker::serving(4, "app.wsgi");
    let value = |key: &str, sent: Option<&[u8]>| {
        let mut request = Request::get(&format!("/report?key={key}"));
        if let Some(sent) = sent {
            request.set(key, sent);
        }
        worker.request(&request).answer().good()
    };
    for (key, sent, expected) in [
        ("wsgi.version", None, "tuple (1, 0)"),
        ("wsgi.url_scheme", None, "str 'http'"),
        ("wsgi.multithread", None, "bool True"),
        ("wsgi.multiprocess", None, "bool True"),
        ("wsgi.run_once", None, "bool False"),
        ("wsgi.input_terminated", None, "bool True"),
        ("apache.version", None, "tuple (2, 4, 65)"),
        ("mod_wsgi.process_group", None, "str 'shop'"),
        ("mod_wsgi.application_group", None, "str ''"),
        ("HTTP_X", Some(&b"\xc3\xa9"[..]), "str 'Ã©'"),
        ("HTTP_X", Some(&b"other"[..]), "str 'other'"),
        ("HTTP_X", Some(&b"other"[..]), "str 'other'"),
        ("DOCUMENT_ROOT", Some("/srv/é".as_bytes()), "str '/srv/é'"),
        ("SCRIPT_FILENAME", Some(&b"/srv/\xff"[..]), "str '/srv/\\udcff'"),
        ("HTTP_GONE", None, "str 'MISSING'"),
    ] {
        assert_eq!(value(key, sent), expected, "{key}");
    }
    for key in ["request_start", "queue_start", "daemon_start", "application_start"] {
        let text = value(&format!("mod_wsgi.{key}"), None);
        let seconds: f64 = text.strip_prefix("float ").unwrap().parse().unwrap();
        let now = drover_sys::clock::realtime_ns() as f64 / 1e9;
        assert!((now - 100.0..=now).contains(&seconds), "{key} {seconds} {now}");
    }
    assert_eq!(worker.get("/types").good(), "mod_wsgi.Input _io.TextIOWrapper mod_wsgi.FileWrapper");
    assert_eq!(worker.get("/module").good(), "((6, 1, 1), 'shop', 2, 4, ['mod_wsgi'], '_mod_wsgi_', True)");
    worker.drain();
}

#[test]
fn a_large_environment_comes_in_a_memory_file() {
    let worker = Worker::serving(1, "app.wsgi");
    let mut request = Request::get("/report?key=HTTP_LARGE");
    request.set("HTTP_LARGE", &vec![b'L'; 300_000]);
    assert_eq!(worker.request(&request).answer().good().len(), 300_000 + 6);
    worker.drain();
}

#[test]
fn each_block_is_on_the_wire_before_the_next_is_asked_for() {
    let worker = Worker::serving(3, "app.wsgi");
    let mut request = worker.request(&Request::get("/blocks"));
    // The application waits behind each block until the gate is opened, which is done only when the block has come.
    assert_eq!(request.body(), b"one");
    worker.get("/go?gate=one").good();
    assert_eq!(request.body(), b"two");
    worker.get("/go?gate=two").good();
    assert_eq!(request.body(), b"end");
    assert_eq!(request.next(), Got::Frame(Kind::End, 0, Vec::new()));
    worker.drain();
}

fn raised(name: &str, line: &str) -> Ending {
    let script = app("app.wsgi");
    let script = String::from_utf8_lossy(&script);
    Ending::Fail(Failure::Exception, format!("{name} exception raised processing WSGI script '{script}': {line}"))
}

#[test]
fn exceptions_and_close() {
    let worker = Worker::serving(1, "app.wsgi");
    let early = worker.get("/raise_early");
    assert_eq!(early.ending, raised("RuntimeError", "RuntimeError: early é"));
    assert_eq!(early.status, 0);
    assert!(early.logged().contains("Traceback (most recent call last)"), "{}", early.logged());
    assert!(early.logged().contains("in raise_early"), "{}", early.logged());

    let late = worker.get("/raise_late");
    assert_eq!((late.status, late.text().as_str()), (200, "before"));
    assert_eq!(late.ending, raised("RuntimeError", "RuntimeError: midway"));

    assert_eq!(worker.get("/with_close").good(), "ab");
    let bad = worker.get("/bad_close");
    assert!(bad.logged().contains("RuntimeError: in close"), "{bad:?}");
    assert_eq!(bad.good(), "a");
    let text = worker.get("/not_bytes");
    assert_eq!(text.ending, Ending::Fail(Failure::BadResponse, "TypeError: response iterable must yield bytes, not str".into()));
    assert_eq!(worker.get("/closings").good(), "late fine bad str", "each once");

    assert!(matches!(worker.get("/silent").ending, Ending::Fail(Failure::BadResponse, _)));
    let left = format!("SystemExit exception raised by WSGI script '{}' ignored", String::from_utf8_lossy(&app("app.wsgi")));
    assert_eq!(worker.get("/leave").ending, Ending::Fail(Failure::SystemExit, left));
    assert!(matches!(worker.get("/timeout").ending, Ending::Fail(Failure::Timeout, _)));
    worker.get("/hello").good();
    worker.drain();
}

#[test]
fn a_client_that_goes_away_ends_the_iteration_and_closes() {
    let worker = Worker::serving(2, "app.wsgi");
    let mut request = worker.request(&Request::get("/endless"));
    request.body();
    request.hang_up();
    assert_eq!(worker.get("/wait?gate=closed-endless").good(), "waited");
    assert_eq!(worker.get("/closings").good(), "endless");
    assert_eq!(worker.drain(), "");
}

#[test]
fn content_length() {
    let worker = Worker::serving(1, "app.wsgi");
    assert_eq!(worker.get("/length?says=5&gives=5").good(), "zzzzz");
    let over = worker.get("/length?says=5&gives=3&gives=9&gives=9");
    assert_eq!(over.logged(), "response is longer than its Content-Length; the rest is cut off\n");
    assert_eq!(over.good(), "zzzzz");
    let short = worker.get("/length?says=9&gives=3&gives=2");
    assert!(matches!(&short.ending, Ending::Fail(Failure::BadResponse, text) if text.contains('9') && text.contains('5')), "{short:?}");
    let mut head = Request::get("/length?says=9");
    head.set("QUERY_STRING", b"says=9&gives=0");
    head.set("REQUEST_METHOD", b"HEAD");
    let head = worker.request(&head).answer();
    assert_eq!((head.header("content-length"), &head.ending), (Some("9"), &Ending::End(true)));
    assert_eq!(worker.get("/length?says=9&gives=0&status=304%20Not%20Modified").status, 304);
    let none = worker.get("/status?is=204%20No%20Content");
    assert_eq!((none.status, none.header("content-length"), &none.ending), (204, None, &Ending::End(true)));
    worker.drain();
}

#[test]
fn start_response_rules() {
    let worker = Worker::serving(1, "app.wsgi");
    assert_eq!(worker.get("/write").good(), "written-returned");
    let again = worker.get("/exc_info");
    assert_eq!((again.status, again.header("x-second")), (500, Some("yes")));
    assert_eq!(again.good(), "sent reraised start_response() called more than once without exc_info");
    for (arguments, expected) in [
        ("'OK',[]", "ValueError:status code must be a 3 digit integer: b'OK'"),
        ("'20X OK',[]", "ValueError:status code must be a 3 digit integer: b'20X OK'"),
        ("'2000 OK',[]", "ValueError:status code must be a 3 digit integer: b'2000 OK'"),
        ("'200OK',[]", "ValueError:no space following status code: b'200OK'"),
        ("'200 OK\\r\\nX: y',[]", "ValueError:control character in status reason phrase: b'200 OK\\r\\nX: y'"),
        ("200,[]", "TypeError:must be str, not int"),
        ("'200 OK',()", "TypeError:start_response() argument 2 must be list, not tuple"),
        ("'200 OK',['a']", "TypeError:each header must be a 2-tuple, not str"),
        ("'200 OK',[('a','b','c')]", "ValueError:each header must be a 2-tuple, got length 3"),
        ("'200 OK',[('','v')]", "ValueError:header name is empty"),
        ("'200 OK',[('X Y','v')]", "ValueError:space character in header name: b'X Y'"),
        ("'200 OK',[('X\\tY','v')]", "ValueError:control character in header name: b'X\\tY'"),
        ("'200 OK',[('X:','v')]", "ValueError:invalid character in header name: b'X:'"),
        ("'200 OK',[('X','a\\nb')]", "ValueError:carriage return/line feed character in header value: b'a\\nb'"),
        ("'200 OK',[('X','a\\0b')]", "ValueError:control character in header value: b'a\\x00b'"),
        ("'200 OK',[(42,'v')]", "TypeError:must be str, not int"),
        (
            "'200 OK',[('X','\\u65e5\\u672c')]",
            "UnicodeEncodeError:'latin-1' codec can't encode characters in position 0-1: ordinal not in range(256)",
        ),
        (
            "'200 OK',[('X','\\udc80')]",
            "UnicodeEncodeError:'latin-1' codec can't encode character '\\udc80' in position 0: ordinal not in range(256)",
        ),
        ("'200 OK',[('Connection','close')]", "ValueError:hop-by-hop header is reserved for the server: b'Connection'"),
        ("'200 OK',[('Content-Length','x')]", "ValueError:invalid Content-Length header value: b'x'"),
        ("'200 OK',[('Content-Length','-1')]", "ValueError:invalid Content-Length header value: b'-1'"),
        ("'200 OK',[],'x'", "RuntimeError:start_response() argument 'exc_info' must be a 3-tuple or None"),
        ("'200 OK',[('X','caf\\xe9'),('Set-Cookie','a=1'),('Set-Cookie','b=2')]", "accepted"),
    ] {
        let mut request = Request::get("/refused");
        request.set("QUERY_STRING", format!("with={}", percent(arguments)).as_bytes());
        let answer = worker.request(&request).answer();
        if expected == "accepted" {
            assert_eq!(answer.headers.iter().filter(|(n, _)| n == "Set-Cookie").count(), 2);
            assert_eq!(answer.header("x"), Some("caf\u{e9}"));
        }
        assert_eq!(answer.good(), expected, "{arguments}");
    }
    worker.drain();
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02x}")).collect()
}

#[test]
fn kept_objects_are_inert() {
    let worker = Worker::serving(1, "app.wsgi");
    assert_eq!(worker.request(&Request::post("/keep", b"body")).answer().good(), "kept");
    assert_eq!(worker.get("/use_kept").good(), "RuntimeError RuntimeError ValueError");
    worker.drain();
}

#[test]
fn file_wrapper_and_validate() {
    let worker = Worker::serving(1, "app.wsgi");
    assert_eq!(worker.get("/file?of=bare").good(), "bare".repeat(5000));
    let own = std::fs::read_to_string(String::from_utf8(crate::harness::app("app.wsgi")).unwrap()).unwrap();
    assert_eq!(worker.get("/file?of=real").good(), own);
    let valid = worker.request(&Request::post("/validated", b"12345")).answer();
    assert_eq!(valid.logged(), "valid\n");
    assert_eq!(valid.good(), "valid 12345");
    assert_eq!(worker.drain(), "");
}

#[test]
fn a_forked_child_does_not_speak_for_its_parent() {
    let worker = Worker::serving(1, "app.wsgi");
    assert_eq!(worker.get("/fork").good(), "parent");
    until(|| worker.printed().contains("from the child\n"));
    worker.get("/hello").good();
    worker.drain();
}
