//! One command to droverd, and its reply.
//!
//! Responsible for: the exchange on the control socket, its deadlines, and the meaning of an error.
//! Must never: wait without a limit. Called by: `remote.rs`, `servers.rs`, `serve.rs`.
use crate::error::Error;
use drover_sys::channel::{receive, send};
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_sys::{Errno, clock, memfile, outgoing};
use drover_wire::admin::{Command, MAX_REPLY, Reply, Request};
use drover_wire::control::{decode, encode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time for droverd to reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for new workers to start.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// Time for droverd to open its socket after httpd accepts connections.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two attempts to connect: nothing announces that a socket was opened.
const PAUSE: Duration = Duration::from_millis(20);

/// Connects; succeeds only if a process listens.
pub fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Sends a command and waits for the reply.
pub fn request(path: &Path, command: Command) -> Result<Reply, Errno> {
    let socket = open(path)?;
    let starts = matches!(command, Command::Reload(_) | Command::Await(_));
    let message = Request { version: drover_wire::VERSION.to_owned(), command };
    send(&socket, &[&encode(&message).map_err(|_| Errno::INVAL)?], &[], false)?;
    let replied = |time: Duration| {
        let until = clock::monotonic_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        poll_until(&mut [PollFd::new(&socket, PollFlags::IN)], Some(until)).map(|ready| ready > 0)
    };
    // A reload takes as long as new workers need, but droverd must have read the command.
    let in_time = replied(REPLY_TIMEOUT)? || (starts && outgoing::is_read(&socket) && replied(START_TIMEOUT)?);
    if !in_time {
        return Err(Errno::TIMEDOUT);
    }
    let (mut buffer, mut fds) = ([0; 64], Vec::new());
    let n = receive(&socket, &mut buffer, &mut fds, false)?;
    if n == 0 {
        return Err(Errno::CONNRESET);
    }
    let len: u32 = decode(buffer.get(..n).unwrap_or_default()).map_err(|_| Errno::PROTO)?;
    let file = fds.first().ok_or(Errno::PROTO)?;
    let bytes = memfile::read(file, usize::try_from(len).unwrap_or(usize::MAX), MAX_REPLY)?;
    decode(&bytes).map_err(|_| Errno::PROTO)
}

/// What an error means, and what to do.
pub fn explain(path: &Path, command: &Command, error: Errno) -> Error {
    let reload = matches!(command, Command::Reload(_));
    let why = match error {
        Errno::TIMEDOUT if reload => "the new workers are still starting; drover status shows their state".to_owned(),
        Errno::CONNRESET if reload => {
            "droverd exited, or received too many reloads, before the new workers served; see drover status and httpd's error log".to_owned()
        }
        Errno::CONNREFUSED | Errno::NOENT => {
            "no server listens on this socket: check that httpd runs with mod_drover; DROVER0251 in its error log means that the socket could not be created"
                .to_owned()
        }
        Errno::ACCESS | Errno::PERM => format!("{error}: run drover as root, or as the user of a group (user=)"),
        Errno::TIMEDOUT => format!("droverd does not reply within {} s: see httpd's error log", REPLY_TIMEOUT.as_secs()),
        Errno::PROTO => {
            "invalid reply: drover and droverd differ in version; stop and start httpd after an upgrade".to_owned()
        }
        Errno::NAMETOOLONG => "the path is too long for a socket (at most 107 bytes): set a shorter one with DroverControlSocket".to_owned(),
        other => format!("{other}: see httpd's error log"),
    };
    let text = format!("{}: {why}", path.display());
    // The server was reached and accepted the reload.
    if reload && matches!(error, Errno::TIMEDOUT | Errno::CONNRESET) { Error::Remote(text) } else { Error::Unreachable(text) }
}

/// Waits until the group's application %{GLOBAL} serves; else returns why it cannot be loaded. A
/// server that cannot be reached counts as serving: the configuration may have moved its socket.
pub fn await_group(path: &Path, group: &str) -> Result<(), String> {
    let until = Instant::now() + OPEN_TIMEOUT;
    let reply = loop {
        match request(path, Command::Await(group.to_owned())) {
            Err(Errno::NOENT | Errno::CONNREFUSED) if Instant::now() < until => std::thread::sleep(PAUSE),
            other => break other,
        }
    };
    let Ok(Reply::Reloaded(all)) = reply else { return Ok(()) };
    match all.into_iter().find(|of| of.name.is_empty()).and_then(|of| of.failure) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}
