//! The control socket: `drover status|reload|stop`.
//!
//! Responsible for: who may do what (root and droverd's own user everything, a group's user that group), and for nobody holding droverd
//! up: a client has one request, is answered without waiting, and is forgotten. Must never: wait for a client. Called by: the event
//! loop, and `configure.rs` with a new configuration.
use crate::messages::Code;
use crate::peer::Peer;
use crate::poller::Source;
use crate::supervisor::Supervisor;
use drover_sys::channel::{discard, send};
use drover_sys::{Errno, credentials, memfile};
use drover_wire::admin::{Command, MAX_REPLY, MAX_REQUEST, Reply, Request};
use drover_wire::control::{decode, encode};
use rustix::fs::{FileType, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with};
use rustix::process::umask;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// So many clients at once; with more, one is forgotten.
const MOST_CLIENTS: usize = 16;
/// So many are let in before the loop looks at something else.
const AT_ONCE: usize = 16;

/// The socket and who is connected.
#[derive(Debug, Default)]
pub struct Admin {
    listener: Option<(PathBuf, OwnedFd)>,
    clients: BTreeMap<u32, Client>,
    next: u32,
}

/// Somebody who is connected and has not said yet what is wanted.
#[derive(Debug)]
struct Client {
    socket: Peer,
    uid: u32,
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some((path, fd)) = &self.listener {
            discard(fd);
            let _ = std::fs::remove_file(path); // somebody else may have done it
        }
    }
}

/// Root and droverd's own user.
fn may_all(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Which of the clients, given with their users and the oldest first, is one too many: the oldest of the user that has most, and those who
/// may do everything only when there are no others.
fn whom_to_forget(clients: impl Iterator<Item = (u32, u32)>) -> Option<u32> {
    let mut all = 0;
    let mut of_user: BTreeMap<u32, (bool, usize, u32)> = BTreeMap::new();
    for (id, uid) in clients {
        all += 1;
        of_user.entry(uid).or_insert((!may_all(uid), 0, id)).1 += 1;
    }
    let (_, _, oldest) = of_user
        .into_values()
        .filter(|_| all > MOST_CLIENTS)
        .max_by_key(|(common, count, oldest)| (*common, *count, std::cmp::Reverse(*oldest)))?;
    Some(oldest)
}

/// Listens on a path. What a droverd that was killed has left there is taken away; a living one's is not.
fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let kind = SocketType::SEQPACKET;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = SocketAddrUnix::new(path)?;
    let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    match bind_for_all(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            let probe = socket_with(AddressFamily::UNIX, kind, flags, None)?;
            // Only a socket that nobody listens on; a file of somebody else refuses connections too, and so may what a link leads to.
            let left = rustix::fs::lstat(path)?;
            if FileType::from_raw_mode(left.st_mode) != FileType::Socket || connect(&probe, &address) != Err(Errno::CONNREFUSED) {
                return Err(Errno::ADDRINUSE);
            }
            rustix::fs::unlink(path)?;
            bind_for_all(&socket, &address)?;
        }
        other => other?,
    }
    listen(&socket, 16)?;
    Ok(socket)
}

/// Everybody may connect; who it is says the kernel. The mode is the socket's from its beginning: later the path could lead elsewhere.
fn bind_for_all(socket: &OwnedFd, address: &SocketAddrUnix) -> Result<(), Errno> {
    let before = umask(Mode::from_raw_mode(0o111));
    let bound = bind(socket, address);
    umask(before);
    bound
}

impl Supervisor {
    /// Opens, moves or closes the socket as the configuration says.
    pub fn configure_admin(&mut self, path: Option<&[u8]>) {
        let wanted = path.map(|p| PathBuf::from(OsStr::from_bytes(p)));
        if self.admin.listener.as_ref().map(|(path, _)| path) == wanted.as_ref() {
            return;
        }
        if let Some((path, fd)) = self.admin.listener.take() {
            self.poller.remove(&fd);
            discard(fd);
            let _ = std::fs::remove_file(path); // somebody else may have done it
        }
        let Some(path) = wanted else { return };
        match open(&path).and_then(|fd| self.poller.add(&fd, Source::Admin).map(|()| fd)) {
            Ok(fd) => self.admin.listener = Some((path, fd)),
            Err(e) => self.main.message(Code::NoControlSocket, None, None, &[path.display().to_string(), e.to_string()]),
        }
    }

    /// Somebody connects.
    pub fn admin_connects(&mut self) {
        for _ in 0..AT_ONCE {
            let Some((_, listener)) = &self.admin.listener else { return };
            let Ok(client) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
            let id = self.admin.next;
            self.admin.next = id.wrapping_add(1);
            let socket = Peer::from(client);
            let Ok((_, uid)) = credentials::of_peer(&socket) else { continue };
            if self.poller.add(&socket, Source::AdminClient(id)).is_ok() {
                self.admin.clients.insert(id, Client { socket, uid });
            }
            let forgotten = whom_to_forget(self.admin.clients.iter().map(|(id, c)| (*id, c.uid)));
            if let Some(forgotten) = forgotten.and_then(|id| self.admin.clients.remove(&id)) {
                self.poller.remove(&forgotten.socket);
            }
        }
    }

    /// A client has sent its request, or is gone.
    pub fn admin_says(&mut self, id: u32, httpd: u32) {
        let Some(Client { socket: client, uid }) = self.admin.clients.remove(&id) else { return };
        self.poller.remove(&client);
        let mut buffer = vec![0; MAX_REQUEST];
        let Ok(n @ 1..) = client.receive(&mut buffer) else { return };
        match decode::<Request>(buffer.get(..n).unwrap_or_default()) {
            Ok(request) => self.administer(&request, uid, httpd, client),
            Err(e) => reply_to(
                &client,
                &Reply::Refused(format!(
                    "not understood: {e}; drover and droverd differ in version: stop and start httpd after an upgrade"
                )),
            ),
        }
    }

    fn administer(&mut self, request: &Request, uid: u32, httpd: u32, client: Peer) {
        let reply = match self.answer_to(request, uid, httpd) {
            Some(reply) => reply,
            None => match &request.command {
                Command::Reload(name) => return self.reload_group(name.as_bytes(), client),
                Command::Stop(name) => self.stop_group(name.as_bytes()),
                Command::Await(name) => return self.await_group(name.as_bytes(), client),
                Command::Status(_) => return,
            },
        };
        reply_to(&client, &reply);
    }

    /// The answer; `None`: the user may steer the group, which is to be done.
    fn answer_to(&self, request: &Request, uid: u32, httpd: u32) -> Option<Reply> {
        if request.version != drover_wire::VERSION {
            return Some(Reply::Refused(format!(
                "this is droverd {}, drover is version {}: stop and start httpd after an upgrade",
                drover_wire::VERSION,
                request.version
            )));
        }
        let all = may_all(uid);
        let may = |spec: &drover_wire::control::GroupSpec| all || spec.identity.as_ref().is_some_and(|i| i.uid == uid);
        let name = match &request.command {
            Command::Status(wanted) => {
                let visible: Vec<Vec<u8>> = self.groups.values().filter(|s| may(&s.spec)).map(|s| s.spec.name.clone()).collect();
                let which = |name: &[u8]| visible.iter().any(|v| v == name) && wanted.as_ref().is_none_or(|w| w.as_bytes() == name);
                let report = self.report(httpd, which);
                return Some(match wanted {
                    Some(name) if report.groups.is_empty() => Reply::Refused(format!("there is no group '{name}' that you may see")),
                    _ => Reply::Status(report),
                });
            }
            Command::Reload(name) | Command::Stop(name) | Command::Await(name) => name,
        };
        match self.groups.get(name.as_bytes()) {
            Some(settings) if may(&settings.spec) => None,
            // The same answer, so that names cannot be tried out.
            _ => Some(Reply::Refused(format!("there is no group '{name}' that you may steer (root and the group's own user may)"))),
        }
    }
}

/// Sends an answer, without waiting.
pub fn reply_to(client: &Peer, reply: &Reply) {
    let bytes = encode(reply).ok().filter(|b| b.len() <= MAX_REPLY);
    let bytes = bytes.or_else(|| encode(&Reply::Refused("the answer is too large; ask for one group".to_owned())).ok());
    let len = bytes.as_ref().and_then(|b| u32::try_from(b.len()).ok()).and_then(|len| encode(&len).ok());
    if let (Some(file), Some(len)) = (bytes.and_then(|b| memfile::create(&b).ok()), len) {
        // One that does not wait any more has closed its end.
        let _ = send(client, &[&len], &[file.as_fd()], false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Mutex;

    /// Held while a socket is opened: droverd has one thread, the tests have several, and a process has one umask.
    static UMASK: Mutex<()> = Mutex::new(());

    #[test]
    fn a_crowd_does_not_push_others_out() {
        let own = rustix::process::geteuid().as_raw();
        let (crowd, other) = (own.wrapping_add(1000), own.wrapping_add(1001));
        let forget = |uids: &[u32]| whom_to_forget((10..).zip(uids.iter().copied()));
        let first = |uid: u32, rest: u32| [&[uid][..], &[rest; MOST_CLIENTS]].concat();
        assert_eq!(forget(&[crowd; MOST_CLIENTS]), None);
        for (clients, expected, why) in [
            (vec![crowd; MOST_CLIENTS + 1], 10, "the oldest"),
            (first(0, crowd), 11, "root's stays"),
            (first(own, crowd), 11, "so does that of droverd's user"),
            (first(other, crowd), 11, "and that of a third"),
            (first(crowd, 0), 10, "however many root has"),
            (vec![0; MOST_CLIENTS + 1], 10, "root's, when there are no others"),
        ] {
            assert_eq!(forget(&clients), Some(expected), "{why}");
        }
    }

    #[test]
    fn a_crowd_is_let_in_piece_by_piece() {
        let _alone = UMASK.lock().unwrap();
        let sink = || std::rc::Rc::new(crate::log::Sink::standard_error(3));
        let place = crate::spawn::Place::new(Path::new("/nowhere/droverd"), None).unwrap();
        let (read, write) = drover_sys::channel::packet_pair().unwrap();
        let store = crate::store::Store::new(read, write);
        let mut supervisor = Supervisor::new(place, crate::poller::Poller::new().unwrap(), sink(), store);
        let path = std::env::temp_dir().join(format!("drover-admin-{}.sock", std::process::id()));
        supervisor.configure_admin(Some(path.as_os_str().as_bytes()));
        let address = SocketAddrUnix::new(&path).unwrap();
        let connected: Vec<_> = (0..=AT_ONCE)
            .map(|_| {
                let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
                connect(socket.as_ref().unwrap(), &address).unwrap();
                socket
            })
            .collect();
        let waits = |s: &Supervisor| drover_sys::wait::readable_now(&s.admin.listener.as_ref().unwrap().1);
        supervisor.admin_connects();
        assert_eq!((supervisor.admin.clients.len(), waits(&supervisor)), (AT_ONCE, true), "the loop looks at something else first");
        supervisor.admin_connects();
        assert_eq!((supervisor.admin.clients.len(), waits(&supervisor)), (MOST_CLIENTS, false));
        supervisor.configure_admin(None);
        drop(connected);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_dead_socket_is_taken_away() {
        let _alone = UMASK.lock().unwrap();
        let directory = std::env::temp_dir().join(format!("drover-admin-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (path, file) = (directory.join("sock"), directory.join("file"));
        std::fs::write(&file, "precious").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;

        let first = open(&path).unwrap();
        assert_eq!(mode(&path), 0o666);
        assert_eq!(open(&path).unwrap_err(), Errno::ADDRINUSE, "somebody listens");
        drop(first);
        drop(open(&path).unwrap());
        std::fs::rename(&path, directory.join("dead")).unwrap();
        for link_to in [Some("dead"), Some("file"), None] {
            match link_to {
                Some(name) => symlink(name, &path).unwrap(),
                None => drop(std::fs::copy(&file, &path).unwrap()),
            }
            assert_eq!(open(&path).unwrap_err(), Errno::ADDRINUSE, "{link_to:?}");
            assert!(path.symlink_metadata().is_ok() && mode(&file) == 0o600 && directory.join("dead").exists(), "{link_to:?}");
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
