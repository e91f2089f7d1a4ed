//! The stores of one child of httpd.
//!
//! Responsible for: a store for each scope, opened at its first use, never before the child was forked; the threads for the work between requests,
//! which end with the child and write down what was in memory; a look now and then at the stores that nobody uses. Called by: `httpd::lifecycle`, [`super::answer`].
use super::guess::Seen;
use super::plan::{MEMORY, StorePlan};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use drover_session::{Engine, Error, Kept, Limits, Sessions, Tending, id, visit};
use drover_sys::clock::{monotonic_ns, realtime_ns};
use drover_sys::signals;
use drover_sys::wait::{EventfdFlags, PollFd, PollFlags, eventfd, poll_until};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, DirEntry};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How long a child that ends waits for its sessions to be written down.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How long a request waits for another one that opens a store, or for a visit to one. Longer than either of them waits itself.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

fn busy() -> Error {
    Error::Unavailable(format!("another thread of this process has been opening a session store for {PATIENCE:?}"))
}

/// How often expired sessions are looked for.
const SECOND_NS: u64 = 1_000_000_000;
/// Between two visits of a store that nobody uses.
const VISIT_NS: u64 = 600 * SECOND_NS;

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
    /// Where stores of other scopes may lie, and what one may take.
    homes: Vec<(PathBuf, Limits)>,
    /// The directories of this child's own stores. Locked while another one is visited: one process cannot have a store open twice.
    own: Mutex<HashSet<PathBuf>>,
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
    /// Those of the plans, none opened yet.
    pub fn new(plans: &[StorePlan], say: Say, make: MakeEngine) -> Result<Self, Error> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| Error::Unavailable(e.to_string()))?;
        let opened = plans.iter().map(|_| RwLock::default()).collect();
        Ok(Self { opened, opening: Mutex::default(), homes: homes(plans), own: Mutex::default(), seen: Seen::default(), stop, say, make })
    }

    /// The store of a plan, at this place of [`super::plan::Plan::stores`], for a scope: one that is full does not concern the others.
    pub fn get(&'static self, place: usize, plan: &StorePlan, scope: &[u8]) -> Result<&'static Sessions, Error> {
        // A cache of httpd's is one for all.
        let scope = if matches!(plan.kept, Kept::Socache(..)) { &[] } else { scope };
        let cell = self.opened.get(place).ok_or_else(|| Error::Unavailable("not configured".into()))?;
        if let Some(store) = cell.read().get(scope) {
            return Ok(store);
        }
        let mut keepers = self.opening.try_lock_for(PATIENCE).ok_or_else(busy)?;
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
            Kept::Memory => Sessions::memory(&self.own_directory(directory, scope)?, plan.limits, self.say),
            Kept::Disk => Sessions::disk(&self.own_directory(directory, scope)?, plan.limits, self.say),
            Kept::Socache(..) => Sessions::with_engine(directory, plan.limits, self.say, (self.make)(plan)?),
            Kept::Off => Err(Error::Unavailable("sessions are off".into())),
        }
    }

    /// The directory of a store that is this child's from now on.
    fn own_directory(&self, all: &Path, scope: &[u8]) -> Result<PathBuf, Error> {
        let path = scope_directory(all, scope)?;
        self.own.try_lock_for(PATIENCE).ok_or_else(busy)?.insert(path.clone());
        Ok(path)
    }

    /// Sees to the work between requests: one thread for all stores, but for those in memory, each of which must let others in at once.
    fn keep(&'static self, keepers: &mut Keepers, plan: &StorePlan, store: &'static Sessions) {
        let sync_ns = u64::from(plan.sync_s) * SECOND_NS;
        if plan.kept == Kept::Memory {
            self.start(keepers, move || {
                store.keep(&self.stop, SECOND_NS, sync_ns, now_ms);
                store.hand_over();
            });
        }
        if keepers.shared.is_none() {
            // At most as many as there may be stores; a bound would make a request wait with `opening` locked.
            let (sender, receiver) = unbounded();
            if self.start(keepers, move || self.tend(&receiver)) {
                keepers.shared = Some(sender);
            }
        }
        if plan.kept != Kept::Memory
            && let Some(shared) = &keepers.shared
        {
            // The thread ends with the child only; then it is nobody's work any more.
            let _ = shared.send((store, sync_ns));
        }
    }

    /// Tends stores once a second, those that come later, until the child ends; and visits those that nobody uses.
    fn tend(&self, more: &Receiver<Tended>) {
        let mut stores: Vec<(Tended, Tending)> = Vec::new();
        let mut visit_at = 0;
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
            if monotonic_ns() >= visit_at {
                let rest = if self.visit(now_ms()) { SECOND_NS } else { VISIT_NS };
                visit_at = monotonic_ns().saturating_add(rest);
            }
        }
    }

    /// Removes expired sessions of the scope that nobody has looked after for the longest time, if that is long enough; whether more are to be
    /// removed at once.
    fn visit(&self, now_ms: u64) -> bool {
        // A store that is being opened comes first.
        let Some(own) = self.own.try_lock() else { return false };
        let abandoned = self.homes.iter().flat_map(|(home, limits)| scopes(home).map(move |path| (path, limits)));
        let abandoned = abandoned.filter(|(path, _)| !own.contains(path));
        let due =
            abandoned.filter_map(|(path, limits)| visit::looked_after(&path).filter(|at| visit::is_due(*at)).map(|at| (at, path, limits)));
        let Some((_, path, limits)) = due.min_by_key(|(at, ..): &(SystemTime, PathBuf, &Limits)| *at) else { return false };
        let say = self.say;
        match visit::visit(&path, limits, now_ms, Box::new(say)) {
            Ok(swept) => swept.is_some_and(|swept| swept.more),
            Err(e) => {
                (self.say)(&format!("expired sessions of a scope that is not in use are not removed: {e}"));
                false
            }
        }
    }

    fn start(&self, keepers: &mut Keepers, work: impl FnOnce() + Send + 'static) -> bool {
        let (done, is_done) = bounded(1);
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
        let Some(mut keepers) = self.opening.try_lock_until(until) else {
            return (self.say)("the child ends before all sessions were written down: a store is still being opened");
        };
        for keeper in keepers.ends.drain(..) {
            if keeper.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                (self.say)("the child ends before all sessions were written down");
            }
        }
    }
}

/// Where scopes may lie: also those of a former configuration that kept other sessions in memory.
fn homes(plans: &[StorePlan]) -> Vec<(PathBuf, Limits)> {
    let mut homes: Vec<(PathBuf, Limits)> = Vec::new();
    for plan in plans.iter().filter(|plan| matches!(plan.kept, Kept::Memory | Kept::Disk)) {
        for home in [plan.directory.clone(), plan.directory.join(MEMORY)] {
            if !homes.iter().any(|(other, _)| *other == home) {
                homes.push((home, plan.limits));
            }
        }
    }
    homes
}

/// The directories of scopes below this one, as many as there may be.
fn scopes(home: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(home).into_iter().flatten().flatten().filter(is_scope).take(MOST_SCOPES).map(|entry| entry.path())
}

fn is_scope(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(id::DIRECTORY.as_bytes())
}

/// The directory of a scope's store, made if need be. What the scopes of former configurations have left counts too: it fills the disk.
fn scope_directory(all: &Path, scope: &[u8]) -> Result<PathBuf, Error> {
    let path = all.join(id::directory_name(scope));
    let refused = |e: std::io::Error| Error::Unavailable(format!("{}: {e}", path.display()));
    if path.is_dir() {
        return Ok(path);
    }
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
        (Box::leak(Box::new(Stores::new(std::slice::from_ref(&plan), &|_| {}, none).unwrap())), plan)
    }

    fn put(store: &Sessions, n: u8, len: usize) -> Result<(), Error> {
        store.put(&Key([n; 32]), &Record { created_ms: 0, accessed_ms: 1, timeout_s: 60, data: vec![7; len] }, Put::Any, 1)
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

    /// The directory of a scope that nobody has looked after for an hour, with one session that is over by `LATER` and one that lives.
    fn abandoned(all: &Path, scope: &[u8], over: u32) -> PathBuf {
        let directory = scope_directory(all, scope).unwrap();
        let limits = Limits { disk_bytes: 16 << 20, memory_bytes: 1 << 20, data_bytes: 1 << 20, always_sync: false };
        let store = Sessions::disk(&directory, limits, &|_| {}).unwrap();
        let record = |timeout_s| Record { created_ms: 1, accessed_ms: 1, timeout_s, data: vec![7; 10] };
        for n in 0..over {
            store.put(&Key::named(b"", n.to_string().as_bytes()).unwrap(), &record(60), Put::Any, 1).unwrap();
        }
        store.put(&Key([255; 32]), &record(1 << 20), Put::Any, 1).unwrap();
        leave(&directory);
        directory
    }

    fn leave(directory: &Path) {
        let locks = std::fs::File::open(directory.join("locks")).unwrap();
        locks.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }

    fn left_in(directory: &Path) -> u64 {
        let limits = Limits { disk_bytes: 1 << 20, memory_bytes: 1 << 20, data_bytes: 1 << 20, always_sync: false };
        Sessions::disk(directory, limits, &|_| {}).unwrap().figures().unwrap().sessions
    }

    const LATER: u64 = 1_000_000;

    #[test]
    fn stores_that_nobody_uses_are_visited_one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, plan) = rig(directory.path());
        let own = stores.get(0, &plan, b"own").unwrap();
        put(own, 1, 10).unwrap();
        leave(&directory.path().join(id::directory_name(b"own")));
        let all = [b"a", b"b"].map(|scope| abandoned(directory.path(), scope, 3));
        assert!(!stores.visit(LATER) && all.iter().filter(|path| left_in(path) == 1).count() == 1, "one of them");
        stores.visit(LATER);
        assert_eq!(all.each_ref().map(|path| left_in(path)), [1, 1], "what lives stays");
        // Whoever has been looked after is left alone.
        let busy = abandoned(directory.path(), b"busy", 3);
        std::fs::File::open(busy.join("locks")).unwrap().set_modified(SystemTime::now()).unwrap();
        stores.visit(LATER);
        assert_eq!((left_in(&busy), own.figures().unwrap().sessions), (4, 1));
        stores.finish();
    }

    #[test]
    fn a_visit_is_bounded_and_goes_on_later() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, _) = rig(directory.path());
        let one = abandoned(directory.path(), b"one", 2500);
        assert!(stores.visit(LATER));
        assert_eq!(left_in(&one), 501);
        assert!(!stores.visit(LATER));
        assert_eq!(left_in(&one), 1);
        stores.finish();
    }

    #[test]
    fn a_visit_makes_no_store_and_disturbs_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, _) = rig(directory.path());
        // Without a store, and in the memory of somebody else.
        let empty = scope_directory(directory.path(), b"empty").unwrap();
        std::fs::create_dir(empty.join("store")).unwrap();
        std::fs::write(empty.join("store/data.mdb"), "").unwrap();
        std::fs::write(empty.join("locks"), "").unwrap();
        leave(&empty);
        let held = abandoned(directory.path(), b"held", 3);
        let locks = std::fs::OpenOptions::new().read(true).write(true).open(held.join("locks")).unwrap();
        let owner = drover_session::owner::Owner::new(&held, locks).unwrap();
        assert!(owner.try_alone().unwrap());
        assert!(!stores.visit(LATER) && !owner.was_knocked());
        assert_eq!(std::fs::metadata(empty.join("store/data.mdb")).unwrap().len(), 0);
        drop(owner);
        assert_eq!(left_in(&held), 4);
        // A damaged one is for those who use it.
        leave(&held);
        std::fs::write(held.join("store/data.mdb"), "damaged").unwrap();
        assert!(!stores.visit(LATER));
        assert_eq!(std::fs::read(held.join("store/data.mdb")).unwrap(), b"damaged");
        stores.finish();
    }

    #[test]
    fn nobody_waits_without_end_for_one_that_opens_a_store() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, plan) = rig(directory.path());
        let refused = |stores: &'static Stores| stores.get(0, &plan, b"one").unwrap_err().to_string();
        let opening = stores.opening.lock();
        assert!(refused(stores).contains("another thread of this process"));
        drop(opening);
        let own = stores.own.lock();
        assert!(refused(stores).contains("another thread of this process") && !stores.visit(LATER));
        drop(own);
        assert!(stores.get(0, &plan, b"one").is_ok());
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
