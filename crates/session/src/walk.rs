//! Walks a path one component at a time, by descriptors.
//!
//! Responsible for: root not following a symbolic link that another user put into the path. Must never: look up a name twice.
//! Called by: `store_directory`.
use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, open, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::io::Error;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// The largest number of symbolic links in one path, as in the kernel.
const MAX_LINKS: usize = 40;
const STEP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory (O_PATH). Follows a link only if it belongs to root or to this process's user. `make`: creates missing
/// directories.
pub(crate) fn directory(path: &Path, make: bool) -> Result<OwnedFd, Error> {
    let mut at = open(if path.is_absolute() { "/" } else { "." }, STEP | OFlags::DIRECTORY, Mode::empty())?;
    let mut left = steps(path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        let next = step(&at, &name, make)?;
        let found = fstat(&next)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => at = next,
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                if found.st_uid != 0 && found.st_uid != geteuid().as_raw() {
                    let text = format!("'{}' in its path is a symbolic link of another user (uid {})", name.display(), found.st_uid);
                    return Err(Error::other(text));
                }
                let target = PathBuf::from(OsString::from_vec(readlinkat(&next, "", Vec::new())?.into_bytes()));
                if target.is_absolute() {
                    at = open("/", STEP | OFlags::DIRECTORY, Mode::empty())?;
                }
                left.append(&mut steps(&target));
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok(at)
}

fn step(at: &OwnedFd, name: &OsStr, make: bool) -> Result<OwnedFd, Error> {
    match openat(at, name, STEP, Mode::empty()) {
        Err(Errno::NOENT) if make => match mkdirat(at, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(openat(at, name, STEP, Mode::empty())?),
            Err(e) => Err(e.into()),
        },
        other => Ok(other?),
    }
}

/// The components in reverse order.
fn steps(path: &Path) -> Vec<OsString> {
    let meant = |component: &Component<'_>| matches!(component, Component::Normal(_) | Component::ParentDir);
    let mut steps: Vec<OsString> = path.components().filter(meant).map(|c| c.as_os_str().to_owned()).collect();
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, lchown, symlink};

    fn inode(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().ino()
    }

    fn walked(path: &Path) -> Result<u64, Error> {
        Ok(fstat(directory(path, false)?)?.st_ino)
    }

    #[test]
    fn a_path_leads_where_the_kernel_leads() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a", root.join("relative")).unwrap();
        symlink(root.join("a"), root.join("absolute")).unwrap();
        symlink("../relative/b", root.join("a/up")).unwrap();
        for name in ["a/b", "relative/b", "absolute/b", "a/up", "a/b/../b", "./a//b/."] {
            assert_eq!(walked(&root.join(name)).unwrap(), inode(&root.join("a/b")), "{name}");
        }
        symlink("loop", root.join("loop")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        for name in ["loop", "file", "missing", "file/x"] {
            assert!(walked(&root.join(name)).is_err(), "{name}");
        }
        directory(&root.join("relative/c/d"), true).unwrap();
        assert!(root.join("a/c/d").is_dir());
    }

    #[test]
    fn a_link_of_another_user_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let link = home.path().join("link");
        std::fs::create_dir(home.path().join("target")).unwrap();
        symlink("target", &link).unwrap();
        // Only root can make such a link.
        let foreign = lchown(&link, Some(65533), None).is_ok();
        let said = walked(&link).map_err(|e| e.to_string());
        assert_eq!(said.is_err(), foreign);
        assert!(!foreign || said.unwrap_err().contains("'link' in its path is a symbolic link of another user (uid 65533)"));
    }
}
