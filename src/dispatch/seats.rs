//! A seat for each request of a queue, so that the log can name the request and its worker when the
//! worker dies ([`drover_sys::roster`]).
//!
//! Responsible for: reusing seats without a search. Must never: delay a request; without a seat it is
//! only not named. Called by: `in_flight`.
use drover_sys::roster::{Roster, SEATS};
use parking_lot::Mutex;
use std::sync::Arc;

/// Seats kept for the next requests.
const MAX_IDLE: usize = 96;

/// The seats of one queue, as one child of httpd has them.
#[derive(Debug)]
pub struct Seats {
    roster: Roster,
    httpd: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<u32>,
    /// Where the next free one is looked for: what was left behind should stay for a while.
    next: u32,
    /// There was no free one; after so many requests it is looked again.
    skip: u32,
}

impl Seats {
    /// Of a queue's memory.
    #[must_use]
    pub fn new(roster: Roster) -> Self {
        let httpd = std::process::id();
        // Children begin at different places.
        let state = State { next: httpd.wrapping_mul(97) % SEATS, ..State::default() };
        Self { roster, httpd, state: Mutex::new(state) }
    }

    /// A seat for a request; `None`: all are taken.
    pub fn sit(self: &Arc<Self>, number: u32, about: &[u8]) -> Option<Seat> {
        let mut state = self.state.lock();
        let place = match state.idle.pop() {
            Some(place) => place,
            None if state.skip > 0 => {
                state.skip -= 1;
                return None;
            }
            None => match self.roster.claim(state.next, self.httpd) {
                Some(place) => {
                    state.next = (place + 1) % SEATS;
                    place
                }
                None => {
                    state.skip = SEATS;
                    return None;
                }
            },
        };
        drop(state);
        self.roster.begin(place, number, about);
        Some(Seat { seats: Arc::clone(self), place, number, clean: false })
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        self.state.get_mut().idle.iter().for_each(|place| self.roster.release(*place));
    }
}

/// The seat of one request.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    place: u32,
    number: u32,
    clean: bool,
}

impl Seat {
    /// What the message says of it.
    #[must_use]
    pub const fn place(&self) -> u32 {
        self.place
    }

    /// The worker that runs the request.
    #[must_use]
    pub fn worker(&self) -> Option<u32> {
        self.seats.roster.worker_of(self.place, self.number)
    }

    /// The request has ended well.
    pub fn leave(mut self) {
        self.clean = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.clean {
            self.seats.roster.end(self.place);
            let mut state = self.seats.state.lock();
            if state.idle.len() < MAX_IDLE {
                return state.idle.push(self.place);
            }
        }
        // What its worker died with droverd may still have to read.
        self.seats.roster.release(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_sys::roster::run_by;
    use drover_sys::token;

    #[test]
    fn what_a_worker_died_with_stays_for_a_while() {
        let file = token::create().unwrap();
        let (seats, worker) = (Arc::new(Seats::new(Roster::map(&file).unwrap())), Roster::map(&file).unwrap());
        let first = seats.sit(1, b"GET /1").unwrap();
        let place = first.place();
        first.leave();
        let again = seats.sit(2, b"GET /2").unwrap();
        assert_eq!(again.place(), place, "used again");
        worker.run_by(place, 2, 77);
        assert_eq!(again.worker(), Some(77));
        drop(again);
        (3..103).for_each(|number| drop(seats.sit(number, b"GET /").unwrap()));
        assert_eq!(run_by(&file, 77), [b"GET /2"]);
        let all: Vec<_> = (0..SEATS).map(|number| seats.sit(number, b"")).collect();
        assert!(all.iter().all(Option::is_some) && seats.sit(0, b"").is_none());
    }
}
