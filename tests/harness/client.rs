//! A plain blocking HTTP/1.1 client that shows what is on the wire.
//!
//! Responsible for: sending requests, also invalid ones, and distinguishing a complete response
//! from a truncated one. Must never: retry, follow a redirect, or repair. Called by: tests.
use super::wait::PATIENCE;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

/// A request that is being built.
pub struct Request {
    port: u16,
    head: String,
    raw: Vec<u8>,
    body: Vec<u8>,
}

/// A response.
#[derive(Debug, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// The header fields in order.
    pub headers: Vec<(String, String)>,
    /// The status codes of the interim responses before it.
    pub interim: Vec<u16>,
    /// The body, decoded from chunks.
    pub body: Vec<u8>,
    /// Whether the body is complete.
    pub complete: bool,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header field; the first of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All header fields of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}: {}", self.status, self.text()))
    }
}

impl Request {
    /// `METHOD TARGET` to 127.0.0.1.
    pub fn new(port: u16, method: &str, target: &str) -> Request {
        Request { port, head: format!("{method} {target} HTTP/1.1\r\n"), raw: Vec::new(), body: Vec::new() }
    }

    /// Adds a header field; bytes are sent as they are.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.raw.extend_from_slice(name.as_bytes());
        self.raw.extend_from_slice(b": ");
        self.raw.extend_from_slice(value.as_ref());
        self.raw.extend_from_slice(b"\r\n");
        self
    }

    /// A body with Content-Length.
    pub fn body(self, body: impl Into<Vec<u8>>) -> Request {
        let body = body.into();
        let mut request = self.header("Content-Length", body.len().to_string());
        request.body = body;
        request
    }

    /// A chunked body, one chunk for each block.
    pub fn chunked<'a>(self, blocks: impl IntoIterator<Item = &'a [u8]>) -> Request {
        let mut request = self.header("Transfer-Encoding", "chunked");
        for block in blocks {
            request.body.extend_from_slice(format!("{:x}\r\n", block.len()).as_bytes());
            request.body.extend_from_slice(block);
            request.body.extend_from_slice(b"\r\n");
        }
        request.body.extend_from_slice(b"0\r\n\r\n");
        request
    }

    /// The bytes of request line and header fields.
    fn bytes(&self) -> Vec<u8> {
        let mut out = self.head.clone().into_bytes();
        let has_host = self.raw.split(|b| *b == b'\n').any(|l| l.len() > 4 && l[..5].eq_ignore_ascii_case(b"host:"));
        if !has_host {
            out.extend_from_slice(format!("Host: localhost:{}\r\n", self.port).as_bytes());
        }
        out.extend_from_slice(&self.raw);
        out.extend_from_slice(b"\r\n");
        out
    }

    /// Sends the request on a new connection and reads the whole response.
    #[track_caller]
    pub fn send(self) -> Response {
        let (head_only, conn) = (self.head.starts_with("HEAD "), Conn::open(self.port));
        conn.start(self.header("Connection", "close")).finish(head_only)
    }

    /// As [`Request::send`], for a server that may be killed meanwhile.
    pub fn attempt(self) -> io::Result<Response> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = self.header("Connection", "close");
        let mut conn = Conn { reader: BufReader::new(stream.try_clone()?), stream };
        conn.send(request.bytes())?;
        let mut writer = conn.stream.try_clone()?;
        let body = request.body;
        let sent = std::thread::spawn(move || writer.write_all(&body));
        let head = read_head(&mut conn.reader);
        let answer = head.map(|head| conn.incoming(head).finish(false));
        let _ = sent.join();
        answer
    }

    /// Sends the request on a new connection and reads the status line and header fields only.
    #[track_caller]
    pub fn open(self) -> Incoming {
        let conn = Conn::open(self.port);
        conn.start(self)
    }
}

/// A connection.
pub struct Conn {
    /// For sending raw bytes.
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// A response whose body was not read yet.
pub struct Incoming {
    conn: Conn,
    /// The status line and header fields.
    pub head: Response,
    left: Left,
}

#[derive(Clone, Copy, PartialEq)]
enum Left {
    Length(u64),
    Chunks,
    UntilClose,
    Ended,
}

impl Conn {
    /// Connects to 127.0.0.1.
    #[track_caller]
    pub fn open(port: u16) -> Conn {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Conn { reader: BufReader::new(stream.try_clone().expect("dup")), stream }
    }

    /// Sends bytes as they are; the test handles errors.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a request and reads the status line and header fields. A thread sends the body, so
    /// that an early response is seen.
    #[track_caller]
    pub fn start(mut self, request: Request) -> Incoming {
        self.send(request.bytes()).expect("send head");
        if request.body.len() < 32_768 {
            let _ = self.send(&request.body);
        } else {
            let mut writer = self.stream.try_clone().expect("dup");
            std::thread::spawn(move || writer.write_all(&request.body));
        }
        self.answer()
    }

    /// Reads the status line and header fields of a response.
    #[track_caller]
    pub fn answer(mut self) -> Incoming {
        let head = read_head(&mut self.reader).expect("no response");
        self.incoming(head)
    }

    fn incoming(self, head: Response) -> Incoming {
        let left = match (head.header("transfer-encoding"), head.header("content-length")) {
            _ if matches!(head.status, 204 | 304) => Left::Ended,
            (Some(_), _) => Left::Chunks,
            (None, Some(n)) => Left::Length(n.parse().expect("Content-Length")),
            (None, None) => Left::UntilClose,
        };
        Incoming { conn: self, head, left }
    }

    /// Sends and reads one request of several on this connection.
    #[track_caller]
    pub fn exchange(self, request: Request) -> (Response, Conn) {
        let head_only = request.head.starts_with("HEAD ");
        let mut incoming = self.start(request);
        incoming.read_all(head_only);
        (incoming.head, incoming.conn)
    }

    /// Waits for more bytes; true at the end of the stream.
    pub fn has_ended(&mut self) -> bool {
        self.reader.fill_buf().map_or(true, <[u8]>::is_empty)
    }

    /// Reads everything until the peer closes.
    pub fn drain(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let _ = self.reader.read_to_end(&mut out);
        out
    }

    /// Shuts down the sending direction.
    pub fn shutdown(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset, as a client that disconnects.
    pub fn reset(self) {
        let linger = rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO));
        linger.expect("SO_LINGER");
    }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Response> {
    let mut interim = Vec::new();
    loop {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut bytes)? == 0 {
                return Err(io::Error::other(format!("connection closed after {:?}", String::from_utf8_lossy(&bytes))));
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut parsed = httparse::Response::new(&mut fields);
        parsed.parse(&bytes).map_err(io::Error::other)?;
        let status = parsed.code.unwrap_or(0);
        if (100..200).contains(&status) && status != 101 {
            interim.push(status);
            continue;
        }
        let latin1 = |b: &[u8]| b.iter().map(|c| char::from(*c)).collect::<String>();
        let headers = parsed.headers.iter().map(|h| (h.name.to_string(), latin1(h.value))).collect();
        return Ok(Response { status, reason: parsed.reason.unwrap_or("").into(), headers, interim, ..Response::default() });
    }
}

impl Incoming {
    /// The next piece of the body: a chunk as it was sent, or the available bytes of a plain body.
    /// `Ok(None)`: complete.
    pub fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let reader = &mut self.conn.reader;
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the body was cut off");
        match self.left {
            Left::Ended => Ok(None),
            Left::Chunks => {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Err(cut());
                }
                let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or(""), 16).map_err(io::Error::other)?;
                let mut data = vec![0; size as usize + 2];
                if size == 0 {
                    reader.read_exact(&mut data)?;
                    self.left = Left::Ended;
                    return Ok(None);
                }
                reader.read_exact(&mut data).map_err(|_| cut())?;
                data.truncate(size as usize);
                Ok(Some(data))
            }
            Left::Length(0) => {
                self.left = Left::Ended;
                Ok(None)
            }
            Left::Length(n) => {
                let available = reader.fill_buf()?;
                if available.is_empty() {
                    return Err(cut());
                }
                let data = available[..available.len().min(n as usize)].to_vec();
                reader.consume(data.len());
                self.left = Left::Length(n - data.len() as u64);
                Ok(Some(data))
            }
            Left::UntilClose => {
                let data = reader.fill_buf()?.to_vec();
                reader.consume(data.len());
                if data.is_empty() {
                    self.left = Left::Ended;
                    return Ok(None);
                }
                Ok(Some(data))
            }
        }
    }

    fn read_all(&mut self, head_only: bool) {
        if head_only {
            self.head.complete = true;
            return;
        }
        self.head.complete = loop {
            match self.piece() {
                Ok(Some(data)) => self.head.body.extend_from_slice(&data),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
    }

    /// Reads the rest.
    pub fn finish(mut self, head_only: bool) -> Response {
        self.read_all(head_only);
        self.head
    }

    /// Reads the rest and returns the connection.
    pub fn whole(mut self) -> (Response, Conn) {
        self.read_all(false);
        (self.head, self.conn)
    }

    /// The connection.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Disconnects before the end of the response.
    pub fn reset(self) {
        self.conn.reset();
    }
}
