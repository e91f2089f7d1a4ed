//! Bodies of many gigabytes, both ways: byte for byte, and no process grows with them.
//!
//! Responsible for: 5 GiB under event (beyond every 32-bit count), 600 MiB under the other MPMs. Called by: `main.rs`.
use crate::harness::{Httpd, Mpm, Site, processes};

/// The stream, one MiB each: the block's number, then a pattern that no power of two divides.
struct Blocks(Vec<u8>);

impl Blocks {
    fn new() -> Blocks {
        Blocks((0..1 << 20).map(|i| ((i * 7 + i / 251) % 256) as u8).collect())
    }

    fn number(&mut self, n: u64) -> &[u8] {
        self.0[..8].copy_from_slice(&n.to_le_bytes());
        &self.0
    }
}

/// How many blocks, and the SHA-256 of them all, as Python's hashlib gives it.
fn amount(site: &Site) -> (u64, &'static str) {
    match site.mpm {
        Mpm::Event => (5 << 10, "a3e2bf9d354fce0679f9a58f0ef11dd1b0883586e3c5af1db85e1fa24c2aab71"),
        _ => (600, "273f51d7ceb9c359582c9e75c81332c38980cac46d1d603338856dfb90c0adea"),
    }
}

/// The highest that each process of httpd, droverd and the workers ever was, in kB.
fn peaks(httpd: &Httpd) -> Vec<(processes::Process, u64)> {
    let peak = |pid| processes::status(pid, "VmHWM").split_whitespace().next().and_then(|n| n.parse().ok()).expect("VmHWM");
    httpd.family().into_iter().map(|p| (p.clone(), peak(p.pid))).collect()
}

/// Fails if one of the processes grew by more than a few buffers since `before`.
#[track_caller]
fn nobody_grew(httpd: &Httpd, before: &[(processes::Process, u64)]) {
    for (process, now) in peaks(httpd) {
        let then = before.iter().find(|(p, _)| *p == process).map(|(_, peak)| *peak);
        let Some(then) = then else { continue };
        // On a busy machine the client is slow: what is kept for it grows to response-buffer-size, and is there twice while it grows.
        assert!(now < then + 64_000, "grew from {then} to {now} kB: {process:?}");
    }
}

mpm_test!(a_huge_upload_in_constant_memory, |site| {
    let (count, sha256) = amount(&site);
    let httpd = site.head("LimitRequestBody 0").app("/", "body.wsgi").start();
    for chunked in [false, true] {
        httpd.request("POST", "/count").body(vec![0; 3 << 20]).send();
        let before = peaks(&httpd);
        let mut conn = httpd.connect();
        let length = if chunked { "Transfer-Encoding: chunked".to_string() } else { format!("Content-Length: {}", count << 20) };
        conn.send(format!("POST /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n\r\n")).expect("send");
        let mut blocks = Blocks::new();
        for n in 0..count {
            if chunked {
                conn.send("100000\r\n").expect("chunk");
            }
            conn.send(blocks.number(n)).expect("the whole body must be taken");
            if chunked {
                conn.send(if n + 1 == count { "\r\n0\r\n\r\n" } else { "\r\n" }).expect("chunk's end");
            }
        }
        let told = conn.answer().finish(false).json();
        assert_eq!((told["size"].as_u64(), told["sha256"].as_str()), (Some(count << 20), Some(sha256)), "chunked: {chunked}");
        nobody_grew(&httpd, &before);
    }
});

const DOWNLOAD: &str = "BASE = bytes((i * 7 + i // 251) % 256 for i in range(1 << 20))[8:]\n\
def application(environ, start_response):\n    kind, count = environ['PATH_INFO'].strip('/').split('/')\n\
    \x20   start_response('200 OK', [('Content-Length', str(int(count) << 20))] if kind == 'length' else [])\n\
    \x20   return (n.to_bytes(8, 'little') + BASE for n in range(int(count)))\n";

mpm_test!(a_huge_download_in_constant_memory, |site| {
    let (count, _) = amount(&site);
    let httpd = site.script("download.wsgi", DOWNLOAD).app("/", "download.wsgi").start();
    for kind in ["length", "chunked"] {
        assert_eq!(httpd.get(&format!("/{kind}/3")).body.len(), 3 << 20);
        let before = peaks(&httpd);
        let mut answer = httpd.request("GET", &format!("/{kind}/{count}")).open();
        assert_eq!(answer.head.header("Content-Length").is_some(), kind == "length");
        let (mut blocks, mut have) = (Blocks::new(), 0usize);
        while let Some(piece) = answer.piece().expect("the whole answer") {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let at = have % (1 << 20);
                let part = rest.len().min((1 << 20) - at);
                assert!(
                    blocks.number((have >> 20) as u64)[at..at + part] == rest[..part],
                    "differs between byte {have} and {}",
                    have + part
                );
                have += part;
                rest = &rest[part..];
            }
        }
        assert_eq!(have as u64, count << 20, "{kind}");
        nobody_grew(&httpd, &before);
    }
});
