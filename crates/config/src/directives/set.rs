//! Reads the arguments of each directive.
//!
//! Responsible for: writing the values of a directive into the target. Must never: decide whether
//! the context allows the directive (`directive` does that first), or change the target when it
//! fails. Called by: the rows of `table`.

use super::alias::{AliasPattern, ImportScript, ScriptAlias};
use super::arguments::Arguments;
use super::effect::{Added, Effect};
use super::error::{Accepted, ConfigErrorKind, Shown};
use super::expr::{Expr, GroupChoice};
use super::group::{DaemonGroup, GroupOptions};
use super::options::DAEMON_OPTIONS;
use super::proxy::{Network, PROXY_HEADERS, proxy_header};
use super::scalar::{self, Parsed};
use super::session::{self, COOKIE_OPTIONS, CookieOptions};
use super::suggest::nearest;
use super::target::Target;
use super::value::{ControlSocket, HashSeed, InterpreterScope, MapHead, MaxWaiting, ScopedOptions};
use std::borrow::Cow;

pub type Outcome = Result<Effect, ConfigErrorKind>;

/// The one argument of a directive; like httpd, an empty one is none.
pub fn one(raw: &[u8]) -> Result<Vec<u8>, ConfigErrorKind> {
    let mut args = Arguments::new(raw);
    match args.next() {
        Some(argument) if !argument.is_empty() && args.at_end() => Ok(argument),
        _ => Err(ConfigErrorKind::Arguments("takes one argument")),
    }
}

/// The one argument, parsed.
fn one_as<T>(raw: &[u8], parse: impl FnOnce(&[u8]) -> Parsed<T>) -> Result<T, ConfigErrorKind> {
    let argument = one(raw)?;
    parse(&argument).map_err(|expected| ConfigErrorKind::value(&argument, expected))
}

/// Parses the one argument and stores it.
pub fn put<T>(raw: &[u8], parse: impl FnOnce(&[u8]) -> Parsed<T>, put: impl FnOnce(T)) -> Outcome {
    put(one_as(raw, parse)?);
    Ok(Effect::default())
}

/// A directive of one argument that is checked and has no effect.
pub fn checked<T>(raw: &[u8], parse: impl FnOnce(&[u8]) -> Parsed<T>) -> Outcome {
    put(raw, parse, |_| {})
}

pub fn any(argument: &[u8]) -> Parsed<Vec<u8>> {
    Ok(argument.to_vec())
}

pub fn control_socket(argument: &[u8]) -> Parsed<ControlSocket> {
    match argument {
        b"" => Err("a path, or off".into()),
        argument if argument.eq_ignore_ascii_case(b"off") => Ok(ControlSocket::Off),
        path => Ok(ControlSocket::Path(path.to_vec())),
    }
}

pub fn max_waiting(argument: &[u8]) -> Parsed<MaxWaiting> {
    if argument.eq_ignore_ascii_case(b"off") {
        return Ok(MaxWaiting::Off);
    }
    let expected = || Cow::Borrowed("off, or a whole number of at least 1");
    scalar::whole(argument, 1, i64::from(i32::MAX)).ok().and_then(|n| u32::try_from(n).ok()).map(MaxWaiting::Requests).ok_or_else(expected)
}

/// DroverSessionCookie.
pub fn session_cookie(target: &mut Target<'_>, raw: &[u8]) -> Outcome {
    let mut args = Arguments::new(raw);
    let mut cookie = CookieOptions::default();
    let mut given = false;
    while let Some((name, value)) = option(&mut args, COOKIE_OPTIONS)? {
        session::cookie_option(&mut cookie, name, &value).map_err(|expected| ConfigErrorKind::option(name, &value, expected))?;
        given = true;
    }
    if !given {
        return Err(ConfigErrorKind::Arguments("requires at least one option"));
    }
    session::check_cookie(&cookie).map_err(|expected| ConfigErrorKind::value(raw, expected))?;
    target.server.session.cookie = Some(cookie);
    Ok(Effect::default())
}

pub fn retry(argument: &[u8]) -> Parsed<bool> {
    match argument {
        argument if argument.eq_ignore_ascii_case(b"idempotent") => Ok(true),
        argument if argument.eq_ignore_ascii_case(b"off") => Ok(false),
        _ => Err(Cow::Borrowed("idempotent or off")),
    }
}

/// The one argument as a name that may depend on the request.
pub fn put_expr(raw: &[u8], put: impl FnOnce(Expr)) -> Outcome {
    let expr = Expr::parse(&one(raw)?);
    let notices = expr.likely_typo().map(Cow::Owned).into_iter().collect();
    put(expr);
    Ok(Effect::with_notices(notices))
}

/// The one argument as the name of a group that may depend on the request.
pub fn put_group(raw: &[u8], put: impl FnOnce(Expr)) -> Outcome {
    let expr = Expr::parse(&one(raw)?);
    let notices = expr.likely_group_typo().map(Cow::Owned).into_iter().collect();
    put(expr);
    Ok(Effect::with_notices(notices))
}

pub fn process_group(target: &mut Target<'_>, raw: &[u8]) -> Outcome {
    let mut expr = None;
    let effect = put_group(raw, |v| expr = Some(v))?;
    let effect = effect.naming(&expr);
    target.settings().process_group = expr;
    Ok(effect)
}

pub fn python_home(target: &mut Target<'_>, raw: &[u8]) -> Outcome {
    let home = one_as(raw, scalar::absolute_path)?;
    target.server.python_home = Some(home.clone());
    Ok(Effect { added: Added { python_home: Some(home), ..Added::default() }, ..Effect::default() })
}

pub fn map_head(argument: &[u8]) -> Parsed<MapHead> {
    if argument.eq_ignore_ascii_case(b"auto") {
        return Ok(MapHead::Auto);
    }
    match scalar::flag(argument) {
        Ok(true) => Ok(MapHead::On),
        Ok(false) => Ok(MapHead::Off),
        Err(_) => Err(Cow::Borrowed("On, Off or Auto")),
    }
}

pub fn hash_seed(argument: &[u8]) -> Parsed<HashSeed> {
    if argument == b"random" {
        return Ok(HashSeed::Random);
    }
    let expected = || Cow::Borrowed("random or a whole number from 0 to 4294967295");
    scalar::whole(argument, 0, i64::from(u32::MAX)).ok().and_then(|seed| u32::try_from(seed).ok()).map(HashSeed::Fixed).ok_or_else(expected)
}

pub fn optimize(argument: &[u8]) -> Parsed<u8> {
    match argument {
        b"0" => Ok(0),
        b"1" => Ok(1),
        b"2" => Ok(2),
        _ => Err(Cow::Borrowed("0, 1 or 2")),
    }
}

pub fn accept_mutex(argument: &[u8]) -> Parsed<()> {
    const KNOWN: [&str; 6] = ["default", "flock", "fcntl", "sysvsem", "posixsem", "pthread"];
    if KNOWN.iter().any(|known| argument.eq_ignore_ascii_case(known.as_bytes())) {
        Ok(())
    } else {
        Err(Cow::Borrowed("Default, flock, fcntl, sysvsem, posixsem or pthread"))
    }
}

/// WSGIScriptAlias and, with `regex`, WSGIScriptAliasMatch.
pub fn script_alias(target: &mut Target<'_>, raw: &[u8], regex: bool) -> Outcome {
    const OPTIONS: &[&str] = &["process-group", "application-group", "callable-object", "pass-authorization"];
    const TWO: ConfigErrorKind = ConfigErrorKind::Arguments("requires at least two arguments");
    let mut args = Arguments::new(raw);
    let location = args.next().filter(|argument| !argument.is_empty()).ok_or(TWO)?;
    let script = args.next().filter(|argument| !argument.is_empty()).ok_or(TWO)?;
    let never_matches = !regex && !location.starts_with(b"/");
    let mut alias = ScriptAlias {
        pattern: if regex { AliasPattern::Regex(location) } else { AliasPattern::Prefix(location) },
        target: script,
        process_group: None,
        application_group: None,
        callable_object: None,
        pass_authorization: None,
    };
    while let Some((name, value)) = option(&mut args, OPTIONS)? {
        match name {
            "process-group" => alias.process_group = Some(name_expr(name, &value)?),
            "application-group" => alias.application_group = Some(name_expr(name, &value)?),
            "callable-object" => alias.callable_object = Some(name_expr(name, &value)?),
            _ => alias.pass_authorization = Some(scalar::flag(&value).map_err(|expected| ConfigErrorKind::option(name, &value, expected))?),
        }
    }
    if let Some(import) = preload(&alias) {
        check_defined(&import.process_group, target.defined_groups)?;
        target.server.imports.push(import);
    }
    let groups = [&alias.process_group, &alias.application_group].into_iter().flatten().filter_map(Expr::likely_group_typo);
    let mut notices: Vec<Cow<'static, str>> =
        groups.chain(alias.callable_object.as_ref().and_then(Expr::likely_typo)).map(Cow::Owned).collect();
    notices.extend(slashes(&alias).map(Cow::Borrowed));
    if never_matches {
        notices.push(Cow::Borrowed("the URL path does not begin with '/', so this alias matches no request"));
    }
    if !alias.target.starts_with(b"/") && !alias.target.starts_with(b"$") {
        notices.push(Cow::Owned(format!("'{}' is not an absolute path, so no request finds the script", Shown(&alias.target))));
    }
    let mut effect = Effect::with_notices(notices).naming(&alias.process_group);
    effect.added.alias = Some(alias.clone());
    target.server.aliases.push(alias);
    Ok(effect)
}

/// A warning when only one of the two paths ends with a slash.
fn slashes(alias: &ScriptAlias) -> Option<&'static str> {
    let AliasPattern::Prefix(location) = &alias.pattern else { return None };
    match (location.ends_with(b"/"), alias.target.ends_with(b"/")) {
        _ if location == b"/" => None,
        (true, false) => Some(
            "the URL path ends with a slash and the file path does not, so the rest of a URL is appended without a slash: \
             end both with a slash (a directory of scripts) or neither (one script)",
        ),
        (false, true) => Some(
            "the file path ends with a slash and the URL path does not: end both with a slash (a directory of scripts) or neither (one script)",
        ),
        _ => None,
    }
}

/// The script to load at start: an alias has one when script, process group and application group
/// are the same for all requests.
fn preload(alias: &ScriptAlias) -> Option<ImportScript> {
    let process_group = alias.process_group.as_ref()?.fixed()?;
    let application_group = alias.application_group.as_ref()?.fixed()?;
    let varies = matches!(alias.pattern, AliasPattern::Regex(_)) && alias.target.contains(&b'$');
    let directory = alias.target.ends_with(b"/");
    (!varies && !directory).then(|| ImportScript {
        script: alias.target.clone(),
        process_group: GroupChoice::from_name(process_group),
        application_group: application_group.to_vec(),
        from_alias: true,
    })
}

pub fn import_script(target: &mut Target<'_>, raw: &[u8]) -> Outcome {
    const OPTIONS: &[&str] = &["process-group", "application-group"];
    let mut args = Arguments::new(raw);
    let script = args.next().filter(|argument| !argument.is_empty()).ok_or(ConfigErrorKind::Arguments("requires the path of a script"))?;
    let (mut process_group, mut application_group, mut notices) = (None, None, Vec::new());
    while let Some((name, value)) = option(&mut args, OPTIONS)? {
        let value = name_expr(name, &value)?;
        notices.extend(value.likely_group_typo().map(Cow::Owned));
        if name == "process-group" { process_group = Some(value) } else { application_group = Some(value) }
    }
    let application_group = application_group.ok_or(ConfigErrorKind::MissingOption("application-group"))?;
    let process_group = match process_group.ok_or(ConfigErrorKind::MissingOption("process-group"))? {
        Expr::Global => GroupChoice::Implicit,
        other => GroupChoice::Named(other.source()),
    };
    check_defined(&process_group, target.defined_groups)?;
    let Some(application_group) = application_group.fixed() else {
        return Ok(Effect::default()
            .and(Cow::Borrowed("application-group= depends on the request, so the script is loaded by the first request, not at start")));
    };
    let application_group = application_group.to_vec();
    let import = ImportScript { script, process_group, application_group, from_alias: false };
    let mut effect = Effect::with_notices(notices);
    effect.added.import = Some(import.clone());
    target.server.imports.push(import);
    Ok(effect)
}

pub fn daemon_process(target: &mut Target<'_>, raw: &[u8]) -> Outcome {
    let mut args = Arguments::new(raw);
    let name = args.next().filter(|argument| !argument.is_empty()).ok_or(ConfigErrorKind::Arguments("requires the name of the group"))?;
    let mut group = GroupOptions::default();
    let mut notices: Vec<Cow<'static, str>> = Vec::new();
    if let Some(option) = option_in_place_of_name(&name) {
        let text = format!("'{}' is read as the name of the group; write the name first: WSGIDaemonProcess name {option}=…", Shown(&name));
        notices.push(text.into());
    }
    let mut given: Vec<&'static str> = Vec::new();
    while let Some(found) = args.option() {
        let (name, value) = found.map_err(|error| ConfigErrorKind::NotAnOption { argument: error.0, accepted: daemon_options() })?;
        let Some(row) = DAEMON_OPTIONS.iter().find(|row| row.name.as_bytes() == name) else {
            let nearest = nearest(&name, DAEMON_OPTIONS.iter().map(|row| row.name));
            return Err(ConfigErrorKind::UnknownOption { option: name, nearest, accepted: daemon_options() });
        };
        let in_unit = |expected| row.take.in_unit(expected, row.unit);
        row.take.read(&mut group, &value).map_err(|expected| ConfigErrorKind::option(row.name, &value, in_unit(expected)))?;
        notices.extend(row.notice.map(Cow::Borrowed));
        if given.contains(&row.name) {
            notices.push(format!("{}= is given more than once; the last value is used", row.name).into());
        }
        given.push(row.name);
    }
    notices.extend(without_effect(&group, &given).map(Cow::Borrowed));
    if group.script_user.is_some() && group.script_group.is_some() {
        return Err(ConfigErrorKind::Exclusive("script-user", "script-group"));
    }
    if target.defined_groups.contains(&name) {
        return Err(ConfigErrorKind::DuplicateGroup(name));
    }
    let group = DaemonGroup { name, options: group };
    let mut effect = Effect::with_notices(notices);
    effect.added.group = Some(group.clone());
    target.server.groups.push(group);
    Ok(effect)
}

/// The option that was probably meant, when the name of a group looks like one.
fn option_in_place_of_name(name: &[u8]) -> Option<&'static str> {
    let (before, _) = name.split_at_checked(name.iter().position(|b| *b == b'=')?)?;
    let known = || DAEMON_OPTIONS.iter().map(|row| row.name);
    known().find(|option| option.as_bytes() == before).or_else(|| nearest(before, known()))
}

/// Options that have no effect because of another one, or for want of one.
fn without_effect(group: &GroupOptions, given: &[&str]) -> impl Iterator<Item = &'static str> {
    let rules = [
        (group.interrupt_timeout.is_some() && group.request_timeout.is_none(), "interrupt-timeout= has no effect without request-timeout="),
        (
            group.queue_depth.is_some() && given.contains(&"listen-backlog"),
            "listen-backlog= has no effect with queue-depth=, which refuses the requests that would wait outside the queue",
        ),
    ];
    rules.into_iter().filter(|(holds, _)| *holds).map(|(_, text)| text)
}

pub fn restrict_process(target: &mut Target<'_>, raw: &[u8]) -> Outcome {
    let mut args = Arguments::new(raw);
    let names: Vec<Expr> = args.by_ref().map(|name| Expr::parse(&name)).collect();
    let effect = Effect::with_notices(names.iter().filter_map(Expr::likely_group_typo).map(Cow::Owned).collect()).naming(&names);
    let sources = names.into_iter().map(|name| if name == Expr::Global { Vec::new() } else { name.source() });
    target.settings().restrict_process = Some(sources.collect());
    Ok(effect)
}

/// Several of these directives in one place add up.
pub fn trusted_proxy_headers(target: &mut Target<'_>, raw: &[u8]) -> Outcome {
    let mut args = Arguments::new(raw);
    let mut notice = args.at_end().then(|| "no header is named, so none is trusted here".to_owned());
    let headers = target.settings().trusted_proxy_headers.get_or_insert_default();
    for argument in args.by_ref() {
        match proxy_header(&argument) {
            Some(header) => headers.push(header),
            None => {
                let known: Vec<&str> = PROXY_HEADERS.iter().map(|known| known.name).collect();
                let text = format!("'{}' is not a known header and is ignored; known headers: {}", Shown(&argument), known.join(", "));
                notice.get_or_insert(text);
            }
        }
    }
    Ok(Effect::with_notices(notice.into_iter().map(Cow::Owned).collect()))
}

/// Several of these directives in one place add up.
pub fn trusted_proxies(target: &mut Target<'_>, raw: &[u8]) -> Outcome {
    let mut args = Arguments::new(raw);
    let mut networks = Vec::new();
    for argument in args.by_ref() {
        networks.push(Network::parse(&argument).map_err(|expected| ConfigErrorKind::value(&argument, expected))?);
    }
    target.settings().trusted_proxies.get_or_insert_default().append(&mut networks);
    Ok(Effect::default())
}

/// `<WSGIInterpreterOptions …>`: opens a block. The raw arguments end with the bracket of the tag.
pub fn interpreter_options(target: &mut Target<'_>, raw: &[u8]) -> Outcome {
    let scope = InterpreterScope::parse(raw)?;
    target.server.scopes.push(ScopedOptions { scope, ..ScopedOptions::default() });
    Ok(Effect::default())
}

impl InterpreterScope {
    /// Reads `process-group=name application-group=name>`.
    pub fn parse(raw: &[u8]) -> Result<Self, ConfigErrorKind> {
        const OPTIONS: &[&str] = &["process-group", "application-group"];
        let Some(bracket) = raw.iter().rposition(|&b| b == b'>') else {
            return Err(ConfigErrorKind::Arguments("is a section and lacks its closing '>'"));
        };
        let mut args = Arguments::new(raw.get(..bracket).unwrap_or_default());
        let mut scope = Self::default();
        while let Some((name, value)) = option(&mut args, OPTIONS)? {
            let slot = if name == "process-group" { &mut scope.process_group } else { &mut scope.application_group };
            let value = if value == b"%{GLOBAL}" { Vec::new() } else { value };
            if slot.replace(value).is_some() {
                return Err(ConfigErrorKind::Repeated(name));
            }
        }
        Ok(scope)
    }
}

pub fn telemetry_service(raw: &[u8]) -> Outcome {
    let mut args = Arguments::new(raw);
    let service = args.next().unwrap_or_default();
    if service.is_empty() {
        return Err(ConfigErrorKind::Arguments("takes one or two arguments"));
    }
    if !service.starts_with(b"unix:") {
        return Err(ConfigErrorKind::value(&service, "unix:/path"));
    }
    if let Some((name, value)) = option(&mut args, &["interval"])? {
        const EXPECTED: &str = "a number of seconds, at least 0.5";
        scalar::fractional_seconds(&value, 0.5, EXPECTED).map_err(|expected| ConfigErrorKind::option(name, &value, expected))?;
    }
    if args.at_end() { Ok(Effect::default()) } else { Err(ConfigErrorKind::Arguments("takes one or two arguments")) }
}

pub fn slow_requests(raw: &[u8]) -> Outcome {
    checked(raw, |argument| scalar::fractional_seconds(argument, 0.0, "a number of seconds"))
}

pub fn telemetry_options(raw: &[u8]) -> Outcome {
    const EXPECTED: &str = "None, All or CaptureUserAgent; a + or - in front on all flags of the line or on none";
    let mut args = Arguments::new(raw);
    let mut signs = None;
    for argument in args.by_ref() {
        let bare = argument.strip_prefix(b"+").or(argument.strip_prefix(b"-"));
        let flag = bare.unwrap_or(&argument);
        let whole_set = flag.eq_ignore_ascii_case(b"None") || flag.eq_ignore_ascii_case(b"All");
        let known = flag.eq_ignore_ascii_case(b"CaptureUserAgent") || (whole_set && bare.is_none());
        if !known || *signs.get_or_insert(bare.is_some()) != bare.is_some() {
            return Err(ConfigErrorKind::value(&argument, EXPECTED));
        }
    }
    if signs.is_none() { Err(ConfigErrorKind::Arguments("requires at least one flag")) } else { Ok(Effect::default()) }
}

/// The next option, which must be one of `accepted`.
fn option(args: &mut Arguments<'_>, accepted: &'static [&'static str]) -> Result<Option<(&'static str, Vec<u8>)>, ConfigErrorKind> {
    let Some(found) = args.option() else { return Ok(None) };
    let (name, value) = found.map_err(|error| ConfigErrorKind::NotAnOption { argument: error.0, accepted: among(accepted) })?;
    match accepted.iter().find(|known| known.as_bytes() == name) {
        Some(known) => Ok(Some((known, value))),
        None => {
            let nearest = nearest(&name, accepted.iter().copied());
            Err(ConfigErrorKind::UnknownOption { option: name, nearest, accepted: among(accepted) })
        }
    }
}

/// The options of WSGIDaemonProcess that have an effect.
fn daemon_options() -> Accepted {
    Accepted { names: DAEMON_OPTIONS.iter().filter(|row| row.notice.is_none()).map(|row| row.name).collect(), is_long: true }
}

fn among(names: &[&'static str]) -> Accepted {
    Accepted { names: names.to_vec(), is_long: false }
}

fn name_expr(option: &'static str, value: &[u8]) -> Result<Expr, ConfigErrorKind> {
    if value.is_empty() { Err(ConfigErrorKind::option(option, value, "a name")) } else { Ok(Expr::parse(value)) }
}

/// A script can be loaded at start only into a group that is defined before it.
fn check_defined(group: &GroupChoice, defined: &[Vec<u8>]) -> Result<(), ConfigErrorKind> {
    match group {
        GroupChoice::Named(name) if !defined.contains(name) => {
            Err(ConfigErrorKind::UndefinedGroup { name: name.clone(), nearest: nearest(name, defined).cloned(), defined: defined.to_vec() })
        }
        _ => Ok(()),
    }
}
