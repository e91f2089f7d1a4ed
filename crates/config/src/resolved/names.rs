//! How many application groups a configuration names in a group, where it lets one count.
//!
//! Responsible for: a server of many small sites having room for all of them. Must never: count what clients make up. Called by: `spec`, and
//! `resolved` for `apachectl -t`.
use super::Server;
use super::spec::{group_of, names_a_file};
use crate::{AliasPattern, Expr, GroupChoice, ScriptAlias};
use std::collections::BTreeSet;

/// A name, as far as it is known before a request.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Name<'a> {
    Fixed(&'a [u8]),
    /// `%{RESOURCE}`: of the server at this place, for this URL.
    Resource(usize, &'a [u8]),
    /// `%{SERVER}`, and `%{HOST}` as far as clients ask for the server's own name.
    Server(usize),
}

/// The most that the configuration may name in the group: also what `<Directory>` or `<Location>` may lead there.
pub(super) fn possible(group: &[u8], implicit: bool, servers: &[Server<'_>]) -> u32 {
    count(group, implicit, servers, |place, _| place, |expr| expr.is_none_or(|expr| expr.fixed().is_none()))
}

/// The fewest: what leads to the group for certain. Servers of one name count as one, as they may differ in the port only.
pub(super) fn certain(group: &[u8], servers: &[Server<'_>]) -> u32 {
    let first_of = |_, server: &Server<'_>| servers.iter().position(|other| other.name == server.name).unwrap_or(0);
    count(group, false, servers, first_of, |_| false)
}

fn count(
    group: &[u8],
    implicit: bool,
    servers: &[Server<'_>],
    place: impl Fn(usize, &Server<'_>) -> usize,
    may_lead_here: impl Fn(Option<&Expr>) -> bool,
) -> u32 {
    let mut names = BTreeSet::new();
    for (at, server) in servers.iter().enumerate() {
        let at = place(at, server);
        let aliases = server.config.aliases.iter().filter(|alias| {
            let expr = group_of(alias, server);
            let fixed = expr.map_or(Some(&b""[..]), Expr::fixed);
            fixed.is_some_and(|name| if name.is_empty() { implicit } else { name == group }) || may_lead_here(expr)
        });
        names.extend(aliases.filter_map(|alias| name(alias, server, at)));
        let imports = server.config.imports.iter().filter(|import| match &import.process_group {
            GroupChoice::Implicit => implicit,
            GroupChoice::Named(name) => name == group,
        });
        names.extend(imports.map(|import| Name::Fixed(&import.application_group)));
    }
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}

fn name<'a>(alias: &'a ScriptAlias, server: &Server<'a>, at: usize) -> Option<Name<'a>> {
    let own = alias.application_group.as_ref().or(server.config.dir.application_group.as_ref());
    match own.unwrap_or(&Expr::Resource) {
        Expr::Resource => match &alias.pattern {
            AliasPattern::Prefix(url) if names_a_file(alias) => Some(Name::Resource(at, url)),
            _ => None,
        },
        Expr::Server | Expr::Host => Some(Name::Server(at)),
        Expr::Env(_) => None,
        Expr::Global => Some(Name::Fixed(b"")),
        Expr::Literal(name) => Some(Name::Fixed(name)),
    }
}
