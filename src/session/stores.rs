//! The stores of one child of httpd.
//!
//! Responsible for: a store for each scope, opened at its first use, never before the child was forked; the threads for the work between requests,
//! which end with the child and write down what was in memory. Called by: `httpd::lifecycle`, [`super::answer`].
use super::ahead::Seen;
use super::plan::StorePlan;
use drover_session::{Engine, Error, Kept, Sessions, Tending, id};
use drover_sys::clock::{monotonic_ns, realtime_ns};
use drover_sys::signals;
use drover_sys::wait::{EventfdFlags, PollFd, PollFlags, eventfd, poll_until};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fs::{DirBuilder, DirEntry};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long a child that ends waits for its sessions to be written down.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How often expired sessions are looked for.
const SECOND_NS: u64 = 1_000_000_000;

/// Who is told what the administrator must know.
pub type Say = &'static (dyn Fn(&str) + Send + Sync);
/// Who makes an engine that is not of `drover_session`: httpd's socache.
pub type MakeEngine = &'static (dyn Fn(&StorePlan) -> Result<Box<dyn Engine>, Error> + Send + Sync);

/// The most scopes that may have a store below one directory.
const MOST_SCOPES: usize = 256;

/// See the head of this file. Lives as long as its process.
pub struct Stores {
    /// For each place of [`super::plan::Plan::stores`] those that are open, by scope.
    opened: Vec<RwLock<HashMap<Vec<u8>, &'static Sessions>>>,
    opening: Mutex<Keepers>,
    /// Which URLs want their sessions.
    pub seen: Seen,
    stop: OwnedFd,
    say: Say,
    make: MakeEngine,
}

/// The threads that do the work between requests.
#[derive(Default)]
struct Keepers {
    /// Each says so when it has ended.
    ends: Vec<Receiver<()>>,
    /// Leads to the one that tends all stores that are not in memory.
    shared: Option<Sender<Tended>>,
}

/// A store, and how often it is written through.
type Tended = (&'static Sessions, u64);

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    realtime_ns() / 1_000_000
}

impl Stores {
    /// None opened yet, room for `n`.
    pub fn new(n: usize, say: Say, make: MakeEngine) -> Result<Self, Error> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| Error::Unavailable(e.to_string()))?;
        let opened = (0..n).map(|_| RwLock::default()).collect();
        Ok(Self { opened, opening: Mutex::default(), seen: Seen::default(), stop, say, make })
    }

    /// The store of a plan, at this place of [`super::plan::Plan::stores`], for a scope: one that is full does not concern the others.
    pub fn get(&'static self, place: usize, plan: &StorePlan, scope: &[u8]) -> Result<&'static Sessions, Error> {
        // A cache of httpd's is one for all.
        let scope = if matches!(plan.kept, Kept::Socache(..)) { &[] } else { scope };
        let cell = self.opened.get(place).ok_or_else(|| Error::Unavailable("not configured".into()))?;
        if let Some(store) = cell.read().get(scope) {
            return Ok(store);
        }
        let mut keepers = self.opening.lock();
        if let Some(store) = cell.read().get(scope) {
            return Ok(store); // another thread was faster
        }
        let store: &'static Sessions = Box::leak(Box::new(self.open(plan, scope)?));
        cell.write().insert(scope.to_owned(), store);
        self.keep(&mut keepers, plan, store);
        Ok(store)
    }

    fn open(&self, plan: &StorePlan, scope: &[u8]) -> Result<Sessions, Error> {
        let directory = plan.directory.as_path();
        if !directory.is_dir() {
            return Err(Error::Unavailable(format!("{} is not there; httpd makes it when it starts", directory.display())));
        }
        match plan.kept {
            Kept::Memory => Sessions::memory(&scope_directory(directory, scope)?, plan.limits, self.say),
            Kept::Disk => Sessions::disk(&scope_directory(directory, scope)?, plan.limits, self.say),
            Kept::Socache(..) => Sessions::with_engine(directory, plan.limits, self.say, (self.make)(plan)?),
            Kept::Off => Err(Error::Unavailable("sessions are off".into())),
        }
    }

    /// Sees to the work between requests: one thread for all stores, but for those in memory, each of which must let others in at once.
    fn keep(&'static self, keepers: &mut Keepers, plan: &StorePlan, store: &'static Sessions) {
        let sync_ns = u64::from(plan.sync_s) * SECOND_NS;
        if plan.kept == Kept::Memory {
            self.start(keepers, move || {
                store.keep(&self.stop, SECOND_NS, sync_ns, now_ms);
                store.hand_over();
            });
            return;
        }
        let untold = keepers.shared.as_ref().map_or(Some((store, sync_ns)), |shared| shared.send((store, sync_ns)).err().map(|e| e.0));
        if let Some(first) = untold {
            let (sender, receiver) = channel();
            if self.start(keepers, move || self.tend(first, &receiver)) {
                keepers.shared = Some(sender);
            }
        }
    }

    /// Tends stores once a second, those too that come later, until the child ends.
    fn tend(&self, first: Tended, more: &Receiver<Tended>) {
        let mut stores = vec![(first, Tending::default())];
        loop {
            let mut fds = [PollFd::new(&self.stop, PollFlags::IN)];
            // A failing poll(2) must not become a loop without rest: it is as if a second had passed, which the steps below bear.
            let stopped = poll_until(&mut fds, Some(monotonic_ns().saturating_add(SECOND_NS))).is_ok_and(|n| n > 0);
            stores.extend(more.try_iter().map(|store| (store, Tending::default())));
            if stopped {
                return stores.iter().for_each(|((store, _), _)| store.hand_over());
            }
            for ((store, sync_ns), tending) in &mut stores {
                store.tend(tending, *sync_ns, now_ms());
            }
        }
    }

    fn start(&self, keepers: &mut Keepers, work: impl FnOnce() + Send + 'static) -> bool {
        let (done, is_done) = channel();
        let work = move || {
            work();
            // Nobody may wait for it any more.
            let _ = done.send(());
        };
        // httpd's signals are for httpd's threads.
        let started = signals::blocked(|| std::thread::Builder::new().name("drover-sessions".into()).stack_size(256 * 1024).spawn(work));
        match started {
            Ok(_) => keepers.ends.push(is_done),
            Err(e) => {
                (self.say)(&format!("expired sessions are not removed, as no thread could be started: {e}"));
                return false;
            }
        }
        true
    }

    /// The child ends; async-signal-safe.
    pub fn stop(&self) {
        // The counter is far from full; and if it were, the descriptor would be readable already.
        let _ = drover_sys::write_once(&self.stop, &1u64.to_ne_bytes());
    }

    /// Waits until all is written down, or for ten seconds. Not in a signal handler.
    pub fn finish(&self) {
        self.stop();
        let until = Instant::now() + LAST_WORDS;
        for keeper in self.opening.lock().ends.drain(..) {
            if keeper.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                (self.say)("the child ends before all sessions were written down");
            }
        }
    }
}

/// The directory of a scope's store, made if need be. What the scopes of former configurations have left counts too: it fills the disk.
fn scope_directory(all: &Path, scope: &[u8]) -> Result<PathBuf, Error> {
    let path = all.join(id::directory_name(scope));
    let refused = |e: std::io::Error| Error::Unavailable(format!("{}: {e}", path.display()));
    if path.is_dir() {
        return Ok(path);
    }
    let is_scope = |entry: &DirEntry| entry.file_name().as_encoded_bytes().starts_with(id::DIRECTORY.as_bytes());
    if std::fs::read_dir(all).map_err(refused)?.flatten().filter(is_scope).count() >= MOST_SCOPES {
        return Err(Error::Unavailable(format!(
            "{} has {MOST_SCOPES} scopes already, and more are not allowed: use DroverSessionScope NAME for several, or remove, while httpd is \
             stopped, what is there of scopes that are no more",
            all.display()
        )));
    }
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(refused(e)),
        _ => Ok(path),
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("opened", &self.opened.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_session::{Key, Limits, Put, Record};

    fn rig(directory: &Path) -> (&'static Stores, StorePlan) {
        let limits = Limits { disk_bytes: 1 << 20, memory_bytes: 1 << 20, data_bytes: 1 << 20, always_sync: false };
        let plan = StorePlan { kept: Kept::Disk, directory: directory.to_owned(), limits, sync_s: 1 };
        let none: MakeEngine = &|_| Err(Error::Unavailable("no engine".into()));
        (Box::leak(Box::new(Stores::new(1, &|_| {}, none).unwrap())), plan)
    }

    fn put(store: &Sessions, n: u8, len: usize) -> Result<(), Error> {
        store.put(&Key([n; 32]), &Record { created_ms: 1, accessed_ms: 1, timeout_s: 60, data: vec![7; len] }, Put::Any, 1)
    }

    #[test]
    fn a_full_scope_leaves_room_to_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, plan) = rig(directory.path());
        let (one, other) = (stores.get(0, &plan, b"one").unwrap(), stores.get(0, &plan, b"other").unwrap());
        assert!(std::ptr::eq(one, stores.get(0, &plan, b"one").unwrap()));
        assert_eq!((0..20).find_map(|n| put(one, n, 100_000).err()), Some(Error::Full));
        assert_eq!(put(other, 1, 100_000), Ok(()));
        assert!(directory.path().join(id::directory_name(b"one")).join("store/data.mdb").exists());
        stores.finish();
    }

    #[test]
    fn scopes_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, plan) = rig(directory.path());
        (1..MOST_SCOPES).for_each(|n| std::fs::create_dir(directory.path().join(format!("{}{n}", id::DIRECTORY))).unwrap());
        assert!(stores.get(0, &plan, b"the last").is_ok());
        let refused = stores.get(0, &plan, b"one more").unwrap_err().to_string();
        assert!(refused.contains("256 scopes"), "{refused}");
        assert!(stores.get(0, &plan, b"the last").is_ok() && rig(directory.path()).0.get(0, &plan, b"the last").is_ok());
        stores.finish();
    }
}
