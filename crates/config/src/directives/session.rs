//! The DroverSession directives: their arguments, and how a virtual host overrides the main server.
//!
//! Responsible for: the values of these directives. Must never: choose an engine (`sessions` does,
//! when the MPM is known). Called by: `table`'s rows, `value`.
use super::scalar::{self, MAX_SECONDS, Parsed};
use drover_session::Asked;
use drover_wire::session::{MAX_DATA, Serializer};
use std::borrow::Cow;

/// Which applications share sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Each daemon process group has its own.
    Group,
    /// Each virtual host has its own.
    Vhost,
    /// All servers with this name share them.
    Named(Vec<u8>),
}

/// How often a store is synced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Each change waits for the disk.
    Always,
    /// The interval in seconds.
    Seconds(u32),
}

/// Whether the cookie is for encrypted connections only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secure {
    /// If the request came over TLS.
    Auto,
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

/// DroverSessionCookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieOptions {
    /// `None`: derived from the scope, so that two scopes of one host do not conflict.
    pub name: Option<String>,
    pub path: String,
    pub domain: Option<String>,
    pub secure: Secure,
    pub http_only: bool,
    pub same_site: SameSite,
    /// Seconds; `None`: until the browser closes.
    pub max_age: Option<u32>,
}

impl Default for CookieOptions {
    fn default() -> Self {
        Self { name: None, path: "/".into(), domain: None, secure: Secure::Auto, http_only: true, same_site: SameSite::Lax, max_age: None }
    }
}

/// The session settings of one server. `None`: not configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionOptions {
    pub asked: Option<Asked>,
    pub directory: Option<Vec<u8>>,
    pub memory: Option<u64>,
    pub disk_size: Option<u64>,
    pub sync: Option<Sync>,
    pub timeout_s: Option<u32>,
    pub lock_timeout_s: Option<u32>,
    pub max_size: Option<u64>,
    pub scope: Option<Scope>,
    pub serializer: Option<Serializer>,
    pub cookie: Option<CookieOptions>,
}

impl SessionOptions {
    /// The settings of a virtual host, else those of the main server.
    #[must_use]
    pub fn merge(base: &Self, vhost: &Self) -> Self {
        let (b, v) = (base.clone(), vhost.clone());
        Self {
            asked: v.asked.or(b.asked),
            directory: v.directory.or(b.directory),
            memory: v.memory.or(b.memory),
            disk_size: v.disk_size.or(b.disk_size),
            sync: v.sync.or(b.sync),
            timeout_s: v.timeout_s.or(b.timeout_s),
            lock_timeout_s: v.lock_timeout_s.or(b.lock_timeout_s),
            max_size: v.max_size.or(b.max_size),
            scope: v.scope.or(b.scope),
            serializer: v.serializer.or(b.serializer),
            cookie: v.cookie.or(b.cookie),
        }
    }
}

pub fn asked(word: &[u8]) -> Parsed<Asked> {
    const EXPECTED: Cow<'static, str> = Cow::Borrowed("auto, memory, disk, off, or socache:PROVIDER[:ARGUMENTS]");
    let text = str::from_utf8(word).map_err(|_| EXPECTED)?;
    Ok(match text.to_ascii_lowercase().as_str() {
        "auto" => Asked::Auto,
        "memory" => Asked::Memory,
        "disk" => Asked::Disk,
        "off" => Asked::Off,
        _ => {
            let rest = text.get(..8).filter(|head| head.eq_ignore_ascii_case("socache:")).and_then(|_| text.get(8..)).ok_or(EXPECTED)?;
            let (provider, arguments) = rest.split_once(':').unwrap_or((rest, ""));
            if provider.is_empty() || !provider.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(EXPECTED);
            }
            Asked::Socache(provider.to_owned(), arguments.to_owned())
        }
    })
}

pub fn max_size(word: &[u8]) -> Parsed<u64> {
    scalar::bytes(word, 1, MAX_DATA as u64)
}

pub fn sync(word: &[u8]) -> Parsed<Sync> {
    if word.eq_ignore_ascii_case(b"always") {
        return Ok(Sync::Always);
    }
    scalar::seconds(word, 1, 3600).map(Sync::Seconds).map_err(|expected| Cow::Owned(format!("always, or {expected}")))
}

/// Seconds with the general upper limit.
pub fn seconds(word: &[u8], min: u32) -> Parsed<u32> {
    scalar::seconds(word, min, MAX_SECONDS)
}

pub fn scope(word: &[u8]) -> Parsed<Scope> {
    match word {
        word if word.eq_ignore_ascii_case(b"group") => Ok(Scope::Group),
        word if word.eq_ignore_ascii_case(b"vhost") => Ok(Scope::Vhost),
        b"" => Err(Cow::Borrowed("group, vhost, or a name")),
        name => Ok(Scope::Named(name.to_vec())),
    }
}

pub fn serializer(word: &[u8]) -> Parsed<Serializer> {
    match word.to_ascii_lowercase().as_slice() {
        b"json" => Ok(Serializer::Json),
        b"pickle" => Ok(Serializer::Pickle),
        b"msgpack" => Ok(Serializer::Msgpack),
        _ => Err(Cow::Borrowed("json, pickle or msgpack")),
    }
}

pub const COOKIE_OPTIONS: &[&str] = &["name", "path", "domain", "secure", "httponly", "samesite", "max-age"];

/// One option of DroverSessionCookie.
pub fn cookie_option(cookie: &mut CookieOptions, name: &str, value: &[u8]) -> Parsed<()> {
    let text = || {
        let good = value.iter().all(|b| (0x21..0x7f).contains(b) && !matches!(b, b';' | b','));
        str::from_utf8(value).ok().filter(|_| good && !value.is_empty()).map(str::to_owned)
    };
    match name {
        "name" => {
            // RFC 6265 §4.1.1: a token.
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            let name = text().filter(|name| name.bytes().all(token));
            cookie.name = Some(name.ok_or(Cow::Borrowed("a name of letters, digits and !#$%&'*+-.^_`|~"))?);
        }
        "path" => cookie.path = text().filter(|path| path.starts_with('/')).ok_or(Cow::Borrowed("a path that begins with /"))?,
        "domain" => {
            let domain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
            cookie.domain = Some(text().filter(|d| d.bytes().all(domain)).ok_or(Cow::Borrowed("a domain name"))?);
        }
        "secure" if value.eq_ignore_ascii_case(b"auto") => cookie.secure = Secure::Auto,
        "secure" => {
            let on = scalar::flag(value).map_err(|_| Cow::Borrowed("Auto, On or Off"))?;
            cookie.secure = if on { Secure::On } else { Secure::Off };
        }
        "httponly" => cookie.http_only = scalar::flag(value)?,
        "samesite" => {
            cookie.same_site = match value.to_ascii_lowercase().as_slice() {
                b"strict" => SameSite::Strict,
                b"lax" => SameSite::Lax,
                b"none" => SameSite::None,
                _ => return Err(Cow::Borrowed("Strict, Lax or None")),
            }
        }
        _ => cookie.max_age = Some(seconds(value, 1)?),
    }
    Ok(())
}

/// Refuses cookies that browsers drop silently (RFC 6265bis §4.1.3, §5.7).
pub fn check_cookie(cookie: &CookieOptions) -> Result<(), &'static str> {
    let lower = cookie.name.as_deref().unwrap_or_default().to_ascii_lowercase();
    if lower.starts_with("__secure-") && cookie.secure == Secure::Off {
        return Err("secure=On, because the name begins with __Secure-");
    }
    if lower.starts_with("__host-") && (cookie.secure == Secure::Off || cookie.domain.is_some() || cookie.path != "/") {
        return Err("secure=On, path=/ and no domain=, because the name begins with __Host-");
    }
    if cookie.same_site == SameSite::None && cookie.secure == Secure::Off {
        return Err("secure=On, because browsers refuse samesite=None without it");
    }
    Ok(())
}
