//! What refuses a request before any worker sees it; the statuses are mod_wsgi's.
use super::Verdict;
use super::select::Selection;
use crate::config::Settings;
use crate::httpd::request::FileKind;
use crate::httpd::{Level, Request};
use crate::messages::Code;
use crate::resolved::{Group, Resolved};

/// `Some`: the answer, already logged.
pub fn refuse(r: &Request<'_>, settings: &Settings<'_>) -> Option<Verdict> {
    let file = || r.filename().unwrap_or_default().escape_ascii().to_string();
    let no = |status, code, text: String| {
        r.log(Level::Error, code, &text);
        Some(Verdict::Status(status))
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
    if let Some(encoding) = r.header(c"Transfer-Encoding").filter(|_| !r.is_stream()) {
        if !encoding.eq_ignore_ascii_case(b"chunked") {
            return no(501, Code::TransferEncoding, format!("unknown Transfer-Encoding '{}'", encoding.escape_ascii()));
        }
        if !settings.chunked_request {
            return no(411, Code::ChunkedOff, "the request's body is chunked and WSGIChunkedRequest is Off".into());
        }
    }
    if r.header(c"Content-Length").is_some() {
        let Some(length) = content_length(r) else {
            return no(400, Code::ContentLength, "the request's Content-Length is not a number".into());
        };
        let limit = r.body_limit();
        if limit > 0 && length > limit {
            let text = format!("the request's body of {length} bytes is larger than LimitRequestBody ({limit}) allows");
            r.log(Level::Info, Code::BodyRead, &text);
            return Some(Verdict::Status(413));
        }
    }
    None
}

/// The group that was selected, and the script's path as the group's processes see it. The error is the answer, already logged.
pub fn permit<'g, 'r>(
    r: &Request<'r>,
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
        let text = "a script runs without WSGIProcessGroup: in the implicit group 'default' (there is no embedded mode)";
        r.log(Level::Notice, Code::ImplicitGroup, text);
    }
    let file = r.filename().unwrap_or_default();
    let Some(script) = group.inside(file) else {
        let text = format!("the script {} lies outside of its group's chroot=", file.escape_ascii());
        return no(500, Code::ScriptOutside, &text);
    };
    Ok((group, script))
}

/// Content-Length as a number.
pub fn content_length(r: &Request<'_>) -> Option<u64> {
    let text = r.header(c"Content-Length")?.trim_ascii();
    str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// Why the script's file does not belong to whom `script-user=` and `script-group=` say.
fn wrong_owner(r: &Request<'_>, group: &Group) -> Option<String> {
    let (user, owner_group) = r.script_owner();
    let wrong = |what: &str, is: u32, must: Option<u32>| {
        must.filter(|must| *must != is).map(|must| {
            let file = r.filename().unwrap_or_default().escape_ascii();
            format!("{file} has {what} {is}, not {must} as the group's script-user= or script-group= demands")
        })
    };
    wrong("owner", user, group.script_uid).or_else(|| wrong("group", owner_group, group.script_gid))
}
