//! Tests of the relay with a fake client and a worker thread on the other end of the real sockets.
use super::download::Download;
use super::outcome::{Outcome, RelayError, RelayOptions, Stage};
use super::relay::Relay;
use super::upload::{Source, Upload};
use crate::dispatch::{DispatchError, InFlight, Outgoing, Queue, Wake};
use crate::handler::failure::RequestError;
use crate::handler::fake::{Eager, FakeClient, Worker, queue};
use crate::handler::limits::{MemoryAccount, TimeLimits};
use crate::handler::request::{BodyError, BodyRead, NotPassed, Pass};
use drover_sys::channel;
use drover_wire::WireError;
use drover_wire::frame::{BodyFailure, Failure, Header, Kind};
use drover_wire::request::{Builder, Prefix};
use std::os::fd::{AsFd, OwnedFd};

const FOREVER: u64 = 60_000_000_000;
const NO_LIMITS: TimeLimits = TimeLimits { silence: FOREVER, client_silence: FOREVER, take_by: None, answer_by: None };

/// A request that was sent to the queue.
fn sent<'q>(queue: &'q Queue, wake: &Wake) -> InFlight<'q> {
    let mut builder = Builder::default();
    builder.begin(b"/srv/a.wsgi", b"application").unwrap();
    let bytes = builder.finish(Prefix { number: 7, ..Prefix::default() }, b"", b"").unwrap();
    let message = Outgoing { bytes, number: 7, sessions: true, about: b"GET /" };
    InFlight::send(queue, message, Vec::new(), wake, u64::MAX, &mut || {}).unwrap()
}

fn run(
    fake: &mut FakeClient,
    upload: Upload,
    options: RelayOptions,
    worker: impl FnOnce(Worker) + Send + 'static,
) -> Result<Outcome, RelayError> {
    run_limited(fake, upload, options, |_| (), worker)
}

fn run_limited(
    fake: &mut FakeClient,
    upload: Upload,
    options: RelayOptions,
    limit: impl FnOnce(&mut TimeLimits),
    worker: impl FnOnce(Worker) + Send + 'static,
) -> Result<Outcome, RelayError> {
    let (queue, receiving, wake) = queue();
    let mut in_flight = sent(&queue, &wake);
    let thread = std::thread::spawn(move || {
        let mut fds = Vec::new();
        channel::receive(&receiving, &mut [0; 4096], &mut fds, true).unwrap();
        worker(Worker { back: fds.remove(0), number: 7 });
        receiving
    });
    let mut limits = NO_LIMITS;
    limit(&mut limits);
    let result = Relay::new(fake, &mut in_flight, limits, Download::new(options, MemoryAccount::default()), upload, Source::Client, None)
        .run(&wake, &mut [0; 16384], || ());
    in_flight.finish(result.is_ok());
    drop(thread.join().unwrap());
    result
}

const PLAIN: RelayOptions = RelayOptions { error_override: false, response_buffer: 1 << 20 };

#[test]
fn a_plain_response() {
    let mut fake = FakeClient::default();
    let outcome = run(&mut fake, Upload::None, PLAIN, |w| {
        w.head(200, &[("X-A", "b")]);
        w.send(Kind::Log, 3, b"said");
        w.send(Kind::Body, 0, b"hello");
        w.end();
    });
    assert_eq!(outcome.unwrap(), Outcome::Complete);
    assert_eq!((fake.status, &fake.out[..]), (Some(200), &b"hello"[..]));
    assert_eq!(fake.passes.last(), Some(&Pass::End));
    assert_eq!(fake.logs, [(3, "said".to_owned())]);
}

#[test]
fn a_worker_cannot_log_at_levels_above_error() {
    let mut fake = FakeClient::default();
    let outcome = run(&mut fake, Upload::None, PLAIN, |w| {
        [0, 1, 2, 3, 4, 6, 15, 16, u16::MAX].iter().for_each(|level| w.send(Kind::Log, *level, b"said"));
        w.head(200, &[]);
        w.end();
    });
    assert_eq!(outcome.unwrap(), Outcome::Complete);
    let levels: Vec<u16> = fake.logs.iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, [3, 3, 3, 3, 4, 6, 15, 15, 15], "emerg, alert and crit are httpd's own");
}

#[test]
fn a_response_is_complete_without_the_descriptor_that_comes_with_end() {
    // As in a process at its limit of open files: the kernel reports that descriptors did not fit.
    let outcome = run(&mut FakeClient::default(), Upload::None, PLAIN, |w| {
        w.head(200, &[]);
        let header = Header { len: 0, number: w.number, kind: Kind::End, code: 0 }.encode();
        channel::send(&w.back, &[&header], &[w.back.as_fd(); 8], true).unwrap();
    });
    assert_eq!(outcome.unwrap(), Outcome::Complete);
}

#[test]
fn a_death_before_the_head_and_after_it() {
    let error = run(&mut FakeClient::default(), Upload::None, PLAIN, drop).unwrap_err();
    assert_eq!((error.cause, error.stage == Stage::Sent), (RequestError::Dispatch(DispatchError::WorkerDied(None)), false));
    let mut fake = FakeClient::default();
    let error = run(&mut fake, Upload::None, PLAIN, |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, b"part");
    })
    .unwrap_err();
    assert_eq!((error.cause, error.stage == Stage::Sent), (RequestError::Dispatch(DispatchError::WorkerDied(None)), true));
    assert!(!fake.passes.contains(&Pass::End), "a cut response never looks complete");
}

#[test]
fn frames_out_of_order_are_refused() {
    type Story = fn(Worker);
    let stories: [(Story, &str); 4] = [
        (|w| w.send(Kind::Body, 0, b"x"), "a body before its head"),
        (|w| w.send(Kind::End, 0, b""), "an end before its head"),
        (
            |w| {
                w.head(200, &[]);
                w.head(200, &[]);
            },
            "a second head",
        ),
        (|w| Worker { number: 8, ..w }.head(200, &[]), "request number"),
    ];
    for (story, what) in stories {
        let error = run(&mut FakeClient::default(), Upload::None, PLAIN, story).unwrap_err();
        assert_eq!(error.cause, RequestError::Dispatch(DispatchError::Wire(WireError::Bad(what))));
    }
}

#[test]
fn a_body_is_sent_while_the_response_arrives() {
    let mut fake = FakeClient::default();
    fake.body.extend(std::iter::repeat_n(BodyRead::Data(16384), 200));
    fake.body.push_back(BodyRead::End);
    let outcome = run(&mut fake, Upload::Open, PLAIN, |w| {
        // 3 MB of response before a byte of the body is read: neither side may block the other forever.
        w.head(200, &[]);
        w.send(Kind::Body, 0, &vec![b'a'; 3_000_000]);
        assert_eq!(w.body(), (Kind::End, 0, 200 * 16384));
        w.end();
    });
    assert_eq!(outcome.unwrap(), Outcome::Complete);
    assert_eq!(fake.out.len(), 3_000_000);
}

#[test]
fn a_cut_body_is_reported_and_its_cause_is_the_status() {
    for (failed, code) in [(BodyError::Malformed, BodyFailure::Malformed), (BodyError::TooLarge, BodyFailure::TooLarge)] {
        let mut fake = FakeClient { body: [BodyRead::Data(10), BodyRead::Failed(failed)].into(), ..FakeClient::default() };
        let error = run(&mut fake, Upload::Open, PLAIN, move |w| assert_eq!(w.body(), (Kind::Fail, code as u16, 10))).unwrap_err();
        assert_eq!((error.cause, error.stage == Stage::Sent), (RequestError::Body(failed), false));
    }
}

#[test]
fn a_body_on_demand_waits_for_want() {
    let mut fake = FakeClient { body: [BodyRead::Data(5), BodyRead::End].into(), ..FakeClient::default() };
    run(&mut fake, Upload::OnDemand, PLAIN, |w| {
        w.send(Kind::Want, 0, b"");
        assert_eq!(w.body(), (Kind::End, 0, 5));
        w.head(200, &[]);
        w.end();
    })
    .unwrap();
    let mut fake = FakeClient { body: [BodyRead::Data(5), BodyRead::End].into(), ..FakeClient::default() };
    run(&mut fake, Upload::OnDemand, PLAIN, |w| {
        w.head(413, &[]);
        w.end();
    })
    .unwrap();
    assert_eq!(fake.body.len(), 2, "nobody asked for it, so it was never read");
}

#[test]
fn overridden_errors_redirects_and_empty_responses_have_no_body() {
    let mut fake = FakeClient::default();
    let options = RelayOptions { error_override: true, ..PLAIN };
    let outcome = run(&mut fake, Upload::None, options, |w| {
        w.head(404, &[]);
        w.send(Kind::Body, 0, b"mine");
        w.end();
    });
    assert_eq!((outcome.unwrap(), fake.passes.len()), (Outcome::Status(404), 0));
    let mut fake = FakeClient::default();
    let outcome = run(&mut fake, Upload::None, PLAIN, |w| {
        w.head(200, &[("Location", "/other")]);
        w.end();
    });
    assert_eq!((outcome.unwrap(), fake.passes.len()), (Outcome::Redirect(b"/other".to_vec()), 0));
    let mut fake = FakeClient::default();
    run(&mut fake, Upload::None, PLAIN, |w| {
        w.head(304, &[]);
        w.send(Kind::Body, 0, b"never");
        w.end();
    })
    .unwrap();
    assert_eq!((fake.status, &fake.out[..]), (Some(304), &b""[..]));
}

#[test]
fn time_runs_out_in_the_order_of_the_limits() {
    let expired = |limit: fn(&mut TimeLimits)| {
        run_limited(&mut FakeClient::default(), Upload::None, PLAIN, limit, |w| {
            // The worker runs until httpd closes the socket.
            assert_eq!(channel::receive(&w.back, &mut [0; 10], &mut Vec::new(), true), Ok(0));
        })
        .unwrap_err()
        .cause
    };
    assert_eq!(expired(|l| l.silence = 1), RequestError::Dispatch(DispatchError::Silent));
    assert_eq!(expired(|l| l.answer_by = Some(1)), RequestError::Dispatch(DispatchError::RequestTimeout));
    assert_eq!(expired(|l| l.take_by = Some(1)), RequestError::Dispatch(DispatchError::QueueTimeout));
}

#[test]
fn a_worker_that_only_logs_is_silent() {
    let limit = |l: &mut TimeLimits| l.silence = 1;
    let error = run_limited(&mut FakeClient::default(), Upload::None, PLAIN, limit, |w| {
        let header = Header { len: 4, number: w.number, kind: Kind::Log, code: 3 }.encode();
        while channel::send(&w.back, &[&header, b"busy"], &[], true).is_ok() {}
    });
    assert_eq!(error.unwrap_err().cause, RequestError::Dispatch(DispatchError::Silent));
}

#[test]
fn a_client_that_leaves_before_the_response_ends_the_request() {
    for (left, failed) in [(true, RequestError::ClientGone), (false, RequestError::Dispatch(DispatchError::Silent))] {
        let mut fake = FakeClient { left, ..FakeClient::default() };
        let limit = |l: &mut TimeLimits| (l.client_silence, l.silence) = (1, 50_000_000);
        let error = run_limited(&mut fake, Upload::None, PLAIN, limit, |w| {
            // The worker runs until httpd closes the socket.
            assert_eq!(channel::receive(&w.back, &mut [0; 10], &mut Vec::new(), true), Ok(0));
        });
        assert_eq!(error.unwrap_err().cause, failed);
    }
}

#[test]
fn a_session_reply_is_owed_until_it_is_sent() {
    let (queue, receiving, wake) = queue();
    let mut in_flight = sent(&queue, &wake);
    let mut fds = Vec::new();
    channel::receive(&receiving, &mut [0; 4096], &mut fds, true).unwrap();
    let back = fds.remove(0);
    // More than the socket accepts.
    in_flight.offer(&vec![b'b'; 4 << 20]);
    in_flight.flush().unwrap();
    assert!(!in_flight.owes_session_reply() && !in_flight.is_flushed());
    in_flight.offer_session_reply(0, b"yours");
    assert!(in_flight.owes_session_reply());
    while !in_flight.is_flushed() {
        assert!(in_flight.owes_session_reply());
        in_flight.flush().unwrap();
        read_empty(&back);
    }
    assert!(!in_flight.owes_session_reply());
    // Body pieces after it change nothing.
    in_flight.offer_session_reply(0, b"yours");
    in_flight.flush().unwrap();
    in_flight.offer(&vec![b'b'; 4 << 20]);
    in_flight.flush().unwrap();
    assert!(!in_flight.owes_session_reply() && !in_flight.is_flushed());
    in_flight.finish(false);
}

#[test]
fn a_failure_after_a_part_is_a_cut() {
    let error = run(&mut FakeClient::default(), Upload::None, PLAIN, |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, b"part");
        w.send(Kind::Fail, Failure::Exception as u16, b"ValueError: x");
    })
    .unwrap_err();
    assert_eq!((error.cause, error.stage == Stage::Sent), (RequestError::Worker(Failure::Exception, "ValueError: x".into()), true));
}

#[test]
fn a_disconnected_client_ends_the_request() {
    let mut fake = FakeClient { gone: true, ..FakeClient::default() };
    let error = run(&mut fake, Upload::None, PLAIN, |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, b"x");
    })
    .unwrap_err();
    assert_eq!(error.cause, RequestError::ClientGone);
}

#[test]
fn what_a_filter_refused_was_not_sent() {
    for (failed, sent) in [(NotPassed::Answered, false), (NotPassed::Refused, false), (NotPassed::AbortedMidway, true)] {
        let mut fake = FakeClient { filter: Some(failed), ..FakeClient::default() };
        let error = run(&mut fake, Upload::None, PLAIN, |w| {
            w.head(200, &[]);
            w.send(Kind::Body, 0, b"x");
        })
        .unwrap_err();
        assert_eq!((error.cause, error.stage == Stage::Sent), (RequestError::Filter(failed), sent));
    }
}

/// A client that accepts nothing until the other end of its socket is read.
fn stuffed() -> (FakeClient, OwnedFd) {
    let (near, far) = channel::stream_pair().unwrap();
    while channel::send(&near, &[&[0; 4096]], &[], false).is_ok() {}
    (FakeClient { slow: Some((near, 0)), ..FakeClient::default() }, far)
}

fn read_empty(socket: &OwnedFd) {
    while channel::receive(socket, &mut [0; 65536], &mut Vec::new(), false).is_ok() {}
}

#[test]
fn a_slow_client_occupies_no_worker() {
    let (mut fake, far) = stuffed();
    let outcome = run(&mut fake, Upload::None, PLAIN, move |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, &vec![b'a'; 500_000]);
        w.end(); // returns only because httpd accepted all of it
        read_empty(&far);
    });
    assert_eq!((outcome.unwrap(), fake.out.len()), (Outcome::Complete, 500_000));
    assert_eq!(fake.passes.last(), Some(&Pass::End));
    assert!(fake.passes.len() > 10, "in pieces");
}

#[test]
fn more_than_the_buffer_waits_in_the_worker() {
    let (mut fake, far) = stuffed();
    let outcome = run(&mut fake, Upload::None, RelayOptions { response_buffer: 100_000, ..PLAIN }, move |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, &vec![b'a'; 50_000]);
        // As much as httpd and the socket accept; then nothing more.
        let header = Header { len: 1 << 24, number: 7, kind: Kind::Body, code: 0 }.encode();
        channel::send(&w.back, &[&header], &[], true).unwrap();
        let mut sent = 0;
        while let Ok(n) = channel::send(&w.back, &[&vec![b'b'; 65536]], &[], false) {
            sent += n;
        }
        assert!(sent < 1 << 20, "{sent}");
        read_empty(&far);
        while sent < 1 << 24 {
            sent += channel::send(&w.back, &[&vec![b'b'; 65536.min((1 << 24) - sent)]], &[], true).unwrap();
        }
        w.end();
    });
    assert_eq!((outcome.unwrap(), fake.out.len()), (Outcome::Complete, 50_000 + (1 << 24)));
}

#[test]
fn a_client_that_accepts_nothing_times_out() {
    let (mut fake, far) = stuffed();
    let limit = |l: &mut TimeLimits| l.client_silence = 1;
    let error = run_limited(&mut fake, Upload::None, PLAIN, limit, |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, &[b'a'; 50_000]);
        // The worker runs until httpd closes the socket.
        assert_eq!(channel::receive(&w.back, &mut [0; 10], &mut Vec::new(), true), Ok(0));
    });
    assert_eq!(error.unwrap_err().cause, RequestError::ClientGone);
    drop(far);
}

#[test]
fn a_body_read_in_advance_is_sent_like_a_streamed_one() {
    let body: Vec<u8> = (0..200_000).map(|n| (n % 251) as u8).collect();
    let (queue, receiving, wake) = queue();
    let mut in_flight = sent(&queue, &wake);
    let thread = std::thread::spawn(move || {
        let mut fds = Vec::new();
        channel::receive(&receiving, &mut [0; 4096], &mut fds, true).unwrap();
        let w = Worker { back: fds.remove(0), number: 7 };
        assert_eq!(w.body(), (Kind::End, 0, 200_000));
        w.head(200, &[]);
        w.end();
        receiving
    });
    let limits = NO_LIMITS;
    let (mut fake, mut done) = (FakeClient::default(), 0);
    let relay = Relay::new(
        &mut fake,
        &mut in_flight,
        limits,
        Download::new(PLAIN, MemoryAccount::default()),
        Upload::Open,
        Source::Kept(&body),
        None,
    );
    assert_eq!(relay.run(&wake, &mut [0; 16384], || done += 1).unwrap(), Outcome::Complete);
    assert_eq!(done, 1);
    drop(thread.join().unwrap());
}

#[test]
fn an_endless_upload_leaves_time_for_the_worker() {
    let ((ready, back), (ended, end)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let pieces = 1000;
    let body = (0..pieces).map(|_| BodyRead::Data(16384)).chain([BodyRead::End]).collect();
    let mut fake = FakeClient { body, eager: Some(Eager { back, known: None, ended }), ..FakeClient::default() };
    let outcome = run(&mut fake, Upload::Open, PLAIN, move |w| {
        w.send(Kind::Log, 3, b"a question");
        ready.send(w.back.try_clone().unwrap()).unwrap();
        end.recv().unwrap();
        w.head(200, &[]);
        w.end();
    });
    assert_eq!(outcome.unwrap(), Outcome::Complete);
    assert!(fake.left_at_log.unwrap() > pieces / 2, "{:?} pieces were left", fake.left_at_log);
}

#[test]
fn a_response_is_as_long_as_its_content_length() {
    let with = |length: &'static str, body: &'static [u8], is_head: bool| {
        let mut fake = FakeClient { is_head, ..FakeClient::default() };
        let outcome = run(&mut fake, Upload::None, PLAIN, move |w| {
            w.head(200, &[("Content-Length", length)]);
            w.send(Kind::Body, 0, body);
            w.end();
        });
        (outcome.map_err(|error| error.stage == Stage::Sent), fake.out, fake.passes.last().copied())
    };
    assert_eq!(with("5", b"hello", false), (Ok(Outcome::Complete), b"hello".to_vec(), Some(Pass::End)));
    assert_eq!(with("5", b"hello, and more", false), (Ok(Outcome::Complete), b"hello".to_vec(), Some(Pass::End)));
    assert_eq!(with("50", b"hello", false), (Err(true), b"hello".to_vec(), Some(Pass::Flush)), "the client sees that it is cut");
    assert_eq!(with("50", b"", false), (Err(false), Vec::new(), None));
    assert_eq!(with("50", b"", true).0, Ok(Outcome::Complete));
    let no_number = run(&mut FakeClient::default(), Upload::None, PLAIN, |w| w.head(200, &[("Content-Length", "-5")]));
    assert!(matches!(no_number.unwrap_err().cause, RequestError::Head(_)));
}
