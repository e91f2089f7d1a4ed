//! The error logs of one httpd: reading them as they grow, and judging them at the end.
//!
//! Responsible for: which lines are errors, which of them a test expected. Must never: know what a line means. Called by: `httpd.rs`.
use std::path::{Path, PathBuf};

/// Levels that a test must expect by name.
const LOUD: [&str; 5] = ["emerg", "alert", "crit", "error", "warn"];

/// The log directory of one httpd; every `*.log` file in it is an error log, but for names that begin with `access`.
pub struct Logs {
    dir: PathBuf,
}

/// Lines that a test foresees.
#[derive(Default, Clone)]
pub struct Foreseen {
    /// Must come at least once.
    pub expected: Vec<String>,
    /// May come.
    pub allowed: Vec<String>,
}

impl Logs {
    /// Of the directory `dir`.
    pub fn new(dir: &Path) -> Logs {
        Logs { dir: dir.to_path_buf() }
    }

    /// One log file's text; empty when there is none (yet).
    pub fn file(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join(name)).unwrap_or_default()).into_owned()
    }

    /// All error logs one behind the other, httpd's standard error first.
    pub fn all(&self) -> String {
        let mut names: Vec<_> = std::fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        names.sort();
        let mut text = String::new();
        for name in names.iter().filter_map(|n| n.to_str()).filter(|n| !n.starts_with("access")) {
            text.push_str(&self.file(name));
        }
        text
    }

    /// What is wrong with the logs: loud lines that nobody foresaw, and foreseen ones that never came.
    pub fn verdict(&self, foreseen: &Foreseen) -> Vec<String> {
        let text = self.all();
        let known = |line: &str| foreseen.expected.iter().chain(&foreseen.allowed).any(|p| matches(line, p));
        let mut faults: Vec<String> =
            text.lines().filter(|l| is_loud(l) && !known(l)).map(|l| format!("unexpected line in a log: {l}")).collect();
        for pattern in &foreseen.expected {
            if !text.lines().any(|l| matches(l, pattern)) {
                faults.push(format!("no line in any log matches {pattern:?}"));
            }
        }
        faults
    }
}

/// Whether a line needs a test's foresight: one of [`LOUD`], or one without httpd's prefix (a raw traceback, a panic, a crash).
pub fn is_loud(line: &str) -> bool {
    if line.trim().is_empty() {
        return false;
    }
    match level(line) {
        Some(level) => LOUD.contains(&level),
        None => true,
    }
}

/// The level in `[time] [module:level] [pid …] …`.
pub fn level(line: &str) -> Option<&str> {
    let second = line.strip_prefix('[')?.split_once("] [")?.1;
    let (_, level) = second.split_once(']')?.0.split_once(':')?;
    level.chars().all(|c| c.is_ascii_alphanumeric()).then_some(level)
}

/// Whether the parts of `pattern` that `*` divides stand in `line` in their order; `|` divides alternatives.
pub fn matches(line: &str, pattern: &str) -> bool {
    pattern.split('|').any(|one| {
        let mut rest = line;
        one.split('*').all(|part| match rest.split_once(part) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        })
    })
}

#[test]
fn log_lines_are_judged() {
    let line = "[Fri Nov 20 22:11:27.000001 2026] [wsgi:error] [pid 7:tid 8] [remote ::1:1] WSGI0146: gone away";
    assert_eq!(level(line), Some("error"));
    assert!(is_loud(line) && is_loud("Traceback (most recent call last):"));
    assert!(!is_loud("[Fri Nov 20 22:11:27.000001 2026] [mpm_event:notice] [pid 7:tid 8] AH00489: resuming"));
    assert!(matches(line, "WSGI0146*away") && matches(line, "nothing|gone") && !matches(line, "away*gone"));
}
