//! The control socket to droverd.
//!
//! Responsible for: whole messages. Must never: take the GIL. Called by: `start`, `lifecycle`,
//! `fork_server`, and every file that reports to droverd.
use drover_sys::{Errno, channel};
use drover_wire::WireError;
use drover_wire::control::{FromWorker, MAX_CONTROL, ToWorker, decode, encode};
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The socket.
#[derive(Debug)]
pub struct Control {
    fd: OwnedFd,
}

/// Why a message was not received or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlError {
    /// droverd has exited or closed the socket.
    Closed,
    /// The system's reason.
    System(Errno),
    /// It is not a valid message.
    Wire(WireError),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("droverd has closed the control socket"),
            Self::System(e) => write!(f, "control socket: {e}"),
            Self::Wire(e) => write!(f, "control message: {e}"),
        }
    }
}

impl Control {
    /// On this descriptor.
    pub const fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The descriptor.
    pub const fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Sends a message without waiting for room.
    pub fn send(&self, message: &FromWorker, fds: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        self.transmit(message, fds, false)
    }

    /// Sends a message that droverd must receive; waits for room.
    pub fn insist(&self, message: &FromWorker) -> Result<(), ControlError> {
        self.transmit(message, &[], true)
    }

    fn transmit(&self, message: &FromWorker, fds: &[BorrowedFd<'_>], wait: bool) -> Result<(), ControlError> {
        let bytes = encode(message).map_err(ControlError::Wire)?;
        channel::send(&self.fd, &[&bytes], fds, wait).map(drop).map_err(ControlError::System)
    }

    /// The next message; waits for it.
    pub fn receive(&self) -> Result<ToWorker, ControlError> {
        self.receive_with(&mut Vec::new())
    }

    /// The next message with its descriptors; waits for it.
    pub fn receive_with(&self, fds: &mut Vec<OwnedFd>) -> Result<ToWorker, ControlError> {
        let mut buffer = vec![0; MAX_CONTROL];
        let n = loop {
            match channel::receive(&self.fd, &mut buffer, fds, true) {
                Ok(0) | Err(Errno::CONNRESET) => return Err(ControlError::Closed),
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(ControlError::System(e)),
            }
        };
        decode(buffer.get(..n).unwrap_or_default()).map_err(ControlError::Wire)
    }
}
