//! A store: an engine and its locks, as one process has them.
//!
//! Responsible for: engine and locks agreeing on who is alone; the work between requests ([`Sessions::keep`]). Called by:
//! `src/session`.
use crate::disk::{Disk, Say};
use crate::engine::{Engine, Figures, Put, Record, Swept};
use crate::error::Error;
use crate::id::Key;
use crate::lock::{Guard, Lease, Locks};
use crate::memory::Memory;
use crate::owner::Owner;
use crate::stop::Stop;
use drover_sys::clock::monotonic_ns;
use drover_sys::token::Board;
use drover_sys::wait::{PollFd, PollFlags, poll_until, readable_now};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// How long a process waits for another one to write its sessions down.
const HAND_OVER: Duration = Duration::from_secs(10);
/// Between two looks whether it has; the kernel has no wait with an end for a lock on a file.
const LOOK: Duration = Duration::from_millis(2);
/// Expired sessions that are looked at in one step of a sweep, and steps in one go.
const STEP: usize = 200;
const STEPS: usize = 50;
/// How often it is noted that a store is looked after; a tenth of [`crate::orphan::ORPHANED_AFTER`].
const NOTE_NS: u64 = 60_000_000_000;

/// What a store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on the disk.
    pub disk_bytes: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes of one session.
    pub data_bytes: u64,
    /// Each change survives the machine's sudden death, not only those of a second ago.
    pub always_sync: bool,
}

/// See the head of this file.
pub struct Sessions {
    kind: Kind,
    locks: Locks,
    limits: Limits,
    stop: Stop,
    say: Say,
}

/// What is remembered between two steps of [`Sessions::tend`].
#[derive(Debug)]
pub struct Tending {
    told: Option<Error>,
    synced: u64,
    noted: Option<u64>,
}

impl Default for Tending {
    fn default() -> Self {
        Self { told: None, synced: monotonic_ns(), noted: None }
    }
}

enum Kind {
    Plain { engine: Box<dyn Engine>, owner: Owner, near: bool },
    Memory { memory: Memory, owner: Owner, role: Mutex<Role>, ready: AtomicBool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Nothing has been asked of it yet.
    Undecided,
    /// One of several.
    Shared,
    /// The only one.
    Exclusive,
    /// It ends: it shares, and will not be alone again.
    Ending,
}

/// So many steps of a sweep at most.
pub(crate) fn sweep(engine: &dyn Engine, now_ms: u64, steps: usize) -> Result<Swept, Error> {
    let mut all = Swept { removed: 0, more: true };
    for _ in 0..steps {
        let step = engine.sweep(now_ms, STEP)?;
        all = Swept { removed: all.removed + step.removed, more: step.more };
        if !step.more {
            break;
        }
    }
    Ok(all)
}

pub(crate) fn lock_file(directory: &Path) -> Result<File, Error> {
    let path = directory.join("locks");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    opened.map_err(|e| Error::Unavailable(format!("{}: {e}", path.display())))
}

fn disk(directory: &Path, limits: &Limits, stop: &Stop, say: &'static (dyn Fn(&str) + Send + Sync)) -> Result<Disk, Error> {
    Ok(Disk::new(directory, limits.disk_bytes, limits.always_sync, lock_file(directory)?, stop.clone(), Box::new(say)))
}

impl Sessions {
    /// Sessions on disk, below a directory that is there. `say` is told what the administrator must know.
    pub fn disk(directory: &Path, limits: Limits, stop: &Stop, say: &'static (dyn Fn(&str) + Send + Sync)) -> Result<Self, Error> {
        Self::plain(directory, limits, stop, say, Box::new(disk(directory, &limits, stop, say)?), true)
    }

    /// Sessions in an engine of the caller's; only the locks lie in the directory.
    pub fn with_engine(
        directory: &Path,
        limits: Limits,
        stop: &Stop,
        say: &'static (dyn Fn(&str) + Send + Sync),
        engine: Box<dyn Engine>,
    ) -> Result<Self, Error> {
        Self::plain(directory, limits, stop, say, engine, false)
    }

    fn plain(
        directory: &Path,
        limits: Limits,
        stop: &Stop,
        say: &'static (dyn Fn(&str) + Send + Sync),
        engine: Box<dyn Engine>,
        near: bool,
    ) -> Result<Self, Error> {
        let owner = Owner::new(directory, lock_file(directory)?)?;
        Ok(Self {
            kind: Kind::Plain { engine, owner, near },
            locks: Locks::new(lock_file(directory)?),
            limits,
            stop: stop.clone(),
            say: Box::new(say),
        })
    }

    /// Sessions in memory while this process is alone with the directory, else on disk.
    pub fn memory(directory: &Path, limits: Limits, stop: &Stop, say: &'static (dyn Fn(&str) + Send + Sync)) -> Result<Self, Error> {
        let owner = Owner::new(directory, lock_file(directory)?)?;
        let memory = Memory::new(disk(directory, &limits, stop, say)?, limits.memory_bytes);
        let kind = Kind::Memory { memory, owner, role: Mutex::new(Role::Undecided), ready: AtomicBool::new(false) };
        Ok(Self { kind, locks: Locks::new(lock_file(directory)?), limits, stop: stop.clone(), say: Box::new(say) })
    }

    /// The engine, once it is known whether this process is alone.
    fn engine(&self) -> Result<&dyn Engine, Error> {
        self.enter(u64::MAX, &mut || false)?;
        Ok(self.any_engine())
    }

    fn any_engine(&self) -> &dyn Engine {
        match &self.kind {
            Kind::Plain { engine, .. } => engine.as_ref(),
            Kind::Memory { memory, .. } => memory,
        }
    }

    fn has_entered(&self) -> bool {
        match &self.kind {
            Kind::Plain { .. } => true,
            Kind::Memory { ready, .. } => ready.load(Ordering::Acquire),
        }
    }

    /// Finds out whether this process is alone; who was alone before is asked to write its sessions down, and waited for: until `until`
    /// (CLOCK_MONOTONIC nanoseconds) or for ten seconds, or until `cancelled` says so. All else that is done with sessions does this first, without
    /// an end of its own. Each thread waits for itself: nothing is held meanwhile.
    pub fn enter(&self, until: u64, cancelled: &mut dyn FnMut() -> bool) -> Result<(), Error> {
        if self.has_entered() {
            return Ok(());
        }
        let until = until.min(monotonic_ns().saturating_add(u64::try_from(HAND_OVER.as_nanos()).unwrap_or(u64::MAX)));
        while !self.try_enter()? {
            if self.stop.is_stopping() {
                return Err(Error::Stopping);
            }
            if cancelled() {
                return Err(Error::Cancelled);
            }
            if monotonic_ns() >= until {
                return Err(Error::Unavailable("the child of httpd that has the sessions in its memory does not write them down".into()));
            }
            self.stop.sleep(LOOK);
        }
        Ok(())
    }

    fn try_enter(&self) -> Result<bool, Error> {
        let Kind::Memory { memory, owner, role, ready } = &self.kind else { return Ok(true) };
        // Held for some system calls only.
        let mut role = role.lock();
        if *role == Role::Undecided {
            if owner.try_exclusive()? {
                memory.begin_exclusive();
                self.locks.begin_exclusive();
                *role = Role::Exclusive;
            } else if owner.try_shared()? {
                *role = Role::Shared;
            } else {
                return Ok(false);
            }
            ready.store(true, Ordering::Release);
        }
        Ok(true)
    }

    /// Writes down what is in memory and lets others in; with `ending` for good.
    fn end_exclusive(&self, ending: bool) {
        let Kind::Memory { memory, owner, role, .. } = &self.kind else { return };
        let mut role = role.lock();
        if *role == Role::Exclusive {
            if let Err((lost, why)) = memory.end_exclusive() {
                (self.say)(&format!("{lost} sessions that were in memory could not be written down and are lost: {why}"));
            }
            self.locks.end_exclusive();
            // From exclusive to shared: nobody can forbid that.
            if let Err(e) = owner.try_shared() {
                (self.say)(&format!("other children of httpd may wait for sessions in vain: {e}"));
            }
            *role = Role::Shared;
        }
        if ending && *role != Role::Undecided {
            *role = Role::Ending;
        }
    }

    /// This process ends: its sessions are written down, for those who come after it. Requests may go on meanwhile and after.
    pub fn hand_over(&self) {
        self.end_exclusive(true);
        if self.has_entered()
            && let Err(e) = self.any_engine().sync()
        {
            (self.say)(&e.to_string());
        }
    }

    /// The work between requests, until `stop` is readable: a step of a sweep every `tick_ns` nanoseconds, writing through every `sync_ns`, and
    /// whoever handover_requests let in at once.
    pub fn keep(&self, stop: impl AsFd, tick_ns: u64, sync_ns: u64, now_ms: impl Fn() -> u64) {
        let mut tending = Tending::default();
        loop {
            let owner = self.owner();
            let mut fds = [PollFd::new(&stop, PollFlags::IN), PollFd::from_borrowed_fd(owner.handover_requests(), PollFlags::IN)];
            let exclusive = matches!(&self.kind, Kind::Memory { role, .. } if *role.lock() == Role::Exclusive);
            let watched = fds.get_mut(..if exclusive { 2 } else { 1 }).unwrap_or_default();
            // A failing poll(2) must not become a loop without rest: it is as if a second had passed, which the steps below bear.
            let _ = poll_until(watched, Some(monotonic_ns().saturating_add(tick_ns)));
            if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
                return;
            }
            if exclusive && owner.take_handover_request() {
                self.end_exclusive(false);
                continue;
            }
            let mut stopped = || readable_now(&stop);
            match self.enter(u64::MAX, &mut stopped) {
                Ok(()) => self.tend(&mut tending, sync_ns, now_ms()),
                Err(Error::Cancelled | Error::Stopping) => return,
                Err(e) => self.tell(&mut tending, Some(e)),
            }
        }
    }

    /// One step of the work between requests, for who has many stores to look after and is not needed to let others in: not one in memory.
    pub fn tend(&self, tending: &mut Tending, sync_ns: u64, now_ms: u64) {
        self.try_become_exclusive();
        self.note_maintained(tending);
        let mut now = self.sweep(now_ms).err();
        if now.is_none() && monotonic_ns().saturating_sub(tending.synced) >= sync_ns {
            tending.synced = monotonic_ns();
            now = self.engine().and_then(Engine::sync).err();
        }
        self.tell(tending, now);
    }

    /// So that nobody comes to see whether the store is abandoned ([`crate::visit`]).
    fn note_maintained(&self, tending: &mut Tending) {
        let now = monotonic_ns();
        if tending.noted.is_none_or(|noted| now.saturating_sub(noted) >= NOTE_NS) {
            tending.noted = Some(now);
            self.owner().note_maintained(SystemTime::now());
        }
    }

    fn owner(&self) -> &Owner {
        match &self.kind {
            Kind::Plain { owner, .. } | Kind::Memory { owner, .. } => owner,
        }
    }

    /// Said once, not each second.
    fn tell(&self, tending: &mut Tending, now: Option<Error>) {
        if now != tending.told
            && let Some(e) = now.as_ref().filter(|e| **e != Error::Stopping)
        {
            (self.say)(&e.to_string());
        }
        tending.told = now;
    }

    fn try_become_exclusive(&self) {
        let Kind::Memory { memory, owner, role, .. } = &self.kind else { return };
        let mut role = role.lock();
        if *role == Role::Shared && owner.try_exclusive() == Ok(true) {
            memory.begin_exclusive();
            self.locks.begin_exclusive();
            *role = Role::Exclusive;
        }
    }

    /// Removes expired sessions, unless another process is at it.
    pub fn sweep(&self, now_ms: u64) -> Result<Swept, Error> {
        let engine = self.engine()?;
        let owner = self.owner();
        if !owner.try_sweep() {
            return Ok(Swept::default());
        }
        let swept = sweep(engine, now_ms, STEPS);
        owner.end_sweep();
        swept
    }

    /// Holds a session against everybody else; see [`Locks::lock`].
    pub fn lock(&self, key: &Key, until: u64, cancelled: &mut dyn FnMut() -> bool) -> Result<Guard<'_>, Error> {
        self.enter(until, cancelled)?;
        match self.locks.lock(key, until, &mut || self.stop.is_stopping() || cancelled()) {
            Err(Error::Cancelled) if self.stop.is_stopping() => Err(Error::Stopping),
            other => other,
        }
    }

    /// Whether a look at a session costs next to nothing and waits for nobody: it may be made on the chance that it is wanted.
    #[must_use]
    pub fn is_near(&self) -> bool {
        match &self.kind {
            Kind::Plain { near, .. } => *near,
            Kind::Memory { .. } => self.has_entered(),
        }
    }

    /// Holds a session on the chance that it is wanted; see [`Locks::lease`]. To be asked only if it [`Sessions::is_near`].
    #[must_use]
    pub fn lease(&self, key: &Key, board: &Arc<Board>) -> Option<Lease<'_>> {
        self.locks.lease(key, board)
    }

    /// See [`Locks::revoke`].
    pub fn revoke(&self, key: &Key) {
        self.locks.revoke(key);
    }

    /// A session that lives.
    pub fn load(&self, key: &Key, now_ms: u64) -> Result<Option<Record>, Error> {
        self.engine()?.load(key, now_ms)
    }

    /// Stores a session.
    pub fn put(&self, key: &Key, record: &Record, how: Put, now_ms: u64) -> Result<(), Error> {
        let size = record.data.len() as u64;
        if size > self.limits.data_bytes {
            return Err(Error::TooLarge(size, self.limits.data_bytes));
        }
        self.engine()?.put(key, record, how, now_ms)
    }

    /// Notes that a session is used.
    pub fn touch(&self, key: &Key, accessed_ms: u64) -> Result<(), Error> {
        self.engine()?.touch(key, accessed_ms)
    }

    /// Removes a session; whether it lived.
    pub fn remove(&self, key: &Key, now_ms: u64) -> Result<bool, Error> {
        self.engine()?.remove(key, now_ms)
    }

    /// Figures.
    pub fn figures(&self) -> Result<Figures, Error> {
        self.engine()?.figures()
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("limits", &self.limits).finish_non_exhaustive()
    }
}
