//! HTTP/2 clients that are slow.
//!
//! Responsible for: a process being held only while the application runs, although httpd cannot wait for an HTTP/2 stream. The client
//! here speaks just enough HTTP/2 to open and close its windows. Called by: `main.rs`.
use crate::harness::{Httpd, Site};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const APP: &str = r#"
import gate

def application(environ, start_response):
    size = int(environ["QUERY_STRING"] or 0)
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    if environ["PATH_INFO"] == "/steps":
        return steps(size)
    return (b"x" * min(5000, size - at) for at in range(0, size, 5000))

def steps(n):
    for _ in range(n):
        yield b"x" * 20000
        gate.wait("step")
"#;

fn site(site: Site, options: &str) -> Site {
    let site = site.daemon(options).script("a.wsgi", APP).app("/", "a.wsgi");
    site.modules("http2").config("Protocols h2c http/1.1").allow_log("AH10034|AH03085")
}

/// One connection with prior knowledge of HTTP/2 and one request on it.
struct Client {
    socket: TcpStream,
}

const DATA: u8 = 0;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

impl Client {
    /// A request whose response may have `window` bytes of body until [`Client::take`].
    fn get(httpd: &Httpd, target: &str, window: u32) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", httpd.site.port)).expect("connect");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        let mut client = Self { socket };
        client.socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("preface");
        client.frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        // RFC 7541: GET, http, and two literals: the path and the authority.
        let literal = |index: u8, text: &str| [&[index, text.len() as u8], text.as_bytes()].concat();
        let head = [vec![0x82, 0x86], literal(0x04, target), literal(0x01, "localhost")].concat();
        client.frame(1, 0b101, 1, &head);
        client
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = (payload.len() as u32).to_be_bytes();
        let bytes = [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.socket.write_all(&bytes).expect("frame");
    }

    /// Lets so many more bytes come.
    fn open(&mut self, bytes: u32) {
        for stream in [0, 1] {
            self.frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
        }
    }

    /// Reads frames until `until` bytes of body have come, or all of it: how many there were, and whether it has ended.
    fn read(&mut self, until: usize) -> (usize, bool) {
        let mut body = 0;
        while body < until {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head).expect("head of a frame");
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; len];
            self.socket.read_exact(&mut payload).expect("payload");
            match (head[3], head[4]) {
                (SETTINGS, 0) => self.frame(SETTINGS, 1, 0, &[]),
                (DATA, flags) => {
                    body += len;
                    if flags & 1 != 0 {
                        return (body, true);
                    }
                }
                (3 | 7, _) => panic!("the stream was reset after {body} bytes: {payload:?}"),
                _ => {}
            }
        }
        (body, false)
    }
}

event_test!(a_client_that_takes_nothing_holds_no_process, |site| {
    let httpd = self::site(site, "processes=1 threads=1").start();
    let mut slow: Vec<Client> = (0..4).map(|_| Client::get(&httpd, "/?300000", 0)).collect();
    for _ in 0..3 {
        assert_eq!(httpd.get("/?5").text(), "xxxxx");
    }
    for client in &mut slow {
        client.open(1 << 20);
        assert_eq!(client.read(usize::MAX), (300_000, true));
    }
});

event_test!(more_than_the_buffer_waits_for_the_http2_client, |site| {
    let httpd = self::site(site, "processes=1 threads=1 response-buffer-size=65536").start();
    let mut slow = Client::get(&httpd, "/?9000000", 0);
    slow.open(1 << 30);
    assert_eq!(slow.read(usize::MAX), (9_000_000, true));
});

event_test!(a_response_in_steps_comes_step_by_step, |site| {
    let site = self::site(site, "processes=1 threads=1");
    let step = site.gate("step");
    let httpd = site.start();
    let mut client = Client::get(&httpd, "/steps?10", 1 << 20);
    client.open(1 << 20);
    let mut behind = 0;
    for _ in 0..10 {
        // The next step is made only when this one is here.
        let (got, _) = client.read(20_000 - behind);
        behind = got + behind - 20_000;
        step.open(1);
    }
    assert_eq!((client.read(1), behind), ((0, true), 0));
});
