//! Processes and sockets of one httpd.
//!
//! Responsible for: finding every process that descends from one httpd, by a mark in the
//! environment and by ancestry. Must never: signal a process. Called by: `httpd.rs` and tests of
//! crashes.
use std::collections::BTreeMap;
use std::path::Path;

/// The environment variable with the mark, which every process of a test's httpd inherits.
pub const MARK: &str = "DROVER_TEST_ID";

/// A process, distinct from a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Process id of its parent.
    pub parent: i32,
    /// When it started, in ticks since boot.
    pub started: u64,
    /// Its command line, or its name.
    pub command: String,
    /// Its state letter in /proc.
    pub state: char,
}

/// Reads one process; `None`: not found.
pub fn process(pid: i32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let command = if command.trim().is_empty() { head.split_once('(')?.1.to_string() } else { command.trim().to_string() };
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        command,
        state: fields[0].chars().next()?,
    })
}

/// Every process of the machine that is not a zombie.
pub fn all() -> Vec<Process> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter_map(process).filter(|p| p.state != 'Z' && p.state != 'X').collect()
}

/// The processes below `root` and those that carry the mark `id`, `root` itself included.
pub fn family(root: i32, id: &str) -> Vec<Process> {
    let all = all();
    let mut found: BTreeMap<i32, Process> = BTreeMap::new();
    let mark = format!("{MARK}={id}");
    for p in &all {
        let environ = std::fs::read(format!("/proc/{}/environ", p.pid)).unwrap_or_default();
        if p.pid == root || environ.split(|b| *b == 0).any(|v| v == mark.as_bytes()) {
            found.insert(p.pid, p.clone());
        }
    }
    loop {
        let more: Vec<_> = all.iter().filter(|p| found.contains_key(&p.parent) && !found.contains_key(&p.pid)).cloned().collect();
        if more.is_empty() {
            return found.into_values().collect();
        }
        found.extend(more.into_iter().map(|p| (p.pid, p)));
    }
}

/// Whether this process still runs.
pub fn is_alive(p: &Process) -> bool {
    process(p.pid).is_some_and(|now| now.started == p.started && now.state != 'Z' && now.state != 'X')
}

/// Whether all threads sleep; true for a process that has exited.
pub fn is_at_rest(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let state = |path: std::path::PathBuf| std::fs::read_to_string(path.join("stat")).ok()?.rsplit_once(") ")?.1.chars().next();
    threads.map(|thread| state(thread.path())).all(|state| matches!(state, None | Some('S' | 'Z' | 'X')))
}

/// Paths of Unix sockets below `dir`.
pub fn sockets_below(dir: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let prefix = dir.display().to_string();
    table.lines().filter_map(|l| l.split_whitespace().nth(7)).filter(|p| p.starts_with(&prefix)).map(String::from).collect()
}

/// The effective user, groups and umask lines of /proc/PID/status.
pub fn status(pid: i32, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix(&format!("{field}:"))).unwrap_or_default().trim().to_string()
}

/// Number of open descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(|d| d.count()).unwrap_or(0)
}
