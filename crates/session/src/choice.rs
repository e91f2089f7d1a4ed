//! The choice of an engine from what the MPM reports.
//!
//! Responsible for: mod_python's rule (Session.py): memory if httpd is one process with threads, else disk. Pure. Called by:
//! `drover_config::sessions`, once the MPM can be queried.
use std::fmt;

/// The configured value of DroverSession.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Chosen by the rule.
    Auto,
    /// In memory, else an error.
    Memory,
    /// On disk.
    Disk,
    /// One of httpd's shared object caches, with its arguments.
    Socache(String, String),
    /// No sessions.
    Off,
}

/// What the MPM reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mpm {
    /// AP_MPMQ_IS_THREADED.
    pub threaded: bool,
    /// AP_MPMQ_IS_FORKED.
    pub forked: bool,
    /// AP_MPMQ_MAX_DAEMONS, queried after the MPM has checked its own directives.
    pub max_daemons: i32,
}

impl Mpm {
    /// Whether all requests run in one process.
    #[must_use]
    pub const fn shares_memory(&self) -> bool {
        self.threaded && (!self.forked || self.max_daemons == 1)
    }
}

/// Where sessions are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In the memory of httpd's only child process.
    Memory,
    /// In a file that all child processes share.
    Disk,
    /// In httpd's shared object cache.
    Socache(String, String),
    /// Nowhere.
    Off,
}

/// An engine, and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The engine.
    pub kept: Kept,
    /// Whether the rule chose it.
    pub by_rule: bool,
    /// The input of the rule.
    pub mpm: Mpm,
}

/// Memory is configured, but httpd has several child processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub Mpm);

/// Chooses the engine.
pub fn choose(asked: &Asked, mpm: Mpm) -> Result<Choice, Refused> {
    let kept = match asked {
        Asked::Off => Kept::Off,
        Asked::Disk => Kept::Disk,
        Asked::Socache(provider, arguments) => Kept::Socache(provider.clone(), arguments.clone()),
        Asked::Auto | Asked::Memory if mpm.shares_memory() => Kept::Memory,
        Asked::Auto => Kept::Disk,
        Asked::Memory => return Err(Refused(mpm)),
    };
    Ok(Choice { kept, by_rule: *asked == Asked::Auto, mpm })
}

impl fmt::Display for Mpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let no = |yes: bool| if yes { "" } else { "not " };
        write!(f, "the MPM is {}threaded and {}forked, with {} children at most", no(self.threaded), no(self.forked), self.max_daemons)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Disk => f.write_str("disk"),
            Self::Socache(provider, _) => write!(f, "socache:{provider}"),
            Self::Off => f.write_str("off"),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = if self.by_rule { "chosen because" } else { "as configured;" };
        write!(f, "sessions are kept in: {} ({reason} {})", self.kept, self.mpm)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, so other child processes would not see a session in the memory of one. Use auto or disk, \
             or run one child process with threads (event or worker with ServerLimit 1, and MaxRequestWorkers not above ThreadsPerChild)",
            self.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule() {
        let table = [
            (true, true, 1, Kept::Memory),
            (true, false, 16, Kept::Memory),
            (true, true, 2, Kept::Disk),
            (false, true, 1, Kept::Disk),
            (false, true, 256, Kept::Disk),
            (false, false, 1, Kept::Disk),
        ];
        for (threaded, forked, max_daemons, kept) in table {
            let mpm = Mpm { threaded, forked, max_daemons };
            assert_eq!(choose(&Asked::Auto, mpm).unwrap().kept, kept, "{mpm}");
            assert_eq!(choose(&Asked::Memory, mpm).map(|c| c.kept).ok(), (kept == Kept::Memory).then_some(Kept::Memory), "{mpm}");
            assert_eq!(choose(&Asked::Disk, mpm).unwrap().kept, Kept::Disk);
            assert_eq!(choose(&Asked::Off, mpm).unwrap().kept, Kept::Off);
        }
        let refused = choose(&Asked::Memory, Mpm { threaded: false, forked: true, max_daemons: 256 }).unwrap_err().to_string();
        assert!(refused.contains("256") && refused.contains("disk"), "{refused}");
    }
}
