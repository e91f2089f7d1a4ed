//! Which group, application group and callable a request is for.
//!
//! Responsible for: mod_wsgi's expressions and its rule of which virtual host may use which group. Called by: `handler::mod`.
use crate::config::Settings;
use crate::config::expr::{self, Expr, GroupChoice, RequestNames};
use crate::dispatch::Key;
use crate::httpd::Request;
use crate::httpd::request::c_string;
use crate::resolved::Resolved;

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

struct Names<'a, 'r> {
    r: &'a Request<'r>,
    port: u16,
    case_sensitive: bool,
}

impl RequestNames for Names<'_, '_> {
    fn server_name(&self) -> &[u8] {
        self.r.server_hostname()
    }

    fn host_name(&self) -> Option<&[u8]> {
        self.r.hostname()
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn script_name(&self) -> Vec<u8> {
        let name = super::environ::script_name(self.r);
        if self.case_sensitive { name } else { name.to_ascii_lowercase() }
    }

    fn env(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = c_string(name);
        self.r.note(&name).or_else(|| self.r.env(&name)).map(<[u8]>::to_vec).or_else(|| {
            use std::os::unix::ffi::{OsStrExt, OsStringExt};
            std::env::var_os(std::ffi::OsStr::from_bytes(name.as_bytes())).map(OsStringExt::into_vec)
        })
    }
}

/// Evaluates the request's configuration; what an alias of ours has noted comes first.
#[must_use]
pub fn select(r: &Request<'_>, settings: &Settings<'_>, resolved: &Resolved) -> Selection {
    let noted = |name| r.note(name).filter(|_| r.is_aliased()).map(Expr::parse);
    let case_sensitive = resolved.is_case_sensitive();
    // A process group is chosen among those of the configuration, as by mod_wsgi. An application group is made by its name, so
    // one application must have one name, however a client writes its Host header.
    let of_process = Names { r, port: r.requested_port(), case_sensitive };
    let of_application = Names { r, port: r.configured_port(), case_sensitive };
    let group = noted(c"mod_wsgi.process_group").or_else(|| settings.process_group.cloned());
    let application_group = noted(c"mod_wsgi.application_group").or_else(|| settings.application_group.cloned());
    let callable = noted(c"mod_wsgi.callable_object").or_else(|| settings.callable_object.cloned());
    let (group, implicit) = match expr::process_group(group.as_ref(), &of_process) {
        GroupChoice::Implicit => (resolved.implicit_name().to_vec(), true),
        GroupChoice::Named(name) => (name, false),
    };
    let pass_authorization = match r.note(c"mod_wsgi.pass_authorization").filter(|_| r.is_aliased()) {
        Some(value) => value == b"1",
        None => settings.pass_authorization,
    };
    Selection {
        key: Key { group, application_group: expr::application_group(application_group.as_ref(), &of_application) },
        implicit,
        callable_object: expr::callable_object(callable.as_ref(), &of_process),
        pass_authorization,
    }
}
