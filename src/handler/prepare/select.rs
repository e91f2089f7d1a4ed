//! Selects the group, application group and callable of a request.
//!
//! Responsible for: mod_wsgi's expressions. Must never: check whether the group may be used; [`super::checks`] does. Called by:
//! `handler`.
use super::environ;
use crate::config::Settings;
use crate::config::expr::{self, Expr, GroupChoice, RequestNames};
use crate::dispatch::Key;
use crate::handler::request::{RequestView, c_string};
use crate::handler::task::Selection;
use crate::resolved::Resolved;
use std::marker::PhantomData;

/// The request, as the expressions see it.
struct Names<'a, 'r, R> {
    r: &'a R,
    port: u16,
    case_sensitive: bool,
    life: PhantomData<&'r [u8]>,
}

impl<'r, R: RequestView<'r>> RequestNames for Names<'_, 'r, R> {
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
        let name = environ::script_name(self.r);
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

/// Evaluates the request's configuration. The options of an alias take precedence.
#[must_use]
pub fn select<'r>(r: &impl RequestView<'r>, settings: &Settings<'_>, resolved: &Resolved) -> Selection {
    let noted = |name| r.note(name).filter(|_| r.is_aliased()).map(Expr::parse);
    let case_sensitive = resolved.is_case_sensitive();
    // The configuration defines all process groups, as with mod_wsgi. An application group exists once it is named, so the
    // client's Host header must not change its name.
    let of_process = Names { r, port: r.requested_port(), case_sensitive, life: PhantomData };
    let of_application = Names { r, port: r.configured_port(), case_sensitive, life: PhantomData };
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
