//! The real system behind [`resolved::System`](crate::resolved::System).
//!
//! Responsible for: answering from the machine and from httpd's own User and Group. Called by: `commands`, `lifecycle`.
use super::ffi;
use crate::resolved::System;
use drover_sys::reach::{self, Barrier, Need, Who};
use drover_sys::spawn::supplementary_groups;
use drover_sys::users::{self, User};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The real system.
pub struct Host;

impl System for Host {
    fn user_by_name(&self, name: &[u8]) -> Option<User> {
        users::user_by_name(name)
    }
    fn user_by_id(&self, uid: u32) -> Option<User> {
        users::user_by_id(uid)
    }
    fn group_by_name(&self, name: &[u8]) -> Option<u32> {
        users::group_by_name(name)
    }
    fn is_executable(&self, path: &[u8]) -> bool {
        std::fs::metadata(OsStr::from_bytes(path)).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    }
    fn is_directory(&self, path: &[u8]) -> bool {
        std::fs::metadata(OsStr::from_bytes(path)).is_ok_and(|m| m.is_dir())
    }
    fn is_missing(&self, path: &[u8]) -> bool {
        // Who may not look there cannot say.
        std::fs::metadata(OsStr::from_bytes(path)).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
    }
    fn is_running(&self) -> bool {
        // SAFETY: asks for a number (http_main.h), which grows when a running server reads its configuration again (main.c).
        unsafe { ffi::ap_state_query(ffi::AP_SQ_CONFIG_GEN) > 0 }
    }
    fn cores(&self) -> u32 {
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
    }
    fn path(&self) -> Vec<Vec<u8>> {
        std::env::var_os("PATH").map(|p| std::env::split_paths(&p).map(|d| d.into_os_string().into_vec()).collect()).unwrap_or_default()
    }
    fn groups_of(&self, user: &[u8], gid: u32) -> Vec<u32> {
        CString::new(user).map(|user| supplementary_groups(&user, gid)).unwrap_or_default()
    }
    fn own(&self) -> Who {
        Who::own()
    }
    fn barrier(&self, who: &Who, path: &[u8], need: Need) -> Option<Barrier> {
        reach::barrier(who, Path::new(OsStr::from_bytes(path)), need)
    }
    fn python_version(&self, path: &[u8]) -> Option<(u32, u32)> {
        // `python3` is a symbolic link to `python3.11` nearly everywhere. httpd's parent starts no program to ask.
        let real = std::fs::canonicalize(OsStr::from_bytes(path)).ok()?;
        let (major, minor) = real.file_name()?.to_str()?.strip_prefix("python")?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
    fn httpd_identity(&self) -> Option<(u32, u32)> {
        // SAFETY: geteuid cannot fail; ap_unixd_config is a variable of httpd, written while it reads User and Group.
        unsafe { if libc::geteuid() == 0 { Some((ffi::ap_unixd_config.user_id, ffi::ap_unixd_config.group_id)) } else { None } }
    }
}
