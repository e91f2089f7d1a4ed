//! Maps a URL to a script (WSGIScriptAlias).
//!
//! Responsible for: the first match wins, and a virtual host's aliases come before the server's. Must never: run a script. Called by: `module::translate`.
use super::request::Request;
use super::{commands, ffi};
use crate::config::{AliasPattern, Expr, ScriptAlias, match_prefix, prefix_filename};
use crate::handler::request::RequestView;
use std::ffi::{CStr, CString};
use std::ptr;

/// Maps the request if one of its server's aliases matches.
///
/// # Safety
/// `raw` must be the request of the running translate_name hook.
pub unsafe fn map(raw: *mut ffi::request_rec) -> bool {
    // SAFETY: the caller's promise; the slot lives as long as the configuration, which outlives its requests.
    let (mut r, slot) = unsafe { (Request::new(raw), &*commands::slot_of((*raw).server)) };
    let Some(uri) = r.uri().filter(|u| u.is_empty() || u.starts_with(b"/")) else { return false };
    for (place, alias) in slot.config.aliases.iter().enumerate() {
        let filename = match &alias.pattern {
            AliasPattern::Prefix(location) => match_prefix(uri, location).map(|n| prefix_filename(&alias.target, location, uri, n)),
            AliasPattern::Regex(_) => {
                let pattern = slot.patterns.get(place).copied().unwrap_or(ptr::null_mut());
                // SAFETY: compiled in post_config from this alias, in the configuration's pool.
                unsafe { substitute(raw, pattern, alias, uri) }
            }
        };
        if let Some(filename) = filename {
            note(&mut r, alias, &filename);
            return true;
        }
    }
    false
}

fn note(r: &mut Request<'_>, alias: &ScriptAlias, filename: &[u8]) {
    let texts = [
        (c"mod_wsgi.process_group", alias.process_group.as_ref().map(Expr::source)),
        (c"mod_wsgi.application_group", alias.application_group.as_ref().map(Expr::source)),
        (c"mod_wsgi.callable_object", alias.callable_object.as_ref().map(Expr::source)),
        (c"mod_wsgi.pass_authorization", alias.pass_authorization.map(|on| if on { b"1".to_vec() } else { b"0".to_vec() })),
    ];
    let notes: Vec<(&CStr, &[u8])> = texts.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    r.map_to(filename, &notes);
}

unsafe fn substitute(r: *mut ffi::request_rec, pattern: *mut ffi::ap_regex_t, alias: &ScriptAlias, uri: &[u8]) -> Option<Vec<u8>> {
    if pattern.is_null() {
        return None;
    }
    let target = CString::new(alias.target.as_slice()).ok()?;
    let mut matches = [ffi::ap_regmatch_t { rm_so: 0, rm_eo: 0 }; ffi::AP_MAX_REG_MATCH as usize];
    // SAFETY: the URL is a string of the request; `matches` has the size that is named; ap_pregsub copies into the request's pool.
    unsafe {
        if ffi::ap_regexec(pattern, (*r).uri, matches.len(), matches.as_mut_ptr(), 0) != 0 {
            return None;
        }
        let path = ffi::ap_pregsub((*r).pool, target.as_ptr(), (*r).uri, matches.len(), matches.as_mut_ptr());
        if path.is_null() {
            return None;
        }
        let end = matches.first().and_then(|m| usize::try_from(m.rm_eo).ok()).unwrap_or(0);
        if end == 0 {
            return None;
        }
        let behind = if uri.get(..end) == Some(b"/") { uri } else { uri.get(end..).unwrap_or_default() };
        Some([CStr::from_ptr(path).to_bytes(), behind].concat())
    }
}
