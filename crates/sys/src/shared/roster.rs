//! Which requests of a queue run in which process, in the memory that comes with the queue.
//!
//! Responsible for: letting the log name the requests that a dead worker ran, and the worker of a
//! request, for a few stores per request and without a system call. Must never: trust what is read
//! there: workers write it as well, so it is text for the log only. Called by: httpd's child
//! processes (they take a seat for each request and describe it), workers (they write their process
//! id), droverd (it reads the seats when a worker has died).
//!
//! After the tokens ([`crate::token`]) come [`SEATS`] seats of `WORDS` words: the process of httpd
//! that has the seat; the request's number and the worker that runs it; its description, as text that
//! ends with a zero byte.
use super::page::Page;
use super::token;
use rustix::io::{Errno, pread};
use rustix::process::{Pid, test_kill_process};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests that can have a seat at the same time.
pub const SEATS: u32 = 512;
const WORDS: usize = 16;
const WORD: usize = size_of::<AtomicU64>();
const OWNER: usize = 0;
const STATE: usize = 1;
const TEXT: usize = 2;
/// Bytes of what a request is about; the rest is cut off.
pub const MAX_TEXT: usize = (WORDS - TEXT) * WORD;
/// Bytes of all seats.
pub(crate) const BYTES: usize = SEATS as usize * WORDS * WORD;

/// The seats, mapped.
#[derive(Debug)]
pub struct Roster {
    words: Page<AtomicU64>,
}

const fn state(number: u32, pid: u32) -> u64 {
    (number as u64) << 32 | pid as u64
}

impl Roster {
    /// Maps what [`token::create`] has made.
    pub fn map(file: impl AsFd) -> Result<Self, Errno> {
        token::check(&file)?;
        Page::of_file(file, token::FILE_BYTES / WORD).map(|words| Self { words })
    }

    fn word(&self, seat: u32, word: usize) -> Option<&AtomicU64> {
        let seat = usize::try_from(seat % SEATS).ok()?;
        let at = token::BYTES / WORD + seat * WORDS + word.min(WORDS - 1);
        self.words.get(at)
    }

    /// Takes a free seat for a process of httpd, the first behind `near`; one of a dead process is free. `None`: there is none.
    #[must_use]
    pub fn claim(&self, near: u32, httpd: u32) -> Option<u32> {
        let claim = |seat: u32, from: u64| {
            self.word(seat, OWNER).is_some_and(|w| w.compare_exchange(from, httpd.into(), Ordering::AcqRel, Ordering::Relaxed).is_ok())
        };
        let all = || (0..SEATS).map(|step| near.wrapping_add(step) % SEATS);
        let left = |seat: &u32| {
            let owner = self.word(*seat, OWNER).map_or(0, |w| w.load(Ordering::Relaxed));
            !is_alive(owner) && claim(*seat, owner)
        };
        all().find(|seat| claim(*seat, 0)).or_else(|| all().find(left))
    }

    /// Releases a seat. Its text stays until the next request takes the seat.
    pub fn release(&self, seat: u32) {
        if let Some(w) = self.word(seat, OWNER) {
            w.store(0, Ordering::Release);
        }
    }

    /// A request takes its seat: nobody runs it yet.
    pub fn begin(&self, seat: u32, number: u32, about: &[u8]) {
        let about = about.get(..MAX_TEXT).unwrap_or(about);
        // With a zero behind, unless it fills the seat.
        let chunks = about.chunks(WORD).chain((about.len() % WORD == 0 && about.len() < MAX_TEXT).then_some(&[][..]));
        for (at, chunk) in chunks.enumerate() {
            let mut bytes = [0; WORD];
            bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            if let Some(w) = self.word(seat, TEXT + at) {
                w.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            }
        }
        if let Some(w) = self.word(seat, STATE) {
            w.store(state(number, 0), Ordering::Release);
        }
    }

    /// The request is over.
    pub fn end(&self, seat: u32) {
        if let Some(w) = self.word(seat, STATE) {
            w.store(0, Ordering::Relaxed);
        }
    }

    /// A worker runs the request, or (0) does not any more. Does nothing if the seat is another request's by now.
    pub fn run_by(&self, seat: u32, number: u32, worker: u32) {
        let Some(w) = self.word(seat, STATE) else { return };
        let before = w.load(Ordering::Relaxed);
        if before >> 32 == u64::from(number) {
            // Lost to httpd: then the request is over.
            let _ = w.compare_exchange(before, state(number, worker), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Which worker runs the request, as it says itself.
    #[must_use]
    pub fn worker_of(&self, seat: u32, number: u32) -> Option<u32> {
        let now = self.word(seat, STATE)?.load(Ordering::Acquire);
        u32::try_from(now & u64::from(u32::MAX)).ok().filter(|pid| *pid != 0 && now >> 32 == u64::from(number))
    }
}

fn is_alive(pid: u64) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // No permission means that it lives.
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// What the requests are about that a worker runs, or ran when it died; reads the file, as it maps nothing. Nothing for a file of another make.
#[must_use]
pub fn run_by(file: impl AsFd, worker: u32) -> Vec<Vec<u8>> {
    let mut bytes = vec![0; BYTES];
    if token::check(&file).is_err() || pread(&file, &mut bytes, token::BYTES as u64) != Ok(BYTES) {
        return Vec::new();
    }
    let about = |seat: &[u8]| {
        let state = u64::from_ne_bytes(*seat.get(STATE * WORD..)?.first_chunk()?);
        let text = seat.get(TEXT * WORD..)?.split(|b| *b == 0).next().unwrap_or_default();
        (worker != 0 && state & u64::from(u32::MAX) == u64::from(worker)).then(|| text.to_vec())
    };
    bytes.chunks_exact(WORDS * WORD).filter_map(about).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_worker_is_known_by_its_requests_and_they_by_it() {
        let file = token::create().unwrap();
        let (httpd, worker) = (Roster::map(&file).unwrap(), Roster::map(&file).unwrap());
        let seats: Vec<u32> = (0..3).map(|_| httpd.claim(SEATS - 1, std::process::id()).unwrap()).collect();
        assert_eq!(seats, [SEATS - 1, 0, 1]);
        for (seat, number, about) in [(seats[0], 7, &b"GET /a-longer-one"[..]), (seats[1], 8, b"GET /bcde"), (seats[2], 9, &[b'x'; 500])] {
            httpd.begin(seat, number, about);
            assert_eq!(httpd.worker_of(seat, number), None, "nobody has taken it");
            worker.run_by(seat, number, 4000 + number / 9);
        }
        assert_eq!((httpd.worker_of(seats[0], 7), httpd.worker_of(seats[0], 8)), (Some(4000), None));
        assert_eq!(run_by(&file, 4000), [b"GET /bcde".to_vec(), b"GET /a-longer-one".to_vec()]);
        assert_eq!((run_by(&file, 4001), run_by(&file, 0)), (vec![vec![b'x'; MAX_TEXT]], vec![]));
        httpd.begin(seats[0], 10, b"GET /ab");
        worker.run_by(seats[0], 7, 4000);
        assert_eq!(httpd.worker_of(seats[0], 10), None, "the seat is another one's");
        worker.run_by(seats[0], 10, 4000);
        worker.run_by(seats[1], 8, 0);
        assert_eq!(run_by(&file, 4000), [b"GET /ab"], "nothing is left of a longer one");
        httpd.end(seats[0]);
        assert!(run_by(&file, 4000).is_empty());
    }

    #[test]
    fn seats_of_the_dead_are_taken_and_others_are_not() {
        let file = token::create().unwrap();
        let roster = Roster::map(&file).unwrap();
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        for n in 0..SEATS {
            assert!(roster.claim(0, if n == 300 { dead } else { std::process::id() }).is_some());
        }
        assert_eq!((roster.claim(0, std::process::id()), roster.claim(0, std::process::id())), (Some(300), None));
        roster.release(5);
        assert_eq!(roster.claim(100, std::process::id()), Some(5));
    }
}
