//! Tokens in memory that processes share: exactly one of those who know a token takes it, in whichever process they are.
//!
//! Responsible for: one taker, at the price of one atomic exchange; nobody ever waiting. Must never: trust what another process writes there
//! with more than whose a token is. Called by: the locks of sessions (`crates/session`), the worker; droverd makes the memory with each queue.
//!
//! A place is a word. Its low half is 0 while it is free, else when a token was put there, in seconds; its high half counts the tokens that
//! were put there before, from a number by chance. So no two tokens of a place look the same, nor, but for a chance of 1 in 2^32, those of two boards.
#![allow(unsafe_code)]
use crate::clock::monotonic_ns;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tokens that can lie on a board at once.
const PLACES: usize = 2048;
const BYTES: usize = PLACES * size_of::<AtomicU64>();
/// Places that are looked at for a free one.
const TRIES: u64 = 16;
/// Whoever has put a token takes it back, unless somebody else has taken it, within so many seconds.
pub const LIVES_S: u64 = 30;
/// A token that has lain for longer was left behind by a process that was killed; so was one that comes from the future.
const FORGOTTEN_S: u64 = 60;
const _: () = assert!(LIVES_S < FORGOTTEN_S);
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
const TIME: u64 = 0xffff_ffff;

/// What says which token is meant; no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Where it lies.
    pub place: u32,
    /// What lies there, never 0.
    pub number: u64,
}

/// Memory for tokens, mapped.
#[derive(Debug)]
pub struct Board {
    words: NonNull<AtomicU64>,
}

// SAFETY: atomics in memory that stays mapped for as long as the value lives.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

/// Memory for tokens, for all processes that are to share it. It keeps its size. It has its pages too, until somebody who has it punches holes into it:
/// these read as zeros. (With `vm.overcommit_memory=2` and no memory left at all, a hole would be SIGBUS, where everything else fails as well.)
pub fn create() -> Result<OwnedFd, Errno> {
    let file = memfd_create("mod_drover tokens", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    fallocate(&file, FallocateFlags::empty(), 0, BYTES as u64)?;
    fcntl_add_seals(&file, SEALS)?;
    let mut chance = [0; 4];
    rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty())?;
    let begin = u64::from(u32::from_ne_bytes(chance)) << 32;
    Board::map(&file)?.all().for_each(|word| word.store(begin, Ordering::Relaxed));
    Ok(file)
}

impl Board {
    /// Maps what [`create`] has made; anything else is refused: memory that its other holders could cut would end this process.
    pub fn map(file: impl AsFd) -> Result<Self, Errno> {
        if !fcntl_get_seals(&file)?.contains(SEALS) || usize::try_from(fstat(&file)?.st_size) != Ok(BYTES) {
            return Err(Errno::INVAL);
        }
        // SAFETY: a new mapping at an address of the kernel's choice, of a file that has this size for good.
        let page = unsafe { mmap(std::ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)? };
        Ok(Self { words: NonNull::new(page.cast()).ok_or(Errno::NOMEM)? })
    }

    fn word(&self, place: u32) -> Option<&AtomicU64> {
        let place = usize::try_from(place).ok().filter(|place| *place < PLACES)?;
        // SAFETY: within the mapping, which begins on a page and is only ever used as atomics of this type.
        Some(unsafe { self.words.add(place).as_ref() })
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        (0..).map_while(|place| self.word(place))
    }

    /// Puts a token on the board, near the place that `near` leads to. `None`: there is no room.
    #[must_use]
    pub fn put(&self, near: u64) -> Option<Token> {
        let now = monotonic_ns() / 1_000_000_000 + 1;
        (0..TRIES).find_map(|step| {
            let place = u32::try_from(near.wrapping_add(step) % PLACES as u64).ok()?;
            let word = self.word(place)?;
            let before = word.load(Ordering::Relaxed);
            let since = before & TIME;
            if since != 0 && now.abs_diff(since) <= FORGOTTEN_S {
                return None;
            }
            let number = (before | TIME).wrapping_add(1) | (now & TIME).max(1);
            let put = word.compare_exchange(before, number, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            put.then_some(Token { place, number })
        })
    }

    /// Takes a token. False: somebody else has.
    #[must_use]
    pub fn take(&self, token: Token) -> bool {
        let free = token.number & !TIME;
        self.word(token.place).is_some_and(|word| word.compare_exchange(token.number, free, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, and nobody has a reference into it any more.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn one_takes_it() {
        let file = create().unwrap();
        let boards: Vec<_> = (0..8).map(|_| Board::map(&file).unwrap()).collect();
        for near in 0..100 {
            let token = boards[0].put(near).unwrap();
            let taken: usize = std::thread::scope(|scope| {
                let all: Vec<_> = boards.iter().map(|board| scope.spawn(|| usize::from(board.take(token)))).collect();
                all.into_iter().map(|t| t.join().unwrap()).sum()
            });
            assert_eq!(taken, 1);
        }
    }

    #[test]
    fn no_token_is_like_one_before() {
        let board = Board::map(create().unwrap()).unwrap();
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let token = board.put(7).unwrap();
            assert!(token.number & TIME != 0 && seen.insert((token.place, token.number)));
            assert!(board.take(token) && !board.take(token));
        }
        assert!(seen.iter().all(|(place, _)| *place == 7), "the place is free each time");
        // Also when its count begins anew.
        board.word(7).unwrap().store(!TIME, Ordering::Relaxed);
        let token = board.put(7).unwrap();
        assert!(token.number >> 32 == 0 && board.take(token));
    }

    #[test]
    fn a_board_is_full_and_what_was_left_behind_is_found() {
        let board = Board::map(create().unwrap()).unwrap();
        let all: Vec<_> = (0..TRIES).map(|_| board.put(PLACES as u64 - 1).unwrap()).collect();
        assert_eq!(all.iter().map(|token| token.place).collect::<HashSet<_>>().len(), TRIES as usize);
        assert_eq!(board.put(PLACES as u64 - 1), None);
        let old = all[3];
        let word = board.word(old.place).unwrap();
        let long_ago = (old.number & !TIME) | 1;
        let machine_is_young = monotonic_ns() / 1_000_000_000 <= FORGOTTEN_S;
        word.store(long_ago, Ordering::Relaxed);
        let new = board.put(PLACES as u64 - 1);
        assert_eq!(new.map(|token| token.place), (!machine_is_young).then_some(old.place));
        assert!(!board.take(old));
    }

    #[test]
    fn boards_have_no_token_in_common() {
        let boards: Vec<_> = (0..2).map(|_| Board::map(create().unwrap()).unwrap()).collect();
        let token = boards[0].put(1).unwrap();
        let other = boards[1].put(1).unwrap();
        assert!(!boards[1].take(token) && !boards[0].take(other));
        assert!(boards[0].take(token) && boards[1].take(other));
    }

    #[test]
    fn what_another_process_writes_does_no_harm() {
        let board = Board::map(create().unwrap()).unwrap();
        for (place, number) in [(PLACES as u32, 1), (u32::MAX, u64::MAX), (0, 1)] {
            assert!(!board.take(Token { place, number }));
        }
        board.all().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        let token = board.put(0).unwrap();
        assert!(board.take(token), "what comes from the future is nobody's");
    }

    #[test]
    fn only_memory_that_keeps_its_size_is_mapped() {
        let loose = memfd_create("loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        fallocate(&loose, FallocateFlags::empty(), 0, BYTES as u64).unwrap();
        assert!(Board::map(&loose).is_err());
        assert!(Board::map(crate::memfile::create(b"short").unwrap()).is_err());
        assert!(Board::map(crate::channel::stream_pair().unwrap().0).is_err());
    }
}
