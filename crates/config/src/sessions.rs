//! The session stores that a configuration needs, and the session settings of each server.
//!
//! Responsible for: the engine of each server, by the properties of the MPM, and every default.
//! Must never: open a store. Called by: `httpd::sessions`, `session`.
use crate::session::{CookieOptions, Scope, Sync};
use crate::{ServerConfig, SessionOptions};
use drover_session::choice::Mpm;
use drover_session::{Asked, Choice, Kept, Limits, Refused, choose};
use drover_wire::session::Serializer;
use std::path::{Path, PathBuf};

/// A session store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePlan {
    /// The engine.
    pub kept: Kept,
    /// Its directory; with a socache, the directory of its locks.
    pub directory: PathBuf,
    /// Its limits.
    pub limits: Limits,
    /// Seconds between two syncs to the disk.
    pub sync_s: u32,
}

/// The session settings for the requests of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Index in [`Plan::stores`].
    pub store: usize,
    /// DroverSessionTimeout.
    pub timeout_s: u32,
    /// DroverSessionLockTimeout, nanoseconds.
    pub lock_timeout_ns: u64,
    /// DroverSessionMaxSize.
    pub max_size: u32,
    /// DroverSessionScope.
    pub scope: Scope,
    /// DroverSessionSerializer.
    pub serializer: Serializer,
    /// DroverSessionCookie.
    pub cookie: CookieOptions,
    /// The engine's name, for the application to show.
    pub engine: String,
}

/// The stores and settings of all servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Each store once.
    pub stores: Vec<StorePlan>,
    /// For each server, in the given order; `None`: sessions are off.
    pub servers: Vec<Option<Settings>>,
    /// Lines for the log: which engine was chosen, and why.
    pub said: Vec<String>,
    /// A server configures where sessions are stored. Otherwise stores exist only in case an
    /// application asks.
    pub wanted: bool,
    /// A server has a DroverSession directive other than DroverSessionDirectory, which `drover
    /// serve` always sets.
    pub configured: bool,
}

/// The largest session that the wire and an engine can carry, whatever a server allows.
const DATA: u64 = drover_wire::session::MAX_DATA as u64;

/// Directory of the memory engine, if another store is on the disk.
pub const MEMORY: &str = "memory";

/// Prefix of the names of our cookies.
const COOKIE: &str = "drover_session";

/// Plans the stores. `directory` is DroverSessionDirectory or its default.
pub fn plan(servers: &[&ServerConfig], mpm: Mpm, directory: &Path) -> Result<Plan, Refused> {
    let choices =
        servers.iter().map(|s| choose(s.session.asked.as_ref().unwrap_or(&Asked::Auto), mpm)).collect::<Result<Vec<Choice>, _>>()?;
    let base = servers.first().map(|s| s.session.clone()).unwrap_or_default();
    let disk_too = choices.iter().any(|choice| choice.kept == Kept::Disk);
    let wanted = |s: &&ServerConfig| s.session.asked.as_ref().is_some_and(|asked| *asked != Asked::Off);
    let mut plan = Plan {
        wanted: servers.iter().any(wanted),
        configured: servers.iter().any(|s| SessionOptions { directory: None, ..s.session.clone() } != SessionOptions::default()),
        ..Plan::default()
    };
    for (server, choice) in servers.iter().zip(&choices) {
        if choice.kept == Kept::Off {
            plan.servers.push(None);
            continue;
        }
        let store = plan.stores.iter().position(|store| store.kept == choice.kept).unwrap_or_else(|| {
            let store = store_plan(&choice.kept, &base, directory, disk_too);
            plan.said.push(said(choice, &store));
            plan.stores.push(store);
            plan.stores.len() - 1
        });
        plan.servers.push(Some(settings(&server.session, store, &choice.kept)));
    }
    Ok(plan)
}

fn said(choice: &Choice, store: &StorePlan) -> String {
    match choice.kept {
        Kept::Socache(..) | Kept::Off => choice.to_string(),
        Kept::Memory | Kept::Disk => format!("{choice}, with a store for each scope below {}", store.directory.display()),
    }
}

fn store_plan(kept: &Kept, base: &SessionOptions, directory: &Path, disk_too: bool) -> StorePlan {
    let directory = match kept {
        Kept::Socache(provider, _) => directory.join(format!("socache-{provider}")),
        // Memory can spill to the disk, and two engines cannot share a directory.
        Kept::Memory if disk_too => directory.join(MEMORY),
        _ => directory.to_owned(),
    };
    let sync = base.sync.unwrap_or(Sync::Seconds(1));
    StorePlan {
        kept: kept.clone(),
        directory,
        limits: Limits {
            disk_bytes: base.disk_size.unwrap_or(1 << 30),
            memory_bytes: base.memory.unwrap_or(64 << 20),
            data_bytes: DATA,
            always_sync: sync == Sync::Always,
        },
        sync_s: if let Sync::Seconds(n) = sync { n } else { 1 },
    }
}

fn settings(options: &SessionOptions, store: usize, kept: &Kept) -> Settings {
    Settings {
        store,
        timeout_s: options.timeout_s.unwrap_or(1800),
        lock_timeout_ns: u64::from(options.lock_timeout_s.unwrap_or(30)) * 1_000_000_000,
        max_size: u32::try_from(options.max_size.unwrap_or(1 << 20)).unwrap_or(u32::MAX),
        scope: options.scope.clone().unwrap_or(Scope::Group),
        serializer: options.serializer.unwrap_or(Serializer::Json),
        cookie: options.cookie.clone().unwrap_or_default(),
        engine: kept.to_string(),
    }
}

impl Settings {
    /// The cookie name of a request.
    #[must_use]
    pub fn cookie_of(&self, group: &[u8]) -> String {
        if let Some(name) = &self.cookie.name {
            return name.clone();
        }
        let of = match &self.scope {
            Scope::Group => group,
            Scope::Vhost => return COOKIE.to_owned(),
            Scope::Named(name) => name.as_slice(),
        };
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let mut name = format!("{COOKIE}_");
        name.extend(of.iter().map(|b| if plain(b) { char::from(*b) } else { '_' }));
        if !of.iter().all(plain) {
            // Different scopes get different names.
            name.push_str(&drover_session::id::log_name(of));
        }
        name
    }

    /// The scope of a request, from its group and the name of its host.
    #[must_use]
    pub fn scope_of(&self, group: &[u8], host: &[u8]) -> Vec<u8> {
        match &self.scope {
            Scope::Group => [b"group\0", group].concat(),
            Scope::Vhost => [b"vhost\0", host].concat(),
            Scope::Named(name) => [b"name\0", name.as_slice()].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(asked: Option<Asked>) -> ServerConfig {
        ServerConfig { session: SessionOptions { asked, ..SessionOptions::default() }, ..ServerConfig::default() }
    }

    const ONE: Mpm = Mpm { threaded: true, forked: true, max_daemons: 1 };
    const MANY: Mpm = Mpm { threaded: true, forked: true, max_daemons: 16 };

    #[test]
    fn one_store_for_each_engine() {
        let all = [server(None), server(Some(Asked::Off)), server(Some(Asked::Disk)), server(Some(Asked::Auto))];
        let all: Vec<&ServerConfig> = all.iter().collect();
        let many = plan(&all, MANY, Path::new("/s")).unwrap();
        assert_eq!((many.stores.len(), many.said.len()), (1, 1));
        assert!(many.said[0].ends_with("with a store for each scope below /s"), "{}", many.said[0]);
        assert_eq!((many.stores[0].directory.to_str(), many.servers[1].is_none()), (Some("/s"), true));
        let one = plan(&all, ONE, Path::new("/s")).unwrap();
        let places: Vec<_> = one.stores.iter().map(|s| (s.kept.clone(), s.directory.to_str().unwrap())).collect();
        assert_eq!(places, [(Kept::Memory, "/s/memory"), (Kept::Disk, "/s")]);
        assert_eq!(one.servers.iter().map(|s| s.as_ref().map(|s| s.store)).collect::<Vec<_>>(), [Some(0), None, Some(1), Some(0)]);
        assert!(plan(&[&server(Some(Asked::Memory))], MANY, Path::new("/s")).is_err());
        let configured = |options| {
            let server = ServerConfig { session: options, ..ServerConfig::default() };
            plan(&[&server], MANY, Path::new("/s")).unwrap().configured
        };
        assert!(!configured(SessionOptions::default()));
        assert!(!configured(SessionOptions { directory: Some(b"/s".to_vec()), ..SessionOptions::default() }));
        assert!(configured(SessionOptions { timeout_s: Some(9), ..SessionOptions::default() }));
        let wanted = |asked: Option<Asked>| plan(&[&server(asked)], MANY, Path::new("/s")).unwrap().wanted;
        assert_eq!([None, Some(Asked::Off), Some(Asked::Auto), Some(Asked::Disk)].map(wanted), [false, false, true, true]);
    }

    #[test]
    fn cookies_of_two_scopes_have_two_names() {
        let settings = |scope, name: Option<&str>| {
            let cookie = CookieOptions { name: name.map(str::to_owned), ..CookieOptions::default() };
            super::settings(&SessionOptions { scope: Some(scope), cookie: Some(cookie), ..SessionOptions::default() }, 0, &Kept::Disk)
        };
        assert_eq!(settings(Scope::Group, None).cookie_of(b"shop"), "drover_session_shop");
        assert_eq!(settings(Scope::Named(b"all".to_vec()), None).cookie_of(b"shop"), "drover_session_all");
        assert_eq!(settings(Scope::Vhost, None).cookie_of(b"shop"), "drover_session");
        assert_eq!(settings(Scope::Group, Some("s")).cookie_of(b"shop"), "s");
        let odd = [&b"a b"[..], b"a=b", b"a\xffb", b"a_b"].map(|group| settings(Scope::Group, None).cookie_of(group));
        assert!(odd.iter().all(|name| name.starts_with("drover_session_a_b")), "{odd:?}");
        assert!((1..odd.len()).all(|n| !odd[..n].contains(&odd[n])), "{odd:?}");
    }

    #[test]
    fn scopes_cannot_be_taken_for_each_other() {
        let settings = |scope| super::settings(&SessionOptions { scope: Some(scope), ..SessionOptions::default() }, 0, &Kept::Disk);
        let named = settings(Scope::Named(b"a".to_vec())).scope_of(b"a", b"a");
        let (group, vhost) = (settings(Scope::Group).scope_of(b"a", b"b"), settings(Scope::Vhost).scope_of(b"b", b"a"));
        assert!(named != group && group != vhost && vhost != named);
    }
}
