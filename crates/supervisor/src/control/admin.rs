//! The control socket for `drover status`, `reload` and `stop`.
//!
//! Responsible for: authorization (root and droverd's own user: everything; a group's user: that
//! group), and for no client delaying droverd. A client sends one request, gets its reply without
//! waiting and is dropped. Must never: wait for a client. Called by: the event loop, and
//! `configure.rs` with a new configuration.
use crate::control::control_socket::Listener;
use crate::log::messages::Code;
use crate::pool::Now;
use crate::reactor::peer::Peer;
use crate::reactor::poller::Source;
use crate::supervisor::{Supervisor, now};
use drover_sys::channel::send;
use drover_sys::{credentials, memfile};
use drover_wire::admin::{Command, MAX_REPLY, MAX_REQUEST, Reply, Request, Server};
use drover_wire::control::{GroupSpec, decode, encode};
use rustix::net::{SocketFlags, accept_with};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// Clients connected at once; one more makes droverd drop a client.
const MAX_CLIENTS: usize = 16;
/// Clients accepted before the loop serves another descriptor.
const MAX_PER_TURN: usize = 16;

/// How long a cached report is valid for a user.
const REPORT_AGE: Duration = Duration::from_secs(1);
/// Users with a cached report.
const MAX_REPORTS: usize = 64;

/// The control socket and its clients.
#[derive(Debug, Default)]
pub struct Admin {
    listener: Option<Listener>,
    clients: BTreeMap<u32, Client>,
    next: u32,
    /// The last report for each user who may not see everything.
    reports: BTreeMap<u32, (Now, Server)>,
}

/// A client that has connected and not yet sent its request.
#[derive(Debug)]
struct Client {
    socket: Peer,
    uid: u32,
}

/// True for root and droverd's own user.
fn is_privileged(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// True for root, droverd's own user and the user that the group's workers run as.
fn may_control(uid: u32, spec: &GroupSpec) -> bool {
    is_privileged(uid) || spec.identity.as_ref().is_some_and(|identity| identity.uid == uid)
}

/// The client to drop when there are too many. Clients are given with their users, oldest first. It
/// is the oldest client of the user with the most clients; privileged users are considered last.
fn client_to_drop(clients: impl Iterator<Item = (u32, u32)>) -> Option<u32> {
    let mut all = 0;
    let mut of_user: BTreeMap<u32, (bool, usize, u32)> = BTreeMap::new();
    for (id, uid) in clients {
        all += 1;
        of_user.entry(uid).or_insert((!is_privileged(uid), 0, id)).1 += 1;
    }
    let (_, _, oldest) = of_user
        .into_values()
        .filter(|_| all > MAX_CLIENTS)
        .max_by_key(|(common, count, oldest)| (*common, *count, std::cmp::Reverse(*oldest)))?;
    Some(oldest)
}

impl Supervisor {
    /// Opens, moves or closes the socket to match the configuration.
    pub fn configure_admin(&mut self, path: Option<&[u8]>) {
        let wanted = path.map(|p| PathBuf::from(OsStr::from_bytes(p)));
        if self.admin.listener.as_ref().map(Listener::path) == wanted.as_deref() {
            return;
        }
        if let Some(listener) = self.admin.listener.take() {
            self.poller.remove(&listener);
        }
        let Some(path) = wanted else { return };
        match Listener::open(&path).and_then(|listener| self.poller.add(&listener, Source::Admin).map(|()| listener)) {
            Ok(listener) => self.admin.listener = Some(listener),
            Err(e) => self.main.message(Code::NoControlSocket, None, None, &[path.display().to_string(), e.to_string()]),
        }
    }

    /// Accepts waiting clients.
    pub fn accept_admin_clients(&mut self) {
        for _ in 0..MAX_PER_TURN {
            let Some(listener) = &self.admin.listener else { return };
            let Ok(client) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
            let id = self.admin.next;
            self.admin.next = id.wrapping_add(1);
            let socket = Peer::from(client);
            let Ok((_, uid)) = credentials::of_peer(&socket) else { continue };
            if self.poller.add(&socket, Source::AdminClient(id)).is_ok() {
                self.admin.clients.insert(id, Client { socket, uid });
            }
            let forgotten = client_to_drop(self.admin.clients.iter().map(|(id, c)| (*id, c.uid)));
            if let Some(forgotten) = forgotten.and_then(|id| self.admin.clients.remove(&id)) {
                self.poller.remove(&forgotten.socket);
            }
        }
    }

    /// Reads a client's request and replies. The client may have disconnected.
    pub fn read_admin_client(&mut self, id: u32, httpd: u32) {
        let Some(Client { socket: client, uid }) = self.admin.clients.remove(&id) else { return };
        self.poller.remove(&client);
        let mut buffer = vec![0; MAX_REQUEST];
        let Ok(n @ 1..) = client.receive(&mut buffer) else { return };
        match decode::<Request>(buffer.get(..n).unwrap_or_default()) {
            Ok(request) => self.administer(&request, uid, httpd, client),
            Err(e) => reply_to(
                &client,
                &Reply::Refused(format!(
                    "invalid request: {e}; drover and droverd have different versions: stop and start httpd after an upgrade"
                )),
            ),
        }
    }

    fn administer(&mut self, request: &Request, uid: u32, httpd: u32, client: Peer) {
        let reply = match self.answer_to(request, uid, httpd) {
            Some(reply) => reply,
            None => match &request.command {
                Command::Reload(name) => {
                    self.admin.reports.clear();
                    return self.reload_group(name.as_bytes(), client);
                }
                Command::Stop(name) => {
                    self.admin.reports.clear();
                    self.stop_group(name.as_bytes())
                }
                Command::Await(name) => return self.await_group(name.as_bytes(), client),
                Command::Status(_) => return,
            },
        };
        reply_to(&client, &reply);
    }

    /// The report of the groups that a user may see. An unprivileged user gets the same report for
    /// [`REPORT_AGE`], which bounds the cost of frequent requests.
    fn report_for(&mut self, uid: u32, httpd: u32) -> Server {
        let now = now();
        self.admin.reports.retain(|_, (at, _)| *at + REPORT_AGE > now);
        if let Some((_, report)) = self.admin.reports.get(&uid) {
            return report.clone();
        }
        let report = self.report(httpd, |spec| may_control(uid, spec));
        if !is_privileged(uid) && self.admin.reports.len() < MAX_REPORTS {
            self.admin.reports.insert(uid, (now, report.clone()));
        }
        report
    }

    /// The reply to a request; `None` when the user may run the command, which then has to be done.
    fn answer_to(&mut self, request: &Request, uid: u32, httpd: u32) -> Option<Reply> {
        if request.version != drover_wire::VERSION {
            return Some(Reply::Refused(format!(
                "droverd is version {} but drover is version {}: stop and start httpd after an upgrade",
                drover_wire::VERSION,
                request.version
            )));
        }
        let name = match &request.command {
            Command::Status(wanted) => {
                let mut report = self.report_for(uid, httpd);
                report.groups.retain(|group| wanted.as_ref().is_none_or(|wanted| *wanted == group.name));
                return Some(match wanted {
                    Some(name) if report.groups.is_empty() => Reply::Refused(format!("no group '{name}' that you may see")),
                    _ => Reply::Status(report),
                });
            }
            Command::Reload(name) | Command::Stop(name) | Command::Await(name) => name,
        };
        match self.groups.get(name.as_bytes()) {
            Some(settings) if may_control(uid, &settings.spec) => None,
            // One reply for both cases, so that a user cannot probe for group names.
            _ => Some(Reply::Refused(format!("no group '{name}' that you may control (only root and the group's own user may)"))),
        }
    }
}

/// Sends a reply without waiting.
pub fn reply_to(client: &Peer, reply: &Reply) {
    let bytes = encode(reply).ok().filter(|b| b.len() <= MAX_REPLY);
    let bytes = bytes.or_else(|| encode(&Reply::Refused("the report is too large; request a single group".to_owned())).ok());
    let len = bytes.as_ref().and_then(|b| u32::try_from(b.len()).ok()).and_then(|len| encode(&len).ok());
    if let (Some(file), Some(len)) = (bytes.and_then(|b| memfile::create(&b).ok()), len) {
        // This fails only for a client that closed its end.
        let _ = send(client, &[&len], &[file.as_fd()], false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::control_socket::tests::UMASK;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket_with};
    use std::path::Path;

    #[test]
    fn a_crowd_does_not_push_others_out() {
        let own = rustix::process::geteuid().as_raw();
        let (crowd, other) = (own.wrapping_add(1000), own.wrapping_add(1001));
        let forget = |uids: &[u32]| client_to_drop((10..).zip(uids.iter().copied()));
        let first = |uid: u32, rest: u32| [&[uid][..], &[rest; MAX_CLIENTS]].concat();
        assert_eq!(forget(&[crowd; MAX_CLIENTS]), None);
        for (clients, expected, why) in [
            (vec![crowd; MAX_CLIENTS + 1], 10, "the oldest"),
            (first(0, crowd), 11, "root's stays"),
            (first(own, crowd), 11, "also that of droverd's user"),
            (first(other, crowd), 11, "also that of a third user"),
            (first(crowd, 0), 10, "not root's, however many there are"),
            (vec![0; MAX_CLIENTS + 1], 10, "root's if there are no others"),
        ] {
            assert_eq!(forget(&clients), Some(expected), "{why}");
        }
    }

    fn supervisor() -> Supervisor {
        let sink = || std::rc::Rc::new(crate::log::Sink::standard_error(3));
        let place = crate::workers::spawn::SpawnContext::new(Path::new("/nowhere/droverd"), None).unwrap();
        let (read, write) = drover_sys::channel::packet_pair().unwrap();
        let store = crate::queue::store::Store::new(read, write);
        Supervisor::new(place, crate::reactor::poller::Poller::new().unwrap(), sink(), store)
    }

    #[test]
    fn a_user_who_asks_often_is_told_the_same() {
        let mut supervisor = supervisor();
        let own = rustix::process::geteuid().as_raw();
        let user = own.wrapping_add(1000);
        supervisor.httpd_generation = 1;
        assert_eq!(supervisor.report_for(user, 7).generation, 1);
        supervisor.httpd_generation = 2;
        assert_eq!(supervisor.report_for(own, 7).generation, 2, "a privileged user gets a new report");
        let (at, report) = supervisor.admin.reports.get_mut(&user).unwrap();
        (*at, report.generation) = (now() + REPORT_AGE, 5);
        assert_eq!(supervisor.report_for(user, 7).generation, 5);
        supervisor.admin.reports.get_mut(&user).unwrap().0 = Now::ZERO;
        assert_eq!(supervisor.report_for(user, 7).generation, 2);
        for uid in 0..200 {
            supervisor.report_for(user + uid, 7);
        }
        assert_eq!(supervisor.admin.reports.len(), MAX_REPORTS);
    }

    #[test]
    fn a_crowd_is_let_in_piece_by_piece() {
        let _alone = UMASK.lock().unwrap();
        let mut supervisor = supervisor();
        let path = std::env::temp_dir().join(format!("drover-admin-{}.sock", std::process::id()));
        supervisor.configure_admin(Some(path.as_os_str().as_bytes()));
        let address = SocketAddrUnix::new(&path).unwrap();
        let connected: Vec<_> = (0..=MAX_PER_TURN)
            .map(|_| {
                let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
                connect(socket.as_ref().unwrap(), &address).unwrap();
                socket
            })
            .collect();
        let waits = |s: &Supervisor| drover_sys::wait::readable_now(s.admin.listener.as_ref().unwrap());
        supervisor.accept_admin_clients();
        assert_eq!((supervisor.admin.clients.len(), waits(&supervisor)), (MAX_PER_TURN, true), "the loop serves other descriptors first");
        supervisor.accept_admin_clients();
        assert_eq!((supervisor.admin.clients.len(), waits(&supervisor)), (MAX_CLIENTS, false));
        supervisor.configure_admin(None);
        drop(connected);
        assert!(!path.exists());
    }
}
