//! One request's questions about sessions, answered.
//!
//! Responsible for: a worker reaching the sessions of its scope and no others; locks that end with the request; identifiers of our own making
//! only. Must never: trust a key, or wait without asking whether anybody still listens. Called by: `handler::relay`.
use super::cookie;
use super::plan::Settings;
use super::stores::now_ms;
use drover_session::{Error, Guard, Id, Key, Record, Sessions, id};
use drover_sys::clock::monotonic_ns;
use drover_wire::WireError;
use drover_wire::session::{Opened, Put, Request, Save, Status, Stored, encode_bool, encode_key, error_text};

/// A share of the timeout by which the time of the last use must have moved to be written, and the least of it in milliseconds.
const TOUCH: (u64, u64) = (20, 1000);
/// Sessions that one request may hold at once.
const MOST_HELD: usize = 64;
/// Tries to find an identifier that is not taken; the second is already a miracle.
const TRIES: usize = 3;

/// Where the store of a request comes from; asked only when a session is touched.
pub type Find<'c> = &'c dyn Fn() -> Result<&'static Sessions, Error>;

/// What one request has to do with sessions.
pub struct RequestSession<'c> {
    settings: &'c Settings,
    find: Find<'c>,
    scope: Vec<u8>,
    https: bool,
    /// The request's own time limit, CLOCK_MONOTONIC nanoseconds.
    answer_by: Option<u64>,
    held: Vec<Guard<'static>>,
    /// The session of the cookie: as the client sent it, or as this request has made it.
    current: Current,
    set_cookie: Option<String>,
    log_name: Option<String>,
    /// Something was stored or removed.
    changed: bool,
}

enum Current {
    /// Nobody has looked at the client's cookie.
    Unknown,
    None,
    Name(String),
}

/// What follows from a question.
#[derive(Debug)]
pub enum Answered {
    /// Frame to be sent: its code and its payload.
    Reply(Status, Vec<u8>),
    /// Nothing is to be said.
    Nothing,
    /// A save without an answer has failed: the request does too.
    Failed(Error),
}

/// What the relay knows at the moment of a question.
pub struct Now<'n> {
    /// The client's Cookie header.
    pub cookies: Option<&'n [u8]>,
    /// The head of the answer has been passed on or set.
    pub head_sent: bool,
    /// Nobody waits for the answer any more.
    pub cancelled: &'n mut dyn FnMut() -> bool,
}

/// A failed question: what the worker is told.
struct No(Status, String);

impl From<Error> for No {
    fn from(e: Error) -> Self {
        let status = match e {
            Error::LockTimeout => Status::LockTimeout,
            Error::TooLarge(..) => Status::TooLarge,
            Error::Exists => Status::Exists,
            Error::Missing => Status::Missing,
            Error::Full => Status::Full,
            Error::Unavailable(_) | Error::Damaged(_) | Error::Cancelled => Status::Unavailable,
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
    /// For a request of this scope ([`Settings::scope_of`]).
    #[must_use]
    pub const fn new(settings: &'c Settings, find: Find<'c>, scope: Vec<u8>, https: bool, answer_by: Option<u64>) -> Self {
        Self {
            settings,
            find,
            scope,
            https,
            answer_by,
            held: Vec::new(),
            current: Current::Unknown,
            set_cookie: None,
            log_name: None,
            changed: false,
        }
    }

    /// The Set-Cookie header that goes with the head, once.
    pub fn take_cookie(&mut self) -> Option<String> {
        self.set_cookie.take()
    }

    /// What stands in logs for the session, once.
    pub fn take_log_name(&mut self) -> Option<String> {
        self.log_name.take()
    }

    /// Whether the request has stored or removed something.
    #[must_use]
    pub const fn has_changed(&self) -> bool {
        self.changed
    }

    /// The request is over for the application: others may have its sessions.
    pub fn release(&mut self) {
        self.held.clear();
    }

    /// Answers a question. An error is one of the worker's: what it sent is no question.
    pub fn answer(&mut self, code: u16, payload: &[u8], mut now: Now<'_>) -> Result<Answered, WireError> {
        let request = Request::decode(code, payload)?;
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

    fn carry_out(&mut self, request: &Request<'_>, now: &mut Now<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let sessions = (self.find)()?;
        self.changed |= matches!(request, Request::Save(_) | Request::Remove { .. });
        match *request {
            Request::Open { key, lock } => self.open(sessions, key, lock, now, out),
            Request::Save(ref save) => self.save(sessions, save, now, out),
            Request::Remove { key, cookie } => {
                let mut lived = false;
                if let Some(name) = self.name(key, now)? {
                    let key = self.key(&name)?;
                    lived = sessions.remove(&key, now_ms())?;
                    self.let_go(&key);
                }
                if cookie {
                    self.current = Current::None;
                    // Too late for the head: then the cookie names nothing, which does no harm.
                    self.set_cookie = (!now.head_sent).then(|| cookie::forget(&self.settings.cookie, self.https));
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
            Request::Unlock { key } => {
                if let Some(name) = self.name(key, now)? {
                    let key = self.key(&name)?;
                    self.let_go(&key);
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
        let mut found = None;
        if let Some(name) = &name {
            let key = self.key(name)?;
            let held_before = self.holds(&key);
            if lock {
                self.hold(sessions, &key, now)?;
            }
            found = sessions.load(&key, now_ms())?;
            match &found {
                Some(record) => self.touch(sessions, &key, record),
                // What is not there is not locked either: a client could hold any name that way.
                None if lock && !held_before => self.let_go(&key),
                None => {}
            }
        }
        if found.is_some() {
            self.log_name = name.as_ref().map(|name| id::log_name(name.as_bytes()));
        }
        let stored =
            found.as_ref().map(|r| Stored { created_ms: r.created_ms, accessed_ms: r.accessed_ms, timeout_s: r.timeout_s, data: &r.data });
        let opened = Opened {
            id: name.as_deref().filter(|_| found.is_some()),
            default_timeout_s: self.settings.timeout_s,
            serializer: self.settings.serializer,
            max_size: self.settings.max_size,
            engine: &self.settings.engine,
            record: stored,
        };
        opened.encode(out)?;
        if let Some(record) = &found {
            out.extend_from_slice(&record.data);
        }
        Ok(())
    }

    fn touch(&self, sessions: &Sessions, key: &Key, record: &Record) {
        let moved = now_ms().saturating_sub(record.accessed_ms);
        if moved >= (u64::from(record.timeout_s) * 1000 / TOUCH.0).max(TOUCH.1) {
            // A full store must not forbid reading; the session ends a little early then.
            let _ = sessions.touch(key, now_ms());
        }
    }

    fn save(&mut self, sessions: &'static Sessions, save: &Save<'_>, now: &mut Now<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        if save.cookie && now.head_sent {
            return Err(Failure::Said(Status::HeadSent, "the head of the answer has been sent, so the client cannot be given a cookie"));
        }
        let size = save.data.len() as u64;
        if size > u64::from(self.settings.max_size) {
            return Err(Error::TooLarge(size, self.settings.max_size.into()).into());
        }
        let at = now_ms();
        let record = Record {
            created_ms: if save.created_ms == 0 { at } else { save.created_ms },
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
                name.to_owned()
            }
            None => self.create(sessions, &record, save.keep_lock, now)?,
        };
        if let Some(old) = save.replaces {
            let old = self.key(old)?;
            sessions.remove(&old, at)?;
            self.let_go(&old);
        }
        if !save.keep_lock {
            let key = self.key(&name)?;
            self.let_go(&key);
        }
        self.log_name = Some(id::log_name(name.as_bytes()));
        encode_key(out, &name)?;
        if save.cookie {
            self.set_cookie = Some(cookie::set(&name, &self.settings.cookie, self.https));
            self.current = Current::Name(name);
        }
        Ok(())
    }

    /// Stores under a new identifier.
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
                    self.let_go(&key);
                    if e != Error::Exists {
                        return Err(e.into());
                    }
                }
            }
        }
        Err(Error::Exists.into())
    }

    /// The name that is asked for: what the worker says, or the cookie's.
    fn name(&mut self, key: Option<&str>, now: &Now<'_>) -> Result<Option<String>, Failure> {
        if let Some(key) = key {
            return Ok(Some(key.to_owned()));
        }
        if matches!(self.current, Current::Unknown) {
            let found = now.cookies.and_then(|header| cookie::find(header, &self.settings.cookie));
            self.current = found.map_or(Current::None, |id| Current::Name(id.as_str().to_owned()));
        }
        Ok(match &self.current {
            Current::Name(name) => Some(name.clone()),
            Current::None | Current::Unknown => None,
        })
    }

    fn key(&self, name: &str) -> Result<Key, Failure> {
        let bad = Failure::Said(Status::BadKey, "a session's key is made of 1 to 128 letters, digits, '_' and '-'");
        Key::named(&self.scope, name.as_bytes()).ok_or(bad)
    }

    fn holds(&self, key: &Key) -> bool {
        self.held.iter().any(|guard| guard.key() == key)
    }

    fn hold(&mut self, sessions: &'static Sessions, key: &Key, now: &mut Now<'_>) -> Result<(), Failure> {
        if self.holds(key) {
            return Ok(());
        }
        if self.held.len() >= MOST_HELD {
            return Err(Error::Unavailable(format!("one request cannot hold more than {MOST_HELD} sessions")).into());
        }
        let until = monotonic_ns().saturating_add(self.settings.lock_timeout_ns);
        let until = self.answer_by.map_or(until, |by| until.min(by));
        self.held.push(sessions.lock(key, until, now.cancelled)?);
        Ok(())
    }

    fn let_go(&mut self, key: &Key) {
        self.held.retain(|guard| guard.key() != key);
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
