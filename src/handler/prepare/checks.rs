//! The checks that refuse a request before a worker sees it.
//!
//! Responsible for: the statuses, which are mod_wsgi's, and one log message for each refusal. Must never: change the request.
//! Called by: `handler`.
use crate::config::Settings;
use crate::handler::head::{BadRequestHead, BodyLength, RequestHead};
use crate::handler::request::{FileKind, RequestView};
use crate::handler::task::{Selection, Verdict};
use crate::messages::{Code, Level};
use crate::resolved::{Group, Resolved};

/// Checks the script and the request's header fields. The error is the response, already logged.
pub fn check<'r>(r: &impl RequestView<'r>, settings: &Settings<'_>) -> Result<RequestHead, Verdict> {
    let file = || r.filename().unwrap_or_default().escape_ascii().to_string();
    let no = |status, code, text: String| {
        r.log(Level::Error, code, &text);
        Err(Verdict::Status(status))
    };
    if !r.may_run_script() {
        return no(403, Code::NoExecCgi, format!("Options ExecCGI is off in this directory: {}", file()));
    }
    match r.script_file().0 {
        FileKind::Missing => return no(404, Code::ScriptMissing, format!("script not found or unable to stat: {}", file())),
        FileKind::Directory => {
            return no(403, Code::ScriptIsDirectory, format!("attempt to invoke directory as WSGI application: {}", file()));
        }
        FileKind::File => {}
    }
    if r.rejects_path_info() && r.path_info().is_some_and(|p| !p.is_empty()) {
        return no(404, Code::PathInfo, format!("AcceptPathInfo off disallows user's path: {}", file()));
    }
    let head = match RequestHead::parse(r) {
        Ok(head) => head,
        Err(BadRequestHead::TransferEncoding(encoding)) => {
            return no(501, Code::TransferEncoding, format!("unknown Transfer-Encoding '{}'", encoding.escape_ascii()));
        }
        Err(BadRequestHead::ContentLength) => {
            return no(400, Code::ContentLength, "the request's Content-Length is not a number".into());
        }
    };
    if head.is_chunked && !settings.chunked_request {
        return no(411, Code::ChunkedOff, "the request body is chunked and WSGIChunkedRequest is Off".into());
    }
    if let BodyLength::Known(length) = head.body {
        let limit = r.body_limit();
        if limit > 0 && length > limit {
            let text = format!("the request body of {length} bytes is larger than LimitRequestBody ({limit}) allows");
            r.log(Level::Info, Code::BodyRead, &text);
            return Err(Verdict::Status(413));
        }
    }
    Ok(head)
}

/// Checks the selected group. Returns it, and the script's path as its workers see it. The error is the response, already logged.
pub fn permit<'g, 'r>(
    r: &impl RequestView<'r>,
    settings: &Settings<'_>,
    selection: &Selection,
    resolved: &'g Resolved,
) -> Result<(&'g Group, &'r [u8]), Verdict> {
    let no = |status, code, text: &str| {
        r.log(Level::Error, code, text);
        Err(Verdict::Status(status))
    };
    let name = &selection.key.group;
    let group = match resolved.group_for(r.server_hostname(), name) {
        Ok(group) if settings.allows_process_group(if selection.implicit { b"" } else { name }) => group,
        Ok(_) => {
            let text = format!("group '{}' is not allowed here by WSGIRestrictProcess", name.escape_ascii());
            return no(500, Code::GroupRestricted, &text);
        }
        Err(e) => return no(500, (&e).into(), &e.to_string()),
    };
    if let Some(text) = wrong_owner(r, group) {
        return no(403, Code::ScriptOwner, &text);
    }
    if selection.implicit && resolved.first_implicit() {
        let text = "a script without WSGIProcessGroup runs in the implicit group 'default' (there is no embedded mode)";
        r.log(Level::Notice, Code::ImplicitGroup, text);
    }
    let file = r.filename().unwrap_or_default();
    let Some(script) = group.inside(file) else {
        let text = format!("the script {} lies outside its group's chroot=", file.escape_ascii());
        return no(500, Code::ScriptOutside, &text);
    };
    Ok((group, script))
}

/// Why the owner of the script's file is not the one that `script-user=` and `script-group=` require.
fn wrong_owner<'r>(r: &impl RequestView<'r>, group: &Group) -> Option<String> {
    let (user, owner_group) = r.script_owner();
    let wrong = |what: &str, is: u32, must: Option<u32>| {
        must.filter(|must| *must != is).map(|must| {
            let file = r.filename().unwrap_or_default().escape_ascii();
            format!("{file} has {what} {is}, not {must} as the group's script-user= or script-group= requires")
        })
    };
    wrong("owner", user, group.script_uid).or_else(|| wrong("group", owner_group, group.script_gid))
}
