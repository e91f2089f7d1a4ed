//! Tokens in memory that processes share: of all processes that know a token, exactly one takes it.
//!
//! Responsible for: one taker, at the price of one atomic exchange; no process ever waits. Must
//! never: trust what another process writes there with more than the ownership of a token. Called
//! by: the session locks (`crates/session`) and the worker; droverd creates the memory with each
//! queue.
//!
//! A slot is a 64-bit word. Its low half is 0 while the slot is free, else the time at which a
//! token was put there, in seconds. Its high half counts the tokens that were put there before,
//! from a random start. So no two tokens of a slot are equal, nor, except with a chance of 1 in
//! 2^32, those of two boards.
use super::page::Page;
use crate::clock::monotonic_ns;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Tokens that can be on a board at once.
const SLOTS: usize = 2048;
pub(crate) const BYTES: usize = SLOTS * size_of::<AtomicU64>();
/// Bytes of the file: the roster follows the tokens.
pub(crate) const FILE_BYTES: usize = BYTES + super::roster::BYTES;
/// Slots that are tried for a free one.
const MAX_PROBES: u64 = 16;
/// The process that put a token takes it back within this time, unless another has taken it.
pub const LIVES_S: u64 = 30;
/// An older token was left behind by a process that was killed; so was one whose time is in the
/// future.
const FORGOTTEN_S: u64 = 60;
const _: () = assert!(LIVES_S < FORGOTTEN_S);
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
const TIME: u64 = 0xffff_ffff;

/// Identifies a token; not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The slot on the board.
    pub place: u32,
    /// The word in that slot, never 0.
    pub number: u64,
}

/// Memory for tokens, mapped.
#[derive(Debug)]
pub struct Board {
    slots: Page<AtomicU64>,
}

/// Creates memory for tokens, for all processes that are to share it. It keeps its size. Its pages
/// are allocated, until a process that has it punches holes into it: these read as zeros. With
/// `vm.overcommit_memory=2` and no memory left at all, a hole would be SIGBUS; everything else
/// fails then as well.
pub fn create() -> Result<OwnedFd, Errno> {
    let file = memfd_create("mod_drover tokens", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES as u64)?;
    fcntl_add_seals(&file, SEALS)?;
    let mut random = [0; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let start = u64::from(u32::from_ne_bytes(random)) << 32;
    Board::map(&file)?.slots.iter().for_each(|word| word.store(start, Ordering::Relaxed));
    Ok(file)
}

/// Whether it is what [`create`] has made.
pub(crate) fn check(file: impl AsFd) -> Result<(), Errno> {
    let is_ours = fcntl_get_seals(&file)?.contains(SEALS) && usize::try_from(fstat(&file)?.st_size) == Ok(FILE_BYTES);
    if is_ours { Ok(()) } else { Err(Errno::INVAL) }
}

impl Board {
    /// Maps what [`create`] has made. Anything else is refused: memory that another process could
    /// truncate would end this one.
    pub fn map(file: impl AsFd) -> Result<Self, Errno> {
        check(&file)?;
        Page::of_file(file, SLOTS).map(|slots| Self { slots })
    }

    fn word(&self, place: u32) -> Option<&AtomicU64> {
        self.slots.get(usize::try_from(place).ok()?)
    }

    /// Puts a token on the board, at or after the slot that `near` selects. `None`: there is no
    /// free slot.
    #[must_use]
    pub fn put(&self, near: u64) -> Option<Token> {
        let now = monotonic_ns() / 1_000_000_000 + 1;
        (0..MAX_PROBES).find_map(|step| {
            let place = u32::try_from(near.wrapping_add(step) % SLOTS as u64).ok()?;
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

    /// Takes a token. False: another process took it.
    #[must_use]
    pub fn take(&self, token: Token) -> bool {
        let free = token.number & !TIME;
        self.word(token.place).is_some_and(|word| word.compare_exchange(token.number, free, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn exactly_one_takes_a_token() {
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
    fn no_two_tokens_are_equal() {
        let board = Board::map(create().unwrap()).unwrap();
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let token = board.put(7).unwrap();
            assert!(token.number & TIME != 0 && seen.insert((token.place, token.number)));
            assert!(board.take(token) && !board.take(token));
        }
        assert!(seen.iter().all(|(place, _)| *place == 7), "the slot is free each time");
        // Also when its count wraps round.
        board.word(7).unwrap().store(!TIME, Ordering::Relaxed);
        let token = board.put(7).unwrap();
        assert!(token.number >> 32 == 0 && board.take(token));
    }

    #[test]
    fn a_full_board_is_reported_and_forgotten_tokens_are_replaced() {
        let board = Board::map(create().unwrap()).unwrap();
        let all: Vec<_> = (0..MAX_PROBES).map(|_| board.put(SLOTS as u64 - 1).unwrap()).collect();
        assert_eq!(all.iter().map(|token| token.place).collect::<HashSet<_>>().len(), MAX_PROBES as usize);
        assert_eq!(board.put(SLOTS as u64 - 1), None);
        let old = all[3];
        let word = board.word(old.place).unwrap();
        let long_ago = (old.number & !TIME) | 1;
        let machine_is_young = monotonic_ns() / 1_000_000_000 <= FORGOTTEN_S;
        word.store(long_ago, Ordering::Relaxed);
        let new = board.put(SLOTS as u64 - 1);
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
        for (place, number) in [(SLOTS as u32, 1), (u32::MAX, u64::MAX), (0, 1)] {
            assert!(!board.take(Token { place, number }));
        }
        board.slots.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        let token = board.put(0).unwrap();
        assert!(board.take(token), "a token from the future is free to replace");
    }

    #[test]
    fn only_memory_that_keeps_its_size_is_mapped() {
        let loose = memfd_create("loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        fallocate(&loose, FallocateFlags::empty(), 0, FILE_BYTES as u64).unwrap();
        assert!(Board::map(&loose).is_err());
        assert!(Board::map(crate::memfile::create(b"short").unwrap()).is_err());
        assert!(Board::map(crate::channel::stream_pair().unwrap().0).is_err());
    }
}
