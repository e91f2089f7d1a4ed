//! The session prefetch: what httpd sends with a request because the application is likely to ask for it.
//!
//! Responsible for: a lease on the session's lock ending with its request at the latest, and earlier if the worker does not take
//! it while others wait. Must never: wait. Called by: `handler` (before it queues the request, and while it relays), [`super`].
use super::{RequestSession, Used, touch};
use crate::session::cookie;
use crate::session::predictor::{Access, Entry};
use crate::session::stores::now_ms;
use drover_session::{Key, Lease};
use drover_sys::clock::monotonic_ns;
use drover_sys::token::{Board, LIVES_S, Token};
use drover_wire::request::{AHEAD_BY_KEY, MAX_AHEAD, Prefix};
use std::sync::Arc;

/// How long a lease that the worker does not take may block other processes, nanoseconds.
const LEASE_NS: u64 = 50_000_000;
/// The longest time between two checks of a lease.
const MAX_CHECK_NS: u64 = 1_000_000_000;

/// What was sent with the request.
pub(super) enum Prefetched {
    /// Nothing, or the worker has already answered for it.
    None,
    /// That there is no session.
    Absent,
    /// This session.
    Sent { name: String, key: Key, used: Used },
}

/// The lease that was sent with the request.
pub(super) struct SentLease {
    lease: Lease<'static>,
    /// When it was sent, CLOCK_MONOTONIC nanoseconds.
    pub(super) sent_at: u64,
    /// When it is checked next.
    check_at: u64,
}

impl RequestSession<'_> {
    /// Appends the answer that the worker would get if it asked for the request's session, when it is likely to ask:
    /// `session::Opened` with its data. The lock is leased by a token on `board`, which the worker takes or leaves. Notes both in
    /// the prefix.
    pub fn prefetch(&mut self, cookies: Option<&[u8]>, board: Option<&Arc<Board>>, prefix: &mut Prefix, out: &mut Vec<u8>) {
        let access = self.entry.map_or(Access::None, Entry::predict);
        if access == Access::None {
            return;
        }
        let from = out.len();
        let Some(flags) = self.look_up(access, cookies, board, out).filter(|_| out.len() - from <= MAX_AHEAD) else {
            out.truncate(from);
            self.prefetched = Prefetched::None;
            self.lease = None;
            return;
        };
        prefix.flags |= flags;
        if let Some(Token { place, number }) = self.lease.as_ref().map(|sent| sent.lease.token()) {
            (prefix.token_place, prefix.token) = (place, number);
        }
    }

    /// Returns the flags of the prefix.
    fn look_up(&mut self, access: Access, cookies: Option<&[u8]>, board: Option<&Arc<Board>>, out: &mut Vec<u8>) -> Option<u16> {
        let sessions = self.store().ok().filter(|sessions| sessions.is_near())?;
        let (name, flags) = match self.cookie_name(cookies) {
            Some(name) => (Some(name), 0),
            None => self.foreign_name(cookies).map_or((None, 0), |name| (Some(name), AHEAD_BY_KEY)),
        };
        let mut found = None;
        if let Some(name) = name {
            let key = self.key(&name).ok()?;
            let lease = if access == Access::Lock { Some(sessions.lease(&key, board?)?) } else { None };
            found = sessions.load(&key, now_ms()).ok()?.map(|record| (name, key, record));
            // A session that does not exist is not locked.
            self.lease = lease.filter(|_| found.is_some()).map(SentLease::new);
        }
        self.encode(found.as_ref().map(|(name, _, record)| (name.as_str(), record)), out).ok()?;
        self.prefetched = found.map_or(Prefetched::Absent, |(name, key, record)| Prefetched::Sent { name, key, used: (&record).into() });
        Some(flags)
    }

    /// The value of a cookie that is not ours, if an application has used such a cookie's value as a key.
    fn foreign_name(&self, cookies: Option<&[u8]>) -> Option<String> {
        let predictor = self.entry?.predictor();
        cookie::value(cookies?, |cookie| predictor.is_key_cookie(cookie.name()))
    }

    /// The application names its sessions itself: remembers the cookie from which it took this name.
    pub(super) fn learn(&self, name: &str, cookies: Option<&[u8]>) {
        if let Some(entry) = self.entry
            && let Some(cookie) = cookies.and_then(|header| cookie::name_of(header, name))
        {
            entry.predictor().learn_key_cookie(&cookie);
        }
    }

    /// When [`RequestSession::withdraw_lease`] must be called next, CLOCK_MONOTONIC nanoseconds.
    #[must_use]
    pub fn lease_check_at(&self) -> Option<u64> {
        self.lease.as_ref().map(|sent| sent.check_at)
    }

    /// Ends a lease that blocks others or was sent long ago, once its check is due, or at once if `now`. If the worker has taken the
    /// token, the lock is the request's until its end.
    pub fn withdraw_lease(&mut self, now: bool) {
        let time = monotonic_ns();
        let Some(sent) = self.lease.as_mut().filter(|sent| now || time >= sent.check_at) else { return };
        let age = time.saturating_sub(sent.sent_at);
        if age >= LIVES_S * 1_000_000_000 || sent.lease.blocks_other_processes() {
            return self.settle();
        }
        // No other process uses the store now, but one may start to: check, less and less often.
        sent.check_at = sent.sent_at.saturating_add(age.saturating_add(age.clamp(LEASE_NS, MAX_CHECK_NS)));
    }

    /// Ends the lease: from now on the lock is the request's, or it is not.
    pub(super) fn settle(&mut self) {
        self.held.extend(self.lease.take().and_then(|sent| sent.lease.settle()));
    }

    /// The application has used the prefetched session.
    pub(super) fn use_prefetched(&mut self, lock: bool) {
        self.settle();
        if let Some(entry) = self.entry {
            entry.hit(lock);
        }
        if let Prefetched::Sent { name, key, used } = std::mem::replace(&mut self.prefetched, Prefetched::None) {
            if let Ok(sessions) = self.store() {
                touch(sessions, &key, used);
            }
            self.renew_cookie(&name, used.accessed_ms);
            self.logged = Some(name);
        }
    }
}

impl SentLease {
    fn new(lease: Lease<'static>) -> Self {
        let now = monotonic_ns();
        Self { lease, sent_at: now, check_at: now.saturating_add(LEASE_NS) }
    }
}
