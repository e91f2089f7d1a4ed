//! The access predictor: whether a request will use its session, from earlier requests to the same
//! URL.
//!
//! Responsible for: the prediction alone. A miss costs a little time and nothing else. Must never:
//! grow. Called by: [`super::answer`]; each child process has one in its [`super::Stores`].
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};

/// Entries of the table. URLs with the same entry share their prediction.
const ENTRIES: usize = 4096;
/// Misses in a row after which the session is no longer prefetched.
const MAX_MISSES: u8 = 8;
const LOCK: u8 = 1 << 7;
/// The most cookies, besides DroverSessionCookie, that are known to name sessions.
const MAX_KEY_COOKIES: usize = 4;

/// The session access that a request is predicted to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// None.
    None,
    /// Reads the session.
    Read,
    /// Changes the session, so needs its lock.
    Lock,
}

/// The history of each URL.
#[derive(Debug)]
pub struct Predictor {
    entries: Box<[AtomicU8]>,
    /// Cookies whose values applications use as keys, as Django does.
    key_cookies: RwLock<VecDeque<String>>,
}

impl Default for Predictor {
    fn default() -> Self {
        Self { entries: (0..ENTRIES).map(|_| AtomicU8::new(0)).collect(), key_cookies: RwLock::default() }
    }
}

/// The entry of a URL.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'s> {
    predictor: &'s Predictor,
    state: &'s AtomicU8,
}

impl Predictor {
    /// The entry of a URL.
    #[must_use]
    pub fn entry(&self, url: &impl Hash) -> Option<Entry<'_>> {
        let mut hasher = DefaultHasher::new();
        url.hash(&mut hasher);
        usize::try_from(hasher.finish() % ENTRIES as u64)
            .ok()
            .and_then(|at| self.entries.get(at))
            .map(|state| Entry { predictor: self, state })
    }

    /// Whether this cookie names sessions of an application.
    #[must_use]
    pub fn is_key_cookie(&self, cookie: &str) -> bool {
        self.key_cookies.read().iter().any(|name| name == cookie)
    }

    /// Notes that this cookie names sessions of an application.
    pub fn learn_key_cookie(&self, cookie: &str) {
        if self.is_key_cookie(cookie) {
            return;
        }
        let mut key_cookies = self.key_cookies.write();
        key_cookies.truncate(MAX_KEY_COOKIES - 1);
        key_cookies.push_front(cookie.to_owned());
    }
}

impl<'s> Entry<'s> {
    /// The table of the entry.
    #[must_use]
    pub const fn predictor(self) -> &'s Predictor {
        self.predictor
    }

    /// Predicts the access of the next request.
    #[must_use]
    pub fn predict(self) -> Access {
        match self.state.load(Ordering::Relaxed) {
            state if state & !LOCK == 0 => Access::None,
            state if state & LOCK != 0 => Access::Lock,
            _ => Access::Read,
        }
    }

    /// A request has used its session.
    pub fn hit(self, lock: bool) {
        let predictor = MAX_MISSES | if lock { LOCK } else { 0 };
        // Read first: without a write the cache line stays shared between processors.
        if self.state.load(Ordering::Relaxed) != predictor {
            self.state.store(predictor, Ordering::Relaxed);
        }
    }

    /// A request did not use the session that was prefetched.
    pub fn miss(self) {
        let predictor = self.state.load(Ordering::Relaxed);
        if predictor & !LOCK != 0 {
            self.state.store(predictor - 1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_predicted_until_enough_misses() {
        let predictor = Predictor::default();
        assert!(!predictor.is_key_cookie("a"));
        ["a", "b", "c", "b", "d", "e"].into_iter().for_each(|name| predictor.learn_key_cookie(name));
        assert_eq!(["a", "b", "e"].map(|name| predictor.is_key_cookie(name)), [false, true, true]);
        let (place, other) = (predictor.entry(&"/shop").unwrap(), predictor.entry(&"/style.css").unwrap());
        assert_eq!(place.predict(), Access::None);
        place.miss();
        place.hit(true);
        assert_eq!((place.predict(), other.predict()), (Access::Lock, Access::None));
        place.hit(false);
        assert_eq!(predictor.entry(&"/shop").unwrap().predict(), Access::Read);
        place.hit(true);
        for _ in 1..MAX_MISSES {
            place.miss();
            assert_eq!(place.predict(), Access::Lock);
        }
        place.miss();
        assert_eq!(place.predict(), Access::None);
    }
}
