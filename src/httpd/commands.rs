//! The directive table as httpd's command_rec array, and the configurations that directives write
//! into.
//!
//! Responsible for: one trampoline from C to `config::Directive::apply`; creating, merging and
//! freeing configurations. Must never: know a single directive. Called by: httpd while it reads its
//! configuration (and .htaccess files, on any thread).
use super::guard::guard;
use super::{beside, ffi, log};
use crate::config::arguments::Arguments;
use crate::config::{
    Added, AliasPattern, ConfigError, Context, Contexts, DIRECTIVES, DirConfig, Directive, Effect, InterpreterScope, ServerConfig, Target,
};
use crate::messages::Code;
use crate::resolved;
use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

/// Our data of a server_rec.
pub struct ServerSlot {
    /// Its configuration.
    pub config: ServerConfig,
    /// The compiled pattern of each of `config.aliases`; null for a prefix. Filled in post_config.
    pub patterns: Vec<*mut ffi::ap_regex_t>,
    /// The settings of sessions. Filled in post_config; `None`: sessions are off.
    pub session: Option<crate::session::Settings>,
    /// The current block of `<WSGIInterpreterOptions>`.
    scope: Option<InterpreterScope>,
}

/// Allocates a value that is dropped when the pool is cleared.
fn in_pool<T>(pool: *mut ffi::apr_pool_t, value: T) -> *mut T {
    unsafe extern "C" fn free<T>(data: *mut c_void) -> ffi::apr_status_t {
        // SAFETY: registered below with a pointer from Box::into_raw of this very type; APR runs a
        // cleanup once.
        guard((), || drop(unsafe { Box::from_raw(data.cast::<T>()) }));
        ffi::APR_SUCCESS
    }
    let raw = Box::into_raw(Box::new(value));
    // SAFETY: the pool is the one httpd handed to the calling hook; the cleanup frees exactly this
    // box.
    unsafe { ffi::apr_pool_cleanup_register(pool, raw.cast(), Some(free::<T>), Some(ffi::apr_pool_cleanup_null)) };
    raw
}

pub(super) unsafe extern "C" fn create_server(pool: *mut ffi::apr_pool_t, _: *mut ffi::server_rec) -> *mut c_void {
    guard(ptr::null_mut(), || {
        in_pool(pool, ServerSlot { config: ServerConfig::default(), patterns: Vec::new(), session: None, scope: None }).cast()
    })
}

pub(super) unsafe extern "C" fn merge_server(pool: *mut ffi::apr_pool_t, base: *mut c_void, new: *mut c_void) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: httpd hands back what create_server or merge_server made (http_config.h).
        let (base, new) = unsafe { (&*base.cast::<ServerSlot>(), &*new.cast::<ServerSlot>()) };
        in_pool(
            pool,
            ServerSlot { config: ServerConfig::merge(&base.config, &new.config), patterns: Vec::new(), session: None, scope: None },
        )
        .cast()
    })
}

pub(super) unsafe extern "C" fn create_dir(pool: *mut ffi::apr_pool_t, _: *mut c_char) -> *mut c_void {
    guard(ptr::null_mut(), || in_pool(pool, DirConfig::default()).cast())
}

pub(super) unsafe extern "C" fn merge_dir(pool: *mut ffi::apr_pool_t, base: *mut c_void, new: *mut c_void) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: httpd hands back what create_dir or merge_dir made (http_config.h).
        let (base, new) = unsafe { (&*base.cast::<DirConfig>(), &*new.cast::<DirConfig>()) };
        in_pool(pool, DirConfig::merge(base, new)).cast()
    })
}

/// The array that the module record points to. It holds names and function pointers only, no
/// configuration.
pub(super) struct Commands(UnsafeCell<[ffi::command_rec; MAX_COMMANDS]>);

const MAX_COMMANDS: usize = 96;

// SAFETY: written only by `commands()`, from the single-threaded loading of the module, before
// httpd reads it.
unsafe impl Sync for Commands {}

const END: ffi::command_rec = ffi::command_rec {
    name: ptr::null(),
    func: ffi::cmd_func { no_args: None },
    cmd_data: ptr::null_mut(),
    req_override: 0,
    args_how: ffi::cmd_how_RAW_ARGS,
    errmsg: ptr::null(),
};

const fn allowed(contexts: Contexts) -> i32 {
    match contexts {
        Contexts::GlobalOnly | Contexts::Server => ffi::RSRC_CONF,
        Contexts::Directory => ffi::RSRC_CONF | ffi::ACCESS_CONF,
        Contexts::FileInfo => ffi::OR_FILEINFO,
        Contexts::AuthConfig => ffi::OR_AUTHCFG,
    }
}

impl Commands {
    const fn build() -> Self {
        let mut all = [END; MAX_COMMANDS];
        let mut i = 0;
        while i < DIRECTIVES.len() {
            // One entry stays free for the terminator. Too many rows fail to compile.
            assert!(i < MAX_COMMANDS - 1);
            #[allow(clippy::indexing_slicing)] // evaluated by the compiler
            {
                let d: &'static Directive = &DIRECTIVES[i];
                all[i] = ffi::command_rec {
                    name: d.name.as_ptr(),
                    func: ffi::cmd_func { raw_args: Some(trampoline) },
                    cmd_data: ptr::from_ref(d).cast_mut().cast(),
                    req_override: allowed(d.contexts),
                    args_how: ffi::cmd_how_RAW_ARGS,
                    errmsg: d.summary.as_ptr(),
                };
            }
            i += 1;
        }
        #[allow(clippy::indexing_slicing)] // evaluated by the compiler
        {
            assert!(i < MAX_COMMANDS - 1);
            all[i] = beside::LOAD_MODULE;
        }
        Self(UnsafeCell::new(all))
    }

    pub(super) const fn as_ptr(&self) -> *const ffi::command_rec {
        self.0.get().cast_const().cast()
    }
}

pub(super) static COMMANDS: Commands = Commands::build();

const GROUP_NAMES: &CStr = c"mod_drover:groups";

/// The names of all groups defined so far, kept on the configuration's pool.
unsafe fn group_names<'a>(pool: *mut ffi::apr_pool_t) -> &'a mut Vec<Vec<u8>> {
    // SAFETY: the caller's; nothing else is stored under this key.
    unsafe { on_pool(pool, GROUP_NAMES) }
}

/// A list that lives as long as the configuration.
///
/// # Safety
/// `pool` must be the live configuration's, and each key must be used with one type.
unsafe fn on_pool<'a, T>(pool: *mut ffi::apr_pool_t, key: &'static CStr) -> &'a mut Vec<T> {
    let mut found: *mut c_void = ptr::null_mut();
    // SAFETY: the configuration pass is single-threaded (main.c); the value under the key is always
    // the Vec stored here.
    unsafe {
        ffi::apr_pool_userdata_get(&raw mut found, key.as_ptr(), pool);
        if found.is_null() {
            found = in_pool(pool, Vec::<T>::new()).cast();
            ffi::apr_pool_userdata_setn(found, key.as_ptr(), None, pool);
        }
        &mut *found.cast()
    }
}

/// A directive of the configuration with its file and line.
struct SourceLocation {
    directive: &'static str,
    argument: Vec<u8>,
    at: String,
    /// Inside a section such as `<Directory>`.
    in_section: bool,
}

const SOURCE_LOCATIONS: &CStr = c"mod_drover:source_locations";

/// A group that a directive names, with the file and line of the directive.
pub(super) struct Named {
    pub(super) server: *mut ffi::server_rec,
    pub(super) directive: &'static str,
    pub(super) name: Vec<u8>,
    pub(super) at: String,
}

const NAMED: &CStr = c"mod_drover:named";

/// The groups that this configuration names for all requests.
///
/// # Safety
/// `pool` must be the live configuration's.
pub(super) unsafe fn named_groups<'a>(pool: *mut ffi::apr_pool_t) -> &'a mut Vec<Named> {
    // SAFETY: the caller's; nothing else is stored under this key.
    unsafe { on_pool(pool, NAMED) }
}

/// The source locations of all directives of this configuration.
unsafe fn source_locations<'a>(pool: *mut ffi::apr_pool_t) -> &'a mut Vec<SourceLocation> {
    // SAFETY: the caller's; nothing else is stored under this key.
    unsafe { on_pool(pool, SOURCE_LOCATIONS) }
}

/// ` (file:line)` of the directive that a problem is about, else of the last directive of that
/// name; empty if there is none.
///
/// # Safety
/// `pool` must be the live configuration's.
pub(super) unsafe fn place_of(pool: *mut ffi::apr_pool_t, problem: &resolved::Problem) -> String {
    // SAFETY: the caller's promise.
    let all = unsafe { source_locations(pool) };
    let named = |place: &&SourceLocation| place.directive == problem.directive;
    let exact = all.iter().filter(named).find(|place| place.argument.eq_ignore_ascii_case(&problem.argument));
    exact.or_else(|| all.iter().rfind(named)).map(|place| place.at.clone()).unwrap_or_default()
}

/// Whether a section such as `<Directory>` chooses groups, so that the aliases alone do not tell
/// where scripts run.
///
/// # Safety
/// `pool` must be the live configuration's.
pub(super) unsafe fn sections_choose_groups(pool: *mut ffi::apr_pool_t) -> bool {
    // SAFETY: the caller's promise.
    unsafe { source_locations(pool) }.iter().any(|p| p.in_section && matches!(p.directive, "WSGIProcessGroup" | "WSGIApplicationGroup"))
}

unsafe extern "C" fn trampoline(cmd: *mut ffi::cmd_parms, dir: *mut c_void, args: *const c_char) -> *const c_char {
    guard(c"internal error; see the error log".as_ptr(), || {
        // SAFETY: httpd gives a live cmd_parms whose cmd is one of ours, our own dir config, and
        // the rest of the line.
        unsafe { run(cmd, dir.cast(), CStr::from_ptr(args).to_bytes()) }
    })
}

unsafe fn run(cmd: *mut ffi::cmd_parms, dir: *mut DirConfig, args: &[u8]) -> *const c_char {
    // SAFETY: as for the trampoline. The server's slot was made by create_server; its pointer is
    // read here, not kept.
    unsafe {
        let directive = &*(*(*cmd).cmd).cmd_data.cast::<Directive>();
        let slot: *mut ServerSlot = slot_of((*cmd).server);
        let context = context_of(cmd);
        let is_htaccess = context == Context::Htaccess;
        let result = if is_htaccess { apply_htaccess(directive, dir, args) } else { apply(cmd, directive, dir, slot, context, args) };
        let effect = match result {
            Ok(effect) => effect,
            Err(e) => return pooled((*cmd).pool, &e.to_string()),
        };
        if let Some(text) = &effect.notice {
            notice(cmd, Code::NoEffect, text);
        }
        if is_htaccess {
            return ptr::null();
        }
        if let Err(text) = check(cmd, directive, &effect.added) {
            return pooled((*cmd).pool, &text);
        }
        if directive.container {
            return walk(cmd, slot, args);
        }
        ptr::null()
    }
}

unsafe fn context_of(cmd: *mut ffi::cmd_parms) -> Context {
    // SAFETY: as for the trampoline.
    unsafe {
        let htaccess = !ffi::ap_check_cmd_context(cmd, ffi::NOT_IN_HTACCESS as _).is_null();
        match ((*cmd).path.is_null(), htaccess) {
            (_, true) => Context::Htaccess,
            (false, _) => Context::Directory,
            (true, _) if (*(*cmd).server).is_virtual != 0 => Context::VirtualHost,
            (true, _) => Context::Server,
        }
    }
}

/// Applies a directive of a .htaccess file. This runs in a request's thread, so it touches nothing
/// of the server.
unsafe fn apply_htaccess(directive: &Directive, dir: *mut DirConfig, args: &[u8]) -> Result<Effect, ConfigError> {
    let mut unused = ServerConfig::default();
    // SAFETY: as for the trampoline.
    let dir = unsafe { &mut *dir };
    directive.apply(&mut Target { server: &mut unused, dir, context: Context::Htaccess, scope: None, defined_groups: &[] }, args)
}

/// Applies a directive of httpd's own configuration, and records its source location and the groups
/// that it names.
unsafe fn apply(
    cmd: *mut ffi::cmd_parms,
    directive: &'static Directive,
    dir: *mut DirConfig,
    slot: *mut ServerSlot,
    context: Context,
    args: &[u8],
) -> Result<Effect, ConfigError> {
    // SAFETY: as for the trampoline; the slot is the server's.
    unsafe {
        let (pool, server) = ((*cmd).pool, (*cmd).server);
        let defined = group_names(pool);
        let scope = (*slot).scope.clone();
        let mut target = Target { server: &mut (*slot).config, dir: &mut *dir, context, scope: scope.as_ref(), defined_groups: defined };
        let effect = directive.apply(&mut target, args)?;
        let (directive, added) = (directive.title(), &effect.added);
        defined.extend(added.group.iter().map(|group| group.name.clone()));
        named_groups(pool).extend(added.named_groups.iter().map(|name| Named { server, directive, name: name.clone(), at: at(cmd) }));
        let argument = Arguments::new(args).next().unwrap_or_default();
        source_locations(pool).push(SourceLocation { directive, argument, at: at(cmd), in_section: context == Context::Directory });
        Ok(effect)
    }
}

/// Checks what a directive has added against the system. An error here carries the file and line of
/// the directive.
unsafe fn check(cmd: *mut ffi::cmd_parms, directive: &Directive, added: &Added) -> Result<(), String> {
    if let Some(group) = &added.group {
        resolved::check(group, &super::system::Host).map_err(|problem| problem.to_string())?;
    }
    for text in resolved::missing(added, &super::system::Host) {
        // SAFETY: as for the trampoline.
        unsafe { notice(cmd, Code::Doubtful, &text) };
    }
    // SAFETY: as for the trampoline.
    let pool = unsafe { &mut *(*cmd).pool };
    if let Some(AliasPattern::Regex(pattern)) = added.alias.as_ref().map(|alias| &alias.pattern)
        && super::regex(pool, pattern).is_none()
    {
        return Err(format!("{}: '{}' is not a valid regular expression", directive.title(), pattern.escape_ascii()));
    }
    Ok(())
}

/// Reads the directives inside `<WSGIInterpreterOptions …>`.
unsafe fn walk(cmd: *mut ffi::cmd_parms, slot: *mut ServerSlot, args: &[u8]) -> *const c_char {
    // SAFETY: as for the trampoline; ap_walk_config calls back into it for each directive inside,
    // on the same thread.
    unsafe {
        match InterpreterScope::parse(args) {
            Ok(scope) => (*slot).scope = Some(scope),
            Err(_) => return pooled((*cmd).pool, "<WSGIInterpreterOptions>: invalid arguments"),
        }
        let error = ffi::ap_walk_config((*(*cmd).directive).first_child, cmd, (*cmd).context);
        (*slot).scope = None;
        error
    }
}

pub(super) fn pooled(pool: *mut ffi::apr_pool_t, text: &str) -> *const c_char {
    let text = CString::new(text.replace('\0', "?")).unwrap_or_default();
    // SAFETY: the copy lives as long as the pool, which outlives the report of the error.
    unsafe { ffi::apr_pstrdup(pool, text.as_ptr()) }
}

/// ` (file:line)` of the current directive.
unsafe fn at(cmd: *mut ffi::cmd_parms) -> String {
    // SAFETY: httpd's file names are strings of the configuration's pool.
    unsafe {
        let directive = (*cmd).directive;
        if directive.is_null() || (*directive).filename.is_null() {
            String::new()
        } else {
            format!(" ({}:{})", CStr::from_ptr((*directive).filename).to_string_lossy(), (*directive).line_num)
        }
    }
}

/// Whether httpd reads its configuration for the first time: at `apachectl -t`, and at start, where
/// it reads it twice.
pub(super) fn first_pass() -> bool {
    // SAFETY: asks for a number (http_main.h).
    unsafe { ffi::ap_state_query(ffi::AP_SQ_MAIN_STATE) == ffi::AP_SQ_MS_CREATE_PRE_CONFIG }
}

/// Logs a notice, once at a start.
unsafe fn notice(cmd: *mut ffi::cmd_parms, code: Code, text: &str) {
    if first_pass() {
        // SAFETY: the caller's.
        let place = unsafe { at(cmd) };
        log::startup(log::Level::Notice, code, &format!("{text}{place}"));
    }
}

/// Our slot of a server.
///
/// # Safety
/// `server` must be a server_rec of the live configuration.
pub(super) unsafe fn slot_of(server: *mut ffi::server_rec) -> *mut ServerSlot {
    // SAFETY: httpd has called create_server for it and keeps the result at our index.
    unsafe { ffi::ap_get_module_config((*server).module_config, super::module::record()).cast() }
}

/// Our configuration of a request's directory.
///
/// # Safety
/// `r` must be a live request.
pub(super) unsafe fn dir_of<'r>(r: *mut ffi::request_rec) -> &'r DirConfig {
    // SAFETY: httpd has called create_dir for it; the value lives as long as the request.
    unsafe { &*ffi::ap_get_module_config((*r).per_dir_config, super::module::record()).cast() }
}
