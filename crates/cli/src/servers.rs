//! The servers that run on this machine.
//!
//! Responsible for: finding their control sockets, and refusing to choose between several. Must
//! never: trust a socket that another user may have created. Called by: `remote.rs`.
use crate::arguments::Remote;
use crate::connection::{open, request};
use crate::error::Error;
use crate::say;
use drover_wire::admin::{Command, Reply};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Default paths of control sockets.
const USUAL: [&str; 5] = [
    "/run/apache2/drover.sock",
    "/run/httpd/drover.sock",
    "/usr/local/apache2/logs/drover.sock",
    "/usr/local/apache2/run/drover.sock",
    "/etc/httpd/run/drover.sock",
];
/// File name of a control socket.
const NAME: &str = "drover.sock";

/// The socket to use: that of the options, or of the only server. `note`: list the other servers on
/// standard error.
pub fn socket(remote: &Remote, note: bool) -> Result<PathBuf, Error> {
    if let Some(path) = &remote.socket {
        return Ok(path.clone());
    }
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let paths = USUAL.iter().map(PathBuf::from).chain(listening(&table)).collect();
    let own = rustix::process::geteuid().as_raw();
    let trusted = trusted(paths, own);
    let (running, silent): (Vec<PathBuf>, Vec<PathBuf>) = trusted.into_iter().partition(|path| open(path).is_ok());
    match choose(&running) {
        Some(path) => {
            for other in running.iter().filter(|other| note && *other != path) {
                say(format_args!("another server is running{}: --socket {}", of_httpd(other), other.display()));
            }
            Ok(path.clone())
        }
        None if running.is_empty() => Err(Error::Unreachable(match silent.first() {
            Some(path) => {
                format!("{}: no server listens on this socket: start httpd, or name another socket with --socket", path.display())
            }
            None => format!(
                "no running server found ({}): start httpd with mod_drover, or name its socket with --socket (DroverControlSocket)",
                USUAL.join(", ")
            ),
        })),
        None => {
            let list: Vec<String> = running.iter().map(|path| format!("\n  --socket {}{}", path.display(), of_httpd(path))).collect();
            Err(Error::Choice(format!("{} servers run here; choose one:{}", running.len(), list.concat())))
        }
    }
}

/// The only server, or the only one that is not a `drover serve`.
fn choose(running: &[PathBuf]) -> Option<&PathBuf> {
    if let [one] = running {
        return Some(one);
    }
    let mut lasting = running.iter().filter(|path| !is_of_serve(path));
    lasting.next().filter(|_| lasting.next().is_none())
}

/// Whether it is in the private directory of a `drover serve`.
fn is_of_serve(socket: &Path) -> bool {
    let private = socket.parent().and_then(Path::parent).and_then(Path::file_name);
    private.is_some_and(|name| name.as_encoded_bytes().starts_with(b"drover-"))
}

/// The httpd of a socket, for the administrator who has to choose.
fn of_httpd(path: &Path) -> String {
    match request(path, Command::Status(None)) {
        Ok(Reply::Status(server)) => format!(" (httpd, process {})", server.httpd),
        _ => String::new(),
    }
}

/// The paths in /proc/net/unix on which a process listens as droverd does.
fn listening(table: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        // A path may contain spaces: it is everything from the first slash on.
        let at = line.find('/')?;
        let fields: Vec<&str> = line.get(..at)?.split_whitespace().collect();
        // SO_ACCEPTCON and SOCK_SEQPACKET.
        matches!(fields.as_slice(), [_, _, _, "00010000", "0005", _, _]).then(|| line.get(at..).map(PathBuf::from))?
    };
    table.lines().filter_map(path).filter(|path| path.is_absolute() && path.file_name().is_some_and(|name| name == NAME)).collect()
}

/// Sockets that root or this user created, each once: any user may create a socket of that name.
fn trusted(paths: Vec<PathBuf>, own: u32) -> Vec<PathBuf> {
    let mut all = BTreeMap::new();
    for path in paths {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.file_type().is_socket() && [0, own].contains(&metadata.uid()) {
            all.entry((metadata.dev(), metadata.ino())).or_insert(path);
        }
    }
    let mut all: Vec<PathBuf> = all.into_values().collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_of_that_name_are_found() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0005 01 4242 /run/apache2/drover.sock\n\
            0000000000000000: 00000002 00000000 00010000 0005 01     7 /srv/my site/drover.sock\n\
            0000000000000000: 00000003 00000000 00000000 0005 03 4243 /run/connected/drover.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4244 /run/stream/drover.sock\n\
            0000000000000000: 00000002 00000000 00010000 0005 01 4245 /run/udev/control\n\
            0000000000000000: 00000002 00000000 00010000 0005 01 4246 @drover.sock\n\
            0000000000000000: 00000002 00000000 00010000 0005 01 4247\n";
        assert_eq!(listening(table), [PathBuf::from("/run/apache2/drover.sock"), "/srv/my site/drover.sock".into()]);
    }

    #[test]
    fn a_server_is_chosen_only_if_there_is_one_candidate() {
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
        let (system, other) = ("/run/apache2/drover.sock", "/run/apache2-blog/drover.sock");
        let (serve, serve2) = ("/tmp/drover-aaaaaa/run/drover.sock", "/tmp/drover-bbbbbb/run/drover.sock");
        for (running, chosen) in [
            (vec![], None),
            (vec![serve], Some(serve)),
            (vec![system, serve, serve2], Some(system)),
            (vec![serve, serve2], None),
            (vec![system, other], None),
        ] {
            assert_eq!(choose(&paths(&running)), chosen.map(PathBuf::from).as_ref(), "{running:?}");
        }
    }

    #[test]
    fn sockets_of_other_users_are_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join(NAME), directory.path().join("link"));
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let own = path.symlink_metadata().unwrap().uid();
        let (file, absent) = (directory.path().join("file"), directory.path().join("absent"));
        std::fs::write(&file, "").unwrap();
        let paths = || vec![path.clone(), path.clone(), link.clone(), file.clone(), absent.clone()];
        assert_eq!(trusted(paths(), own), std::slice::from_ref(&path));
        if own != 0 {
            assert_eq!(trusted(paths(), own + 1), [] as [PathBuf; 0]);
        }
    }
}
