//! What a request has to do with sessions, made from the configuration and what the request says.
//!
//! Responsible for: the scope, the cookie and the store being the request's own. Must never: open a store before a session is touched. Called
//! by: `handler::mod`.
use super::{Context, Task};
use crate::httpd::{Level, Request};
use crate::messages::Code;
use crate::session::RequestSession;
use crate::session::answer::Find;
use drover_session::{Error, Sessions};

/// The sessions that the request may reach; empty where there are none.
pub fn scope(r: &Request<'_>, task: Task<'_>) -> Vec<u8> {
    let of = |(settings, _): (&crate::session::Settings, _)| settings.scope_of(&task.selection.key.group, r.server_hostname());
    task.context.session.map(of).unwrap_or_default()
}

/// Their store.
pub fn store(context: Context<'_>, scope: &[u8]) -> Result<&'static Sessions, Error> {
    let (settings, plan) = context.session.ok_or_else(|| Error::Unavailable("off".into()))?;
    let stores = context.stores.ok_or_else(|| Error::Unavailable("this child was not set up".into()))?;
    stores.get(settings.store, plan, scope)
}

/// Logs where sessions are kept, once a start, when nobody has configured them and a request has used one.
pub fn say_first_use(r: &Request<'_>, context: Context<'_>) {
    let first = context.unsaid.filter(|(used, _)| used.set());
    first.into_iter().flat_map(|(_, said)| said).for_each(|text| r.log(Level::Notice, Code::Sessions, text));
}

/// `None`: sessions are off. `find` is [`store`], asked only when a session is touched.
pub fn begin<'t>(r: &Request<'_>, task: Task<'t>, scope: &[u8], find: Find<'t>, answer_by: Option<u64>) -> Option<RequestSession<'t>> {
    let Task { selection, context, .. } = task;
    context.session.map(|(settings, _)| {
        let https = r.env(c"wsgi.url_scheme") == Some(b"https");
        let entry = context.stores.and_then(|stores| stores.predictor.entry(&(scope, r.uri())));
        let cookie = settings.cookie_of(&selection.key.group);
        RequestSession::new(settings, find, entry, (scope.to_vec(), cookie), https, answer_by)
    })
}
