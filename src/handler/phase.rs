//! The states of a running request, one enum for each direction and one for the worker.
//!
//! Responsible for: states that cannot be combined wrongly, and every transition between them. Must never: do I/O or read a
//! clock. Called by: [`super::relay`], [`super::frames`].
use super::upload::Upload;
use drover_wire::frame::Kind;

/// The request body on its way to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// The worker must ask for it first: with `Expect: 100-continue`, or because it told httpd to pause.
    OnDemand,
    /// There may be more to send now.
    Ready,
    /// The client had nothing more when it was last asked.
    Starved,
    /// Nothing is left to send: it is complete, it broke off, or the worker does not read it.
    Done,
}

impl From<Upload> for Sending {
    fn from(upload: Upload) -> Self {
        match upload {
            Upload::None => Self::Done,
            Upload::OnDemand => Self::OnDemand,
            Upload::Open => Self::Ready,
        }
    }
}

impl Sending {
    /// The worker has enough of it for now.
    pub const fn paused(self) -> Self {
        if self.is_open() { Self::OnDemand } else { self }
    }

    /// The application asked for the body.
    pub const fn wanted(self) -> Self {
        if matches!(self, Self::OnDemand) { Self::Ready } else { self }
    }

    /// The client had nothing.
    pub const fn starved(self) -> Self {
        if matches!(self, Self::Ready) { Self::Starved } else { self }
    }

    /// The client may have more.
    pub const fn fed(self) -> Self {
        if matches!(self, Self::Starved) { Self::Ready } else { self }
    }

    /// Whether the body is being sent, whoever is waited for.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Ready | Self::Starved)
    }
}

/// What the worker's socket holds for httpd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiving {
    /// Everything received was handled.
    Awaited,
    /// Frames were received and not handled yet.
    Unread,
    /// END was handled: the worker is done with the request.
    Ended,
}

impl Receiving {
    /// Some frames were left for later.
    pub const fn left(self) -> Self {
        if matches!(self, Self::Awaited) { Self::Unread } else { self }
    }

    /// The frames left for later are being handled; whether there were any.
    pub const fn resume(self) -> (Self, bool) {
        match self {
            Self::Unread => (Self::Awaited, true),
            other => (other, false),
        }
    }
}

/// Who runs the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// No worker has said anything: it may still be queued.
    Queue,
    /// droverd has it and will queue it again.
    Supervisor,
    /// A worker.
    Worker,
}

impl Holder {
    /// After a frame of this kind.
    pub const fn after(kind: Kind) -> Self {
        if matches!(kind, Kind::Held) { Self::Supervisor } else { Self::Worker }
    }
}

/// Whether a frame of this kind restarts the clock of `socket-timeout`. As with mod_wsgi, where the log does not pass through
/// httpd, log lines do not: an application that only logs is silent.
pub const fn is_progress(kind: Kind) -> bool {
    !matches!(kind, Kind::Log)
}

/// The response on its way to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is no head yet.
    Awaited,
    /// The head is set, but nothing was passed on: the status can still change.
    Begun,
    /// Something was passed on.
    Sent,
}

impl Progress {
    /// A head was set. Not a second time: `frames` refuses that.
    pub const fn begun(self) -> Self {
        if matches!(self, Self::Awaited) { Self::Begun } else { self }
    }

    /// Something was passed to the client. Without a head nothing is.
    pub const fn sent(self) -> Self {
        if matches!(self, Self::Begun) { Self::Sent } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition_of_the_request_body() {
        use Sending::{Done, OnDemand, Ready, Starved};
        let table = [
            // from, wanted, paused, starved, fed, open
            (OnDemand, Ready, OnDemand, OnDemand, OnDemand, false),
            (Ready, Ready, OnDemand, Starved, Ready, true),
            (Starved, Starved, OnDemand, Starved, Ready, true),
            (Done, Done, Done, Done, Done, false),
        ];
        for (from, wanted, paused, starved, fed, open) in table {
            let to = (from.wanted(), from.paused(), from.starved(), from.fed(), from.is_open());
            assert_eq!(to, (wanted, paused, starved, fed, open), "{from:?}");
        }
        assert_eq!([Upload::None, Upload::OnDemand, Upload::Open].map(Sending::from), [Done, OnDemand, Ready]);
    }

    #[test]
    fn every_transition_of_the_frames() {
        use Receiving::{Awaited, Ended, Unread};
        let table = [(Awaited, Unread, (Awaited, false)), (Unread, Unread, (Awaited, true)), (Ended, Ended, (Ended, false))];
        for (from, left, resumed) in table {
            assert_eq!((from.left(), from.resume()), (left, resumed), "{from:?}");
        }
    }

    #[test]
    fn every_transition_of_the_response() {
        use Progress::{Awaited, Begun, Sent};
        for (from, begun, sent) in [(Awaited, Begun, Awaited), (Begun, Begun, Sent), (Sent, Sent, Sent)] {
            assert_eq!((from.begun(), from.sent()), (begun, sent), "{from:?}");
        }
    }

    #[test]
    fn every_kind_of_frame_names_its_sender() {
        use Kind::{Body, End, Fail, Head, Held, Log, Pause, Session, Taken, Want};
        for kind in [Head, Body, End, Fail, Log, Want, Taken, Session, Held, Pause] {
            let expected = if kind == Held { Holder::Supervisor } else { Holder::Worker };
            assert_eq!((Holder::after(kind), is_progress(kind)), (expected, kind != Log), "{kind:?}");
        }
    }
}
