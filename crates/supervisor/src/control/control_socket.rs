//! The control socket in the file system.
//!
//! Responsible for: serving and removing the socket only in the directory that was opened for it,
//! wherever its path leads later; and removing only what droverd created. Must never: follow a
//! symbolic link to the socket. Called by: `admin.rs`.
use drover_sys::Errno;
use drover_sys::channel::{discard, refuse_descriptors};
use drover_sys::credentials::of_peer;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, statat, unlinkat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with};
use rustix::process::{getpid, umask};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const BACKLOG: i32 = 16;

/// Every user may connect; the kernel reports who it is. The mode is set from creation.
const SOCKET_MASK: Mode = Mode::from_raw_mode(0o111);

/// A listening socket and its file. Dropping it removes the file.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    directory: OwnedFd,
    name: OsString,
    /// Device and inode number of the file.
    file: (u64, u64),
    path: PathBuf,
}

impl Listener {
    /// Listens on a path. A file left by a killed droverd is removed; that of a running one is not.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let opened = || rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = opened()?;
        // By its path, which /proc/net/unix shows: `drover` finds servers there.
        let address = SocketAddrUnix::new(path)?;
        let socket = new_socket()?;
        // No command has a use for one. Those that an older kernel lets through are closed (`peer.rs`).
        refuse_descriptors(&socket);
        match bind_for_all(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                // A file of another kind refuses connections too, and so may what a link leads to.
                if !is_socket(&look(&directory, &name)?) || reach(&directory, path).map(drop) != Err(Errno::CONNREFUSED) {
                    return Err(Errno::ADDRINUSE);
                }
                unlinkat(&directory, &name, AtFlags::empty())?;
                bind_for_all(&socket, &address)?;
            }
            other => other?,
        }
        listen(&socket, BACKLOG)?;
        let made = served_at(&socket, directory.as_fd(), path).inspect_err(|_| {
            // Where the path led instead, so that no file of ours stays there.
            if let Some(other) = opened().ok().filter(|other| served_at(&socket, other.as_fd(), path).is_ok()) {
                let _ = unlinkat(&other, &name, AtFlags::empty());
            }
        })?;
        Ok(Self { socket, directory, name, file: (made.st_dev, made.st_ino), path: path.to_owned() })
    }

    /// The path as configured.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        discard(&self.socket);
        if look(&self.directory, &self.name).is_ok_and(|now| (now.st_dev, now.st_ino) == self.file) {
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty()); // it may be gone already
        }
    }
}

/// The file of a socket that listens: the one in this directory, if a connection to it arrives at this process. The path may have led
/// elsewhere at the moment of bind(2).
fn served_at(socket: &OwnedFd, directory: BorrowedFd<'_>, path: &Path) -> Result<Stat, Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let made = look(directory, name)?;
    if !is_socket(&made) || of_peer(reach(directory, path)?)?.0 != Some(getpid()) {
        return Err(Errno::ADDRINUSE); // somebody has put something else there meanwhile
    }
    // The connection of this check.
    accept_with(socket, SocketFlags::CLOEXEC).map(|_| made)
}

/// Connects by way of the open directory; by its path where there is no /proc.
fn reach(directory: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let opened = PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()));
    let address = match path.file_name() {
        Some(name) if opened.is_dir() => SocketAddrUnix::new(opened.join(name))?,
        _ => SocketAddrUnix::new(path)?,
    };
    let socket = new_socket()?;
    connect(&socket, &address).map(|()| socket)
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn look(directory: impl AsFd, name: &OsStr) -> Result<Stat, Errno> {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn is_socket(file: &Stat) -> bool {
    FileType::from_raw_mode(file.st_mode) == FileType::Socket
}

fn bind_for_all(socket: &OwnedFd, address: &SocketAddrUnix) -> Result<(), Errno> {
    let before = umask(SOCKET_MASK);
    let bound = bind(socket, address);
    umask(before);
    bound
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Mutex;

    /// Locked while a socket is opened: the umask belongs to the process, and tests run in threads.
    pub static UMASK: Mutex<()> = Mutex::new(());

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("drover-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn only_a_dead_socket_is_taken_away() {
        let _alone = UMASK.lock().unwrap();
        let directory = directory("socket");
        let (path, file) = (directory.join("sock"), directory.join("file"));
        std::fs::write(&file, "precious").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;

        let first = Listener::open(&path).unwrap();
        assert_eq!(mode(&path), 0o666);
        assert_eq!(Listener::open(&path).unwrap_err(), Errno::ADDRINUSE, "somebody listens");
        // The state that a killed droverd leaves.
        std::fs::rename(&path, directory.join("dead")).unwrap();
        drop(first);
        assert!(directory.join("dead").exists(), "a renamed file is not removed");
        std::fs::rename(directory.join("dead"), &path).unwrap();
        drop(Listener::open(&path).unwrap());
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(directory.join("dead")).unwrap());
        for link_to in [Some("dead"), Some("file"), None] {
            match link_to {
                Some(name) => symlink(name, &path).unwrap(),
                None => drop(std::fs::copy(&file, &path).unwrap()),
            }
            assert_eq!(Listener::open(&path).unwrap_err(), Errno::ADDRINUSE, "{link_to:?}");
            assert!(path.symlink_metadata().is_ok() && mode(&file) == 0o600 && directory.join("dead").exists(), "{link_to:?}");
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn only_our_own_socket_in_the_opened_directory_is_served() {
        let _alone = UMASK.lock().unwrap();
        let directory = directory("swapped");
        let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let (inside, other) = (directory.join("inside"), directory.join("other"));
        std::fs::create_dir_all(&inside).unwrap();
        let path = inside.join("sock");
        let listener = Listener::open(&path).unwrap();
        assert!(std::fs::read_to_string("/proc/net/unix").unwrap().contains(path.to_str().unwrap()), "drover finds it there");
        assert!(accept_with(&listener, SocketFlags::CLOEXEC).is_err(), "the check has left no connection");
        std::fs::rename(&inside, &other).unwrap();
        std::fs::create_dir_all(&inside).unwrap();
        // As if the path had led elsewhere when the socket was bound.
        assert_eq!(served_at(&listener.socket, open(&inside).as_fd(), &path).unwrap_err(), Errno::NOENT);
        assert!(served_at(&listener.socket, open(&other).as_fd(), &path).is_ok());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(served_at(&listener.socket, open(&inside).as_fd(), &path).is_err(), "another one's");
        drop(listener);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn nothing_is_removed_that_is_not_ours() {
        let _alone = UMASK.lock().unwrap();
        let directory = directory("replaced");
        let (inside, other) = (directory.join("inside"), directory.join("other"));
        std::fs::create_dir_all(&inside).unwrap();
        let path = inside.join("sock");
        let listener = Listener::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody else's").unwrap();
        drop(listener);
        assert!(path.exists(), "a file that replaced it");
        std::fs::remove_file(&path).unwrap();
        let listener = Listener::open(&path).unwrap();
        std::fs::rename(&inside, &other).unwrap();
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::write(&path, "somebody else's").unwrap();
        drop(listener);
        assert!(path.exists(), "the present target of its path");
        assert!(!other.join("sock").exists(), "its own file, in the directory where it was created");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
