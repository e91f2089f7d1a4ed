//! Which requests will want their session, guessed from those before them to the same URL.
//!
//! Responsible for: the guess alone. A wrong one costs a little time and nothing else. Must never: grow. Called by: [`super::answer`]; one
//! table lives in each child's [`super::Stores`].
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};

/// URLs that share a place are guessed together.
const PLACES: usize = 4096;
/// So many requests in a row must leave a session alone that was sent ahead, before it is sent no more.
const PATIENCE: u8 = 8;
const LOCK: u8 = 1 << 7;

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
}

impl Default for Seen {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU8::new(0)).collect() }
    }
}

/// One URL's place.
#[derive(Debug, Clone, Copy)]
pub struct Place<'s>(&'s AtomicU8);

impl Seen {
    /// The place of a URL.
    #[must_use]
    pub fn of(&self, url: &impl Hash) -> Option<Place<'_>> {
        let mut hasher = DefaultHasher::new();
        url.hash(&mut hasher);
        usize::try_from(hasher.finish() % PLACES as u64).ok().and_then(|at| self.places.get(at)).map(Place)
    }
}

impl Place<'_> {
    /// What the next request will want.
    #[must_use]
    pub fn guess(self) -> Guess {
        match self.0.load(Ordering::Relaxed) {
            seen if seen & !LOCK == 0 => Guess::Nothing,
            seen if seen & LOCK != 0 => Guess::Lock,
            _ => Guess::Look,
        }
    }

    /// A request has wanted its session.
    pub fn wanted(self, lock: bool) {
        let seen = PATIENCE | if lock { LOCK } else { 0 };
        // Read first: the line stays with all processors then.
        if self.0.load(Ordering::Relaxed) != seen {
            self.0.store(seen, Ordering::Relaxed);
        }
    }

    /// A request did not want what was sent ahead.
    pub fn left(self) {
        let seen = self.0.load(Ordering::Relaxed);
        if seen & !LOCK != 0 {
            self.0.store(seen - 1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wanted_is_guessed_until_it_is_left_alone() {
        let seen = Seen::default();
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
