//! The directive table as httpd's command_rec array, and the configurations that directives write into.
//!
//! Responsible for: one trampoline from C to `config::Directive::apply`; creating, merging and freeing configurations. Must
//! never: know a single directive. Called by: httpd while it reads its configuration (and .htaccess files, on any thread).
use super::guard::guard;
use super::{beside, ffi, log};
use crate::config::words::Words;
use crate::config::{
    AliasPattern, ConfigError, Context, Contexts, DIRECTIVES, DirConfig, Directive, Effect, InterpreterScope, ServerConfig, Target,
};
use crate::messages::Code;
use crate::resolved::{self, Added};
use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

/// What hangs on a server_rec.
pub struct ServerSlot {
    /// Its configuration.
    pub config: ServerConfig,
    /// Compiled patterns, at the places of `config.aliases`; null for a prefix. Filled in post_config.
    pub patterns: Vec<*mut ffi::ap_regex_t>,
    /// What holds for sessions. Filled in post_config; `None`: they are off.
    pub session: Option<crate::session::Settings>,
    /// The block of `<WSGIInterpreterOptions>` that is being read.
    scope: Option<InterpreterScope>,
}

/// Puts a value under a pool's care: it is dropped when the pool is cleared.
fn in_pool<T>(pool: *mut ffi::apr_pool_t, value: T) -> *mut T {
    unsafe extern "C" fn free<T>(data: *mut c_void) -> ffi::apr_status_t {
        // SAFETY: registered below with a pointer from Box::into_raw of this very type; APR runs a cleanup once.
        guard((), || drop(unsafe { Box::from_raw(data.cast::<T>()) }));
        ffi::APR_SUCCESS
    }
    let raw = Box::into_raw(Box::new(value));
    // SAFETY: the pool is the one httpd handed to the calling hook; the cleanup frees exactly this box.
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

/// The array that the module record points to. Filled once; it holds names and function pointers only, no configuration.
pub(super) struct Commands(UnsafeCell<[ffi::command_rec; MAX_COMMANDS]>);

const MAX_COMMANDS: usize = 96;

// SAFETY: written only by `commands()`, from the single-threaded loading of the module, before httpd reads it.
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
            // One place stays for the terminating entry; more rows than places would not compile.
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
        #[allow(clippy::indexing_slicing)] // as above: one more, and the terminating entry behind it
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

/// A list that lives as long as the configuration. Safe when nothing of another type is stored under the key.
unsafe fn on_pool<'a, T>(pool: *mut ffi::apr_pool_t, key: &'static CStr) -> &'a mut Vec<T> {
    let mut found: *mut c_void = ptr::null_mut();
    // SAFETY: the configuration pass is single-threaded (main.c); the value under the key is always the Vec stored here.
    unsafe {
        ffi::apr_pool_userdata_get(&raw mut found, key.as_ptr(), pool);
        if found.is_null() {
            found = in_pool(pool, Vec::<T>::new()).cast();
            ffi::apr_pool_userdata_setn(found, key.as_ptr(), None, pool);
        }
        &mut *found.cast()
    }
}

/// A directive of the configuration, and where it stands.
struct Place {
    directive: &'static str,
    argument: Vec<u8>,
    at: String,
    /// In a section such as `<Directory>`.
    in_section: bool,
}

const PLACES: &CStr = c"mod_drover:places";

/// How much there was before a directive.
struct Counts {
    groups: usize,
    aliases: usize,
    imports: usize,
    python_home: Option<Vec<u8>>,
}

impl Counts {
    fn of(config: &ServerConfig) -> Self {
        let python_home = config.python_home.clone();
        Self { groups: config.groups.len(), aliases: config.aliases.len(), imports: config.imports.len(), python_home }
    }

    fn added<'c>(&self, config: &'c ServerConfig) -> Added<'c> {
        Added {
            groups: config.groups.get(self.groups..).unwrap_or_default(),
            aliases: config.aliases.get(self.aliases..).unwrap_or_default(),
            imports: config.imports.get(self.imports..).unwrap_or_default(),
            python_home: config.python_home.as_ref().filter(|home| self.python_home.as_ref() != Some(*home)),
        }
    }
}

/// A group that a directive names, and where.
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

/// Where the directives of this configuration stand.
unsafe fn places<'a>(pool: *mut ffi::apr_pool_t) -> &'a mut Vec<Place> {
    // SAFETY: the caller's; nothing else is stored under this key.
    unsafe { on_pool(pool, PLACES) }
}

/// ` (file:line)` of the directive that a problem is about, or of the last of that name; nothing where it is not written.
///
/// # Safety
/// `pool` must be the live configuration's.
pub(super) unsafe fn place_of(pool: *mut ffi::apr_pool_t, problem: &resolved::Problem) -> String {
    // SAFETY: the caller's promise.
    let all = unsafe { places(pool) };
    let named = |place: &&Place| place.directive == problem.directive;
    let exact = all.iter().filter(named).find(|place| place.argument.eq_ignore_ascii_case(&problem.argument));
    exact.or_else(|| all.iter().rfind(named)).map(|place| place.at.clone()).unwrap_or_default()
}

/// Whether a section such as `<Directory>` chooses groups, so that what an alias says is not the whole of it.
///
/// # Safety
/// `pool` must be the live configuration's.
pub(super) unsafe fn sections_choose_groups(pool: *mut ffi::apr_pool_t) -> bool {
    // SAFETY: the caller's promise.
    unsafe { places(pool) }.iter().any(|p| p.in_section && matches!(p.directive, "WSGIProcessGroup" | "WSGIApplicationGroup"))
}

unsafe extern "C" fn trampoline(cmd: *mut ffi::cmd_parms, dir: *mut c_void, args: *const c_char) -> *const c_char {
    guard(c"internal error; see the error log".as_ptr(), || {
        // SAFETY: httpd gives a live cmd_parms whose cmd is one of ours, our own dir config, and the rest of the line.
        unsafe { run(cmd, dir.cast(), CStr::from_ptr(args).to_bytes()) }
    })
}

unsafe fn run(cmd: *mut ffi::cmd_parms, dir: *mut DirConfig, args: &[u8]) -> *const c_char {
    // SAFETY: as for the trampoline. The server's slot was made by create_server; its pointer is read here, not kept.
    unsafe {
        let directive = &*(*(*cmd).cmd).cmd_data.cast::<Directive>();
        let slot: *mut ServerSlot = slot_of((*cmd).server);
        let context = context_of(cmd);
        let htaccess = context == Context::Htaccess;
        let before = Counts::of(config(slot));
        let result = if htaccess { apply_htaccess(directive, dir, args) } else { apply(cmd, directive, dir, slot, context, args) };
        match result {
            Ok(Effect::Notice(text)) => notice(cmd, Code::NoEffect, &text),
            Ok(_) => {}
            Err(e) => return pooled((*cmd).pool, &e.to_string()),
        }
        if let Err(text) = look_at(cmd, directive, config(slot), &before, htaccess) {
            return pooled((*cmd).pool, &text);
        }
        if directive.container {
            return walk(cmd, dir, slot, args);
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

/// On a request's thread: nothing of the server may be touched.
unsafe fn apply_htaccess(directive: &Directive, dir: *mut DirConfig, args: &[u8]) -> Result<Effect, ConfigError> {
    let (mut nothing, mut named) = (ServerConfig::default(), Vec::new());
    // SAFETY: as for the trampoline.
    let dir = unsafe { &mut *dir };
    let server = &mut nothing;
    // Which groups there are is seen when the request comes.
    let named_groups = &mut named;
    directive.apply(&mut Target { server, dir, context: Context::Htaccess, scope: None, defined_groups: &[], named_groups }, args)
}

/// While httpd reads its own configuration: where the directive stands and what it names is remembered.
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
        let names = group_names(pool);
        let known = config(slot).groups.len();
        let scope = (*slot).scope.clone();
        let mut named = Vec::new();
        let mut target = Target {
            server: &mut (*slot).config,
            dir: &mut *dir,
            context,
            scope: scope.as_ref(),
            defined_groups: names,
            named_groups: &mut named,
        };
        let result = directive.apply(&mut target, args);
        names.extend(config(slot).groups.iter().skip(known).map(|g| g.name.clone()));
        let directive = directive.title();
        named_groups(pool).extend(named.into_iter().map(|name| Named { server, directive, name, at: at(cmd) }));
        let argument = Words::new(args).word().unwrap_or_default();
        places(pool).push(Place { directive, argument, at: at(cmd), in_section: context == Context::Directory });
        result
    }
}

/// Whether what the directive has added can be used. Here, not later: the error then carries file and line.
unsafe fn look_at(
    cmd: *mut ffi::cmd_parms,
    directive: &Directive,
    config: &ServerConfig,
    before: &Counts,
    htaccess: bool,
) -> Result<(), String> {
    let added = before.added(config);
    for group in added.groups {
        resolved::check(group, &super::system::Host).map_err(|problem| problem.to_string())?;
    }
    if htaccess {
        return Ok(());
    }
    for text in resolved::missing(&added, &super::system::Host) {
        // SAFETY: as for the trampoline.
        unsafe { notice(cmd, Code::Doubtful, &text) };
    }
    // SAFETY: as for the trampoline.
    let pool = unsafe { &mut *(*cmd).pool };
    if let Some(AliasPattern::Regex(pattern)) = config.aliases.last().map(|a| &a.pattern)
        && super::regex(pool, pattern).is_none()
    {
        return Err(format!("{}: '{}' is not a valid regular expression", directive.title(), pattern.escape_ascii()));
    }
    Ok(())
}

/// Reads the directives inside `<WSGIInterpreterOptions …>`.
unsafe fn walk(cmd: *mut ffi::cmd_parms, dir: *mut DirConfig, slot: *mut ServerSlot, args: &[u8]) -> *const c_char {
    // SAFETY: as for the trampoline; ap_walk_config calls back into it for each directive inside, on the same thread.
    unsafe {
        match InterpreterScope::parse(args) {
            Ok(scope) => (*slot).scope = Some(scope),
            Err(_) => return pooled((*cmd).pool, "<WSGIInterpreterOptions>: invalid arguments"),
        }
        let _ = dir;
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

/// ` (file:line)` of the directive that is being read.
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

/// Whether httpd reads its configuration for the first time: `apachectl -t`, or the start, which reads it once more then.
pub(super) fn first_pass() -> bool {
    // SAFETY: asks for a number (http_main.h).
    unsafe { ffi::ap_state_query(ffi::AP_SQ_MAIN_STATE) == ffi::AP_SQ_MS_CREATE_PRE_CONFIG }
}

/// Says a notice once a start: in the real pass, or when only the syntax is checked.
unsafe fn notice(cmd: *mut ffi::cmd_parms, code: Code, text: &str) {
    if first_pass() {
        // SAFETY: the caller's.
        let place = unsafe { at(cmd) };
        log::startup(log::Level::Notice, code, &format!("{text}{place}"));
    }
}

/// The configuration in a slot, for reading.
unsafe fn config<'a>(slot: *mut ServerSlot) -> &'a ServerConfig {
    // SAFETY: the caller has a live slot and writes to it only when this reference is no longer used.
    unsafe { &(*slot).config }
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
