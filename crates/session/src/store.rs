//! A store: an engine and its locks, as one process has them.
//!
//! Responsible for: engine and locks having the same role; background work ([`Sessions::keep`]).
//! Called by: `src/session`.
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

/// How long a process waits for another one to write its sessions to disk.
const HAND_OVER: Duration = Duration::from_secs(10);
/// The pause between two checks; the kernel has no wait with a deadline for a file lock.
const LOOK: Duration = Duration::from_millis(2);
/// Expired sessions per step of a sweep, and steps per sweep.
const STEP: usize = 200;
const STEPS: usize = 50;
/// How often the maintenance of a store is noted; a tenth of [`crate::orphan::ORPHANED_AFTER`].
const NOTE_NS: u64 = 60_000_000_000;

/// The limits of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on the disk.
    pub disk_bytes: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes of one session.
    pub data_bytes: u64,
    /// Whether each change survives a crash of the machine at once.
    pub always_sync: bool,
}

/// The sessions of one store.
pub struct Sessions {
    kind: Kind,
    locks: Locks,
    limits: Limits,
    stop: Stop,
    say: Say,
}

/// The state between two calls of [`Sessions::tend`].
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
    /// The store was not used yet.
    Undecided,
    /// Other processes use the store, or may.
    Shared,
    /// No other process uses the store.
    Exclusive,
    /// The process ends: it shares the store, and will not be its exclusive owner again.
    Ending,
}

/// Sweeps in at most `steps` steps.
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
    /// Sessions on disk, below an existing directory. `stop` ends all waits. `say` gets messages
    /// for the administrator.
    pub fn disk(directory: &Path, limits: Limits, stop: &Stop, say: &'static (dyn Fn(&str) + Send + Sync)) -> Result<Self, Error> {
        Self::plain(directory, limits, stop, say, Box::new(disk(directory, &limits, stop, say)?), true)
    }

    /// Sessions in the caller's engine; the directory holds only the locks.
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

    /// Sessions in memory while this process is the exclusive owner of the directory, else on disk.
    pub fn memory(directory: &Path, limits: Limits, stop: &Stop, say: &'static (dyn Fn(&str) + Send + Sync)) -> Result<Self, Error> {
        let owner = Owner::new(directory, lock_file(directory)?)?;
        let memory = Memory::new(disk(directory, &limits, stop, say)?, limits.memory_bytes);
        let kind = Kind::Memory { memory, owner, role: Mutex::new(Role::Undecided), ready: AtomicBool::new(false) };
        Ok(Self { kind, locks: Locks::new(lock_file(directory)?), limits, stop: stop.clone(), say: Box::new(say) })
    }

    /// The engine, once the role of this process is known.
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

    /// Determines the role of this process. An exclusive owner is asked to write its sessions to
    /// disk, and waited for: until `until` (CLOCK_MONOTONIC nanoseconds), for ten seconds at most,
    /// or until `cancelled` returns true. Every other operation does this first, without a deadline
    /// of its own. Each thread waits for itself and holds no lock meanwhile.
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
                return Err(Error::Unavailable(
                    "the child process of httpd that has the sessions in memory does not write them to disk".into(),
                ));
            }
            self.stop.sleep(LOOK);
        }
        Ok(())
    }

    fn try_enter(&self) -> Result<bool, Error> {
        let Kind::Memory { memory, owner, role, ready } = &self.kind else { return Ok(true) };
        // Held for a few system calls only.
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

    /// Writes the sessions in memory to disk and lets other processes use the store; with `ending`
    /// for good.
    fn end_exclusive(&self, ending: bool) {
        let Kind::Memory { memory, owner, role, .. } = &self.kind else { return };
        let mut role = role.lock();
        if *role == Role::Exclusive {
            if let Err((lost, why)) = memory.end_exclusive() {
                (self.say)(&format!("{lost} sessions in memory could not be written to disk and are lost: {why}"));
            }
            self.locks.end_exclusive();
            // The kernel always grants the change from exclusive to shared.
            if let Err(e) = owner.try_shared() {
                (self.say)(&format!("other child processes of httpd may not get access to the sessions: {e}"));
            }
            *role = Role::Shared;
        }
        if ending && *role != Role::Undecided {
            *role = Role::Ending;
        }
    }

    /// The process ends: writes its sessions to disk for other processes. Requests may still run.
    pub fn hand_over(&self) {
        self.end_exclusive(true);
        if self.has_entered()
            && let Err(e) = self.any_engine().sync()
        {
            (self.say)(&e.to_string());
        }
    }

    /// Background work until `stop` is readable: a step of a sweep every `tick_ns` nanoseconds, a
    /// sync every `sync_ns`, and an immediate answer to each handover request.
    pub fn keep(&self, stop: impl AsFd, tick_ns: u64, sync_ns: u64, now_ms: impl Fn() -> u64) {
        let mut tending = Tending::default();
        loop {
            let owner = self.owner();
            let mut fds = [PollFd::new(&stop, PollFlags::IN), PollFd::from_borrowed_fd(owner.handover_requests(), PollFlags::IN)];
            let exclusive = matches!(&self.kind, Kind::Memory { role, .. } if *role.lock() == Role::Exclusive);
            let watched = fds.get_mut(..if exclusive { 2 } else { 1 }).unwrap_or_default();
            // An error of poll(2) counts as time that has passed, so that it cannot cause a busy
            // loop.
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

    /// One step of background work, for a thread that serves many stores. Not for a store in
    /// memory, which must answer handover requests.
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

    /// Notes the maintenance, so that no process takes the store for orphaned ([`crate::orphan`]).
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

    /// Logs a failure once, not each second.
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

    /// Removes expired sessions, unless another process is sweeping.
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

    /// Locks a session; see [`Locks::lock`].
    pub fn lock(&self, key: &Key, until: u64, cancelled: &mut dyn FnMut() -> bool) -> Result<Guard<'_>, Error> {
        self.enter(until, cancelled)?;
        match self.locks.lock(key, until, &mut || self.stop.is_stopping() || cancelled()) {
            Err(Error::Cancelled) if self.stop.is_stopping() => Err(Error::Stopping),
            other => other,
        }
    }

    /// Whether a load is fast and does not wait, so that a prefetch is worth it.
    #[must_use]
    pub fn is_near(&self) -> bool {
        match &self.kind {
            Kind::Plain { near, .. } => *near,
            Kind::Memory { .. } => self.has_entered(),
        }
    }

    /// Leases the lock of a session; see [`Locks::lease`]. Only if the store [`Sessions::is_near`].
    #[must_use]
    pub fn lease(&self, key: &Key, board: &Arc<Board>) -> Option<Lease<'_>> {
        self.locks.lease(key, board)
    }

    /// See [`Locks::revoke`].
    pub fn revoke(&self, key: &Key) {
        self.locks.revoke(key);
    }

    /// Loads a live session.
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

    /// Notes that a session was used.
    pub fn touch(&self, key: &Key, accessed_ms: u64) -> Result<(), Error> {
        self.engine()?.touch(key, accessed_ms)
    }

    /// Removes a session; returns whether it was live.
    pub fn remove(&self, key: &Key, now_ms: u64) -> Result<bool, Error> {
        self.engine()?.remove(key, now_ms)
    }

    /// Figures for the log and the status.
    pub fn figures(&self) -> Result<Figures, Error> {
        self.engine()?.figures()
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("limits", &self.limits).finish_non_exhaustive()
    }
}
