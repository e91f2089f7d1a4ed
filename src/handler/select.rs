//! Which group, application group and callable a request is for.
//!
//! Responsible for: mod_wsgi's expressions and its rule of which virtual host may use which group. Called by: `handler::mod`.
use crate::config::Settings;
use crate::config::expr::{self, Expr, GroupChoice, RequestNames};
use crate::dispatch::Key;
use crate::httpd::Request;
use crate::httpd::request::c_string;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Group and application group.
    pub key: Key,
    /// No group was named: the implicit one.
    pub implicit: bool,
    /// Name of the object in the script.
    pub callable_object: Vec<u8>,
    /// Whether the application gets the Authorization header.
    pub pass_authorization: bool,
}

struct Names<'a, 'r>(&'a Request<'r>);

impl RequestNames for Names<'_, '_> {
    fn server_name(&self) -> &[u8] {
        self.0.server_hostname()
    }

    fn host_name(&self) -> Option<&[u8]> {
        self.0.hostname()
    }

    fn port(&self) -> u16 {
        self.0.server_port()
    }

    fn script_name(&self) -> Vec<u8> {
        super::environ::script_name(self.0)
    }

    fn env(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = c_string(name);
        self.0.note(&name).or_else(|| self.0.env(&name)).map(<[u8]>::to_vec).or_else(|| {
            use std::os::unix::ffi::{OsStrExt, OsStringExt};
            std::env::var_os(std::ffi::OsStr::from_bytes(name.as_bytes())).map(OsStringExt::into_vec)
        })
    }
}

/// Evaluates the request's configuration; what an alias of ours has noted comes first.
#[must_use]
pub fn select(r: &Request<'_>, settings: &Settings<'_>, implicit_name: &[u8]) -> Selection {
    let noted = |name| r.note(name).filter(|_| r.is_aliased()).map(Expr::parse);
    let names = Names(r);
    let group = noted(c"mod_wsgi.process_group").or_else(|| settings.process_group.cloned());
    let application_group = noted(c"mod_wsgi.application_group").or_else(|| settings.application_group.cloned());
    let callable = noted(c"mod_wsgi.callable_object").or_else(|| settings.callable_object.cloned());
    let (group, implicit) = match expr::process_group(group.as_ref(), &names) {
        GroupChoice::Implicit => (implicit_name.to_vec(), true),
        GroupChoice::Named(name) => (name, false),
    };
    let pass_authorization = match r.note(c"mod_wsgi.pass_authorization").filter(|_| r.is_aliased()) {
        Some(value) => value == b"1",
        None => settings.pass_authorization,
    };
    Selection {
        key: Key { group, application_group: expr::application_group(application_group.as_ref(), &names) },
        implicit,
        callable_object: expr::callable_object(callable.as_ref(), &names),
        pass_authorization,
    }
}
