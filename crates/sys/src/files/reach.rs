//! What keeps a user from a file or directory.
//!
//! Responsible for: naming the directory or file on a path whose mode refuses a user, for messages
//! about `Permission denied`. It reads modes and tries nothing: the calling process is root, and
//! must not change its user for a moment. Must never: name something that may be allowed. A file
//! with an access control list counts as allowed, and so does a path that cannot be read. Called
//! by: the module when it reads its configuration, droverd when a start has failed, `drover serve`.
use crate::users;
use rustix::fs::{Mode, Stat};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Symbolic links that are followed, as many as the kernel follows (ELOOP).
const MAX_LINKS: u32 = 40;

const ENTER: &str = "enter the directory";

/// A user, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The access that the user needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Read a file, or enter a directory.
    Use,
    /// Run a program.
    Run,
}

/// The file or directory that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    /// The file or directory whose mode refuses.
    pub path: PathBuf,
    user: String,
    what: &'static str,
    mode: u32,
    owner: String,
    group: u32,
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, user, what, mode, owner, group } = self;
        write!(f, "user {user} may not {what} {} (mode {mode:04o}, owner {owner}, group {group})", path.display())
    }
}

impl Barrier {
    /// A directory that a user may not enter.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, user: &str) -> Self {
        Self { path: path.into(), user: user.to_owned(), what: ENTER, mode: 0o700, owner: "root".to_owned(), group: 0 }
    }
}

impl Who {
    /// The calling process.
    #[must_use]
    pub fn own() -> Self {
        let groups = rustix::process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw).collect();
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), groups }
    }

    fn may(&self, path: &Path, stat: &Stat, wanted: u32) -> bool {
        let bits = if self.uid == stat.st_uid {
            stat.st_mode >> 6
        } else if has_list(path) {
            return true;
        } else if self.gid == stat.st_gid || self.groups.contains(&stat.st_gid) {
            stat.st_mode >> 3
        } else {
            stat.st_mode
        };
        bits & wanted == wanted
    }

    fn barrier(&self, path: &Path, stat: &Stat, wanted: u32, what: &'static str) -> Option<Barrier> {
        // No mode refuses root.
        if self.uid == 0 || self.may(path, stat, wanted) {
            return None;
        }
        let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode() & 0o7777;
        Some(Barrier { path: path.into(), user: name_of(self.uid), what, mode, owner: name_of(stat.st_uid), group: stat.st_gid })
    }
}

/// Whether a file has an access control list, which may allow more than its mode says.
fn has_list(path: &Path) -> bool {
    let mut nothing: [u8; 0] = [];
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut nothing).is_ok_and(|len| len > 0)
}

fn name_of(uid: u32) -> String {
    users::user_by_id(uid).map_or_else(|| format!("#{uid}"), |user| String::from_utf8_lossy(&user.name).into_owned())
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir)).map(|c| c.as_os_str().to_owned())
}

/// What keeps a user from an absolute path, with every symbolic link followed; `None`: nothing that
/// can be seen.
#[must_use]
pub fn barrier(who: &Who, path: &Path, need: Need) -> Option<Barrier> {
    if !path.is_absolute() {
        return None;
    }
    let mut left: VecDeque<OsString> = parts(path).collect();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let mut found = None;
    while let Some(part) = left.pop_front() {
        let directory = rustix::fs::stat(&at).ok()?;
        found = found.or_else(|| who.barrier(&at, &directory, 0o1, ENTER));
        if found.is_some() {
            return found;
        }
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let stat = rustix::fs::lstat(&next).ok()?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink() {
            links += 1;
            let target = std::fs::read_link(&next).ok().filter(|_| links <= MAX_LINKS)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            parts(&target).rev().for_each(|part| left.push_front(part));
        } else {
            at = next;
        }
    }
    let stat = rustix::fs::stat(&at).ok()?;
    match (rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir(), need) {
        (true, _) => who.barrier(&at, &stat, 0o1, ENTER),
        (false, Need::Use) => who.barrier(&at, &stat, 0o4, "read"),
        (false, Need::Run) => who.barrier(&at, &stat, 0o1, "run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_directory_that_refuses_is_named() {
        let base = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
        let (closed, open) = (base.path().join("closed"), base.path().join("open"));
        let file = closed.join("inner/file");
        std::fs::create_dir_all(closed.join("inner")).unwrap();
        std::fs::create_dir(&open).unwrap();
        std::fs::write(&file, "").unwrap();
        symlink("../closed/inner/file", open.join("link")).unwrap();
        symlink(&file, open.join("absolute")).unwrap();
        symlink("loop", open.join("loop")).unwrap();
        [&closed, &closed.join("inner"), &open].into_iter().for_each(|d| mode(d, 0o755));
        mode(&file, 0o644);
        let own = Who::own();
        let stranger = Who { uid: own.uid.wrapping_add(4321), gid: own.gid.wrapping_add(4321), groups: vec![] };
        let member = Who { groups: vec![own.gid], ..stranger.clone() };
        let paths: [PathBuf; 4] = [file.clone(), open.join("link"), open.join("absolute"), open.join("../closed/inner/file")];
        let nothing = [const { None }; 4];
        let all = |who: &Who, need| paths.clone().map(|path| barrier(who, &path, need).map(|b| b.path));
        assert_eq!(all(&stranger, Need::Use), nothing);
        assert_eq!(all(&stranger, Need::Run), [(); 4].map(|()| Some(file.clone())));
        mode(&closed, 0o750);
        assert_eq!(all(&stranger, Need::Use), [(); 4].map(|()| Some(closed.clone())));
        assert_eq!(all(&member, Need::Use), nothing, "a supplementary group is enough");
        let said = barrier(&stranger, &file, Need::Use).unwrap().to_string();
        let user = stranger.uid;
        assert!(said.starts_with(&format!("user #{user} may not enter the directory {} (mode 0750, owner ", closed.display())), "{said}");
        mode(&closed, 0o755);
        mode(&file, 0o640);
        assert!(barrier(&stranger, &file, Need::Use).unwrap().to_string().contains(&format!("may not read {}", file.display())));
        for path in [open.join("loop"), open.join("none"), PathBuf::from("relative")] {
            assert_eq!(barrier(&stranger, &path, Need::Use), None, "{}", path.display());
        }
        assert_eq!(barrier(&Who { uid: 0, gid: 0, groups: vec![] }, &file, Need::Use), None);
    }
}
