//! The error logs of one httpd: reading them as they grow, and checking them at the end.
//!
//! Responsible for: which lines are errors, and which of these a test expected. Must never:
//! interpret a line. Called by: `httpd.rs`.
use std::path::{Path, PathBuf};

/// Levels that a test must expect by name.
const LOUD: [&str; 5] = ["emerg", "alert", "crit", "error", "warn"];

/// The log directory of one httpd. Every `*.log` file in it is an error log, except those whose
/// names begin with `access`.
pub struct Logs {
    dir: PathBuf,
}

/// Only an expected line may contain these, never an allowed one: a process has panicked, or its
/// runtime aborted.
const FATAL: [&str; 9] = [
    "DROVER0001",
    "panicked at",
    "PanicException",
    "fatal runtime error",
    "has overflowed its stack",
    "AddressSanitizer",
    "corrupted size|malloc()|free()|double free",
    "stack smashing",
    "Fatal Python error",
];
/// Signals that a fault of the process itself raises: ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS.
const FAULTS: [&str; 7] = ["4", "5", "6", "7", "8", "11", "31"];

/// Lines that a test expects or allows.
#[derive(Default, Clone)]
pub struct Foreseen {
    /// Must occur at least once.
    pub expected: Vec<String>,
    /// May occur, unless [`fatal`].
    pub allowed: Vec<String>,
    /// Output of the application may occur ([`is_output`]).
    pub output: bool,
}

impl Logs {
    /// The logs in the directory `dir`.
    pub fn new(dir: &Path) -> Logs {
        Logs { dir: dir.to_path_buf() }
    }

    /// The text of one log file; empty if it does not exist.
    pub fn file(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join(name)).unwrap_or_default()).into_owned()
    }

    /// All error logs concatenated, httpd's standard error first.
    pub fn all(&self) -> String {
        let mut names: Vec<_> = std::fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        names.sort();
        let mut text = String::new();
        for name in names.iter().filter_map(|n| n.to_str()).filter(|n| !n.starts_with("access")) {
            text.push_str(&self.file(name));
        }
        text
    }

    /// The faults of the logs: loud lines that were not expected, and expected ones that did not
    /// occur.
    pub fn verdict(&self, foreseen: &Foreseen) -> Vec<String> {
        judge(&self.all(), foreseen)
    }
}

fn judge(text: &str, foreseen: &Foreseen) -> Vec<String> {
    let any = |line: &str, patterns: &[String]| patterns.iter().any(|p| matches(line, p));
    let allowed = |line: &str| any(line, &foreseen.allowed) || (foreseen.output && is_output(line));
    let known = |line: &str| any(line, &foreseen.expected) || (!fatal(line) && allowed(line));
    let mut faults: Vec<String> =
        text.lines().filter(|l| (is_loud(l) || fatal(l)) && !known(l)).map(|l| format!("unexpected line in a log: {l}")).collect();
    for pattern in &foreseen.expected {
        if !text.lines().any(|l| matches(l, pattern)) {
            faults.push(format!("no line in any log matches {pattern:?}"));
        }
    }
    faults
}

/// Whether a test must expect a line: one of [`LOUD`], or one without httpd's prefix (a raw
/// traceback, a panic, a crash).
pub fn is_loud(line: &str) -> bool {
    if line.trim().is_empty() {
        return false;
    }
    match level(line) {
        Some(level) => LOUD.contains(&level),
        // A notice at start that many tests cause on purpose: one script in %{RESOURCE}.
        None => !line.starts_with("DROVER0036: "),
    }
}

/// Whether a process crashed, at whatever level that is logged: one of [`FATAL`], or a signal of
/// [`FAULTS`] in the message of httpd (`exit signal Segmentation fault (11)`, a notice), of droverd
/// (`was killed by signal 11`) or of the module.
pub fn fatal(line: &str) -> bool {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().is_some_and(|n| FAULTS.contains(&n));
    let by_httpd = line.split_once(" exit signal ").and_then(|(_, how)| how.split_once('(')).is_some_and(|(_, n)| number(n));
    let by_us = [" killed by signal ", " ended by signal "].iter().any(|how| line.split_once(how).is_some_and(|(_, n)| number(n)));
    by_httpd || by_us || FATAL.iter().any(|p| matches(line, p))
}

/// Whether an application or its interpreter has written the line: tracebacks, stacks, prints.
/// Lines of modules have a code, and a worker's own lines have its name.
pub fn is_output(line: &str) -> bool {
    let coded = |prefix: &str| line.split(prefix).skip(1).any(|rest| rest.chars().take_while(char::is_ascii_digit).count() >= 4);
    line.contains("] [wsgi:")
        && level(line).is_some()
        && !["DROVER", "WSGI", "AH"].iter().any(|p| coded(p))
        && !line.contains("mod_drover worker:")
}

/// The level in `[time] [module:level] [pid …] …`.
pub fn level(line: &str) -> Option<&str> {
    let second = line.strip_prefix('[')?.split_once("] [")?.1;
    let (_, level) = second.split_once(']')?.0.split_once(':')?;
    level.chars().all(|c| c.is_ascii_alphanumeric()).then_some(level)
}

/// Whether `line` contains the parts of `pattern` in order; `*` separates parts, `|` alternatives.
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
fn a_fault_is_fatal_and_a_kill_is_not() {
    let line = |text: &str| fatal(&format!("[Fri Nov 20 22:11:27.000001 2026] [core:notice] [pid 7:tid 8] {text}"));
    assert!(line("AH00052: child pid 9 exit signal Segmentation fault (11)"));
    assert!(line("AH00051: child pid 9 exit signal Bus error (7), possible coredump in /tmp"));
    assert!(line("DROVER0232: (group 'app'): worker 7 was killed by signal 11 while serving; starting a replacement"));
    assert!(
        line("DROVER0007: droverd was ended by signal 6") && line("DROVER0001: x") && fatal("thread 'main' panicked at src/main.rs:3:5:")
    );
    assert!(!line("AH00052: child pid 9 exit signal Killed (9)") && !line("AH00052: child pid 4 exit signal Terminated (15)"));
    assert!(!line("DROVER0232: worker 11 was killed by signal 9 while serving") && !line("DROVER0007: droverd was ended by signal 9"));
}

#[test]
fn an_applications_output_has_no_code() {
    let line = |text: &str| is_output(&format!("[Fri Nov 20 22:11:27.000001 2026] [wsgi:error] [pid 7:tid 8] {text}"));
    assert!(line("[client ::1:1]   File \"a.wsgi\", line 3, in application") && line("(group 'app'): printed"));
    assert!(!line("DROVER0206: too many open files") && !line("[client ::1:1] WSGI0146: gone") && !line("[client ::1:1] AH00123: x"));
    assert!(!line("(group 'app'): mod_drover worker: a request was lost") && !is_output("free(): invalid pointer"));
    let foreseen = |expected: &[&str]| Foreseen {
        expected: expected.iter().map(|p| (*p).to_owned()).collect(),
        allowed: vec!["AH0|DROVER|Fatal".into()],
        output: true,
    };
    let fault = "[Fri Nov 20 22:11:27.000001 2026] [wsgi:error] [pid 7:tid 8] (group 'app'): Fatal Python error: Aborted";
    let kill = fault.replace("Fatal Python error: Aborted", "DROVER0232: worker 7 was killed by signal 9");
    assert_eq!((judge(fault, &foreseen(&[])).len(), judge(&kill, &foreseen(&[])).len()), (1, 0));
    assert!(judge(fault, &foreseen(&["Fatal Python error"])).is_empty());
}

#[test]
fn log_lines_are_judged() {
    let line = "[Fri Nov 20 22:11:27.000001 2026] [wsgi:error] [pid 7:tid 8] [remote ::1:1] WSGI0146: gone away";
    assert_eq!(level(line), Some("error"));
    assert!(is_loud(line) && is_loud("Traceback (most recent call last):"));
    assert!(!is_loud("[Fri Nov 20 22:11:27.000001 2026] [mpm_event:notice] [pid 7:tid 8] AH00489: resuming"));
    assert!(matches(line, "WSGI0146*away") && matches(line, "nothing|gone") && !matches(line, "away*gone"));
}
