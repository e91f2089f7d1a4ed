//! Fakes for the tests of the handler: a client that follows a script, a request of plain data, a worker on real sockets.
use super::request::{BadHead, BodyRead, Client, FileKind, NotPassed, Pass, RequestView};
use crate::dispatch::{Key, Queue, Queues, Wake};
use crate::messages::{Code, Level};
use drover_sys::channel;
use drover_wire::control::{self, OpenReply, Script};
use drover_wire::frame::{Deframer, Event, Header, Kind};
use drover_wire::head::{self, Head};
use drover_wire::request::{PREFIX, Payload, Prefix};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A client whose body and patience are given in advance.
#[derive(Default)]
pub struct FakeClient {
    pub is_head: bool,
    pub body: VecDeque<BodyRead>,
    pub status: Option<u16>,
    pub out: Vec<u8>,
    pub passes: Vec<Pass>,
    pub logs: Vec<(u16, String)>,
    pub gone: bool,
    pub left: bool,
    pub filter: Option<NotPassed>,
    /// The client's socket, and how much it accepts.
    pub slow: Option<(OwnedFd, usize)>,
    /// A worker that reads everything it was sent before more is read from the client.
    pub eager: Option<Eager>,
    /// How much of the body was unread when the application first logged.
    pub left_at_log: Option<usize>,
    pub cookies_set: Vec<String>,
}

pub struct Eager {
    /// The worker's end, once the worker is ready.
    pub back: std::sync::mpsc::Receiver<OwnedFd>,
    pub known: Option<OwnedFd>,
    /// Notified at the end of the body.
    pub ended: std::sync::mpsc::Sender<()>,
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

impl Client for FakeClient {
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
    fn set_cookie(&mut self, value: &str) {
        self.cookies_set.push(value.to_owned());
    }
    fn note_session(&mut self, _: &str) {}
    fn application_log(&mut self, level: u16, text: &[u8]) {
        self.left_at_log.get_or_insert(self.body.len());
        self.logs.push((level, String::from_utf8_lossy(text).into_owned()));
    }
}

/// The worker's view of one request.
pub struct Worker {
    pub back: OwnedFd,
    pub number: u32,
}

impl Worker {
    pub fn send(&self, kind: Kind, code: u16, payload: &[u8]) {
        let header = Header { len: payload.len() as u32, number: self.number, kind, code }.encode();
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(payload);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[channel::send(&self.back, &[rest], &[], true).unwrap()..];
        }
    }

    pub fn head(&self, status: u16, fields: &[(&str, &str)]) {
        let mut out = Vec::new();
        head::begin(&mut out, status, b"Some", fields.len() as u16).unwrap();
        fields.iter().for_each(|(n, v)| head::field(&mut out, n.as_bytes(), v.as_bytes()).unwrap());
        self.send(Kind::Head, 0, &out);
    }

    /// END, with the worker's end of the reply socket.
    pub fn end(self) {
        let header = Header { len: 0, number: self.number, kind: Kind::End, code: 0 }.encode();
        channel::send(&self.back, &[&header], &[self.back.as_fd()], true).unwrap();
    }

    /// Reads the body to its end. Returns how it ended and its length.
    pub fn body(&self) -> (Kind, u16, usize) {
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

/// droverd for one queue: hands out its sending end, once for each of `replies`.
fn serve_broker(droverd: OwnedFd, replies: Vec<OwnedFd>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for sending in replies {
            let mut fds = Vec::new();
            channel::receive(&droverd, &mut [0; 4096], &mut fds, true).unwrap();
            channel::send(&fds[0], &[&control::encode(&OpenReply::Opened { place: 0 }).unwrap()], &[sending.as_fd()], true).unwrap();
        }
    })
}

/// An open queue, its receiving end, and a stop signal.
pub fn queue() -> (Arc<Queue>, OwnedFd, Wake) {
    let (broker, droverd) = channel::packet_pair().unwrap();
    let (sending, receiving) = channel::packet_pair().unwrap();
    let broker_thread = serve_broker(droverd, vec![sending]);
    let wake = Wake::new().unwrap();
    let key = Key { group: b"g".to_vec(), application_group: Vec::new() };
    let queue = Queues::new(broker).open(&key, Script { path: vec![], callable: vec![] }, &wake, u64::MAX).unwrap();
    broker_thread.join().unwrap();
    (queue, receiving, wake)
}

/// Queues whose broker knows one queue, and its receiving end.
pub fn queues() -> (Queues, OwnedFd) {
    let (broker, droverd) = channel::packet_pair().unwrap();
    let (sending, receiving) = channel::packet_pair().unwrap();
    // Not joined: a request that is refused opens no queue.
    drop(serve_broker(droverd, vec![sending]));
    (Queues::new(broker), receiving)
}

/// The request as a worker received it.
pub struct Message {
    pub prefix: Prefix,
    pub script: Vec<u8>,
    pub env: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// Takes the next request from a queue.
pub fn take(queue: &OwnedFd) -> (Worker, Message) {
    let (mut buffer, mut fds) = (vec![0; 200_000], Vec::new());
    let n = channel::receive(queue, &mut buffer, &mut fds, true).unwrap();
    let prefix = Prefix::decode(&buffer[..n]).unwrap();
    let payload = Payload::decode(&prefix, &buffer[PREFIX..n]).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let env = payload.environment.map(|pair| pair.map(|(name, value)| (text(name), text(value))).unwrap()).collect();
    let message = Message { prefix, script: payload.script.to_vec(), env, body: payload.body.to_vec() };
    (Worker { back: fds.remove(0), number: prefix.number }, message)
}

/// A request of plain data. What a test does not set is that of `GET /shop/cart` for the script `/srv/shop.wsgi`.
pub struct FakeRequest {
    pub client: FakeClient,
    pub handler: &'static str,
    pub method: &'static str,
    pub file: FileKind,
    pub owner: (u32, u32),
    pub may_run: bool,
    pub rejects_path_info: bool,
    pub body_limit: u64,
    pub expects_continue: bool,
    pub is_stream: bool,
    /// An input filter removes Content-Length at the first read, as DEFLATE does.
    pub filter_changes_length: bool,
    pub headers: Vec<(&'static CStr, &'static str)>,
    pub env: Vec<(CString, &'static [u8])>,
    pub messages: RefCell<Vec<(Level, Code, String)>>,
    pub error_headers: Vec<(&'static CStr, String)>,
    pub redirected: Option<Vec<u8>>,
}

impl Default for FakeRequest {
    fn default() -> Self {
        Self {
            client: FakeClient::default(),
            handler: "wsgi-script",
            method: "GET",
            file: FileKind::File,
            owner: (0, 0),
            may_run: true,
            rejects_path_info: false,
            body_limit: 0,
            expects_continue: false,
            is_stream: false,
            filter_changes_length: false,
            headers: Vec::new(),
            env: Vec::new(),
            messages: RefCell::default(),
            error_headers: Vec::new(),
            redirected: None,
        }
    }
}

impl FakeRequest {
    pub fn codes(&self) -> Vec<Code> {
        self.messages.borrow().iter().map(|(_, code, _)| *code).collect()
    }
}

impl Client for FakeRequest {
    fn read_body(&mut self, buffer: &mut [u8], wait: bool) -> BodyRead {
        if self.filter_changes_length {
            self.headers.retain(|(name, _)| *name != c"Content-Length");
        }
        self.client.read_body(buffer, wait)
    }
    fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.client.socket()
    }
    fn has_left(&self) -> bool {
        self.client.has_left()
    }
    fn set_head(&mut self, head: &Head<'_>) -> Result<(), BadHead> {
        self.client.set_head(head)
    }
    fn set_error_head(&mut self, head: &Head<'_>) {
        self.client.set_error_head(head);
    }
    fn pass(&mut self, pieces: &[&[u8]], how: Pass) -> Result<(), NotPassed> {
        self.client.pass(pieces, how)
    }
    fn room(&mut self) -> usize {
        self.client.room()
    }
    fn cookies(&self) -> Option<&[u8]> {
        self.client.cookies()
    }
    fn set_cookie(&mut self, value: &str) {
        self.client.set_cookie(value);
    }
    fn note_session(&mut self, name: &str) {
        self.client.note_session(name);
    }
    fn application_log(&mut self, level: u16, text: &[u8]) {
        self.client.application_log(level, text);
    }
}

impl RequestView<'static> for FakeRequest {
    fn handler(&self) -> Option<&'static [u8]> {
        Some(self.handler.as_bytes())
    }
    fn uri(&self) -> Option<&'static [u8]> {
        Some(b"/shop/cart")
    }
    fn method(&self) -> Option<&'static [u8]> {
        Some(self.method.as_bytes())
    }
    fn protocol(&self) -> Option<&'static [u8]> {
        Some(b"HTTP/1.1")
    }
    fn args(&self) -> Option<&'static [u8]> {
        Some(b"page=2")
    }
    fn filename(&self) -> Option<&'static [u8]> {
        Some(b"/srv/shop.wsgi")
    }
    fn path_info(&self) -> Option<&'static [u8]> {
        Some(b"/cart")
    }
    fn hostname(&self) -> Option<&'static [u8]> {
        Some(b"shop.example")
    }
    fn path_info_start(&self) -> usize {
        "/shop".len()
    }
    fn request_uri(&self) -> &'static [u8] {
        b"/shop/cart?page=2"
    }
    fn document_root(&self) -> &'static [u8] {
        b"/var/www"
    }
    fn server_hostname(&self) -> &'static [u8] {
        b"main.example"
    }
    fn server_timeout_ns(&self) -> u64 {
        60_000_000_000
    }
    fn server_version(&self) -> String {
        "2.4.99".into()
    }
    fn requested_port(&self) -> u16 {
        80
    }
    fn configured_port(&self) -> u16 {
        80
    }
    fn local_port(&self) -> u16 {
        80
    }
    fn local_hostname(&self) -> Option<&'static [u8]> {
        None
    }
    fn started_us(&self) -> u64 {
        1
    }
    fn script_file(&self) -> (FileKind, u64) {
        (self.file, 77)
    }
    fn script_owner(&self) -> (u32, u32) {
        self.owner
    }
    fn may_run_script(&self) -> bool {
        self.may_run
    }
    fn is_aliased(&self) -> bool {
        false
    }
    fn rejects_path_info(&self) -> bool {
        self.rejects_path_info
    }
    fn body_limit(&self) -> u64 {
        self.body_limit
    }
    fn log_level(&self) -> u8 {
        4
    }
    fn log_ids(&self) -> (Option<&'static [u8]>, Option<&'static [u8]>) {
        (Some(b"id"), None)
    }
    fn is_https(&self) -> bool {
        false
    }
    fn is_stream(&self) -> bool {
        self.is_stream
    }
    fn is_get(&self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }
    fn head_needs_body(&self) -> bool {
        false
    }
    fn expects_continue(&self) -> bool {
        self.expects_continue
    }
    fn note(&self, _: &CStr) -> Option<&'static [u8]> {
        None
    }
    fn header(&self, name: &CStr) -> Option<&'static [u8]> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes())
    }
    fn env(&self, name: &CStr) -> Option<&'static [u8]> {
        self.env.iter().find(|(known, _)| known.as_c_str() == name).map(|(_, value)| *value)
    }
    fn set_env(&mut self, name: &'static CStr, value: &[u8]) {
        self.unset_env(name);
        self.env.push((name.to_owned(), value.to_vec().leak()));
    }
    fn unset_env(&mut self, name: &CStr) {
        self.env.retain(|(known, _)| known.as_c_str() != name);
    }
    fn each_env(&self) -> impl Iterator<Item = (&'static [u8], &'static [u8])> {
        self.env.iter().map(|(name, value)| (&*name.to_bytes().to_vec().leak(), *value))
    }
    fn add_common_vars(&mut self) {
        self.set_env(c"HTTP_HOST", b"shop.example");
    }
    fn log(&self, level: Level, code: Code, text: &str) {
        self.messages.borrow_mut().push((level, code, text.to_owned()));
    }
    fn set_error_header(&mut self, name: &'static CStr, value: &str) {
        self.error_headers.push((name, value.to_owned()));
    }
    fn reset_status(&mut self) {
        self.client.status = None;
    }
    fn redirect_internally(&mut self, url: &[u8]) {
        self.redirected = Some(url.to_vec());
    }
}
