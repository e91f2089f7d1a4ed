//! Which requests will want their session, guessed from those before them to the same URL.
//!
//! Responsible for: the guess alone. A wrong one costs a little time and nothing else. Must never: grow. Called by: [`super::answer`]; one
//! table lives in each child's [`super::Stores`].
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};

/// URLs that share a place are guessed together.
const ENTRIES: usize = 4096;
/// So many requests in a row must leave a session alone that was sent ahead, before it is sent no more.
const MAX_MISSES: u8 = 8;
const LOCK: u8 = 1 << 7;
/// Cookies that are known to name sessions, besides DroverSessionCookie.
const MAX_KEY_COOKIES: usize = 4;

/// What a request is likely to want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No session.
    None,
    /// To look at it.
    Read,
    /// To change it.
    Lock,
}

/// What was predictor of each URL.
#[derive(Debug)]
pub struct Predictor {
    entries: Box<[AtomicU8]>,
    /// Cookies whose values applications have asked for as keys, as Django does.
    key_cookies: RwLock<VecDeque<String>>,
}

impl Default for Predictor {
    fn default() -> Self {
        Self { entries: (0..ENTRIES).map(|_| AtomicU8::new(0)).collect(), key_cookies: RwLock::default() }
    }
}

/// One URL's place.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'s> {
    predictor: &'s Predictor,
    state: &'s AtomicU8,
}

impl Predictor {
    /// The place of a URL.
    #[must_use]
    pub fn entry(&self, url: &impl Hash) -> Option<Entry<'_>> {
        let mut hasher = DefaultHasher::new();
        url.hash(&mut hasher);
        usize::try_from(hasher.finish() % ENTRIES as u64)
            .ok()
            .and_then(|at| self.entries.get(at))
            .map(|state| Entry { predictor: self, state })
    }

    /// Whether this cookie key_cookies sessions of an application.
    #[must_use]
    pub fn is_key_cookie(&self, cookie: &str) -> bool {
        self.key_cookies.read().iter().any(|name| name == cookie)
    }

    /// This cookie does.
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
    /// The table it belongs to.
    #[must_use]
    pub const fn predictor(self) -> &'s Predictor {
        self.predictor
    }

    /// What the next request will want.
    #[must_use]
    pub fn predict(self) -> Access {
        match self.state.load(Ordering::Relaxed) {
            state if state & !LOCK == 0 => Access::None,
            state if state & LOCK != 0 => Access::Lock,
            _ => Access::Read,
        }
    }

    /// A request has wanted its session.
    pub fn hit(self, lock: bool) {
        let predictor = MAX_MISSES | if lock { LOCK } else { 0 };
        // Read first: the line stays with all processors then.
        if self.state.load(Ordering::Relaxed) != predictor {
            self.state.store(predictor, Ordering::Relaxed);
        }
    }

    /// A request did not want what was sent ahead.
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
    fn what_was_wanted_is_guessed_until_it_is_left_alone() {
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
