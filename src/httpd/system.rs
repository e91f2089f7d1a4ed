//! The real implementation of [`resolved::System`](crate::resolved::System).
//!
//! Responsible for: facts about the machine and httpd's User and Group. Must never: change anything. Called by: `commands`, `lifecycle`.
use super::ffi;
use crate::resolved::{Access, Account, Credentials, FirstTime, System};
use drover_sys::reach::{self, Need, Who};
use drover_sys::shared::Flag;
use drover_sys::spawn::supplementary_groups;
use drover_sys::users::{self, User};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The real system.
pub struct Host;

/// Why users other than root and the one that starts httpd could replace files in a directory; `None` when they cannot.
pub fn writable_by_others(directory: &Path) -> Option<String> {
    let found = std::fs::metadata(directory).ok()?;
    // SAFETY: cannot fail.
    let own = unsafe { libc::geteuid() };
    if found.uid() != 0 && found.uid() != own {
        return Some(format!("it belongs to the user with id {}", found.uid()));
    }
    let mode = found.permissions().mode() & 0o7777;
    (mode & 0o022 != 0).then(|| format!("its mode is {mode:04o}"))
}

/// The descriptors that one child of httpd may need: for each thread a connection, a reply socket pair and a file; for the
/// child what httpd and its modules hold.
#[must_use]
pub fn descriptors_of_a_child(threads: u64) -> u64 {
    const OF_A_THREAD: u64 = 4;
    const OF_A_CHILD: u64 = 64;
    threads.saturating_mul(OF_A_THREAD).saturating_add(OF_A_CHILD)
}

/// The soft limit of open files, which httpd's children inherit; `None` when unlimited.
pub fn open_files() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes a local.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn account(user: User) -> Account {
    Account { uid: user.uid, gid: user.gid, name: user.name, home: user.home }
}

impl System for Host {
    fn user_by_name(&self, name: &[u8]) -> Option<Account> {
        users::user_by_name(name).map(account)
    }
    fn user_by_id(&self, uid: u32) -> Option<Account> {
        users::user_by_id(uid).map(account)
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
        // Without permission to look, the answer is unknown.
        std::fs::metadata(OsStr::from_bytes(path)).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
    }
    fn is_running(&self) -> bool {
        // SAFETY: returns a number (http_main.h), which grows when a running server rereads its configuration (main.c).
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
    fn own(&self) -> Credentials {
        let Who { uid, gid, groups } = Who::own();
        Credentials { uid, gid, groups }
    }
    fn barrier(&self, who: &Credentials, path: &[u8], access: Access) -> Option<String> {
        let who = Who { uid: who.uid, gid: who.gid, groups: who.groups.clone() };
        let need = match access {
            Access::Use => Need::Use,
            Access::Run => Need::Run,
        };
        reach::barrier(&who, Path::new(OsStr::from_bytes(path)), need).map(|barrier| barrier.to_string())
    }
    fn first_time(&self) -> FirstTime {
        let flag = Flag::new().ok();
        FirstTime(Box::new(move || flag.as_ref().is_some_and(Flag::set)))
    }
    fn python_version(&self, path: &[u8]) -> Option<(u32, u32)> {
        // `python3` is usually a symbolic link to a name with the version. httpd's parent starts no program to find out.
        let real = std::fs::canonicalize(OsStr::from_bytes(path)).ok()?;
        let (major, minor) = real.file_name()?.to_str()?.strip_prefix("python")?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
    fn httpd_identity(&self) -> Option<(u32, u32)> {
        // SAFETY: geteuid cannot fail; ap_unixd_config is a variable of httpd, written while it reads User and Group.
        unsafe { if libc::geteuid() == 0 { Some((ffi::ap_unixd_config.user_id, ffi::ap_unixd_config.group_id)) } else { None } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_write_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |mode| std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode)).unwrap();
        for (bits, expected) in [(0o755, None), (0o700, None), (0o775, Some("its mode is 0775")), (0o1777, Some("its mode is 1777"))] {
            mode(bits);
            assert_eq!(writable_by_others(directory.path()).as_deref(), expected, "{bits:o}");
        }
        assert_eq!(writable_by_others(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_child_needs_more_with_more_threads() {
        assert_eq!((descriptors_of_a_child(1), descriptors_of_a_child(25)), (68, 164));
        assert!(descriptors_of_a_child(u64::MAX) == u64::MAX && open_files() != Some(0));
    }
}
