//! A worker's command line, environment and identity, from its group's options.
//!
//! Responsible for: everything about a start that is configured, and naming the option at fault
//! when it fails. Called by: the supervisor. The mechanism is in `drover_sys::spawn`.
use crate::control::settings::Settings;
use crate::queue::store::Queue;
use drover_sys::Errno;
use drover_sys::reach::{Need, Who, barrier};
use drover_sys::spawn::{Child, Command, Credentials, Directory, Failed, Limit, Step, spawn, supplementary_groups};
use drover_wire::control::{Bytes, GroupSpec, Identity};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Space for the suffix that a fork server adds to its display-name.
const FORK_SERVER_SUFFIX: usize = " template".len();

/// What all workers have in common.
#[derive(Debug)]
pub struct SpawnContext {
    /// boot.py, installed beside droverd.
    boot: Bytes,
    /// httpd's environment.
    environment: BTreeMap<Bytes, Bytes>,
    /// The soft limit of open files that droverd was started with.
    open_files: Option<u64>,
    null: OwnedFd,
}

impl SpawnContext {
    pub fn new(executable: &Path, open_files: Option<u64>) -> Result<Self, Errno> {
        use rustix::fs::{Mode, OFlags, open};
        let boot = executable.parent().unwrap_or(Path::new("/")).join("python/mod_drover/boot.py");
        let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let environment = std::env::vars_os().map(|(k, v)| (k.into_vec(), v.into_vec())).collect();
        Ok(Self { boot: boot.as_os_str().as_bytes().to_vec(), environment, open_files, null })
    }
}

/// Why a worker could not be started.
#[derive(Debug)]
pub enum SpawnError {
    /// An option's value contains a NUL byte.
    Nul(&'static str),
    /// A pipe, a socket or the process itself.
    System(&'static str, Errno),
    /// A step between fork and exec.
    Step {
        /// The option that required the step, with its value.
        what: String,
        /// The system's reason.
        errno: Errno,
        /// For `Permission denied`: the path component that denies access.
        because: Option<String>,
    },
}

impl SpawnError {
    /// Names the option that a failed step belongs to.
    pub fn from_step(failed: Failed, spec: &GroupSpec) -> Self {
        let text = |bytes: &Option<Bytes>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
        let user = spec.identity.as_ref().map(|i| (String::from_utf8_lossy(&i.user).into_owned(), i.uid, i.gid)).unwrap_or_default();
        let what = match failed.step {
            Step::Fork => return Self::System("start a process", failed.errno),
            Step::Descriptors => return Self::System("pass descriptors to a process", failed.errno),
            Step::Limits => "set its limits (memory-limit=, virtual-memory-limit=, cpu-time-limit=)".to_owned(),
            Step::Priority => format!("set priority {} (cpu-priority=)", spec.cpu_priority.unwrap_or_default()),
            Step::Chroot => format!("change the root directory to {} (chroot=)", text(&spec.chroot)),
            Step::Groups => format!("change to group {} (group=, supplementary-groups=)", user.2),
            Step::User => format!("change to user {} with id {} (user=)", user.0, user.1),
            Step::Directory => format!("change directory to {} (home=) as user {}", text(&spec.home), user.0),
            Step::Exec => format!("run {} (python=, python-home=)", String::from_utf8_lossy(spec.program.executable())),
        };
        let path = match failed.step {
            Step::Directory => spec.home.as_ref().map(|home| (home, Need::Use)),
            Step::Exec => Some((spec.program.executable(), Need::Run)),
            _ => None,
        };
        // With chroot= paths are relative to the new root.
        let path = path.filter(|_| failed.errno == Errno::ACCESS && spec.chroot.is_none());
        let because = path.map(|(path, need)| match barrier(&who(spec), Path::new(OsStr::from_bytes(path)), need) {
            Some(barrier) => barrier.to_string(),
            None => "the modes of the path allow it; check access control lists, mount options (noexec) and SELinux or AppArmor".to_owned(),
        });
        Self::Step { what, errno: failed.errno, because }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nul(option) => write!(f, "the value of {option} contains a NUL byte"),
            Self::System(what, errno @ (Errno::MFILE | Errno::NFILE)) => {
                write!(f, "cannot {what}: {errno}; raise LimitNOFILE= of httpd's systemd unit (or ulimit -Hn where httpd is started)")
            }
            Self::System(what, errno) => write!(f, "cannot {what}: {errno}"),
            Self::Step { what, errno, because: None } => write!(f, "cannot {what}: {errno}"),
            Self::Step { what, errno, because: Some(because) } => write!(f, "cannot {what}: {errno}: {because}"),
        }
    }
}

impl std::error::Error for SpawnError {}

/// The supplementary groups of a group's user.
fn groups_of(identity: &Identity) -> Result<Vec<u32>, SpawnError> {
    Ok(match &identity.supplementary {
        Some(list) => list.clone(),
        None if identity.user.is_empty() => vec![identity.gid],
        None => supplementary_groups(&cstring(&identity.user, "user=")?, identity.gid),
    })
}

/// The identity that the group's processes run as.
fn who(spec: &GroupSpec) -> Who {
    let of = |i: &Identity| Who { uid: i.uid, gid: i.gid, groups: groups_of(i).unwrap_or_default() };
    spec.identity.as_ref().map_or_else(Who::own, of)
}

fn cstring(bytes: &[u8], option: &'static str) -> Result<CString, SpawnError> {
    CString::new(bytes).map_err(|_| SpawnError::Nul(option))
}

fn arguments(spec: &GroupSpec, boot: &[u8], descriptors: [(&str, i32); 3]) -> Vec<Bytes> {
    let mut all = vec![spec.program.executable().clone()];
    all.extend(spec.program.arguments().iter().cloned());
    all.push(boot.to_vec());
    all.extend(descriptors.into_iter().flat_map(|(name, fd)| [name.into(), fd.to_string().into_bytes()]));
    // The worker overwrites these arguments with its display-name; a long name gets extra space.
    let room: usize = all.iter().map(|a| a.len() + 1).sum();
    let addition = if spec.preload_fork { FORK_SERVER_SUFFIX } else { 0 };
    let wanted = spec.worker.display_name.as_ref().map_or(0, |n| n.len() + addition + 1);
    if wanted > room {
        all.push([b"--room=".to_vec(), vec![b'-'; wanted - room]].concat());
    }
    all
}

fn environment(spec: &GroupSpec, httpd: &BTreeMap<Bytes, Bytes>) -> BTreeMap<Bytes, Bytes> {
    let mut all = httpd.clone();
    if let Some(identity) = &spec.identity {
        // httpd's environment must not be visible to other users, even when nothing replaces it.
        for (name, value) in [("USER", &identity.user), ("LOGNAME", &identity.user), ("USERNAME", &identity.user), ("HOME", &identity.home)]
        {
            all.remove(name.as_bytes());
            if !value.is_empty() {
                all.insert(name.into(), value.clone());
            }
        }
    }
    all.extend(spec.environment.iter().cloned());
    all
}

/// Resource limits. The kernel sends SIGXCPU at the CPU time limit, and the worker then asks to be
/// replaced. Only a worker that continues is killed.
fn limits(spec: &GroupSpec) -> Vec<(Limit, u64, u64)> {
    let memory = [(Limit::Data, spec.memory_limit), (Limit::AddressSpace, spec.virtual_memory_limit)];
    let cpu = spec.cpu_time_limit_s.map(|s| (Limit::Cpu, s, s.saturating_mul(2).saturating_add(60)));
    memory.into_iter().filter_map(|(limit, bytes)| bytes.map(|b| (limit, b, b))).chain(cpu).collect()
}

/// Starts a worker with the given descriptors.
pub fn launch(
    settings: &Settings,
    place: &SpawnContext,
    control: BorrowedFd<'_>,
    queue: &Queue,
    output: BorrowedFd<'_>,
    error: BorrowedFd<'_>,
) -> Result<Child, SpawnError> {
    let spec = &settings.spec;
    let keep = [control, queue.receive.as_fd(), queue.tokens.as_fd()];
    let [first, second, third] = keep.map(|fd| fd.as_raw_fd());
    let arguments = arguments(spec, &place.boot, [("--control", first), ("--queue", second), ("--tokens", third)]);
    let environment = environment(spec, &place.environment);
    let pair = |(k, v): (&Bytes, &Bytes)| cstring(&[k.as_slice(), b"=", v.as_slice()].concat(), "an environment variable");
    let credentials = match &spec.identity {
        None => None,
        Some(i) => Some(Credentials { uid: i.uid, gid: i.gid, groups: groups_of(i)? }),
    };
    let users_home = spec.identity.as_ref().filter(|i| i.differs).map(|i| &i.home).filter(|h| !h.is_empty());
    let directory = match (&spec.home, users_home) {
        (Some(home), _) => Directory::Must(cstring(home, "home=")?),
        (None, Some(home)) => Directory::Try(cstring(home, "the user's home directory")?),
        // httpd's directory if the user may use it, or the root of a chroot=.
        (None, None) => Directory::Try(c".".to_owned()),
    };
    let command = Command {
        program: cstring(spec.program.executable(), "python=")?,
        arguments: arguments.iter().map(|a| cstring(a, "an argument of python")).collect::<Result<_, _>>()?,
        environment: environment.iter().map(pair).collect::<Result<_, _>>()?,
        credentials,
        chroot: spec.chroot.as_deref().map(|c| cstring(c, "chroot=")).transpose()?,
        directory,
        umask: spec.umask,
        nice: spec.cpu_priority,
        open_files: place.open_files,
        limits: limits(spec),
        standard: [place.null.as_fd(), output, error],
        keep: &keep,
    };
    spawn(&command).map_err(|failed| SpawnError::from_step(failed, spec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_wire::control::Program;

    #[test]
    fn a_long_name_gets_room() {
        let mut spec = GroupSpec { program: Program::python(b"/p"), ..GroupSpec::default() };
        let arguments = |spec: &_| arguments(spec, b"/boot.py", [("--control", 8), ("--queue", 9), ("--tokens", 10)]);
        let plain = [&b"/p"[..], b"/boot.py", b"--control", b"8", b"--queue", b"9", b"--tokens", b"10"];
        assert_eq!(arguments(&spec), plain);
        spec.worker.display_name = Some(vec![b'n'; 100]);
        let all = arguments(&spec);
        assert!(all.iter().map(|a| a.len() + 1).sum::<usize>() > 100 && all.len() == plain.len() + 1);
    }

    #[test]
    fn the_groups_environment_wins() {
        let httpd = BTreeMap::from([
            (b"HOME".to_vec(), b"/root".to_vec()),
            (b"LANG".to_vec(), b"C".to_vec()),
            (b"PATH".to_vec(), b"/bin".to_vec()),
        ]);
        let identity = Some(Identity { user: b"shop".to_vec(), ..Identity::default() });
        let spec = GroupSpec { identity, environment: vec![(b"LANG".to_vec(), b"de".to_vec())], ..GroupSpec::default() };
        let all = environment(&spec, &httpd);
        let of = |name: &str| all.get(name.as_bytes()).map(|v| String::from_utf8_lossy(v).into_owned());
        assert_eq!((of("HOME"), of("USER"), of("LANG"), of("PATH")), (None, Some("shop".into()), Some("de".into()), Some("/bin".into())));
    }

    #[test]
    fn the_option_at_fault_is_named() {
        let spec = GroupSpec { home: Some(b"/srv/x".to_vec()), ..GroupSpec::default() };
        let e = SpawnError::from_step(Failed { step: Step::Directory, errno: Errno::ACCESS }, &spec);
        assert!(e.to_string().starts_with("cannot change directory to /srv/x (home=)"), "{e}");
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let directory = std::env::temp_dir().join(format!("drover-closed-{}", std::process::id()));
        let python = directory.join("bin/python3");
        std::fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
        std::fs::create_dir(directory.join("bin")).unwrap();
        std::fs::write(&python, "").unwrap();
        let own = Who::own();
        let stranger = Identity { uid: own.uid.wrapping_add(77), gid: own.gid.wrapping_add(77), ..Identity::default() };
        let python = python.as_os_str().as_bytes().to_vec();
        let spec =
            GroupSpec { home: Some(python.clone()), program: Program::python(python), identity: Some(stranger), ..GroupSpec::default() };
        for step in [Step::Directory, Step::Exec] {
            let said = SpawnError::from_step(Failed { step, errno: Errno::ACCESS }, &spec).to_string();
            let part = format!(
                "Permission denied (os error 13): user #{} may not enter the directory {} ",
                own.uid.wrapping_add(77),
                directory.display()
            );
            assert!(said.contains(&part), "{said}");
        }
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o711)).unwrap();
        let said = SpawnError::from_step(Failed { step: Step::Exec, errno: Errno::ACCESS }, &spec).to_string();
        assert!(said.contains("may not run") && !said.contains("noexec"), "{said}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
