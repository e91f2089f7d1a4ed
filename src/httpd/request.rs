//! One request of httpd as the handler's [`RequestView`].
//!
//! Responsible for: reading the pointers of a request_rec as bytes, never as UTF-8, and never keeping them beyond the request. Must
//! never: decide anything. Called by: `httpd::module` (creates it), `handler` (uses it), `client` (its body and response).
use super::{ffi, log};
use crate::handler::request::{FileKind, RequestView};
use crate::messages::{Code, Level};
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ptr;

/// One request, borrowed from httpd while its hook runs.
#[derive(Debug)]
pub struct Request<'r> {
    pub(super) raw: *mut ffi::request_rec,
    pub(super) input: *mut ffi::apr_bucket_brigade,
    pub(super) output: *mut ffi::apr_bucket_brigade,
    /// How much mod_http2 has accepted of an HTTP/2 response; null when unknown.
    pub(super) ledger: *mut ffi::drover_ledger,
    /// Bytes passed on so far, if counted.
    pub(super) passed: usize,
    /// The end of the body was seen; filters need not report it twice.
    pub(super) ended: bool,
    life: PhantomData<&'r mut ffi::request_rec>,
}

unsafe fn bytes<'a>(p: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller passes null or a NUL-terminated string of a pool that lives as long as `'a`.
    (!p.is_null()).then(|| unsafe { CStr::from_ptr(p) }.to_bytes())
}

macro_rules! text_fields {
    ($($name:ident => $($field:ident).+;)+) => {
        $(fn $name(&self) -> Option<&'r [u8]> {
            // SAFETY: a request_rec's strings live in its pool, which outlives the hook ('r).
            unsafe { bytes((*self.raw).$($field).+) }
        })+
    };
}

impl<'r> Request<'r> {
    /// # Safety
    /// `raw` must be the request that httpd passed to the running hook, and `'r` must end with that hook.
    #[must_use]
    pub unsafe fn new(raw: *mut ffi::request_rec) -> Self {
        Self { raw, input: ptr::null_mut(), output: ptr::null_mut(), ledger: ptr::null_mut(), passed: 0, ended: false, life: PhantomData }
    }

    const fn pool(&self) -> *mut ffi::apr_pool_t {
        // SAFETY: a live request has a pool.
        unsafe { (*self.raw).pool }
    }

    /// Copies bytes into the request's pool and appends a NUL. A NUL among them ends the text there.
    pub(super) fn pooled(&self, text: &[u8]) -> *mut c_char {
        // SAFETY: apr_pstrmemdup copies exactly the given length and adds the NUL (apr_strings.h).
        unsafe { ffi::apr_pstrmemdup(self.pool(), text.as_ptr().cast(), text.len()) }
    }

    /// The server (virtual host) of the request.
    #[must_use]
    pub const fn server(&self) -> *mut ffi::server_rec {
        // SAFETY: a live request has a server.
        unsafe { (*self.raw).server }
    }

    /// Maps the URL to a file and to our handler, as an alias does.
    pub fn map_to(&mut self, filename: &[u8], notes: &[(&CStr, &[u8])]) {
        let filename = self.pooled(filename);
        // SAFETY: both strings live as long as the request: one in its pool, one static; httpd reads `handler` only.
        unsafe {
            (*self.raw).filename = filename;
            (*self.raw).handler = c"wsgi-script".as_ptr();
            ffi::apr_table_setn((*self.raw).notes, c"alias-forced-type".as_ptr(), c"wsgi-script".as_ptr());
        }
        for (name, value) in notes {
            let value = self.pooled(value);
            // SAFETY: apr_table_setn keeps both pointers: `name` is copied into the pool here, `value` lies in it.
            unsafe { ffi::apr_table_setn((*self.raw).notes, self.pooled(name.to_bytes()), value) };
        }
    }
}

impl<'r> RequestView<'r> for Request<'r> {
    text_fields! {
        uri => uri;
        method => method;
        protocol => protocol;
        args => args;
        filename => filename;
        path_info => path_info;
        handler => handler;
        hostname => hostname;
    }

    fn server_hostname(&self) -> &'r [u8] {
        // SAFETY: a server's strings live in the configuration's pool, which outlives its requests.
        unsafe { bytes((*self.server()).server_hostname) }.unwrap_or_default()
    }

    fn server_timeout_ns(&self) -> u64 {
        // SAFETY: a live request has a server.
        let microseconds = unsafe { (*self.server()).timeout };
        if microseconds > 0 { microseconds.unsigned_abs().saturating_mul(1000) } else { 60_000_000_000 }
    }

    fn requested_port(&self) -> u16 {
        // SAFETY: the request is live.
        let shown = unsafe { ffi::ap_get_server_port(self.raw) };
        // SAFETY: a live request has a server.
        let configured = unsafe { (*self.server()).port };
        let local = self.local_port();
        if shown == configured || shown == local || matches!(shown, 80 | 443) { shown } else { local }
    }

    fn configured_port(&self) -> u16 {
        // SAFETY: a live request has a server.
        match unsafe { (*self.server()).port } {
            0 => self.local_port(),
            port => port,
        }
    }

    fn started_us(&self) -> u64 {
        // SAFETY: the request is live.
        unsafe { (*self.raw).request_time }.unsigned_abs()
    }

    fn script_file(&self) -> (FileKind, u64) {
        // SAFETY: the request is live; finfo is a plain structure in it.
        let info = unsafe { &(*self.raw).finfo };
        let kind = match info.filetype {
            ffi::apr_filetype_e_APR_NOFILE => FileKind::Missing,
            ffi::apr_filetype_e_APR_DIR => FileKind::Directory,
            _ => FileKind::File,
        };
        (kind, info.mtime.unsigned_abs())
    }

    fn script_owner(&self) -> (u32, u32) {
        // SAFETY: the request is live; APR fills both for every file it has looked at (unix filestat.c).
        unsafe { ((*self.raw).finfo.user, (*self.raw).finfo.group) }
    }

    fn note(&self, name: &CStr) -> Option<&'r [u8]> {
        // SAFETY: a live request has notes; their strings live in its pool.
        unsafe { bytes(ffi::apr_table_get((*self.raw).notes, name.as_ptr())) }
    }

    fn header(&self, name: &CStr) -> Option<&'r [u8]> {
        // SAFETY: as for notes.
        unsafe { bytes(ffi::apr_table_get((*self.raw).headers_in, name.as_ptr())) }
    }

    fn env(&self, name: &CStr) -> Option<&'r [u8]> {
        // SAFETY: as for notes.
        unsafe { bytes(ffi::apr_table_get((*self.raw).subprocess_env, name.as_ptr())) }
    }

    fn set_env(&mut self, name: &'static CStr, value: &[u8]) {
        let value = self.pooled(value);
        // SAFETY: the name is static, the value lies in the request's pool.
        unsafe { ffi::apr_table_setn((*self.raw).subprocess_env, name.as_ptr(), value) };
    }

    fn unset_env(&mut self, name: &CStr) {
        // SAFETY: a live request has the table.
        unsafe { ffi::apr_table_unset((*self.raw).subprocess_env, name.as_ptr()) };
    }

    fn each_env(&self) -> impl Iterator<Item = (&'r [u8], &'r [u8])> {
        // SAFETY: apr_table_elts gives the table's array, whose entries stay put while nobody changes the table: the iterator
        // borrows the request.
        let elements: &'r [ffi::apr_table_entry_t] = unsafe {
            let array = ffi::apr_table_elts((*self.raw).subprocess_env);
            let n = usize::try_from((*array).nelts).unwrap_or(0);
            if n == 0 { &[] } else { std::slice::from_raw_parts((*array).elts.cast(), n) }
        };
        elements.iter().filter_map(|e| {
            // SAFETY: keys and values are NUL-terminated strings of the request's pool or static.
            unsafe { Some((bytes(e.key)?, bytes(e.val)?)) }
        })
    }

    fn add_common_vars(&mut self) {
        // SAFETY: the request is live and past its fixups.
        unsafe { ffi::ap_add_common_vars(self.raw) }
    }

    fn request_uri(&self) -> &'r [u8] {
        // SAFETY: the request is live; the result lies in its pool.
        unsafe {
            if ffi::drover_request_uri_from_current(self.raw) != 0 {
                bytes((*self.raw).uri)
            } else {
                bytes(ffi::drover_original_uri(self.raw))
            }
        }
        .unwrap_or_default()
    }

    fn document_root(&self) -> &'r [u8] {
        // SAFETY: the request is live; the string belongs to the configuration.
        unsafe { bytes(ffi::ap_document_root(self.raw)) }.unwrap_or_default()
    }

    fn path_info_start(&self) -> usize {
        // SAFETY: both are strings of the request; called only when path_info is set (an empty one is fine).
        let n = unsafe { ffi::ap_find_path_info((*self.raw).uri, (*self.raw).path_info) };
        usize::try_from(n).unwrap_or(0)
    }

    fn is_https(&self) -> bool {
        // SAFETY: a live request has a connection.
        unsafe { ffi::drover_is_https((*self.raw).connection) != 0 }
    }

    fn log_ids(&self) -> (Option<&'r [u8]>, Option<&'r [u8]>) {
        // SAFETY: the request is live; ids lie in pools of request and connection.
        unsafe { (bytes(ffi::drover_log_id(self.raw)), bytes(ffi::drover_connection_log_id(self.raw))) }
    }

    fn local_hostname(&self) -> Option<&'r [u8]> {
        // SAFETY: a connection has its local address for its whole life; the name lies in the configuration's pool or the connection's.
        unsafe { bytes((*(*(*self.raw).connection).local_addr).hostname) }
    }

    fn local_port(&self) -> u16 {
        // SAFETY: a connection has its local address for its whole life.
        unsafe { (*(*(*self.raw).connection).local_addr).port }
    }

    fn head_needs_body(&self) -> bool {
        // SAFETY: the request is live.
        unsafe { ffi::drover_needs_body_for_head(self.raw) != 0 }
    }

    fn is_get(&self) -> bool {
        // SAFETY: the request is live.
        unsafe { (*self.raw).method_number == ffi::M_GET }
    }

    fn is_stream(&self) -> bool {
        // SAFETY: a live request has a connection.
        unsafe { !(*(*self.raw).connection).master.is_null() }
    }

    fn expects_continue(&self) -> bool {
        // SAFETY: the request is live.
        unsafe { ffi::drover_expecting_100(self.raw) != 0 }
    }

    fn body_limit(&self) -> u64 {
        // SAFETY: the request is live.
        unsafe { ffi::ap_get_limit_req_body(self.raw) }.unsigned_abs()
    }

    fn may_run_script(&self) -> bool {
        // SAFETY: the request is live.
        unsafe { ffi::drover_script_is_aliased(self.raw) != 0 || ffi::ap_allow_options(self.raw) & ffi::OPT_EXECCGI != 0 }
    }

    fn is_aliased(&self) -> bool {
        // SAFETY: the request is live.
        unsafe { ffi::drover_script_is_aliased(self.raw) != 0 }
    }

    fn rejects_path_info(&self) -> bool {
        // SAFETY: the request is live.
        unsafe { (*self.raw).used_path_info == ffi::AP_REQ_REJECT_PATH_INFO }
    }

    fn log_level(&self) -> u8 {
        // SAFETY: the request is live.
        u8::try_from(unsafe { ffi::drover_level_request(self.raw) }).unwrap_or(0)
    }

    fn log(&self, level: Level, code: Code, text: &str) {
        log::request(self.raw, level, code, text);
    }

    fn set_error_header(&mut self, name: &'static CStr, value: &str) {
        let value = self.pooled(value.as_bytes());
        // SAFETY: the name is static, the value lies in the request's pool.
        unsafe { ffi::apr_table_setn((*self.raw).err_headers_out, name.as_ptr(), value) };
    }

    fn reset_status(&mut self) {
        // SAFETY: the request is live; a null status_line means "by the number" (httpd.h).
        unsafe {
            (*self.raw).status = ffi::HTTP_OK;
            (*self.raw).status_line = ptr::null();
        }
    }

    fn redirect_internally(&mut self, url: &[u8]) {
        let url = self.pooled(url);
        // SAFETY: as mod_cgi does before ap_internal_redirect: the method becomes GET, the body's length is forgotten.
        unsafe {
            (*self.raw).method = c"GET".as_ptr();
            (*self.raw).method_number = ffi::M_GET;
            ffi::apr_table_unset((*self.raw).headers_in, c"Content-Length".as_ptr());
            ffi::ap_internal_redirect(url, self.raw);
        }
    }

    fn server_version(&self) -> String {
        super::version()
    }
}
