//! Which session stores this process has open, is opening, or is sweeping.
//!
//! Responsible for: one process never having a store open twice, which LMDB does not allow; every wait for another thread
//! ending at a deadline or when httpd stops. Must never: hold its lock while a store is opened or swept. Called by:
//! [`super::stores`].
use drover_session::stop::Ended;
use drover_session::{Error, Stop};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Stores by their directory. `T` is what an open store is.
#[derive(Debug)]
pub struct Registry<T> {
    states: Mutex<HashMap<PathBuf, State<T>>>,
    /// How long a thread waits for another one. Longer than an opening waits itself.
    patience: Duration,
}

#[derive(Debug, Clone)]
enum State<T> {
    Busy(Arc<Work<T>>),
    Open(T),
}

/// What one thread does with a store; others wait for its outcome.
#[derive(Debug)]
struct Work<T> {
    outcome: Mutex<Outcome<T>>,
    changed: Condvar,
}

#[derive(Debug, Clone)]
enum Outcome<T> {
    /// The store is being opened or swept.
    Pending,
    Open(T),
    Failed(Error),
    /// The work has ended without opening the store.
    Released,
}

/// The right to work on a store. Ends when dropped, also by a panic.
struct Claim<'r, T: Clone> {
    registry: &'r Registry<T>,
    path: &'r Path,
    work: Arc<Work<T>>,
    outcome: Outcome<T>,
}

impl<T: Clone> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        let mut states = self.registry.states.lock();
        match &self.outcome {
            Outcome::Open(store) => states.insert(self.path.to_owned(), State::Open(store.clone())),
            // A failure is told to those who waited for it only: a later request tries again.
            Outcome::Pending | Outcome::Failed(_) | Outcome::Released => states.remove(self.path),
        };
        drop(states);
        let ended = std::mem::replace(&mut self.outcome, Outcome::Released);
        *self.work.outcome.lock() = if matches!(ended, Outcome::Pending) { Outcome::Released } else { ended };
        self.work.changed.notify_all();
    }
}

impl<T> Work<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self { outcome: Mutex::new(Outcome::Pending), changed: Condvar::new() })
    }
}

impl<T: Clone> Work<T> {
    fn wait(&self, limit: Duration, stop: &Stop) -> Result<Outcome<T>, Ended> {
        stop.wait(limit, |slice| {
            let mut outcome = self.outcome.lock();
            if matches!(*outcome, Outcome::Pending) {
                self.changed.wait_for(&mut outcome, slice);
            }
            Some(outcome.clone()).filter(|outcome| !matches!(outcome, Outcome::Pending))
        })
    }
}

impl<T: Clone> Registry<T> {
    /// Empty.
    pub fn new(patience: Duration) -> Self {
        Self { states: Mutex::default(), patience }
    }

    /// The open store of this directory. If there is none, one thread calls `open` and the others wait for its result.
    pub fn get_or_open(&self, path: &Path, stop: &Stop, open: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let work = match self.claim(path) {
                Ok(mut claim) => {
                    let result = open();
                    claim.outcome = result.clone().map_or_else(Outcome::Failed, Outcome::Open);
                    return result;
                }
                Err(State::Open(store)) => return Ok(store),
                Err(State::Busy(work)) => work,
            };
            match work.wait(self.patience, stop) {
                Ok(Outcome::Open(store)) => return Ok(store),
                Ok(Outcome::Failed(e)) => return Err(e),
                // A sweep has ended.
                Ok(Outcome::Released | Outcome::Pending) => {}
                Err(Ended::Stopping) => return Err(Error::Stopping),
                Err(Ended::TimedOut) => {
                    let text = format!("another thread of this process has been opening or sweeping it for {:?}", self.patience);
                    return Err(Error::Unavailable(text));
                }
            }
        }
    }

    /// Calls `work` while no other thread can open the store. `None`: the store is in use.
    pub fn try_while_closed<R>(&self, path: &Path, work: impl FnOnce() -> R) -> Option<R> {
        let _claim = self.claim(path).ok()?;
        Some(work())
    }

    /// Whether this process has the store open, or is at work on it.
    pub fn is_in_use(&self, path: &Path) -> bool {
        self.states.lock().contains_key(path)
    }

    /// Waits until the openings and sweeps of this moment have ended. False: one had not when `limit` was over.
    pub fn wait_until_idle(&self, limit: Duration) -> bool {
        let pending: Vec<_> = self.states.lock().values().filter_map(State::work).collect();
        let until = std::time::Instant::now() + limit;
        pending.iter().all(|work| work.wait(until.saturating_duration_since(std::time::Instant::now()), &Stop::never()).is_ok())
    }

    fn claim<'r>(&'r self, path: &'r Path) -> Result<Claim<'r, T>, State<T>> {
        let mut states = self.states.lock();
        if let Some(state) = states.get(path) {
            return Err(state.clone());
        }
        let work = Work::new();
        states.insert(path.to_owned(), State::Busy(work.clone()));
        Ok(Claim { registry: self, path, work, outcome: Outcome::Pending })
    }
}

impl<T> State<T> {
    fn work(&self) -> Option<Arc<Work<T>>> {
        if let Self::Busy(work) = self { Some(work.clone()) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const FOREVER: Duration = Duration::MAX;

    /// Runs `during` while another thread opens the store of `path`; that opening ends with `result`.
    fn while_opening<R>(
        registry: &Registry<u32>,
        path: &Path,
        result: Result<u32, Error>,
        during: impl FnOnce(mpsc::Sender<()>) -> R,
    ) -> R {
        std::thread::scope(|scope| {
            let (opens, is_opening) = mpsc::channel();
            let (go_on, goes_on) = mpsc::channel();
            let expected = result.clone();
            let opener = scope.spawn(move || {
                registry.get_or_open(path, &Stop::never(), || {
                    opens.send(()).unwrap();
                    // An error means that the test is done with its part.
                    let _ = goes_on.recv();
                    result
                })
            });
            is_opening.recv().unwrap();
            let done = during(go_on);
            assert_eq!(opener.join().unwrap(), expected);
            done
        })
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_thread_that_opens_a_store() {
        let (registry, path, stop) = (Registry::new(FOREVER), Path::new("/a"), Stop::new().unwrap());
        while_opening(&registry, path, Ok(1), |_opening| {
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| registry.get_or_open(path, &stop, || panic!("it is being opened")));
                stop.stop();
                let refused = waiter.join().unwrap().unwrap_err();
                assert!(refused == Error::Stopping && refused.to_string().contains("httpd stops"), "{refused}");
            });
            // Other stores are not held up.
            assert_eq!(registry.get_or_open(Path::new("/b"), &stop, || Ok(2)), Ok(2));
        });
        assert_eq!(registry.get_or_open(path, &stop, || panic!("it is open")), Ok(1));
    }

    #[test]
    fn waiting_threads_get_the_result_of_the_opening() {
        let (registry, path, stop) = (Registry::new(FOREVER), Path::new("/a"), Stop::never());
        for result in [Err(Error::Full), Ok(3)] {
            let waiter = while_opening(&registry, path, result.clone(), |go_on| {
                std::thread::scope(|scope| {
                    let waiter = scope.spawn(|| {
                        let work = registry.states.lock().get(path).and_then(State::work).unwrap();
                        drop(go_on);
                        work.wait(FOREVER, &stop).unwrap()
                    });
                    waiter.join().unwrap()
                })
            });
            match (waiter, result) {
                (Outcome::Open(store), Ok(expected)) => assert_eq!(store, expected),
                (Outcome::Failed(e), Err(expected)) => assert_eq!(e, expected),
                other => panic!("{other:?}"),
            }
        }
        assert!(registry.is_in_use(path));
    }

    #[test]
    fn a_wait_has_a_deadline() {
        let (registry, path) = (Registry::new(Duration::ZERO), Path::new("/a"));
        while_opening(&registry, path, Ok(1), |_opening| {
            let refused = registry.get_or_open(path, &Stop::never(), || Ok(2)).unwrap_err().to_string();
            assert!(refused.contains("another thread of this process") && !registry.wait_until_idle(Duration::ZERO), "{refused}");
        });
        assert!(registry.wait_until_idle(Duration::ZERO));
    }

    #[test]
    fn a_store_is_opened_or_swept_but_not_both() {
        let (registry, path) = (Registry::new(Duration::ZERO), Path::new("/a"));
        let opened = registry.try_while_closed(path, || registry.get_or_open(path, &Stop::never(), || Ok(1)));
        assert!(matches!(opened, Some(Err(Error::Unavailable(_)))));
        assert_eq!(registry.get_or_open(path, &Stop::never(), || Ok(1)), Ok(1));
        assert_eq!(registry.try_while_closed(path, || ()), None);
    }

    #[test]
    fn a_panic_leaves_no_store_busy() {
        let (registry, path) = (Registry::<u32>::new(Duration::ZERO), Path::new("/a"));
        let opening = std::panic::AssertUnwindSafe(|| registry.get_or_open(path, &Stop::never(), || panic!("as it opens")));
        assert!(std::panic::catch_unwind(opening).is_err());
        assert_eq!(registry.get_or_open(path, &Stop::never(), || Ok(1)), Ok(1));
    }
}
