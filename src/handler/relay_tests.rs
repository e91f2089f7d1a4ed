//! Tests of `relay`: a client that is a script, a worker that is a thread on the other end of the real sockets.
use super::*;
use crate::dispatch::{Key, Outgoing, Queue, Queues};
use crate::handler::account::Account;
use crate::handler::client::{BadHead, NotPassed, Pass};
use drover_sys::channel;
use drover_wire::control::{self, OpenReply, Script};
use drover_wire::frame::{Deframer, Failure, Header};
use drover_wire::head::Head;
use drover_wire::request::{Builder, Prefix};
use drover_wire::{WireError, head};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

#[derive(Default)]
struct Fake {
    is_head: bool,
    body: VecDeque<BodyRead>,
    status: Option<u16>,
    out: Vec<u8>,
    passes: Vec<Pass>,
    logs: Vec<(u16, String)>,
    gone: bool,
    left: bool,
    filter: Option<NotPassed>,
    /// The client's socket, and what it says it takes.
    slow: Option<(OwnedFd, usize)>,
    /// A worker that reads all that it was sent before more is read from the client.
    eager: Option<Eager>,
    /// How much of the body was left to be read when the application first logged.
    left_at_log: Option<usize>,
}

struct Eager {
    /// Its end, when it is ready.
    back: std::sync::mpsc::Receiver<OwnedFd>,
    known: Option<OwnedFd>,
    /// Told at the end of the body.
    ended: std::sync::mpsc::Sender<()>,
}

impl Eager {
    fn read(&mut self, ends: bool) {
        let back = self.known.get_or_insert_with(|| self.back.recv().unwrap());
        while channel::receive(&*back, &mut [0; 70_000], &mut Vec::new(), false).is_ok() {}
        if ends {
            self.ended.send(()).unwrap();
        }
    }
}

impl Client for Fake {
    fn read_body(&mut self, buffer: &mut [u8], _: bool) -> BodyRead {
        if let Some(eager) = &mut self.eager {
            eager.read(matches!(self.body.front(), Some(BodyRead::End)));
        }
        match self.body.pop_front() {
            Some(BodyRead::Data(n)) => {
                let n = n.min(buffer.len());
                buffer[..n].fill(b'b');
                BodyRead::Data(n)
            }
            Some(other) => other,
            None => BodyRead::NotYet,
        }
    }
    fn is_head(&self) -> bool {
        self.is_head
    }
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.slow.as_ref().map(|(socket, _)| socket.as_fd())
    }
    fn set_head(&mut self, head: &Head<'_>) -> Result<(), BadHead> {
        head.fields.clone().try_for_each(|f| f.map(drop)).map_err(|e| BadHead(e.to_string()))?;
        self.status = Some(head.status);
        Ok(())
    }
    fn has_left(&self) -> bool {
        self.left
    }
    fn set_error_head(&mut self, _: &Head<'_>) {}
    fn pass(&mut self, pieces: &[&[u8]], how: Pass) -> Result<(), NotPassed> {
        pieces.iter().for_each(|p| self.out.extend_from_slice(p));
        self.passes.push(how);
        match self.filter {
            Some(failed) => Err(failed),
            None if self.gone => Err(NotPassed::Gone),
            None => Ok(()),
        }
    }
    fn room(&mut self) -> usize {
        self.slow.as_ref().map_or(usize::MAX, |(_, room)| *room)
    }
    fn cookies(&self) -> Option<&[u8]> {
        None
    }
    fn set_cookie(&mut self, _: &str) {}
    fn note_session(&mut self, _: &str) {}
    fn application_log(&mut self, level: u16, text: &[u8]) {
        self.left_at_log.get_or_insert(self.body.len());
        self.logs.push((level, String::from_utf8_lossy(text).into_owned()));
    }
}

/// The worker's view of one request.
struct Worker {
    back: OwnedFd,
    number: u32,
}

impl Worker {
    fn send(&self, kind: Kind, code: u16, payload: &[u8]) {
        let header = Header { len: payload.len() as u32, number: self.number, kind, code }.encode();
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(payload);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[channel::send(&self.back, &[rest], &[], true).unwrap()..];
        }
    }

    fn head(&self, status: u16, fields: &[(&str, &str)]) {
        let mut out = Vec::new();
        head::begin(&mut out, status, b"Some", fields.len() as u16).unwrap();
        fields.iter().for_each(|(n, v)| head::field(&mut out, n.as_bytes(), v.as_bytes()).unwrap());
        self.send(Kind::Head, 0, &out);
    }

    /// END, and the end of the socket back.
    fn end(self) {
        let header = Header { len: 0, number: self.number, kind: Kind::End, code: 0 }.encode();
        channel::send(&self.back, &[&header], &[self.back.as_fd()], true).unwrap();
    }

    /// Reads the body to its end; how it ended and how long it was.
    fn body(&self) -> (Kind, u16, usize) {
        let (mut deframer, mut buffer, mut have, mut n) = (Deframer::new(self.number), vec![0u8; 70_000], 0, 0);
        loop {
            match deframer.next(&buffer[..have]).unwrap() {
                Some((Event::Body(b), used)) => {
                    n += b.len();
                    buffer.copy_within(used..have, 0);
                    have -= used;
                }
                Some((Event::Frame(h, _), _)) => return (h.kind, h.code, n),
                Some((other, _)) => panic!("{other:?}"),
                None => {
                    let got = channel::receive(&self.back, &mut buffer[have..], &mut Vec::new(), true).unwrap();
                    assert!(got > 0, "cut");
                    have += got;
                }
            }
        }
    }
}

fn queue() -> (Arc<Queue>, OwnedFd, Wake) {
    let (broker, droverd) = channel::packet_pair().unwrap();
    let (sending, receiving) = channel::packet_pair().unwrap();
    let answering = std::thread::spawn(move || {
        let mut fds = Vec::new();
        channel::receive(&droverd, &mut [0; 4096], &mut fds, true).unwrap();
        channel::send(&fds[0], &[&control::encode(&OpenReply::Opened { place: 0 }).unwrap()], &[sending.as_fd()], true).unwrap();
    });
    let wake = Wake::new().unwrap();
    let key = Key { group: b"g".to_vec(), application_group: Vec::new() };
    let queue = Queues::new(broker).open(&key, Script { path: vec![], callable: vec![] }, &wake, u64::MAX).unwrap();
    answering.join().unwrap();
    (queue, receiving, wake)
}

const FOREVER: u64 = 60_000_000_000;
const NO_LIMITS: Limits = Limits { silence: FOREVER, client_silence: FOREVER, take_by: None, answer_by: None };

/// A request on its queue.
fn sent<'q>(queue: &'q Queue, wake: &Wake) -> Exchange<'q> {
    let mut builder = Builder::default();
    builder.begin(b"/srv/a.wsgi", b"application").unwrap();
    let bytes = builder.finish(Prefix { number: 7, ..Prefix::default() }, b"", b"").unwrap();
    let message = Outgoing { bytes, number: 7, sessions: true, about: b"GET /" };
    Exchange::send(queue, message, Vec::new(), wake, u64::MAX, &mut || {}).unwrap()
}

fn run(fake: &mut Fake, upload: Upload, manner: Manner, worker: impl FnOnce(Worker) + Send + 'static) -> Result<Answer, Broken> {
    run_limited(fake, upload, manner, |_| (), worker)
}

fn run_limited(
    fake: &mut Fake,
    upload: Upload,
    manner: Manner,
    limit: impl FnOnce(&mut Limits),
    worker: impl FnOnce(Worker) + Send + 'static,
) -> Result<Answer, Broken> {
    let (queue, receiving, wake) = queue();
    let mut exchange = sent(&queue, &wake);
    let thread = std::thread::spawn(move || {
        let mut fds = Vec::new();
        channel::receive(&receiving, &mut [0; 4096], &mut fds, true).unwrap();
        worker(Worker { back: fds.remove(0), number: 7 });
        receiving
    });
    let mut limits = NO_LIMITS;
    limit(&mut limits);
    let result = Relay::new(fake, &mut exchange, limits, Download::new(manner, Account::default()), upload, Source::Client, None).run(
        &wake,
        &mut [0; 16384],
        || (),
    );
    exchange.finish(result.is_ok());
    drop(thread.join().unwrap());
    result
}

const PLAIN: Manner = Manner { error_override: false, answer_buffer: 1 << 20 };

#[test]
fn a_plain_answer() {
    let mut fake = Fake::default();
    let answer = run(&mut fake, Upload::None, PLAIN, |w| {
        w.head(200, &[("X-A", "b")]);
        w.send(Kind::Log, 3, b"said");
        w.send(Kind::Body, 0, b"hello");
        w.end();
    });
    assert_eq!(answer.unwrap(), Answer::Whole);
    assert_eq!((fake.status, &fake.out[..]), (Some(200), &b"hello"[..]));
    assert_eq!(fake.passes.last(), Some(&Pass::End));
    assert_eq!(fake.logs, [(3, "said".to_owned())]);
}

#[test]
fn a_worker_does_not_say_how_urgent_its_text_is_to_the_server() {
    let mut fake = Fake::default();
    let answer = run(&mut fake, Upload::None, PLAIN, |w| {
        [0, 1, 2, 3, 4, 6, 15, 16, u16::MAX].iter().for_each(|level| w.send(Kind::Log, *level, b"said"));
        w.head(200, &[]);
        w.end();
    });
    assert_eq!(answer.unwrap(), Answer::Whole);
    let levels: Vec<u16> = fake.logs.iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, [3, 3, 3, 3, 4, 6, 15, 15, 15], "emerg, alert and crit are httpd's own");
}

#[test]
fn an_answer_is_whole_without_the_descriptor_that_comes_with_its_end() {
    // As in a process that has all its files open: the kernel says that descriptors did not fit.
    let answer = run(&mut Fake::default(), Upload::None, PLAIN, |w| {
        w.head(200, &[]);
        let header = Header { len: 0, number: w.number, kind: Kind::End, code: 0 }.encode();
        channel::send(&w.back, &[&header], &[w.back.as_fd(); 8], true).unwrap();
    });
    assert_eq!(answer.unwrap(), Answer::Whole);
}

#[test]
fn a_death_before_the_head_and_after_it() {
    let broken = run(&mut Fake::default(), Upload::None, PLAIN, drop).unwrap_err();
    assert_eq!((broken.failed, broken.sent), (Failed::Dispatch(DispatchError::WorkerDied(None)), false));
    let mut fake = Fake::default();
    let broken = run(&mut fake, Upload::None, PLAIN, |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, b"part");
    })
    .unwrap_err();
    assert_eq!((broken.failed, broken.sent), (Failed::Dispatch(DispatchError::WorkerDied(None)), true));
    assert!(!fake.passes.contains(&Pass::End), "a cut answer never looks whole");
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
        let broken = run(&mut Fake::default(), Upload::None, PLAIN, story).unwrap_err();
        assert_eq!(broken.failed, Failed::Dispatch(DispatchError::Wire(WireError::Bad(what))));
    }
}

#[test]
fn a_body_goes_out_while_the_answer_comes_in() {
    let mut fake = Fake::default();
    fake.body.extend(std::iter::repeat_n(BodyRead::Data(16384), 200));
    fake.body.push_back(BodyRead::End);
    let answer = run(&mut fake, Upload::Open, PLAIN, |w| {
        // 3 MB of answer before a byte of the body is read: neither side may block the other for good.
        w.head(200, &[]);
        w.send(Kind::Body, 0, &vec![b'a'; 3_000_000]);
        assert_eq!(w.body(), (Kind::End, 0, 200 * 16384));
        w.end();
    });
    assert_eq!(answer.unwrap(), Answer::Whole);
    assert_eq!(fake.out.len(), 3_000_000);
}

#[test]
fn a_cut_body_is_told_and_its_reason_is_the_status() {
    for (error, code) in [(BodyError::Malformed, BodyFailure::Malformed), (BodyError::TooLarge, BodyFailure::TooLarge)] {
        let mut fake = Fake { body: [BodyRead::Data(10), BodyRead::Failed(error)].into(), ..Fake::default() };
        let broken = run(&mut fake, Upload::Open, PLAIN, move |w| assert_eq!(w.body(), (Kind::Fail, code as u16, 10))).unwrap_err();
        assert_eq!((broken.failed, broken.sent), (Failed::Body(error), false));
    }
}

#[test]
fn a_body_on_demand_waits_for_want() {
    let mut fake = Fake { body: [BodyRead::Data(5), BodyRead::End].into(), ..Fake::default() };
    run(&mut fake, Upload::OnDemand, PLAIN, |w| {
        w.send(Kind::Want, 0, b"");
        assert_eq!(w.body(), (Kind::End, 0, 5));
        w.head(200, &[]);
        w.end();
    })
    .unwrap();
    let mut fake = Fake { body: [BodyRead::Data(5), BodyRead::End].into(), ..Fake::default() };
    run(&mut fake, Upload::OnDemand, PLAIN, |w| {
        w.head(413, &[]);
        w.end();
    })
    .unwrap();
    assert_eq!(fake.body.len(), 2, "nobody wanted it: it was never read");
}

#[test]
fn overridden_errors_redirects_and_empty_answers_have_no_body() {
    let mut fake = Fake::default();
    let manner = Manner { error_override: true, ..PLAIN };
    let answer = run(&mut fake, Upload::None, manner, |w| {
        w.head(404, &[]);
        w.send(Kind::Body, 0, b"mine");
        w.end();
    });
    assert_eq!((answer.unwrap(), fake.passes.len()), (Answer::Status(404), 0));
    let mut fake = Fake::default();
    let answer = run(&mut fake, Upload::None, PLAIN, |w| {
        w.head(200, &[("Location", "/other")]);
        w.end();
    });
    assert_eq!((answer.unwrap(), fake.passes.len()), (Answer::Redirect(b"/other".to_vec()), 0));
    let mut fake = Fake::default();
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
    let expired = |limit: fn(&mut Limits)| {
        run_limited(&mut Fake::default(), Upload::None, PLAIN, limit, |w| {
            // The worker lives until httpd hangs up.
            assert_eq!(channel::receive(&w.back, &mut [0; 10], &mut Vec::new(), true), Ok(0));
        })
        .unwrap_err()
        .failed
    };
    assert_eq!(expired(|l| l.silence = 1), Failed::Dispatch(DispatchError::Silent));
    assert_eq!(expired(|l| l.answer_by = Some(1)), Failed::Dispatch(DispatchError::RequestTimeout));
    assert_eq!(expired(|l| l.take_by = Some(1)), Failed::Dispatch(DispatchError::QueueTimeout));
}

#[test]
fn a_worker_that_only_logs_is_silent() {
    let limit = |l: &mut Limits| l.silence = 1;
    let broken = run_limited(&mut Fake::default(), Upload::None, PLAIN, limit, |w| {
        let header = Header { len: 4, number: w.number, kind: Kind::Log, code: 3 }.encode();
        while channel::send(&w.back, &[&header, b"busy"], &[], true).is_ok() {}
    });
    assert_eq!(broken.unwrap_err().failed, Failed::Dispatch(DispatchError::Silent));
}

#[test]
fn a_client_that_leaves_before_the_response_ends_the_request() {
    for (left, failed) in [(true, Failed::ClientGone), (false, Failed::Dispatch(DispatchError::Silent))] {
        let mut fake = Fake { left, ..Fake::default() };
        let limit = |l: &mut Limits| (l.client_silence, l.silence) = (1, 50_000_000);
        let broken = run_limited(&mut fake, Upload::None, PLAIN, limit, |w| {
            // The worker lives until httpd hangs up.
            assert_eq!(channel::receive(&w.back, &mut [0; 10], &mut Vec::new(), true), Ok(0));
        });
        assert_eq!(broken.unwrap_err().failed, failed);
    }
}

#[test]
fn a_session_is_owed_until_its_answer_is_sent_whatever_follows() {
    let (queue, receiving, wake) = queue();
    let mut exchange = sent(&queue, &wake);
    let mut fds = Vec::new();
    channel::receive(&receiving, &mut [0; 4096], &mut fds, true).unwrap();
    let back = fds.remove(0);
    // As much as the socket takes, and more.
    exchange.offer(&vec![b'b'; 4 << 20]);
    exchange.flush().unwrap();
    assert!(!exchange.owes_session() && !exchange.is_flushed());
    exchange.offer_session(0, b"yours");
    assert!(exchange.owes_session());
    while !exchange.is_flushed() {
        assert!(exchange.owes_session());
        exchange.flush().unwrap();
        read_empty(&back);
    }
    assert!(!exchange.owes_session());
    // More of the body behind it changes nothing.
    exchange.offer_session(0, b"yours");
    exchange.flush().unwrap();
    exchange.offer(&vec![b'b'; 4 << 20]);
    exchange.flush().unwrap();
    assert!(!exchange.owes_session() && !exchange.is_flushed());
    exchange.finish(false);
}

#[test]
fn a_failure_after_a_part_is_told_as_cut() {
    let broken = run(&mut Fake::default(), Upload::None, PLAIN, |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, b"part");
        w.send(Kind::Fail, Failure::Exception as u16, b"ValueError: x");
    })
    .unwrap_err();
    assert_eq!((broken.failed, broken.sent), (Failed::Worker(Failure::Exception, "ValueError: x".into()), true));
}

#[test]
fn a_client_that_is_gone_ends_it() {
    let mut fake = Fake { gone: true, ..Fake::default() };
    let broken = run(&mut fake, Upload::None, PLAIN, |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, b"x");
    })
    .unwrap_err();
    assert_eq!(broken.failed, Failed::ClientGone);
}

#[test]
fn what_a_filter_has_refused_was_not_sent() {
    for (failed, sent) in [(NotPassed::Answered, false), (NotPassed::Refused, false), (NotPassed::Spoilt, true)] {
        let mut fake = Fake { filter: Some(failed), ..Fake::default() };
        let broken = run(&mut fake, Upload::None, PLAIN, |w| {
            w.head(200, &[]);
            w.send(Kind::Body, 0, b"x");
        })
        .unwrap_err();
        assert_eq!((broken.failed, broken.sent), (Failed::Filter(failed), sent));
    }
}

/// A client that takes nothing until the other end of its socket is read.
fn stuffed() -> (Fake, OwnedFd) {
    let (near, far) = channel::stream_pair().unwrap();
    while channel::send(&near, &[&[0; 4096]], &[], false).is_ok() {}
    (Fake { slow: Some((near, 0)), ..Fake::default() }, far)
}

fn read_empty(socket: &OwnedFd) {
    while channel::receive(socket, &mut [0; 65536], &mut Vec::new(), false).is_ok() {}
}

#[test]
fn a_slow_client_holds_no_worker() {
    let (mut fake, far) = stuffed();
    let answer = run(&mut fake, Upload::None, PLAIN, move |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, &vec![b'a'; 500_000]);
        w.end(); // returns only because httpd has taken it all
        read_empty(&far);
    });
    assert_eq!((answer.unwrap(), fake.out.len()), (Answer::Whole, 500_000));
    assert_eq!(fake.passes.last(), Some(&Pass::End));
    assert!(fake.passes.len() > 10, "in pieces");
}

#[test]
fn more_than_the_buffer_waits_in_the_worker() {
    let (mut fake, far) = stuffed();
    let answer = run(&mut fake, Upload::None, Manner { answer_buffer: 100_000, ..PLAIN }, move |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, &vec![b'a'; 50_000]);
        // As much as httpd and the socket take; then there is no room, whatever time passes.
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
    assert_eq!((answer.unwrap(), fake.out.len()), (Answer::Whole, 50_000 + (1 << 24)));
}

#[test]
fn a_client_that_never_takes_it_is_given_up() {
    let (mut fake, far) = stuffed();
    let limit = |l: &mut Limits| l.client_silence = 1;
    let broken = run_limited(&mut fake, Upload::None, PLAIN, limit, |w| {
        w.head(200, &[]);
        w.send(Kind::Body, 0, &[b'a'; 50_000]);
        // The worker lives until httpd hangs up.
        assert_eq!(channel::receive(&w.back, &mut [0; 10], &mut Vec::new(), true), Ok(0));
    });
    assert_eq!(broken.unwrap_err().failed, Failed::ClientGone);
    drop(far);
}

#[test]
fn a_body_read_before_goes_out_as_one_that_streams() {
    let body: Vec<u8> = (0..200_000).map(|n| (n % 251) as u8).collect();
    let (queue, receiving, wake) = queue();
    let mut exchange = sent(&queue, &wake);
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
    let (mut fake, mut done) = (Fake::default(), 0);
    let relay =
        Relay::new(&mut fake, &mut exchange, limits, Download::new(PLAIN, Account::default()), Upload::Open, Source::Kept(&body), None);
    assert_eq!(relay.run(&wake, &mut [0; 16384], || done += 1).unwrap(), Answer::Whole);
    assert_eq!(done, 1);
    drop(thread.join().unwrap());
}

#[test]
fn an_upload_that_never_stops_leaves_time_for_what_the_worker_says() {
    let ((ready, back), (ended, end)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let pieces = 1000;
    let body = (0..pieces).map(|_| BodyRead::Data(16384)).chain([BodyRead::End]).collect();
    let mut fake = Fake { body, eager: Some(Eager { back, known: None, ended }), ..Fake::default() };
    let answer = run(&mut fake, Upload::Open, PLAIN, move |w| {
        w.send(Kind::Log, 3, b"a question");
        ready.send(w.back.try_clone().unwrap()).unwrap();
        end.recv().unwrap();
        w.head(200, &[]);
        w.end();
    });
    assert_eq!(answer.unwrap(), Answer::Whole);
    assert!(fake.left_at_log.unwrap() > pieces / 2, "{:?} pieces were left", fake.left_at_log);
}

#[test]
fn an_answer_is_as_long_as_it_says() {
    let with = |length: &'static str, body: &'static [u8], is_head: bool| {
        let mut fake = Fake { is_head, ..Fake::default() };
        let answer = run(&mut fake, Upload::None, PLAIN, move |w| {
            w.head(200, &[("Content-Length", length)]);
            w.send(Kind::Body, 0, body);
            w.end();
        });
        (answer.map_err(|broken| broken.sent), fake.out, fake.passes.last().copied())
    };
    assert_eq!(with("5", b"hello", false), (Ok(Answer::Whole), b"hello".to_vec(), Some(Pass::End)));
    assert_eq!(with("5", b"hello, and more", false), (Ok(Answer::Whole), b"hello".to_vec(), Some(Pass::End)));
    assert_eq!(with("50", b"hello", false), (Err(true), b"hello".to_vec(), Some(Pass::Flush)), "the client sees that it is cut");
    assert_eq!(with("50", b"", false), (Err(false), Vec::new(), None));
    assert_eq!(with("50", b"", true).0, Ok(Answer::Whole));
    let no_number = run(&mut Fake::default(), Upload::None, PLAIN, |w| w.head(200, &[("Content-Length", "-5")]));
    assert!(matches!(no_number.unwrap_err().failed, Failed::Head(_)));
}
