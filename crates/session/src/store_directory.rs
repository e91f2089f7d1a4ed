//! The directory of the session stores: created, and given to httpd's user.
//!
//! Responsible for: the directory belonging to httpd's user alone, whoever may write to its parent directory; no directory being
//! taken that has another purpose. Must never: follow a symbolic link in the directory's place, or take a directory from another
//! user. Called by: `src/httpd/sessions.rs`, in httpd's parent.
use crate::walk;
use drover_sys::users;
use rustix::fs::{
    Access, AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, accessat, fchmod, fchown, fstat, mkdirat, openat, stat, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The user and group that get the directory; `None`: this process is not root and keeps what it creates.
pub type Identity = Option<(u32, u32)>;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// The file that marks a directory as one of mod_drover's.
pub const MARK: &str = "README.mod_drover";
const MARK_TEXT: &[u8] = b"mod_drover keeps web sessions in this directory. httpd does not use the directory without this file.\n";
/// An entry of the root directory of a new file system.
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Directories of the system, which may be empty and still have another purpose.
const SYSTEM: &str = "/ /bin /boot /boot/efi /dev /dev/shm /efi /etc /home /lib /lib32 /lib64 /libx32 /lost+found /media /mnt /opt /proc /root \
    /run /run/lock /run/user /sbin /snap /srv /sys /tmp /usr /usr/bin /usr/games /usr/include /usr/lib /usr/lib32 /usr/lib64 /usr/libexec \
    /usr/libx32 /usr/local /usr/local/bin /usr/local/etc /usr/local/games /usr/local/include /usr/local/lib /usr/local/lib64 \
    /usr/local/libexec /usr/local/sbin /usr/local/share /usr/local/src /usr/sbin /usr/share /usr/src /var /var/adm /var/backups /var/cache \
    /var/crash /var/db /var/empty /var/games /var/lib /var/local /var/lock /var/log /var/mail /var/nis /var/opt /var/preserve /var/run \
    /var/spool /var/tmp /var/www /var/www/html /var/yp";

fn not_a_directory() -> Error {
    Error::other("it is not a directory")
}

fn name_of(path: &Path) -> Result<(&Path, &OsStr), Error> {
    path.parent().zip(path.file_name()).ok_or_else(|| Error::new(ErrorKind::InvalidInput, "it cannot be a directory of its own"))
}

/// Opens the directory itself, never the target of a link in its place.
fn open_itself(above: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Error> {
    openat(above, name, OFlags::RDONLY | OFlags::NOFOLLOW | DIRECTORY, Mode::empty()).map_err(|e| match e {
        Errno::LOOP | Errno::NOTDIR => not_a_directory(),
        e => e.into(),
    })
}

/// Refuses a directory that belongs to another user.
fn must_be_ours(found: &Stat, owner: Identity) -> Result<(), Error> {
    let Some((uid, _)) = owner.filter(|(uid, _)| found.st_uid != 0 && found.st_uid != *uid) else { return Ok(()) };
    Err(Error::new(
        ErrorKind::PermissionDenied,
        format!("it belongs to {}, not to root or httpd's User, {}", named(found.st_uid), named(uid)),
    ))
}

/// Accepts a directory that has our mark, or is empty and has no other purpose.
fn must_be_for_sessions(directory: &OwnedFd, found: &Stat) -> Result<(), Error> {
    if Mode::from_raw_mode(found.st_mode).contains(Mode::SVTX) {
        return Err(Error::other("it is a directory that users share (its mode has the sticky bit)"));
    }
    let is_it = |path: &str| stat(path).is_ok_and(|other| (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino));
    if SYSTEM.split_whitespace().any(is_it) {
        return Err(Error::other("it is a directory of the system"));
    }
    if is_marked(directory, found)? || is_empty(directory)? {
        return Ok(());
    }
    Err(Error::other(format!("it has other files in it, and no {MARK}, which marks a session directory")))
}

/// Ignores a mark that another user could have put into a directory of root's.
fn is_marked(directory: &OwnedFd, found: &Stat) -> Result<bool, Error> {
    match statat(directory, MARK, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(mark) => {
            let is_file = FileType::from_raw_mode(mark.st_mode) == FileType::RegularFile;
            Ok(is_file && (mark.st_uid == 0 || mark.st_uid == found.st_uid))
        }
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Error> {
    for entry in Dir::read_from(directory)? {
        if ![&b"."[..], b"..", LOST_AND_FOUND].contains(&entry?.file_name().to_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates the mark, unless another httpd already has.
fn mark(directory: &OwnedFd) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(directory, MARK, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) => Ok(std::io::Write::write_all(&mut std::fs::File::from(file), MARK_TEXT)?),
        Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn not_made(e: impl Into<Error>) -> Error {
    let e = e.into();
    Error::new(e.kind(), format!("it cannot be created: {e}"))
}

fn named(uid: u32) -> String {
    match users::user_by_id(uid) {
        Some(user) => format!("{} ({uid})", user.name.escape_ascii()),
        None => format!("the user with the number {uid}"),
    }
}

/// Creates the directory and its parents, readable for the owner alone.
pub fn make(path: &Path, owner: Identity) -> Result<(), Error> {
    let (above, name) = name_of(path)?;
    let above = walk::directory(above, true).map_err(not_made)?;
    match mkdirat(&above, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(not_made(e)),
    }
    let directory = open_itself(&above, name)?;
    let found = fstat(&directory)?;
    must_be_ours(&found, owner)?;
    must_be_for_sessions(&directory, &found)?;
    mark(&directory)?;
    if let Some((uid, gid)) = owner {
        // By the descriptor: httpd's user may own the parent directory and replace this one at any time.
        fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(&directory, Mode::RWXU)?;
    }
    Ok(())
}

/// Checks whether [`make`] would succeed, without a lasting change.
pub fn check(path: &Path, owner: Identity) -> Result<(), Error> {
    let (above, name) = name_of(path)?;
    match walk::directory(above, false) {
        Ok(above) => match open_itself(&above, name) {
            Ok(directory) => {
                let found = fstat(&directory)?;
                must_be_ours(&found, owner)?;
                must_be_for_sessions(&directory, &found)?;
                Ok(accessat(&directory, ".", Access::WRITE_OK, AtFlags::empty())?)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => try_below(&above, name, owner),
            Err(e) => Err(e),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => above_exists(above, owner),
        Err(e) => Err(e),
    }
}

/// Checks whether a directory can be created in the nearest parent that exists.
fn above_exists(path: &Path, owner: Identity) -> Result<(), Error> {
    for path in path.ancestors() {
        let Ok((above, name)) = name_of(path) else { break };
        match walk::directory(above, false) {
            Ok(above) => return try_below(&above, name, owner),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::NOENT.into())
}

/// Creates and removes the directory: some file systems refuse only then. A process that is not root skips this: it may check a
/// configuration that root will use.
fn try_below(above: &OwnedFd, name: &OsStr, owner: Identity) -> Result<(), Error> {
    if owner.is_none() {
        return Ok(());
    }
    match mkdirat(above, name, Mode::RWXU) {
        Ok(()) => Ok(unlinkat(above, name, AtFlags::REMOVEDIR)?),
        // Another httpd has just created it.
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
    fn only_an_empty_directory_or_one_of_ours_is_taken() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sessions");
        let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let both = |owner| (make(&path, owner).map_err(|e| e.to_string()), check(&path, owner).map_err(|e| e.to_string()));
        let refused = |part: &str| {
            let before = mode(&path);
            for owner in [None, Some(us)] {
                let (made, checked) = both(owner);
                assert!(made == checked && made.as_ref().is_err_and(|said| said.contains(part)), "{made:?} {checked:?}");
            }
            assert_eq!(mode(&path), before, "left as it was");
        };
        fs::create_dir(&path).unwrap();
        fs::write(path.join("index.html"), "").unwrap();
        refused("it has other files in it, and no README.mod_drover");
        // Not even with what only looks like the mark.
        symlink("index.html", path.join(MARK)).unwrap();
        refused("it has other files in it");
        fs::remove_file(path.join(MARK)).unwrap();
        fs::remove_file(path.join("index.html")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o1777)).unwrap();
        refused("that users share");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(path.join("lost+found")).unwrap();
        assert_eq!(both(Some(us)), (Ok(()), Ok(())));
        fs::write(path.join("scope-1"), "").unwrap();
        assert_eq!((both(Some(us)), mode(&path)), ((Ok(()), Ok(())), 0o700));
    }

    #[test]
    fn no_directory_of_the_system_is_taken() {
        for path in ["/tmp", "/etc", "/var/lib", "/usr/local/bin", "/srv", "/opt", "/usr/../mnt"] {
            let path = Path::new(path);
            let Ok(before) = fs::metadata(path) else { continue };
            for refused in [check(path, None), make(path, None)] {
                let said = refused.unwrap_err().to_string();
                assert!(said.contains("of the system") || said.contains("that users share"), "{}: {said}", path.display());
            }
            assert_eq!(fs::metadata(path).unwrap().permissions(), before.permissions());
        }
    }

    #[test]
    fn a_mark_that_is_not_roots_gives_no_directory_of_roots() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sessions");
        fs::create_dir(&path).unwrap();
        fs::write(path.join(MARK), "").unwrap();
        fs::write(path.join("else"), "").unwrap();
        let uid = rustix::process::geteuid().as_raw();
        if uid == 0 {
            std::os::unix::fs::chown(path.join(MARK), Some(65533), None).unwrap();
            assert!(make(&path, Some((65533, 65533))).unwrap_err().to_string().contains("other files"));
        } else {
            make(&path, Some((uid, rustix::process::getegid().as_raw()))).unwrap();
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
            assert!(said.starts_with("it cannot be created: "), "{said}");
        } else {
            make(&path, None).unwrap();
            assert!(make(&path, Some((uid + 1, 0))).unwrap_err().to_string().contains("it belongs to"));
        }
    }
}
