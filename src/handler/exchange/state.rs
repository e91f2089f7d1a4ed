//! The states of a running request, one enum for each direction, one for the received frames, one for its location.
//!
//! Responsible for: making invalid states impossible, and all transitions. Must never: do I/O or read a clock. Called by:
//! [`super::relay`], [`super::frames`], [`super::download`].
use super::upload::Upload;
use drover_wire::frame::Kind;

/// The request body, from the client to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// The worker must ask for it: because of `Expect: 100-continue`, or because it paused the upload.
    OnDemand,
    /// More may be available to send.
    Ready,
    /// The client had sent nothing more at the last read.
    Starved,
    /// Nothing is left to send: it is complete, it failed, or the worker stopped reading.
    Done,
}

impl From<Upload> for UploadState {
    fn from(upload: Upload) -> Self {
        match upload {
            Upload::None => Self::Done,
            Upload::OnDemand => Self::OnDemand,
            Upload::Open => Self::Ready,
        }
    }
}

impl UploadState {
    /// The worker paused the upload.
    pub const fn paused(self) -> Self {
        if self.is_open() { Self::OnDemand } else { self }
    }

    /// The worker asked for the body.
    pub const fn wanted(self) -> Self {
        if matches!(self, Self::OnDemand) { Self::Ready } else { self }
    }

    /// The client had sent nothing.
    pub const fn starved(self) -> Self {
        if matches!(self, Self::Ready) { Self::Starved } else { self }
    }

    /// The client may have sent more.
    pub const fn fed(self) -> Self {
        if matches!(self, Self::Starved) { Self::Ready } else { self }
    }

    /// Whether the body is being sent.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Ready | Self::Starved)
    }
}

/// The frames received from the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramesState {
    /// All received frames were handled.
    Handled,
    /// Some received frames were not handled yet.
    Unread,
    /// END was handled: the worker finished the request.
    Ended,
}

impl FramesState {
    /// Frames remain for later.
    pub const fn left(self) -> Self {
        if matches!(self, Self::Handled) { Self::Unread } else { self }
    }

    /// The remaining frames are being handled. Also returns whether there were any.
    pub const fn resume(self) -> (Self, bool) {
        match self {
            Self::Unread => (Self::Handled, true),
            other => (other, false),
        }
    }
}

/// Where the request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// Perhaps still in its queue: no frame has arrived.
    Queue,
    /// At droverd, which will queue it again.
    Supervisor,
    /// At a worker.
    Worker,
}

impl Location {
    /// After a frame of this kind.
    pub const fn after(kind: Kind) -> Self {
        if matches!(kind, Kind::Held) { Self::Supervisor } else { Self::Worker }
    }
}

/// Whether a frame of this kind resets `socket-timeout`. Log lines do not, as with mod_wsgi: an application that only logs is
/// silent.
pub const fn is_progress(kind: Kind) -> bool {
    !matches!(kind, Kind::Log)
}

/// The response, from the worker to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseState {
    /// The response headers have not arrived.
    Awaited,
    /// The headers are set but nothing was sent: the status can still change.
    Begun,
    /// Part of it was sent.
    Sent,
}

impl ResponseState {
    /// The headers were set.
    pub const fn begun(self) -> Self {
        if matches!(self, Self::Awaited) { Self::Begun } else { self }
    }

    /// Part of the response was sent.
    pub const fn sent(self) -> Self {
        if matches!(self, Self::Begun) { Self::Sent } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition_of_the_request_body() {
        use UploadState::{Done, OnDemand, Ready, Starved};
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
        assert_eq!([Upload::None, Upload::OnDemand, Upload::Open].map(UploadState::from), [Done, OnDemand, Ready]);
    }

    #[test]
    fn every_transition_of_the_frames() {
        use FramesState::{Ended, Handled, Unread};
        let table = [(Handled, Unread, (Handled, false)), (Unread, Unread, (Handled, true)), (Ended, Ended, (Ended, false))];
        for (from, left, resumed) in table {
            assert_eq!((from.left(), from.resume()), (left, resumed), "{from:?}");
        }
    }

    #[test]
    fn every_transition_of_the_response() {
        use ResponseState::{Awaited, Begun, Sent};
        for (from, begun, sent) in [(Awaited, Begun, Awaited), (Begun, Begun, Sent), (Sent, Sent, Sent)] {
            assert_eq!((from.begun(), from.sent()), (begun, sent), "{from:?}");
        }
    }

    #[test]
    fn every_kind_of_frame_shows_where_the_request_is() {
        use Kind::{Body, End, Fail, Head, Held, Log, Pause, Session, Taken, Want};
        for kind in [Head, Body, End, Fail, Log, Want, Taken, Session, Held, Pause] {
            let expected = if kind == Held { Location::Supervisor } else { Location::Worker };
            assert_eq!((Location::after(kind), is_progress(kind)), (expected, kind != Log), "{kind:?}");
        }
    }
}
