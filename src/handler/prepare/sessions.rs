//! Sets up the session access of a request, from the configuration and the request.
//!
//! Responsible for: giving a request only its own scope, cookie and store. Must never: open a store before the request touches
//! a session. Called by: `handler`.
use crate::handler::request::RequestView;
use crate::handler::task::{Context, Task};
use crate::messages::{Code, Level};
use crate::session::RequestSession;
use crate::session::answer::Find;
use drover_session::{Error, Sessions};

/// The scope of the sessions that the request may reach; empty when sessions are off.
pub fn scope<'r>(r: &impl RequestView<'r>, task: Task<'_>) -> Vec<u8> {
    let of = |(settings, _): (&crate::session::Settings, _)| settings.scope_of(&task.selection.key.group, r.server_hostname());
    task.context.session.map(of).unwrap_or_default()
}

/// The store of that scope.
pub fn store(context: Context<'_>, scope: &[u8]) -> Result<&'static Sessions, Error> {
    let (settings, plan) = context.session.ok_or_else(|| Error::Unavailable("off".into()))?;
    let stores = context.stores.ok_or_else(|| Error::Unavailable("this child was not set up".into()))?;
    stores.get(settings.store, plan, scope)
}

/// Logs where sessions are kept, once, when a request first uses one and no directive configures them.
pub fn log_first_use<'r>(r: &impl RequestView<'r>, context: Context<'_>) {
    let first = context.unsaid.filter(|(used, _)| used.set());
    first.into_iter().flat_map(|(_, said)| said).for_each(|text| r.log(Level::Notice, Code::Sessions, text));
}

/// The session access of a request; `None` when sessions are off. `find` is [`store`], called when a session is touched.
pub fn begin<'r, 't>(
    r: &impl RequestView<'r>,
    task: Task<'t>,
    scope: &[u8],
    find: Find<'t>,
    answer_by: Option<u64>,
) -> Option<RequestSession<'t>> {
    let Task { selection, context, .. } = task;
    context.session.map(|(settings, _)| {
        let https = r.env(c"wsgi.url_scheme") == Some(b"https");
        let entry = context.stores.and_then(|stores| stores.predictor.entry(&(scope, r.uri())));
        let cookie = settings.cookie_of(&selection.key.group);
        RequestSession::new(settings, find, entry, (scope.to_vec(), cookie), https, answer_by)
    })
}
