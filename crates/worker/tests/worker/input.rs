//! Bodies of requests.
use crate::harness::{Ending, Got, Request, Worker};
use drover_wire::frame::{BodyFailure, Failure, Kind};
use drover_wire::request::BODY_ON_DEMAND;

fn read(how: &str) -> String {
    format!("/read?how={}", how.replace('+', "%2b"))
}

#[test]
fn reads_as_a_buffered_reader_does() {
    let worker = Worker::serving(1, "app.wsgi");
    for (how, body, expected) in [
        ("stream.read()", &b"a\nb"[..], r"b'a\nb'"),
        ("stream.read(None)", b"a\nb", r"b'a\nb'"),
        ("stream.read(-1)", b"", "b''"),
        ("[stream.read(2),stream.read(0),stream.read(9),stream.read(1)]", b"abc", "[b'ab', b'', b'c', b'']"),
        ("[stream.readline(),stream.readline(1),stream.readline(),stream.readline()]", b"a\nbc", r"[b'a\n', b'b', b'c', b'']"),
        ("stream.readlines()", b"a\n\nc", r"[b'a\n', b'\n', b'c']"),
        ("stream.readlines(1)", b"a\nb\nc", r"[b'a\n']"),
        ("list(stream)", b"a\nb", r"[b'a\n', b'b']"),
        ("(lambda b: (stream.readinto(b), bytes(b)))(bytearray(4))", b"abc", r"(3, b'abc\x00')"),
        ("io.TextIOWrapper(io.BufferedReader(stream)).read()", b"abc", "'abc'"),
        ("[stream.close(), stream.read()]", b"abc", "[None, b'abc']"),
    ] {
        let inline = worker.request(&Request::post(&read(how), body)).answer().good();
        assert_eq!(inline, expected, "{how}");
        // The same when it follows in small pieces.
        let mut exchange = worker.request(&Request::upload(&read(how), body.len(), 0));
        for byte in body {
            exchange.frame(Kind::Body, 0, &[*byte]);
        }
        exchange.frame(Kind::End, 0, b"");
        assert_eq!(exchange.answer().text(), expected, "{how}, in pieces");
    }
    worker.drain();
}

#[test]
fn a_body_streams_both_ways() {
    let worker = Worker::serving(2, "app.wsgi");
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut exchange = worker.request(&Request::upload("/count", body.len(), 0));
    exchange.upload(&body);
    assert_eq!(exchange.answer().good(), "3000000");
    let mut exchange = worker.request(&Request::upload("/echo", body.len(), 0));
    exchange.upload(&body);
    let answer = exchange.answer();
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
    // Read by its length, END not looked at by the application: the pair comes back all the same when END has come.
    let mut exchange = worker.request(&Request::upload("/exactly", 5, 0));
    exchange.upload(b"12345");
    assert_eq!(exchange.answer().text(), "5");
    worker.drain();
}

#[test]
fn an_upload_that_nobody_reads_does_not_block_the_answer() {
    let worker = Worker::serving(1, "app.wsgi");
    let mut exchange = worker.request(&Request::upload("/unread", 3_000_000, 0));
    exchange.upload(&vec![7; 3_000_000]);
    let answer = exchange.answer();
    assert_eq!((answer.body.len(), answer.header("content-length")), (300_000, Some("300000")));
    assert_eq!(answer.ending, Ending::End(false), "unread bytes are on it");
    worker.get("/hello").good();
    worker.drain();
}

#[test]
fn a_body_is_asked_for_when_it_is_wanted() {
    let worker = Worker::serving(1, "app.wsgi");
    let mut exchange = worker.request(&Request::upload("/count", 5, BODY_ON_DEMAND));
    assert_eq!(exchange.next(), Got::Frame(Kind::Want, 0, Vec::new()));
    exchange.upload(b"12345");
    assert_eq!(exchange.answer().good(), "5");
    assert_eq!(worker.request(&Request::upload("/hello", 5, BODY_ON_DEMAND)).answer().good(), "hello", "never asked for");
    worker.drain();
}

#[test]
fn a_cut_body_is_never_a_whole_one() {
    let worker = Worker::serving(1, "app.wsgi");
    for (why, failure, text) in [
        (BodyFailure::ClientGone, Failure::ClientGone, "ConnectionResetError: client disconnected before the end of the request body"),
        (BodyFailure::Timeout, Failure::ClientGone, "TimeoutError: client was too slow with the request body"),
        (BodyFailure::TooLarge, Failure::ClientGone, "OSError: request body is larger than LimitRequestBody allows"),
        (BodyFailure::Malformed, Failure::ClientGone, "OSError: request body is malformed"),
    ] {
        let mut exchange = worker.request(&Request::upload("/count", 100, 0));
        exchange.frame(Kind::Body, 0, b"a part");
        exchange.fail(why);
        let answer = exchange.answer();
        assert_eq!(answer.ending, Ending::Fail(failure, text.to_owned()));
        assert!(answer.log.is_empty(), "httpd logs the cause itself: {answer:?}");
    }
    let mut exchange = worker.request(&Request::upload("/count", 100, 0));
    exchange.frame(Kind::Body, 0, b"a part");
    exchange.hang_up();
    assert_eq!(worker.get("/hello").good(), "hello");
    assert_eq!(worker.drain(), "");
}
