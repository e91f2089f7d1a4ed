//! Provenance check: whether a request that a worker returned was made by httpd.
//!
//! droverd answers returned requests and requeues them with its own rights, mostly root's. It must
//! not write to a socket that the worker chose.
//!
//! Responsible for: that check. Must never: trust the contents of the message. Called by:
//! `workers/messages.rs`.
use drover_sys::{credentials, memfile};
use drover_wire::request::{EXTERNAL, MAX_INLINE, PREFIX, Prefix};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, getppid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Whether it is a well-formed request with the right descriptors: a reply socket whose creator
/// `is_httpds` accepts, and a sealed memory file if the message refers to one.
pub fn is_request(message: &[u8], fds: &[OwnedFd], is_httpds: impl Fn(Pid) -> bool) -> bool {
    let Ok(prefix) = Prefix::decode(message) else { return false };
    let complete = match fds {
        [_] => prefix.flags & EXTERNAL == 0,
        [_, file] => prefix.flags & EXTERNAL != 0 && memfile::is_sealed(file),
        _ => false,
    };
    complete && message.len() <= MAX_INLINE + PREFIX && fds.first().and_then(|way| maker(way.as_fd())).is_some_and(is_httpds)
}

/// The process that created this pair of stream sockets. socketpair(2) records it in both, and
/// nobody can change it. For other sockets it is the peer process.
fn maker(socket: BorrowedFd<'_>) -> Option<Pid> {
    let stream = sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX) && sockopt::socket_type(socket) == Ok(SocketType::STREAM);
    stream.then(|| credentials::of_peer(socket).ok()).flatten()?.0
}

/// Whether a process is httpd's parent (`httpd -X`) or its child. No worker is one: orphans below
/// droverd become droverd's children.
pub fn made_by_httpd(pid: Pid) -> bool {
    let Some(httpd) = getppid() else { return false };
    // The file of one thread: that of the process adds up all threads, at the worker's choice.
    let stat = || std::fs::read_to_string(format!("/proc/{0}/task/{0}/stat", pid.as_raw_nonzero())).ok();
    pid == httpd || stat().and_then(|text| parent(&text)) == Some(httpd)
}

/// The parent process id in proc(5)'s stat. The command name in it may contain any character.
fn parent(stat: &str) -> Option<Pid> {
    let (_, behind) = stat.rsplit_once(')')?;
    Pid::from_raw(behind.split_ascii_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_sys::channel::{packet_pair, stream_pair};
    use drover_wire::request::Builder;
    use rustix::net::{SocketFlags, socket_with};
    use rustix::process::getpid;

    fn message(flags: u16) -> Vec<u8> {
        let mut b = Builder::default();
        b.begin(b"/a.wsgi", b"application").unwrap();
        b.finish(Prefix { flags, ..Prefix::default() }, b"", b"").unwrap().to_vec()
    }

    fn connected_to_a_service() -> OwnedFd {
        let (listener, path) = (0..)
            .find_map(|n| {
                let path = std::env::temp_dir().join(format!("drover-genuine-{}-{n}", std::process::id()));
                std::os::unix::net::UnixListener::bind(&path).ok().map(|listener| (listener, path))
            })
            .unwrap();
        let socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(listener);
        std::fs::remove_file(path).unwrap();
        socket.into()
    }

    #[test]
    fn a_request_is_told_from_what_a_worker_makes_up() {
        let way = || stream_pair().unwrap().0;
        let sealed = || memfile::create(b"x").unwrap();
        let unsealed = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let datagrams = || OwnedFd::from(std::os::unix::net::UnixDatagram::pair().unwrap().0);
        let alone = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let tcp = || OwnedFd::from(std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let cases: [(&str, u16, Vec<OwnedFd>, bool); 13] = [
            ("a request", 0, vec![way()], true),
            ("with a memory file", EXTERNAL, vec![way(), sealed()], true),
            ("without its memory file", EXTERNAL, vec![way()], false),
            ("with one that is not sealed", EXTERNAL, vec![way(), unsealed()], false),
            ("with a file that it does not refer to", 0, vec![way(), sealed()], false),
            ("with too many", EXTERNAL, vec![way(), sealed(), sealed()], false),
            ("with none", 0, vec![], false),
            ("a datagram socket", 0, vec![datagrams()], false),
            ("packets", 0, vec![packet_pair().unwrap().0], false),
            ("a network socket", 0, vec![tcp()], false),
            ("one that is not connected", 0, vec![alone()], false),
            ("no socket", 0, vec![unsealed()], false),
            ("the wrong way round", EXTERNAL, vec![sealed(), way()], false),
        ];
        for (what, flags, fds, right) in cases {
            assert_eq!(is_request(&message(flags), &fds, |pid| pid == getpid()), right, "{what}");
            assert!(!is_request(&message(flags), &fds, |_| false), "{what}, made by somebody else");
        }
        assert!(!is_request(b"nonsense", &[way()], |_| true));
        assert!(!is_request(&[message(0), vec![0; MAX_INLINE]].concat(), &[way()], |_| true), "too long");
        assert_eq!(maker(connected_to_a_service().as_fd()), Some(getpid()), "for a service: the service");
    }

    #[test]
    fn who_is_httpds() {
        assert_eq!(parent("12 (a) b) S 77 12 12 0"), Pid::from_raw(77));
        assert_eq!([parent(""), parent("12 (a"), parent("12 (a) S x"), parent("12 (a) S 0 1")], [None; 4]);
        assert!(made_by_httpd(getpid()), "a child of the parent process, like droverd");
        assert!(made_by_httpd(getppid().unwrap()));
        let mut below =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        assert!(!made_by_httpd(Pid::from_child(&below)), "a child of this process, like a worker");
        drop(below.stdin.take());
        below.wait().unwrap();
    }
}
