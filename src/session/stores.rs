//! The stores of one child of httpd.
//!
//! Responsible for: opening a store at its first use, never before the child was forked; one thread for the work between requests of each, which
//! ends with the child and writes down what was in memory. Called by: `httpd::lifecycle`, [`super::answer`].
use super::ahead::Seen;
use super::plan::StorePlan;
use drover_session::{Engine, Error, Kept, Sessions};
use drover_sys::clock::realtime_ns;
use drover_sys::signals;
use drover_sys::wait::{EventfdFlags, eventfd};
use parking_lot::Mutex;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long a child that ends waits for its sessions to be written down.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How often expired sessions are looked for.
const SECOND_NS: u64 = 1_000_000_000;

/// Who is told what the administrator must know.
pub type Say = &'static (dyn Fn(&str) + Send + Sync);
/// Who makes an engine that is not of `drover_session`: httpd's socache.
pub type MakeEngine = &'static (dyn Fn(&StorePlan) -> Result<Box<dyn Engine>, Error> + Send + Sync);

/// See the head of this file. Lives as long as its process.
pub struct Stores {
    opened: Vec<OnceLock<Sessions>>,
    opening: Mutex<Vec<Receiver<()>>>,
    /// Which URLs want their sessions.
    pub seen: Seen,
    stop: OwnedFd,
    say: Say,
    make: MakeEngine,
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    realtime_ns() / 1_000_000
}

impl Stores {
    /// None opened yet, room for `n`.
    pub fn new(n: usize, say: Say, make: MakeEngine) -> Result<Self, Error> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| Error::Unavailable(e.to_string()))?;
        Ok(Self { opened: (0..n).map(|_| OnceLock::new()).collect(), opening: Mutex::default(), seen: Seen::default(), stop, say, make })
    }

    /// The store of a plan, at this place of [`super::plan::Plan::stores`].
    pub fn get(&'static self, place: usize, plan: &StorePlan) -> Result<&'static Sessions, Error> {
        let cell = self.opened.get(place).ok_or_else(|| Error::Unavailable("not configured".into()))?;
        match cell.get() {
            Some(store) => Ok(store),
            None => self.open(cell, plan),
        }
    }

    fn open(&'static self, cell: &'static OnceLock<Sessions>, plan: &StorePlan) -> Result<&'static Sessions, Error> {
        let mut keepers = self.opening.lock();
        if let Some(store) = cell.get() {
            return Ok(store);
        }
        let directory = plan.directory.as_path();
        if !directory.is_dir() {
            return Err(Error::Unavailable(format!("{} is not there; httpd makes it when it starts", directory.display())));
        }
        let store = match plan.kept {
            Kept::Memory => Sessions::memory(directory, plan.limits, self.say)?,
            Kept::Disk => Sessions::disk(directory, plan.limits, self.say)?,
            Kept::Socache(..) => Sessions::with_engine(directory, plan.limits, self.say, (self.make)(plan)?)?,
            Kept::Off => return Err(Error::Unavailable("sessions are off".into())),
        };
        let store = cell.get_or_init(|| store);
        let (done, is_done) = channel();
        let sync_ns = u64::from(plan.sync_s) * SECOND_NS;
        let keeper = move || {
            store.keep(&self.stop, SECOND_NS, sync_ns, now_ms);
            store.hand_over();
            // Nobody may wait for it any more.
            let _ = done.send(());
        };
        // httpd's signals are for httpd's threads.
        let started = signals::blocked(|| std::thread::Builder::new().name("drover-sessions".into()).stack_size(256 * 1024).spawn(keeper));
        match started {
            Ok(_) => keepers.push(is_done),
            Err(e) => (self.say)(&format!("expired sessions are not removed, as no thread could be started: {e}")),
        }
        Ok(store)
    }

    /// The child ends; async-signal-safe.
    pub fn stop(&self) {
        // The counter is far from full; and if it were, the descriptor would be readable already.
        let _ = drover_sys::write_once(&self.stop, &1u64.to_ne_bytes());
    }

    /// Waits until all is written down, or for ten seconds. Not in a signal handler.
    pub fn finish(&self) {
        self.stop();
        for keeper in self.opening.lock().drain(..) {
            if keeper.recv_timeout(LAST_WORDS).is_err() {
                (self.say)("the child ends before all sessions were written down");
            }
        }
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("opened", &self.opened.len()).finish_non_exhaustive()
    }
}
