//! Which requests will want their session, guessed from those before them to the same URL.
//!
//! Responsible for: the guess alone. A wrong one costs a little time and nothing else. Must never: grow. Called by: [`super::answer`]; one
//! table lives in each child's [`super::Stores`].
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};

/// URLs that share a place are guessed together.
const PLACES: usize = 4096;
/// So many requests in a row must leave a session alone that was sent ahead, before it is sent no more.
const PATIENCE: u8 = 8;
const LOCK: u8 = 1 << 7;
/// Cookies that are known to name sessions, besides DroverSessionCookie.
const NAMES: usize = 4;

/// What a request is likely to want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// No session.
    Nothing,
    /// To look at it.
    Look,
    /// To change it.
    Lock,
}

/// What was seen of each URL.
#[derive(Debug)]
pub struct Seen {
    places: Box<[AtomicU8]>,
    /// Cookies whose values applications have asked for as keys, as Django does.
    names: RwLock<VecDeque<String>>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU8::new(0)).collect(), names: RwLock::default() }
    }
}

/// One URL's place.
#[derive(Debug, Clone, Copy)]
pub struct Place<'s> {
    seen: &'s Seen,
    wants: &'s AtomicU8,
}

impl Seen {
    /// The place of a URL.
    #[must_use]
    pub fn of(&self, url: &impl Hash) -> Option<Place<'_>> {
        let mut hasher = DefaultHasher::new();
        url.hash(&mut hasher);
        usize::try_from(hasher.finish() % PLACES as u64).ok().and_then(|at| self.places.get(at)).map(|wants| Place { seen: self, wants })
    }

    /// Whether this cookie names sessions of an application.
    #[must_use]
    pub fn is_name(&self, cookie: &str) -> bool {
        self.names.read().iter().any(|name| name == cookie)
    }

    /// This cookie does.
    pub fn learn(&self, cookie: &str) {
        if self.is_name(cookie) {
            return;
        }
        let mut names = self.names.write();
        names.truncate(NAMES - 1);
        names.push_front(cookie.to_owned());
    }
}

impl<'s> Place<'s> {
    /// The table it belongs to.
    #[must_use]
    pub const fn seen(self) -> &'s Seen {
        self.seen
    }

    /// What the next request will want.
    #[must_use]
    pub fn guess(self) -> Guess {
        match self.wants.load(Ordering::Relaxed) {
            seen if seen & !LOCK == 0 => Guess::Nothing,
            seen if seen & LOCK != 0 => Guess::Lock,
            _ => Guess::Look,
        }
    }

    /// A request has wanted its session.
    pub fn wanted(self, lock: bool) {
        let seen = PATIENCE | if lock { LOCK } else { 0 };
        // Read first: the line stays with all processors then.
        if self.wants.load(Ordering::Relaxed) != seen {
            self.wants.store(seen, Ordering::Relaxed);
        }
    }

    /// A request did not want what was sent ahead.
    pub fn left(self) {
        let seen = self.wants.load(Ordering::Relaxed);
        if seen & !LOCK != 0 {
            self.wants.store(seen - 1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wanted_is_guessed_until_it_is_left_alone() {
        let seen = Seen::default();
        assert!(!seen.is_name("a"));
        ["a", "b", "c", "b", "d", "e"].into_iter().for_each(|name| seen.learn(name));
        assert_eq!(["a", "b", "e"].map(|name| seen.is_name(name)), [false, true, true]);
        let (place, other) = (seen.of(&"/shop").unwrap(), seen.of(&"/style.css").unwrap());
        assert_eq!(place.guess(), Guess::Nothing);
        place.left();
        place.wanted(true);
        assert_eq!((place.guess(), other.guess()), (Guess::Lock, Guess::Nothing));
        place.wanted(false);
        assert_eq!(seen.of(&"/shop").unwrap().guess(), Guess::Look);
        place.wanted(true);
        for _ in 1..PATIENCE {
            place.left();
            assert_eq!(place.guess(), Guess::Lock);
        }
        place.left();
        assert_eq!(place.guess(), Guess::Nothing);
    }
}
