//! The session stores of one child process of httpd.
//!
//! Responsible for: one store for each scope, opened at its first use and never before the fork; background threads that end
//! with the child process and write sessions in memory to disk; the periodic sweep of orphaned stores. Must never: hold a lock
//! while a store is opened. Called by: `httpd::lifecycle`, [`super::answer`].
use super::plan::StorePlan;
use super::predictor::Predictor;
use super::registry::Registry;
use super::scopes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use drover_session::{Engine, Error, Kept, Limits, Sessions, Stop, Tending, id, orphan};
use drover_sys::clock::{monotonic_ns, realtime_ns};
use drover_sys::signals;
use drover_sys::wait::{EventfdFlags, PollFd, PollFlags, eventfd, poll_until};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// How long a child process that ends waits for its sessions to be written.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// How long a request waits for another thread that opens the same store, or sweeps it. Longer than that thread waits itself.
const OPENING_LIMIT: Duration = Duration::from_secs(10);

const SECOND_NS: u64 = 1_000_000_000;
/// The time between two sweeps of orphaned stores.
const ORPHAN_SWEEP_NS: u64 = 600 * SECOND_NS;

/// Writes a line for the administrator to the log.
pub type Log = &'static (dyn Fn(&str) + Send + Sync);
/// Makes an engine that is not part of `drover_session`: httpd's socache.
pub type MakeEngine = &'static (dyn Fn(&StorePlan) -> Result<Box<dyn Engine>, Error> + Send + Sync);

/// The stores of one child process; lives as long as the process.
pub struct Stores {
    /// The open stores by their index in [`super::plan::Plan::stores`] and their scope.
    opened: Vec<RwLock<HashMap<Vec<u8>, &'static Sessions>>>,
    /// The same by directory, with those that are being opened or swept.
    registry: Registry<&'static Sessions>,
    threads: Mutex<Threads>,
    /// The directories in which orphaned stores can lie, with the limits of a store.
    roots: Vec<(PathBuf, Limits)>,
    /// Which URLs access their sessions.
    pub predictor: Predictor,
    /// Ends the waits of requests.
    stop: Stop,
    /// Readable when the background threads must end.
    ending: OwnedFd,
    log: Log,
    make: MakeEngine,
}

/// The background threads.
#[derive(Default)]
struct Threads {
    /// One message from each thread when it has ended.
    ends: Vec<Receiver<()>>,
    /// Leads to the thread that serves all stores that are not in memory.
    shared: Option<Sender<Tended>>,
}

/// A store, and the time between two syncs to the disk.
type Tended = (&'static Sessions, u64);

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    realtime_ns() / 1_000_000
}

impl Stores {
    /// The stores of the plans, none of them open.
    pub fn new(plans: &[StorePlan], log: Log, make: MakeEngine) -> Result<Self, Error> {
        let ending = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| Error::Unavailable(e.to_string()))?;
        Ok(Self {
            opened: plans.iter().map(|_| RwLock::default()).collect(),
            registry: Registry::new(OPENING_LIMIT),
            threads: Mutex::default(),
            roots: scopes::roots(plans),
            predictor: Predictor::default(),
            stop: Stop::new()?,
            ending,
            log,
            make,
        })
    }

    /// The store of a scope, by the plan at `index` in [`super::plan::Plan::stores`]. Scopes do not share a store, so a full one
    /// affects no other.
    pub fn get(&'static self, index: usize, plan: &StorePlan, scope: &[u8]) -> Result<&'static Sessions, Error> {
        let is_cache = matches!(plan.kept, Kept::Socache(..));
        // One cache of httpd's serves all scopes.
        let scope = if is_cache { &[] } else { scope };
        let open = self.opened.get(index).ok_or_else(|| Error::Unavailable("not configured".into()))?;
        if let Some(store) = open.read().get(scope) {
            return Ok(store);
        }
        // Two caches can share a directory: their index tells them apart.
        let path = plan.directory.join(if is_cache { format!("cache-{index}") } else { id::directory_name(scope) });
        let store = self.registry.get_or_open(&path, &self.stop, || {
            let store: &'static Sessions = Box::leak(Box::new(self.open(plan, &path)?));
            self.start_work(plan, store);
            Ok(store)
        })?;
        open.write().insert(scope.to_owned(), store);
        Ok(store)
    }

    fn open(&self, plan: &StorePlan, path: &std::path::Path) -> Result<Sessions, Error> {
        let directory = plan.directory.as_path();
        if !directory.is_dir() {
            return Err(Error::Unavailable(format!("{} does not exist; restart httpd, which creates it", directory.display())));
        }
        match plan.kept {
            Kept::Memory | Kept::Disk => scopes::create(directory, path)?,
            Kept::Socache(..) | Kept::Off => {}
        }
        match plan.kept {
            Kept::Memory => Sessions::memory(path, plan.limits, &self.stop, self.log),
            Kept::Disk => Sessions::disk(path, plan.limits, &self.stop, self.log),
            Kept::Socache(..) => Sessions::with_engine(directory, plan.limits, &self.stop, self.log, (self.make)(plan)?),
            Kept::Off => Err(Error::Unavailable("sessions are off".into())),
        }
    }

    /// Starts the background work of a store. One thread serves all stores, but each store in memory has its own: it must answer
    /// a handover request at once.
    fn start_work(&'static self, plan: &StorePlan, store: &'static Sessions) {
        let mut threads = self.threads.lock();
        let sync_ns = u64::from(plan.sync_s) * SECOND_NS;
        if plan.kept == Kept::Memory {
            self.start(&mut threads, move || {
                store.keep(&self.ending, SECOND_NS, sync_ns, now_ms);
                store.hand_over();
            });
        }
        if threads.shared.is_none() {
            // It holds at most one message per store; a bounded channel would make a request wait with the lock held.
            let (sender, receiver) = unbounded();
            if self.start(&mut threads, move || self.tend(&receiver)) {
                threads.shared = Some(sender);
            }
        }
        if plan.kept != Kept::Memory
            && let Some(shared) = &threads.shared
        {
            // Sending fails only while the child process ends, when the store needs no more work.
            let _ = shared.send((store, sync_ns));
        }
    }

    /// Serves its stores once a second, and sweeps orphaned ones, until the child process ends.
    fn tend(&self, new: &Receiver<Tended>) {
        let mut stores: Vec<(Tended, Tending)> = Vec::new();
        let mut sweep_at = 0;
        loop {
            let mut fds = [PollFd::new(&self.ending, PollFlags::IN)];
            // An error of poll(2) counts as a second that has passed, so that it cannot cause a busy loop.
            let ends = poll_until(&mut fds, Some(monotonic_ns().saturating_add(SECOND_NS))).is_ok_and(|n| n > 0);
            stores.extend(new.try_iter().map(|store| (store, Tending::default())));
            if ends {
                return stores.iter().for_each(|((store, _), _)| store.hand_over());
            }
            for ((store, sync_ns), tending) in &mut stores {
                store.tend(tending, *sync_ns, now_ms());
            }
            if monotonic_ns() >= sweep_at {
                let rest = if self.sweep_orphan(now_ms()) { SECOND_NS } else { ORPHAN_SWEEP_NS };
                sweep_at = monotonic_ns().saturating_add(rest);
            }
        }
    }

    /// Removes expired sessions from one orphaned store: the one that was not maintained for the longest time. Returns whether
    /// there is more to remove at once.
    fn sweep_orphan(&self, now_ms: u64) -> bool {
        let all = self.roots.iter().flat_map(|(root, limits)| scopes::all(root).map(move |path| (path, limits)));
        let due = all.filter(|(path, _)| !self.registry.is_in_use(path)).filter_map(|(path, limits)| {
            let at = orphan::maintained_at(&path).filter(|at| orphan::is_due(*at))?;
            Some((at, path, limits))
        });
        let Some((_, path, limits)) = due.min_by_key(|(at, ..): &(SystemTime, PathBuf, &Limits)| *at) else { return false };
        let log = self.log;
        let sweep = || orphan::sweep(&path, limits, now_ms, self.stop.clone(), Box::new(log));
        match self.registry.try_while_closed(&path, sweep) {
            None | Some(Ok(None) | Err(Error::Stopping)) => false,
            Some(Ok(Some(swept))) => swept.more,
            Some(Err(e)) => {
                (self.log)(&format!("cannot remove expired sessions of an unused scope: {e}"));
                false
            }
        }
    }

    fn start(&self, threads: &mut Threads, work: impl FnOnce() + Send + 'static) -> bool {
        let (done, is_done) = bounded(1);
        let work = move || {
            work();
            // `finish` may have given up.
            let _ = done.send(());
        };
        // Signals are for httpd's own threads.
        let started = signals::blocked(|| std::thread::Builder::new().name("drover-sessions".into()).stack_size(256 * 1024).spawn(work));
        match started {
            Ok(_) => threads.ends.push(is_done),
            Err(e) => {
                (self.log)(&format!("cannot start a thread, so expired sessions are not removed: {e}"));
                return false;
            }
        }
        true
    }

    /// The child process ends. `graceful`: its requests are finished, so they may go on waiting. Async-signal-safe.
    pub fn stop(&self, graceful: bool) {
        if !graceful {
            self.stop.stop();
        }
        // The counter is far from full; a full one would be readable as well.
        let _ = drover_sys::write_once(&self.ending, &1u64.to_ne_bytes());
    }

    /// Waits until all sessions are written to disk, for ten seconds at most. Not async-signal-safe.
    pub fn finish(&self) {
        self.stop(false);
        let until = Instant::now() + FINISH_LIMIT;
        let left = || until.saturating_duration_since(Instant::now());
        let is_idle = self.registry.wait_until_idle(left());
        // Taken out, so that the lock is not held while they are waited for.
        let ends = std::mem::take(&mut self.threads.lock().ends);
        let all_ended = ends.iter().all(|thread| thread.recv_timeout(left()).is_ok());
        if !is_idle || !all_ended {
            (self.log)("the child process ends before all sessions were written to disk");
        }
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("opened", &self.opened.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::scopes::MAX_SCOPES;
    use super::*;
    use drover_session::{Key, Put, Record};
    use std::path::Path;

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

    fn scope_directory(all: &Path, scope: &[u8]) -> PathBuf {
        let path = all.join(id::directory_name(scope));
        scopes::create(all, &path).unwrap();
        path
    }

    /// The directory of a store without maintenance for an hour, with `over` sessions that expire before `LATER` and a live one.
    fn abandoned(all: &Path, scope: &[u8], over: u32) -> PathBuf {
        let directory = scope_directory(all, scope);
        let limits = Limits { disk_bytes: 16 << 20, memory_bytes: 1 << 20, data_bytes: 1 << 20, always_sync: false };
        let store = Sessions::disk(&directory, limits, &Stop::never(), &|_| {}).unwrap();
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
        Sessions::disk(directory, limits, &Stop::never(), &|_| {}).unwrap().figures().unwrap().sessions
    }

    const LATER: u64 = 1_000_000;

    #[test]
    fn orphaned_stores_are_swept_one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, plan) = rig(directory.path());
        let own = stores.get(0, &plan, b"own").unwrap();
        put(own, 1, 10).unwrap();
        leave(&directory.path().join(id::directory_name(b"own")));
        let all = [b"a", b"b"].map(|scope| abandoned(directory.path(), scope, 3));
        assert!(!stores.sweep_orphan(LATER) && all.iter().filter(|path| left_in(path) == 1).count() == 1, "one of them");
        stores.sweep_orphan(LATER);
        assert_eq!(all.each_ref().map(|path| left_in(path)), [1, 1], "what lives stays");
        // A store that is maintained is not swept.
        let busy = abandoned(directory.path(), b"busy", 3);
        std::fs::File::open(busy.join("locks")).unwrap().set_modified(SystemTime::now()).unwrap();
        stores.sweep_orphan(LATER);
        assert_eq!((left_in(&busy), own.figures().unwrap().sessions), (4, 1));
        stores.finish();
    }

    #[test]
    fn the_sweep_of_an_orphan_is_bounded_and_continues_later() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, _) = rig(directory.path());
        let one = abandoned(directory.path(), b"one", 2500);
        assert!(stores.sweep_orphan(LATER));
        assert_eq!(left_in(&one), 501);
        assert!(!stores.sweep_orphan(LATER));
        assert_eq!(left_in(&one), 1);
        stores.finish();
    }

    #[test]
    fn the_sweep_of_an_orphan_creates_no_store_and_disturbs_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, _) = rig(directory.path());
        // Without a store, and in the memory of somebody else.
        let empty = scope_directory(directory.path(), b"empty");
        std::fs::create_dir(empty.join("store")).unwrap();
        std::fs::write(empty.join("store/data.mdb"), "").unwrap();
        std::fs::write(empty.join("locks"), "").unwrap();
        leave(&empty);
        let held = abandoned(directory.path(), b"held", 3);
        let locks = std::fs::OpenOptions::new().read(true).write(true).open(held.join("locks")).unwrap();
        let owner = drover_session::owner::Owner::new(&held, locks).unwrap();
        assert!(owner.try_exclusive().unwrap());
        assert!(!stores.sweep_orphan(LATER) && !owner.take_handover_request());
        assert_eq!(std::fs::metadata(empty.join("store/data.mdb")).unwrap().len(), 0);
        drop(owner);
        assert_eq!(left_in(&held), 4);
        // A damaged one is for those who use it.
        leave(&held);
        std::fs::write(held.join("store/data.mdb"), "damaged").unwrap();
        assert!(!stores.sweep_orphan(LATER));
        assert_eq!(std::fs::read(held.join("store/data.mdb")).unwrap(), b"damaged");
        stores.finish();
    }

    /// A plan whose stores need the engine of the caller, and the channels by which a test holds an opening up: the first says
    /// that it has begun, the second lets it go on.
    fn slow(directory: &Path, patience: Duration) -> (&'static Stores, StorePlan, Receiver<()>, Sender<()>) {
        let (opens, is_opening) = unbounded();
        let (go_on, goes_on) = unbounded();
        let make: MakeEngine = Box::leak(Box::new(move |_: &StorePlan| {
            opens.send(()).unwrap();
            // An error means that the test has dropped its end.
            let _ = goes_on.recv();
            Err(Error::Full)
        }));
        let (_, disk) = rig(directory);
        let plan = StorePlan { kept: Kept::Socache("slow".into(), String::new()), ..disk };
        let stores = Stores::new(&[plan.clone(), plan.clone()], &|_| {}, make).unwrap();
        (Box::leak(Box::new(Stores { registry: Registry::new(patience), ..stores })), plan, is_opening, go_on)
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_thread_that_opens_a_store() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, plan, is_opening, go_on) = slow(directory.path(), Duration::MAX);
        std::thread::scope(|scope| {
            let opener = scope.spawn(|| stores.get(0, &plan, b"one").unwrap_err());
            is_opening.recv().unwrap();
            let waiter = scope.spawn(|| stores.get(0, &plan, b"one").unwrap_err());
            // Running requests are finished at a graceful stop: only the other one ends their waits.
            stores.stop(true);
            assert!(!stores.stop.is_stopping());
            stores.stop(false);
            let refused = waiter.join().unwrap();
            assert!(refused == Error::Stopping && refused.to_string().contains("httpd stops"), "{refused}");
            drop(go_on);
            assert_eq!(opener.join().unwrap(), Error::Full);
        });
        stores.finish();
    }

    #[test]
    fn a_store_that_is_being_opened_holds_up_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, plan, is_opening, go_on) = slow(directory.path(), Duration::ZERO);
        std::thread::scope(|scope| {
            let opener = scope.spawn(|| stores.get(0, &plan, b"one").unwrap_err());
            is_opening.recv().unwrap();
            let refused = stores.get(0, &plan, b"one").unwrap_err().to_string();
            assert!(refused.contains("another thread of this process"), "{refused}");
            let other = scope.spawn(|| stores.get(1, &plan, b"one").unwrap_err());
            is_opening.recv().unwrap();
            drop(go_on);
            assert_eq!([opener, other].map(|thread| thread.join().unwrap()), [Error::Full, Error::Full]);
        });
        stores.finish();
    }

    #[test]
    fn scopes_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, plan) = rig(directory.path());
        (1..MAX_SCOPES).for_each(|n| std::fs::create_dir(directory.path().join(format!("{}{n}", id::DIRECTORY))).unwrap());
        assert!(stores.get(0, &plan, b"the last").is_ok());
        let refused = stores.get(0, &plan, b"one more").unwrap_err().to_string();
        assert!(refused.contains("256 scopes"), "{refused}");
        assert!(stores.get(0, &plan, b"the last").is_ok() && rig(directory.path()).0.get(0, &plan, b"the last").is_ok());
        stores.finish();
    }
}
