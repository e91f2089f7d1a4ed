//! What goes to the worker before it asks: the session that it is likely to want, and the lock of it, as a token.
//!
//! Responsible for: an offer ending with its request at the latest, and being taken back from who does not want it while others wait. Must never:
//! wait. Called by: `handler` (before the request is put on its queue, and while it waits), [`super`].
use super::{RequestSession, Used, touch};
use crate::session::cookie;
use crate::session::guess::{Guess, Place};
use crate::session::stores::now_ms;
use drover_session::{Key, Offer};
use drover_sys::clock::monotonic_ns;
use drover_sys::token::{Board, LIVES_S, Token};
use drover_wire::request::{AHEAD_BY_KEY, MAX_AHEAD, Prefix};
use std::sync::Arc;

/// A lock that was sent ahead keeps other processes waiting for so long, nanoseconds, if the application does not want it.
const OFFERED_NS: u64 = 50_000_000;
/// Between two looks whether it does, at most.
const LONGEST_LOOK_NS: u64 = 1_000_000_000;

/// What went to the worker with the request.
pub(super) enum Ahead {
    /// Nothing, or what was sent has been used.
    None,
    /// That there is no session.
    Absent,
    /// This one.
    Sent { name: String, key: Key, used: Used },
}

impl RequestSession<'_> {
    /// Appends what the worker would be answered if it asked for the request's session, when it is likely to: `session::Opened` with its data. The
    /// lock goes with it as a token on that board, which the worker takes or leaves. Notes both in the prefix.
    pub fn send_ahead(&mut self, cookies: Option<&[u8]>, board: Option<&Arc<Board>>, prefix: &mut Prefix, out: &mut Vec<u8>) {
        let guess = self.place.map_or(Guess::Nothing, Place::guess);
        if guess == Guess::Nothing {
            return;
        }
        let from = out.len();
        let Some(flags) = self.look_ahead(guess, cookies, board, out).filter(|_| out.len() - from <= MAX_AHEAD) else {
            out.truncate(from);
            self.ahead = Ahead::None;
            self.offer = None;
            return;
        };
        self.offered_at = monotonic_ns();
        self.offered_until = self.offered_at.saturating_add(OFFERED_NS);
        prefix.flags |= flags;
        if let Some(Token { place, number }) = self.offer.as_ref().map(Offer::token) {
            (prefix.token_place, prefix.token) = (place, number);
        }
    }

    /// Gives the flags that belong to it.
    fn look_ahead(&mut self, guess: Guess, cookies: Option<&[u8]>, board: Option<&Arc<Board>>, out: &mut Vec<u8>) -> Option<u16> {
        let sessions = self.store().ok().filter(|sessions| sessions.is_near())?;
        let (name, flags) = match self.cookie_name(cookies) {
            Some(name) => (Some(name), 0),
            None => self.foreign_name(cookies).map_or((None, 0), |name| (Some(name), AHEAD_BY_KEY)),
        };
        let mut found = None;
        if let Some(name) = name {
            let key = self.key(&name).ok()?;
            let offer = if guess == Guess::Lock { Some(sessions.offer(&key, board?)?) } else { None };
            found = sessions.load(&key, now_ms()).ok()?.map(|record| (name, key, record));
            // What is not there is not locked either.
            self.offer = offer.filter(|_| found.is_some());
        }
        self.encode(found.as_ref().map(|(name, _, record)| (name.as_str(), record)), out).ok()?;
        self.ahead = found.map_or(Ahead::Absent, |(name, key, record)| Ahead::Sent { name, key, used: (&record).into() });
        Some(flags)
    }

    /// What a cookie says that is not ours, but whose like an application has asked for.
    fn foreign_name(&self, cookies: Option<&[u8]>) -> Option<String> {
        let seen = self.place?.seen();
        cookie::value(cookies?, |cookie| seen.is_name(cookie.name()))
    }

    /// An application names its sessions itself: the cookie that told it is remembered.
    pub(super) fn learn(&self, name: &str, cookies: Option<&[u8]>) {
        if let Some(place) = self.place
            && let Some(cookie) = cookies.and_then(|header| cookie::name_of(header, name))
        {
            place.seen().learn(&cookie);
        }
    }

    /// Until when (CLOCK_MONOTONIC nanoseconds) a lock that was sent ahead may wait to be wanted.
    #[must_use]
    pub const fn offered_until(&self) -> Option<u64> {
        if self.offer.is_some() { Some(self.offered_until) } else { None }
    }

    /// Takes back a lock that nobody has wanted, if it keeps others waiting or was offered long ago; at its time, or at once if `now`. Has the worker
    /// taken it, it is the request's from now on.
    pub fn withdraw(&mut self, now: bool) {
        if self.offer.is_none() || (!now && monotonic_ns() < self.offered_until) {
            return;
        }
        let waited = monotonic_ns().saturating_sub(self.offered_at);
        if waited >= LIVES_S * 1_000_000_000 || self.offer.as_ref().is_some_and(Offer::keeps_others_waiting) {
            return self.settle();
        }
        // Those who may come to wait are not there yet: it is looked less and less often.
        self.offered_until = self.offered_at.saturating_add(waited.saturating_add(waited.clamp(OFFERED_NS, LONGEST_LOOK_NS)));
    }

    /// From now on the lock that was sent ahead is the request's, or it is not.
    pub(super) fn settle(&mut self) {
        self.held.extend(self.offer.take().and_then(Offer::settle));
    }

    /// The application has read what was sent ahead.
    pub(super) fn use_ahead(&mut self, lock: bool) {
        self.settle();
        if let Some(place) = self.place {
            place.wanted(lock);
        }
        if let Ahead::Sent { name, key, used } = std::mem::replace(&mut self.ahead, Ahead::None) {
            if let Ok(sessions) = self.store() {
                touch(sessions, &key, used);
            }
            self.renew_cookie(&name, used.accessed_ms);
            self.logged = Some(name);
        }
    }
}
