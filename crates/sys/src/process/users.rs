//! The system's users and groups.
//!
//! Responsible for: names and numbers from the system's databases (getpwnam_r and others). Must
//! never: change the user or group of a process. Called by: the module at start, droverd.
#![allow(unsafe_code)]
use std::ffi::{CStr, CString, c_char};
use std::ptr;

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Number.
    pub uid: u32,
    /// Primary group's number.
    pub gid: u32,
    /// Name.
    pub name: Vec<u8>,
    /// Home directory.
    pub home: Vec<u8>,
}

const MAX_RECORD: usize = 1 << 20;

/// Calls one of the `get…_r` functions with a buffer that is large enough. `None`: no such record.
fn lookup<R, T>(mut call: impl FnMut(*mut R, *mut c_char, usize, *mut *mut R) -> i32, read: impl Fn(&R) -> T) -> Option<T> {
    let mut size = 1024;
    loop {
        let mut buffer: Vec<c_char> = vec![0; size];
        let mut record = std::mem::MaybeUninit::<R>::uninit();
        let mut found: *mut R = ptr::null_mut();
        let status = call(record.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found);
        match status {
            // SAFETY: a non-null result points to `record`, filled in by the call, its strings in
            // `buffer`, which still lives.
            0 => return (!found.is_null()).then(|| read(unsafe { &*found })),
            libc::ERANGE if size < MAX_RECORD => size *= 4,
            libc::EINTR => {}
            _ => return None,
        }
    }
}

fn text(p: *const c_char) -> Vec<u8> {
    if p.is_null() {
        return Vec::new();
    }
    // SAFETY: a record's strings are NUL-terminated (getpwnam(3)).
    unsafe { CStr::from_ptr(p) }.to_bytes().to_vec()
}

fn user(p: &libc::passwd) -> User {
    User { uid: p.pw_uid, gid: p.pw_gid, name: text(p.pw_name), home: text(p.pw_dir) }
}

/// The user with this name.
#[must_use]
pub fn user_by_name(name: &[u8]) -> Option<User> {
    let name = CString::new(name).ok()?;
    // SAFETY: all pointers are valid for the call, which writes at most `len` bytes.
    lookup(|record, buffer, len, found| unsafe { libc::getpwnam_r(name.as_ptr(), record, buffer, len, found) }, user)
}

/// The user with this number.
#[must_use]
pub fn user_by_id(uid: u32) -> Option<User> {
    // SAFETY: all pointers are valid for the call, which writes at most `len` bytes.
    lookup(|record, buffer, len, found| unsafe { libc::getpwuid_r(uid, record, buffer, len, found) }, user)
}

/// The number of the group with this name.
#[must_use]
pub fn group_by_name(name: &[u8]) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: all pointers are valid for the call, which writes at most `len` bytes.
    lookup(|record, buffer, len, found| unsafe { libc::getgrnam_r(name.as_ptr(), record, buffer, len, found) }, |g: &libc::group| g.gr_gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_an_unknown_user_is_not() {
        let root = user_by_name(b"root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user_by_id(0).unwrap(), root);
        assert_eq!(group_by_name(b"root"), Some(0));
        assert_eq!(user_by_name(b"no such user"), None);
        assert_eq!(group_by_name(b"a\0b"), None);
    }
}
