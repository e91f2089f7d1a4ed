//! Sealed memory files, for messages larger than a datagram.
//!
//! Responsible for: the receiver never waits for the sender, and the sender cannot change what it
//! has sent. Must never: trust the size of a file that is not sealed. Called by: `src/dispatch`,
//! `src/httpd/parent.rs`, the worker, droverd.
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// Writes `bytes` into a new memory file and seals it.
pub fn create(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let file = memfd_create("mod_drover", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|r| !r.is_empty()) {
        match rustix::io::pwrite(&file, rest, at as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => at += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

/// Whether it is a memory file that cannot be changed any more.
pub fn is_sealed(file: impl AsFd) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
}

/// Reads a sealed memory file that must hold exactly `len` bytes, at most `limit`.
pub fn read(file: impl AsFd, len: usize, limit: usize) -> Result<Vec<u8>, Errno> {
    let size = usize::try_from(fstat(&file)?.st_size).map_err(|_| Errno::INVAL)?;
    if len > limit || size != len || !is_sealed(&file) {
        return Err(Errno::INVAL);
    }
    let mut bytes = vec![0; len];
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|r| !r.is_empty()) {
        match rustix::io::pread(&file, rest, at as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => at += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_written_and_cannot_change() {
        let file = create(b"hello").unwrap();
        assert_eq!(read(&file, 5, 10).unwrap(), b"hello");
        assert_eq!(read(&file, 4, 10), Err(Errno::INVAL));
        assert_eq!(read(&file, 5, 4), Err(Errno::INVAL));
        assert_eq!(rustix::io::pwrite(&file, b"x", 0), Err(Errno::PERM));
        assert!(is_sealed(&file));
        let plain = memfd_create("plain", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(read(&plain, 0, 10), Err(Errno::INVAL), "an unsealed file is refused");
        assert!(!is_sealed(&plain));
    }
}
