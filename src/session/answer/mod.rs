//! Answers the questions of one request about sessions, the first of them perhaps before it is
//! asked (`prefetch`).
//!
//! Responsible for: a worker reaching only the sessions of its scope; locks that end with the
//! request; new identifiers being generated here. Must never: trust a key, or wait without checking
//! for cancellation. Called by: `handler`.
mod prefetch;

use super::cookie;
use super::plan::Settings;
use super::predictor::Entry;
use super::stores::now_ms;
use drover_session::{Error, Guard, Id, Key, Record, Sessions, id};
use drover_sys::clock::monotonic_ns;
use drover_wire::WireError;
use drover_wire::session::{Op, Opened, Put, Request, Save, Status, Stored, encode_bool, encode_key, error_text};
use prefetch::{Prefetched, SentLease};

/// The time of the last use is written when it has moved by this fraction of the timeout, and by
/// this many milliseconds at least.
const TOUCH: (u64, u64) = (20, 1000);
/// The largest number of locks that one request may hold.
const MAX_HELD: usize = 64;
/// The largest size of a question besides its session's data, bytes.
const QUESTION: usize = 1024;
/// Questions up to this size are accepted even without memory to reserve, bytes.
const SMALL_QUESTION: usize = 60 * 1024;
/// Attempts to find an unused identifier.
const TRIES: usize = 3;

/// Returns the store of a request; called only when a session is used.
pub type Find<'c> = &'c dyn Fn() -> Result<&'static Sessions, Error>;

/// The sessions of one request.
pub struct RequestSession<'c> {
    settings: &'c Settings,
    find: Find<'c>,
    /// The store, once found.
    store: Option<&'static Sessions>,
    scope: Vec<u8>,
    cookie: String,
    https: bool,
    /// The deadline of the request, CLOCK_MONOTONIC nanoseconds.
    answer_by: Option<u64>,
    held: Vec<Guard<'static>>,
    /// The predictor's entry for requests like this one.
    entry: Option<Entry<'c>>,
    /// What was prefetched and not used yet, and the lease on its lock. The lock table in
    /// `drover_session::lock` owns the truth.
    prefetched: Prefetched,
    lease: Option<SentLease>,
    /// The session of the cookie: as the client sent it, or as this request created it.
    current: Current,
    /// The last name and its key: deriving a key costs as much as a load.
    named: Option<(String, Key)>,
    set_cookie: Option<String>,
    /// The session to log, until it is logged.
    logged: Option<String>,
    /// Whether something was stored or removed.
    changed: bool,
}

enum Current {
    /// The cookie was not parsed yet.
    Unknown,
    None,
    Name(String),
}

/// The outcome of a question.
#[derive(Debug)]
pub enum Answered {
    /// A frame to send: its code and its payload.
    Reply(Status, Vec<u8>),
    /// No answer.
    Nothing,
    /// A save without an answer has failed, and so must the request.
    Failed(Error),
}

/// The state of the relay when the question came.
pub struct Now<'n> {
    /// The client's Cookie header.
    pub cookies: Option<&'n [u8]>,
    /// The response headers were sent or set.
    pub head_sent: bool,
    /// Returns whether the wait must be cancelled.
    pub cancelled: &'n mut dyn FnMut() -> bool,
}

/// The answer to a failed question.
struct No(Status, String);

impl From<Error> for No {
    fn from(e: Error) -> Self {
        let status = match e {
            Error::LockTimeout => Status::LockTimeout,
            Error::TooLarge(..) => Status::TooLarge,
            Error::Exists => Status::Exists,
            Error::Missing => Status::Missing,
            Error::Full => Status::Full,
            Error::Unavailable(_) | Error::Damaged(_) | Error::Cancelled | Error::Stopping => Status::Unavailable,
        };
        Self(status, e.to_string())
    }
}

impl From<WireError> for No {
    fn from(e: WireError) -> Self {
        Self(Status::Unavailable, e.to_string())
    }
}

impl<'c> RequestSession<'c> {
    /// For a request of this scope ([`Settings::scope_of`]) and with this cookie ([`Settings::cookie_of`]).
    #[must_use]
    pub fn new(
        settings: &'c Settings,
        find: Find<'c>,
        entry: Option<Entry<'c>>,
        (scope, cookie): (Vec<u8>, String),
        https: bool,
        answer_by: Option<u64>,
    ) -> Self {
        Self {
            settings,
            find,
            store: None,
            scope,
            cookie,
            https,
            answer_by,
            held: Vec::new(),
            entry,
            prefetched: Prefetched::None,
            lease: None,
            current: Current::Unknown,
            named: None,
            set_cookie: None,
            logged: None,
            changed: false,
        }
    }

    /// The Set-Cookie header for the response, once.
    pub fn take_cookie(&mut self) -> Option<String> {
        self.set_cookie.take()
    }

    /// The session's name in logs, once.
    pub fn take_log_name(&mut self) -> Option<String> {
        self.logged.take().map(|name| id::log_name(name.as_bytes()))
    }

    /// Whether the request has stored or removed something.
    #[must_use]
    pub const fn has_changed(&self) -> bool {
        self.changed
    }

    /// The application is done with the request: releases its locks.
    pub fn release(&mut self) {
        if !matches!(std::mem::replace(&mut self.prefetched, Prefetched::None), Prefetched::None)
            && let Some(entry) = self.entry
        {
            entry.miss();
        }
        self.lease = None;
        self.held.clear();
    }

    /// Answers a question. An error means that the worker did not send a valid question.
    pub fn answer(&mut self, code: u16, payload: &[u8], mut now: Now<'_>) -> Result<Answered, WireError> {
        let request = Request::decode(code, payload)?;
        if let Request::Used { lock } = request {
            self.use_prefetched(lock);
            return Ok(Answered::Nothing);
        }
        self.settle();
        self.prefetched = Prefetched::None;
        let quiet = matches!(&request, Request::Save(save) if save.no_reply);
        let mut out = Vec::new();
        Ok(match self.carry_out(&request, &mut now, &mut out) {
            Ok(()) if quiet => Answered::Nothing,
            Ok(()) => Answered::Reply(Status::Ok, out),
            Err(Failure::Store(e)) if quiet => Answered::Failed(e),
            Err(failure) => {
                let No(status, text) = failure.into();
                if quiet {
                    return Ok(Answered::Failed(Error::Unavailable(text)));
                }
                Answered::Reply(status, error_text(&text).as_bytes().to_vec())
            }
        })
    }

    /// The largest question that is accepted, bytes. `has_memory`: memory can be reserved for it.
    #[must_use]
    pub fn largest_question(&self, has_memory: bool) -> usize {
        let most = self.settings.max_size as usize + QUESTION;
        if has_memory { most } else { most.min(SMALL_QUESTION) }
    }

    /// Refuses a larger question with this code, whose payload of `len` bytes begins with `first`.
    pub fn refuse(&mut self, code: u16, first: u8, len: u32) -> Result<Answered, WireError> {
        if code != Op::Save as u16 {
            return Err(WireError::TooLarge("session question"));
        }
        self.settle();
        self.prefetched = Prefetched::None;
        let (size, most) = (u64::from(len), u64::from(self.settings.max_size));
        let error = if len as usize > self.largest_question(true) {
            Error::TooLarge(size, most)
        } else {
            Error::Unavailable("httpd has reached its memory limit for requests and sessions".into())
        };
        if Save::is_quiet(first) {
            return Ok(Answered::Failed(error));
        }
        let No(status, text) = error.into();
        Ok(Answered::Reply(status, error_text(&text).as_bytes().to_vec()))
    }

    fn store(&mut self) -> Result<&'static Sessions, Error> {
        let store = self.store.map_or_else(self.find, Ok)?;
        self.store = Some(store);
        Ok(store)
    }

    fn carry_out(&mut self, request: &Request<'_>, now: &mut Now<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let sessions = self.store()?;
        sessions.enter(self.wait_until(), now.cancelled)?;
        self.changed |= matches!(request, Request::Save(_) | Request::Remove { .. });
        match *request {
            Request::Open { key, lock } => self.open(sessions, key, lock, now, out),
            Request::Save(ref save) => self.save(sessions, save, now, out),
            Request::Remove { key, cookie } => {
                let mut lived = false;
                if let Some(name) = self.name(key, now)? {
                    let key = self.key(&name)?;
                    lived = sessions.remove(&key, now_ms())?;
                    self.revoke_leases(sessions, &key);
                    self.unlock(&key);
                }
                if cookie {
                    self.current = Current::None;
                    // Too late for the response headers. The cookie then names no session, which
                    // does no harm.
                    self.set_cookie = (!now.head_sent).then(|| cookie::forget(&self.cookie, &self.settings.cookie, self.https));
                }
                encode_bool(out, lived);
                Ok(())
            }
            Request::Exists { key } => {
                let key = self.key(key)?;
                encode_bool(out, sessions.load(&key, now_ms())?.is_some());
                Ok(())
            }
            Request::Lock { key } => match self.name(key, now)? {
                Some(name) => {
                    let key = self.key(&name)?;
                    self.hold(sessions, &key, now)
                }
                None => Ok(()),
            },
            Request::Used { .. } => Ok(()), // handled in `answer`
            Request::Unlock { key } => {
                if let Some(name) = self.name(key, now)? {
                    let key = self.key(&name)?;
                    self.unlock(&key);
                }
                Ok(())
            }
        }
    }

    fn open(
        &mut self,
        sessions: &'static Sessions,
        key: Option<&str>,
        lock: bool,
        now: &mut Now<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let name = self.name(key, now)?;
        if let Some(entry) = self.entry {
            entry.hit(lock);
        }
        let mut found = None;
        if let Some(name) = &name {
            let key = self.key(name)?;
            let held_before = self.holds(&key);
            if lock {
                self.hold(sessions, &key, now)?;
            }
            found = sessions.load(&key, now_ms())?;
            match &found {
                Some(record) => {
                    touch(sessions, &key, record.into());
                    if !now.head_sent {
                        self.renew_cookie(name, record.accessed_ms);
                    }
                }
                // A missing session is not locked: a client could otherwise hold a lock for any
                // name.
                None if lock && !held_before => self.unlock(&key),
                None => {}
            }
        }
        if let Some(asked) = key.filter(|_| found.is_some()) {
            self.learn(asked, now.cookies);
        }
        if found.is_some() {
            self.logged = name.clone();
        }
        Ok(self.encode(name.as_deref().zip(found.as_ref()), out)?)
    }

    fn encode(&self, found: Option<(&str, &Record)>, out: &mut Vec<u8>) -> Result<(), WireError> {
        let stored =
            found.map(|(_, r)| Stored { created_ms: r.created_ms, accessed_ms: r.accessed_ms, timeout_s: r.timeout_s, data: &r.data });
        let opened = Opened {
            id: found.map(|(name, _)| name),
            default_timeout_s: self.settings.timeout_s,
            serializer: self.settings.serializer,
            max_size: self.settings.max_size,
            engine: &self.settings.engine,
            record: stored,
        };
        opened.encode(out)?;
        if let Some((_, record)) = found {
            out.extend_from_slice(&record.data);
        }
        Ok(())
    }

    /// Ends leases of other requests, whose prefetched data is now outdated.
    fn revoke_leases(&self, sessions: &Sessions, key: &Key) {
        if !self.holds(key) {
            sessions.revoke(key);
        }
    }

    fn save(&mut self, sessions: &'static Sessions, save: &Save<'_>, now: &mut Now<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        if save.cookie && now.head_sent {
            return Err(Failure::Said(Status::HeadSent, "the response headers were already sent, so no cookie can be set"));
        }
        let size = save.data.len() as u64;
        if size > u64::from(self.settings.max_size) {
            return Err(Error::TooLarge(size, self.settings.max_size.into()).into());
        }
        let at = now_ms();
        // A new session counts as unused until a later request uses it, whatever the worker's clock
        // says.
        let is_new = save.replaces.is_none()
            && match (save.key, save.put) {
                (None, _) | (_, Put::Create) => true,
                (_, Put::Replace) => false,
                (Some(name), Put::Any) => sessions.load(&self.key(name)?, at)?.is_none(),
            };
        let record = Record {
            created_ms: match save.created_ms {
                _ if is_new => at,
                0 => at.saturating_sub(1),
                created => created,
            },
            accessed_ms: at,
            timeout_s: if save.timeout_s == 0 { self.settings.timeout_s } else { save.timeout_s },
            data: save.data.to_vec(),
        };
        let name = match save.key {
            Some(name) => {
                let key = self.key(name)?;
                let how = match save.put {
                    Put::Create => drover_session::Put::Create,
                    Put::Replace => drover_session::Put::Replace,
                    Put::Any => drover_session::Put::Any,
                };
                if save.keep_lock {
                    self.hold(sessions, &key, now)?;
                }
                sessions.put(&key, &record, how, at)?;
                self.revoke_leases(sessions, &key);
                name.to_owned()
            }
            None => self.create(sessions, &record, save.keep_lock, now)?,
        };
        if let Some(old) = save.replaces {
            let old = self.key(old)?;
            sessions.remove(&old, at)?;
            self.revoke_leases(sessions, &old);
            self.unlock(&old);
        }
        if !save.keep_lock {
            let key = self.key(&name)?;
            self.unlock(&key);
        }
        self.logged = Some(name.clone());
        encode_key(out, &name)?;
        if save.cookie {
            self.set_cookie = Some(cookie::set(&self.cookie, &name, &self.settings.cookie, self.https));
            self.current = Current::Name(name);
        } else if !now.head_sent {
            self.renew_cookie(&name, 0);
        }
        Ok(())
    }

    /// Renews a cookie that has a Max-Age when its session is used or changed, so that it does not
    /// expire while the client is active. Not at every use, like the time in the store.
    fn renew_cookie(&mut self, name: &str, accessed_ms: u64) {
        let Some(seconds) = self.settings.cookie.max_age else { return };
        let own = matches!(&self.current, Current::Name(own) if own == name);
        if own && self.set_cookie.is_none() && has_moved(now_ms(), accessed_ms, seconds.min(self.settings.timeout_s)) {
            self.set_cookie = Some(cookie::set(&self.cookie, name, &self.settings.cookie, self.https));
        }
    }

    /// Stores the session under a new identifier.
    fn create(&mut self, sessions: &'static Sessions, record: &Record, keep_lock: bool, now: &mut Now<'_>) -> Result<String, Failure> {
        for _ in 0..TRIES {
            let id = Id::new()?;
            let key = Key::derive(&self.scope, &id);
            if keep_lock {
                self.hold(sessions, &key, now)?;
            }
            match sessions.put(&key, record, drover_session::Put::Create, now_ms()) {
                Ok(()) => return Ok(id.as_str().to_owned()),
                Err(e) => {
                    self.unlock(&key);
                    if e != Error::Exists {
                        return Err(e.into());
                    }
                }
            }
        }
        Err(Error::Exists.into())
    }

    /// The name that the worker gave, or the cookie's.
    fn name(&mut self, key: Option<&str>, now: &Now<'_>) -> Result<Option<String>, Failure> {
        if let Some(key) = key {
            return Ok(Some(key.to_owned()));
        }
        Ok(self.cookie_name(now.cookies))
    }

    /// The name in the request's cookie.
    fn cookie_name(&mut self, cookies: Option<&[u8]>) -> Option<String> {
        if matches!(self.current, Current::Unknown) {
            let found = cookies.and_then(|header| cookie::find(header, &self.cookie));
            self.current = found.map_or(Current::None, |id| Current::Name(id.as_str().to_owned()));
        }
        match &self.current {
            Current::Name(name) => Some(name.clone()),
            Current::None | Current::Unknown => None,
        }
    }

    fn key(&mut self, name: &str) -> Result<Key, Failure> {
        if let Some((_, key)) = self.named.as_ref().filter(|(named, _)| named == name) {
            return Ok(*key);
        }
        let bad = Failure::Said(Status::BadKey, "a session key must be 1 to 128 letters, digits, '_' or '-'");
        let key = Key::named(&self.scope, name.as_bytes()).ok_or(bad)?;
        self.named = Some((name.to_owned(), key));
        Ok(key)
    }

    fn holds(&self, key: &Key) -> bool {
        self.held.iter().any(|guard| guard.key() == key)
    }

    fn hold(&mut self, sessions: &'static Sessions, key: &Key, now: &mut Now<'_>) -> Result<(), Failure> {
        if self.holds(key) {
            return Ok(());
        }
        if self.held.len() >= MAX_HELD {
            return Err(Error::Unavailable(format!("one request cannot lock more than {MAX_HELD} sessions")).into());
        }
        self.held.push(sessions.lock(key, self.wait_until(), now.cancelled)?);
        Ok(())
    }

    /// The deadline of a question's waits.
    fn wait_until(&self) -> u64 {
        let until = monotonic_ns().saturating_add(self.settings.lock_timeout_ns);
        self.answer_by.map_or(until, |by| until.min(by))
    }

    fn unlock(&mut self, key: &Key) {
        self.held.retain(|guard| guard.key() != key);
    }
}

/// Whether the time of the last use has moved enough to be written.
fn has_moved(now: u64, accessed_ms: u64, of_seconds: u32) -> bool {
    now.saturating_sub(accessed_ms) >= (u64::from(of_seconds) * 1000 / TOUCH.0).max(TOUCH.1)
}

/// Writes that a session was used, if the time has moved enough. The first use is written at once,
/// as a full store evicts sessions that were never used again.
fn touch(sessions: &Sessions, key: &Key, used: Used) {
    let now = now_ms();
    let Used { created_ms, accessed_ms, timeout_s } = used;
    if has_moved(now, accessed_ms, timeout_s) || (accessed_ms <= created_ms && now > created_ms) {
        // A full store must not prevent reading; the session then expires a little early.
        let _ = sessions.touch(key, now);
    }
}

/// The times of a session's use.
#[derive(Debug, Clone, Copy)]
struct Used {
    created_ms: u64,
    accessed_ms: u64,
    timeout_s: u32,
}

impl From<&Record> for Used {
    fn from(record: &Record) -> Self {
        Self { created_ms: record.created_ms, accessed_ms: record.accessed_ms, timeout_s: record.timeout_s }
    }
}

enum Failure {
    Store(Error),
    Said(Status, &'static str),
    Wire(WireError),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Store(e)
    }
}

impl From<WireError> for Failure {
    fn from(e: WireError) -> Self {
        Self::Wire(e)
    }
}

impl From<Failure> for No {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(e) => e.into(),
            Failure::Said(status, text) => Self(status, text.to_owned()),
            Failure::Wire(e) => e.into(),
        }
    }
}

#[cfg(test)]
mod tests;
