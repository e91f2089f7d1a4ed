//! The directory of a store: made, and given to httpd's user.
//!
//! Responsible for: the directory belonging to httpd's user alone, whoever may write the one above it. Must never: follow a symbolic link that
//! stands in the directory's place, or take a directory from somebody else. Called by: `src/httpd/sessions.rs`, in httpd's parent.
use drover_sys::users;
use rustix::fs::{Access, AtFlags, CWD, Gid, Mode, OFlags, Stat, Uid, access, fchmod, fchown, fstat, mkdirat, open, openat, unlinkat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::{Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Users and groups are numbers here; who asks without being root owns what it makes.
pub type Owner = Option<(u32, u32)>;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

fn not_a_directory() -> Error {
    Error::other("it is not a directory")
}

fn name_of(path: &Path) -> Result<(&Path, &OsStr), Error> {
    path.parent().zip(path.file_name()).ok_or_else(|| Error::new(ErrorKind::InvalidInput, "it is no place for a directory of its own"))
}

/// The directory itself, never what a link in its place leads to.
fn open_itself(above: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Error> {
    openat(above, name, OFlags::RDONLY | OFlags::NOFOLLOW | DIRECTORY, Mode::empty()).map_err(|e| match e {
        Errno::LOOP | Errno::NOTDIR => not_a_directory(),
        e => e.into(),
    })
}

/// What belongs to somebody else was put there by somebody else.
fn must_be_ours(found: &Stat, owner: Owner) -> Result<(), Error> {
    let Some((uid, _)) = owner.filter(|(uid, _)| found.st_uid != 0 && found.st_uid != *uid) else { return Ok(()) };
    Err(Error::new(
        ErrorKind::PermissionDenied,
        format!("it belongs to {}, not to root or httpd's User, {}", named(found.st_uid), named(uid)),
    ))
}

fn not_made(e: impl Into<Error>) -> Error {
    let e = e.into();
    Error::new(e.kind(), format!("it cannot be made: {e}"))
}

fn named(uid: u32) -> String {
    match users::user_by_id(uid) {
        Some(user) => format!("{} ({uid})", user.name.escape_ascii()),
        None => format!("the user with the number {uid}"),
    }
}

/// Makes the directory, with those above it, for the owner alone.
pub fn make(path: &Path, owner: Owner) -> Result<(), Error> {
    let (above, name) = name_of(path)?;
    DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(not_made)?;
    let above = open(above, OFlags::PATH | DIRECTORY, Mode::empty())?;
    match mkdirat(&above, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(not_made(e)),
    }
    let directory = open_itself(&above, name)?;
    must_be_ours(&fstat(&directory)?, owner)?;
    if let Some((uid, gid)) = owner {
        // By the descriptor: httpd's user may own the directory above, and put anything in this one's place meanwhile.
        fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(&directory, Mode::RWXU)?;
    }
    Ok(())
}

/// Whether [`make`] would succeed; leaves nothing behind.
pub fn check(path: &Path, owner: Owner) -> Result<(), Error> {
    let (above, name) = name_of(path)?;
    match open(above, OFlags::PATH | DIRECTORY, Mode::empty()) {
        Ok(above) => match open_itself(&above, name) {
            Ok(directory) => {
                must_be_ours(&fstat(&directory)?, owner)?;
                Ok(access(path, Access::WRITE_OK)?)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => try_below(&above, name, owner),
            Err(e) => Err(e),
        },
        Err(Errno::NOENT) => above_exists(above, owner),
        Err(e) => Err(e.into()),
    }
}

/// The nearest directory above that is there, and whether one can be made in it.
fn above_exists(path: &Path, owner: Owner) -> Result<(), Error> {
    for path in path.ancestors() {
        let Ok((above, name)) = name_of(path) else { break };
        match openat(CWD, above, OFlags::PATH | DIRECTORY, Mode::empty()) {
            Ok(above) => return try_below(&above, name, owner),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Errno::NOENT.into())
}

/// Some file systems say only when asked that nothing can be made there. Who is not root may be checking a configuration that root will use.
fn try_below(above: &OwnedFd, name: &OsStr, owner: Owner) -> Result<(), Error> {
    if owner.is_none() {
        return Ok(());
    }
    match mkdirat(above, name, Mode::RWXU) {
        Ok(()) => Ok(unlinkat(above, name, AtFlags::REMOVEDIR)?),
        // Another httpd was quicker.
        Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(not_made(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_check_says_what_making_does_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b/sessions");
        check(&path, None).unwrap();
        assert!(!home.path().join("a").exists());
        make(&path, None).unwrap();
        assert_eq!((mode(&path), check(&path, None).is_ok()), (0o700, true));
        make(&path, None).unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        for bad in [file.clone(), file.join("below"), "/".into()] {
            assert!(check(&bad, None).is_err() && make(&bad, None).is_err(), "{}", bad.display());
        }
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (target, link) = (home.path().join("target"), home.path().join("sessions"));
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, PermissionsExt::from_mode(0o755)).unwrap();
        symlink(&target, &link).unwrap();
        let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        for owner in [None, Some(us)] {
            for refused in [make(&link, owner), check(&link, owner)] {
                assert_eq!(refused.unwrap_err().to_string(), "it is not a directory");
            }
        }
        assert_eq!(mode(&target), 0o755);
    }

    #[test]
    fn nothing_is_taken_from_somebody_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sessions");
        let uid = rustix::process::geteuid().as_raw();
        if uid == 0 {
            make(&path, Some((65533, 65533))).unwrap();
            check(&path, Some((65533, 65533))).unwrap();
            for refused in [make(&path, Some((65532, 65532))), check(&path, Some((65532, 65532)))] {
                assert!(refused.unwrap_err().to_string().contains("it belongs to the user with the number 65533"));
            }
            // /proc takes no directory, which it says only when asked for one.
            let said = check(Path::new("/proc/drover"), Some((65533, 65533))).unwrap_err().to_string();
            assert!(said.starts_with("it cannot be made: "), "{said}");
        } else {
            make(&path, None).unwrap();
            assert!(make(&path, Some((uid + 1, 0))).unwrap_err().to_string().contains("it belongs to"));
        }
    }
}
