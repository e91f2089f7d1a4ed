//! Every directive, one row each.
//!
//! Responsible for the single table from which directives are registered with httpd, parsed, checked for their place and documented: without a
//! row a directive does not exist, and a row without documentation or test does not pass the tests. Must never hold code longer than a line:
//! that is in `set`. Read by `httpd::commands` and `docs`.

use super::error::{ConfigError, Problem};
use super::scalar;
use super::session;
use super::set::{self, Outcome};
use super::target::{Context, Effect, Target};
use super::words::ends_in_quote;
use std::borrow::Cow;
use std::ffi::CStr;

pub struct Directive {
    /// As httpd registers it: a container has its opening bracket.
    pub name: &'static CStr,
    pub theme: Theme,
    pub contexts: Contexts,
    /// `<Name …>` with directives inside.
    pub container: bool,
    /// May stand inside `<WSGIInterpreterOptions>`.
    pub scopable: bool,
    /// The arguments.
    pub synopsis: &'static str,
    pub default: &'static str,
    /// One line, for `httpd -L` and the commented configuration file.
    pub summary: &'static CStr,
    /// For the administrator, in Markdown.
    pub doc: &'static str,
    /// In what it differs from mod_wsgi; empty if in nothing.
    pub difference: &'static str,
    /// Accepted for mod_wsgi's sake, and this is why it changes nothing.
    pub notice: Option<&'static str>,
    /// The test that covers it.
    pub test: &'static str,
    set: fn(&mut Target<'_>, &[u8]) -> Outcome,
}

/// The sections of the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    Scripts,
    Groups,
    Python,
    Requests,
    Proxies,
    Operation,
    Sessions,
    Later,
    Inert,
}

impl Theme {
    pub const ALL: [Self; 9] = [
        Self::Scripts,
        Self::Groups,
        Self::Python,
        Self::Requests,
        Self::Proxies,
        Self::Operation,
        Self::Sessions,
        Self::Later,
        Self::Inert,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Scripts => "Scripts and their URLs",
            Self::Groups => "Process and application groups",
            Self::Python => "Python",
            Self::Requests => "Requests and responses",
            Self::Sessions => "Sessions",
            Self::Proxies => "Behind a proxy",
            Self::Operation => "Operation",
            Self::Later => "Not available yet",
            Self::Inert => "Accepted without effect",
        }
    }
}

/// Where a directive may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contexts {
    /// Outside of all sections. httpd's RSRC_CONF, and an error inside `<VirtualHost>`.
    GlobalOnly,
    /// Server and virtual host. httpd's RSRC_CONF.
    Server,
    /// The same and directories. httpd's RSRC_CONF | ACCESS_CONF.
    Directory,
    /// The same and .htaccess files, with AllowOverride FileInfo. httpd's OR_FILEINFO.
    FileInfo,
    /// Directories, and .htaccess files with AllowOverride AuthConfig. httpd's OR_AUTHCFG.
    AuthConfig,
}

impl Contexts {
    pub fn allow(self, context: Context) -> bool {
        match context {
            Context::Server => self != Self::AuthConfig,
            Context::VirtualHost => matches!(self, Self::Server | Self::Directory | Self::FileInfo),
            Context::Directory => matches!(self, Self::Directory | Self::FileInfo | Self::AuthConfig),
            Context::Htaccess => matches!(self, Self::FileInfo | Self::AuthConfig),
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Self::GlobalOnly => "server config",
            Self::Server => "server config, virtual host",
            Self::Directory => "server config, virtual host, directory",
            Self::FileInfo => "server config, virtual host, directory, .htaccess (AllowOverride FileInfo)",
            Self::AuthConfig => "directory, .htaccess (AllowOverride AuthConfig)",
        }
    }
}

impl Directive {
    /// The name as the administrator writes it, without the bracket of a container.
    pub fn title(&self) -> &'static str {
        let name = self.name.to_str().unwrap_or_default();
        name.strip_prefix('<').unwrap_or(name)
    }

    /// Reads the directive into the target, which is left alone if it is refused.
    pub fn apply(&self, target: &mut Target<'_>, raw: &[u8]) -> Result<Effect, ConfigError> {
        let outcome = self.check_place(target).and_then(|()| (self.set)(target, raw)).map(|effect| match ends_in_quote(raw) {
            true => effect.and(OPEN_QUOTE.into()),
            false => effect,
        });
        match (outcome, self.notice) {
            (Ok(Effect::Applied), Some(notice)) => Ok(Effect::Notice(Cow::Owned(format!("{} has no effect: {notice}", self.title())))),
            (Ok(Effect::Notice(text)), _) => Ok(Effect::Notice(Cow::Owned(format!("{}: {text}", self.title())))),
            (Ok(Effect::Applied), None) => Ok(Effect::Applied),
            (Err(problem), _) => Err(ConfigError { directive: self.title(), synopsis: self.synopsis, problem }),
        }
    }

    fn check_place(&self, target: &Target<'_>) -> Result<(), Problem> {
        if target.scope.is_some() && !self.scopable {
            return Err(Problem::Misplaced("cannot occur within <WSGIInterpreterOptions> section: put it outside, it cannot be narrowed"));
        }
        if self.contexts.allow(target.context) {
            return Ok(());
        }
        Err(Problem::Misplaced(match (self.contexts, target.context) {
            (Contexts::AuthConfig, _) => "must occur within <Directory>, <Location> or <Files> section or a .htaccess file",
            (Contexts::GlobalOnly, Context::VirtualHost) => {
                "cannot occur within <VirtualHost> section: put it outside, it is for the whole server"
            }
            (_, Context::Htaccess) => "cannot occur within a .htaccess file: put it into the server's configuration",
            _ => "cannot occur within <Directory/Location/Files> section: put it outside, into the server or virtual host",
        }))
    }
}

const OPEN_QUOTE: &str = "a quote is not closed, so all that follows it is one word";

/// The directive of that name, in any case of letters as httpd has it.
pub fn directive(name: &[u8]) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|row| row.name.to_bytes().eq_ignore_ascii_case(name))
}

/// The common parts of a row; a row names what it changes.
const ROW: Directive = Directive {
    name: c"",
    theme: Theme::Inert,
    contexts: Contexts::GlobalOnly,
    container: false,
    scopable: false,
    synopsis: "",
    default: "none",
    summary: c"",
    doc: "",
    difference: "",
    notice: None,
    test: "",
    set: |_, _| Ok(Effect::Applied),
};

pub static DIRECTIVES: &[Directive] = &[
    Directive {
        name: c"WSGIScriptAlias",
        theme: Theme::Scripts,
        contexts: Contexts::Server,
        synopsis: "url-path path [process-group=name] [application-group=name] [callable-object=name] [pass-authorization=On|Off]",
        summary: c"Map a URL path to a WSGI script, or to a directory of scripts",
        doc: "Requests whose path begins with *url-path* go to the script *path*. If both end with a slash, *path* is a directory of scripts. The first alias that matches is taken, those of a virtual host before those of the server. The script needs no `Options ExecCGI`, but its directory needs `Require`.\n\nThe options do the same as WSGIProcessGroup, WSGIApplicationGroup, WSGICallableObject and WSGIPassAuthorization, for this alias, and win over them. If both groups are the same for all requests, the script is loaded as soon as a process starts. That holds for the options, where WSGIDaemonProcess must stand above then, and for WSGIProcessGroup and WSGIApplicationGroup in the same server or virtual host; inside a `<Directory>` those two load nothing in advance.",
        set: |t, raw| set::script_alias(t, raw, false),
        test: "script_aliases",
        ..ROW
    },
    Directive {
        name: c"WSGIScriptAliasMatch",
        theme: Theme::Scripts,
        contexts: Contexts::Server,
        synopsis: "regex path [process-group=name] [application-group=name] [callable-object=name] [pass-authorization=On|Off]",
        summary: c"Map URL paths that match a regular expression to a WSGI script",
        doc: "As WSGIScriptAlias, with a regular expression. `$1` to `$9` in *path* stand for its groups; a script with `$` in its path is not loaded in advance.",
        set: |t, raw| set::script_alias(t, raw, true),
        test: "script_aliases",
        ..ROW
    },
    Directive {
        name: c"WSGICallableObject",
        theme: Theme::Scripts,
        contexts: Contexts::FileInfo,
        synopsis: "name|%{ENV:variable}",
        default: "application",
        summary: c"Name of the application object in the script",
        doc: "The object in the script that is called for each request.",
        set: |t, raw| set::put_expr(raw, |v| t.settings().callable_object = Some(v)),
        test: "names_that_depend_on_the_request",
        ..ROW
    },
    Directive {
        name: c"WSGIImportScript",
        theme: Theme::Scripts,
        contexts: Contexts::Server,
        synopsis: "path process-group=name application-group=name",
        summary: c"Load a script when a process starts",
        doc: "The script is loaded by each process of the group, for the application group, before it takes requests. Both options are required, and WSGIDaemonProcess must stand above. For scripts of WSGIScriptAlias its two options of the same names do this, and WSGIProcessGroup with WSGIApplicationGroup in the same server or virtual host.",
        difference: "With an application group that depends on the request nothing is loaded, and a notice says so; mod_wsgi loads the script into a group of that literal name.",
        set: set::import_script,
        test: "import_scripts",
        ..ROW
    },
    Directive {
        name: c"WSGIScriptReloading",
        theme: Theme::Scripts,
        contexts: Contexts::FileInfo,
        synopsis: "On|Off",
        default: "On",
        summary: c"Reload an application when its script file changes",
        doc: "When the time of modification of the script changes, its processes are replaced.",
        difference: "New processes are up before old ones go; in mod_wsgi the process ends first and is then started again.",
        set: |t, raw| set::put(raw, scalar::flag, |v| t.settings().script_reloading = Some(v)),
        test: "switches_per_directory",
        ..ROW
    },
    Directive {
        name: c"WSGICaseSensitivity",
        theme: Theme::Scripts,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "On",
        summary: c"Whether the file system tells capital from small letters",
        doc: "Off: the paths of scripts are compared, and the application groups that `%{RESOURCE}` gives are made, in small letters.",
        set: |t, raw| set::put(raw, scalar::flag, |v| t.server.case_sensitivity = Some(v)),
        test: "switches_per_server",
        ..ROW
    },
    Directive {
        name: c"WSGIDaemonProcess",
        theme: Theme::Groups,
        contexts: Contexts::Server,
        synopsis: "name [option=value ...]",
        summary: c"Define a group of daemon processes",
        doc: "Defines a process group, to be named by WSGIProcessGroup or by the option `process-group` of WSGIScriptAlias. The name is unique in the whole server. A group that is defined in a virtual host is for the virtual hosts of the same ServerName only. The options have a section of their own below.",
        set: set::daemon_process,
        test: "daemon_groups",
        ..ROW
    },
    Directive {
        name: c"WSGIProcessGroup",
        theme: Theme::Groups,
        contexts: Contexts::Directory,
        synopsis: "name|%{GLOBAL}|%{SERVER}|%{HOST}|%{RESOURCE}|%{ENV:variable}",
        default: "%{GLOBAL}",
        summary: c"Process group that runs the application",
        doc: "Which group of processes runs the applications here. `%{GLOBAL}` is the implicit group `default`, which exists without being defined. `%{SERVER}` is the ServerName, `%{HOST}` the host of the request, either with `:port` unless it is 80 or 443; `%{RESOURCE}` is `%{SERVER}`, a bar, and the URL path of the script; `%{ENV:variable}` is the value of a variable (SetEnv, RewriteRule), which may be one of the others. The group may be defined below.",
        difference: "`%{GLOBAL}` is embedded mode in mod_wsgi, which does not exist here.",
        set: set::process_group,
        test: "names_that_depend_on_the_request",
        ..ROW
    },
    Directive {
        name: c"WSGIApplicationGroup",
        theme: Theme::Groups,
        contexts: Contexts::Directory,
        synopsis: "name|%{GLOBAL}|%{SERVER}|%{HOST}|%{RESOURCE}|%{ENV:variable}",
        default: "%{RESOURCE}",
        summary: c"Application group, hence processes, that the application shares",
        doc: "Applications of the same process group and application group share their processes and may share state; others never do. The expansions are those of WSGIProcessGroup; `%{GLOBAL}` is one name like any other.",
        difference: "In mod_wsgi each application group is a sub-interpreter of the same processes; here each has processes of its own and the main interpreter of each, so that every extension module works in every group.",
        set: |t, raw| set::put_expr(raw, |v| t.settings().application_group = Some(v)),
        test: "names_that_depend_on_the_request",
        ..ROW
    },
    Directive {
        name: c"WSGIRestrictProcess",
        theme: Theme::Groups,
        contexts: Contexts::Directory,
        synopsis: "[name|%{GLOBAL}] ...",
        default: "no restriction",
        summary: c"Process groups that may be chosen here",
        doc: "Only these groups may run applications here; meant for places where WSGIProcessGroup is `%{ENV:variable}` and the variable can be set in a .htaccess file.",
        set: set::restrict_process,
        test: "lists",
        ..ROW
    },
    Directive {
        name: c"WSGIRestrictEmbedded",
        theme: Theme::Groups,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether embedded mode is forbidden",
        doc: "In mod_wsgi, On keeps Python out of Apache's own processes.",
        notice: Some("there is no embedded mode: Python never runs in Apache's own processes, which is what On asks for"),
        set: |t, raw| set::put(raw, scalar::flag, |v| t.server.restrict_embedded = Some(v)),
        test: "switches_per_server",
        ..ROW
    },
    Directive {
        name: c"WSGIPythonHome",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "directory",
        default: "the system's python3",
        summary: c"Virtual environment or Python installation of groups that have none of their own",
        doc: "For every group without `python-home` and `python`, the implicit one included. An absolute path.",
        difference: "May be of any Python version from 3.9 on.",
        set: |t, raw| set::put(raw, scalar::absolute_path, |v| t.server.python_home = Some(v)),
        test: "python_settings",
        ..ROW
    },
    Directive {
        name: c"WSGIPythonPath",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "directory[:directory ...]",
        summary: c"Directories to add to sys.path in the implicit group",
        doc: "For the implicit group; other groups have the option `python-path`. In `<WSGIInterpreterOptions>`: for the interpreters of the block, in addition.",
        difference: "For embedded mode in mod_wsgi, whose place the implicit group takes.",
        scopable: true,
        set: |t, raw| set::put(raw, |v| Ok(scalar::path_list(v)), |v| t.interpreter().python_path = Some(v)),
        test: "python_settings",
        ..ROW
    },
    Directive {
        name: c"WSGIPythonEggs",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "directory",
        summary: c"Directory for PYTHON_EGG_CACHE in the implicit group",
        doc: "For the implicit group; other groups have the option `python-eggs`.",
        set: |t, raw| set::put(raw, set::any, |v| t.server.python_eggs = Some(v)),
        test: "python_settings",
        ..ROW
    },
    Directive {
        name: c"WSGIPythonOptimize",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "0|1|2",
        default: "0",
        summary: c"Level of Python's optimisation, as its option -O",
        doc: "For all groups. 1 leaves out assertions, 2 docstrings too.",
        difference: "mod_wsgi takes any text for a number.",
        set: |t, raw| set::put(raw, set::optimize, |v| t.server.optimize = Some(v)),
        test: "python_settings",
        ..ROW
    },
    Directive {
        name: c"WSGIPythonWarnings",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "filter",
        summary: c"A filter of Python's warnings, as its option -W",
        doc: "For all groups; may be repeated.",
        set: |t, raw| set::put(raw, set::any, |v| t.server.warnings.push(v)),
        test: "python_settings",
        ..ROW
    },
    Directive {
        name: c"WSGIPythonHashSeed",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "random|number",
        default: "random",
        summary: c"Seed of Python's hashing, as PYTHONHASHSEED",
        doc: "For all groups: `random`, or a number from 0 to 4294967295; 0 makes hashing predictable.",
        difference: "`random` means random; mod_wsgi reads it as 0.",
        set: |t, raw| set::put(raw, set::hash_seed, |v| t.server.hash_seed = Some(v)),
        test: "python_settings",
        ..ROW
    },
    Directive {
        name: c"WSGIDontWriteBytecode",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether Python writes no .pyc files, as its option -B",
        doc: "For all groups.",
        set: |t, raw| set::put(raw, scalar::flag, |v| t.server.dont_write_bytecode = Some(v)),
        test: "switches_per_server",
        ..ROW
    },
    Directive {
        name: c"WSGISwitchInterval",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "seconds",
        default: "Python's",
        summary: c"Argument of sys.setswitchinterval()",
        doc: "A positive number such as 0.005. For groups without `switch-interval`; in `<WSGIInterpreterOptions>` for the interpreters of the block.",
        scopable: true,
        set: |t, raw| set::put(raw, scalar::switch_interval, |v| t.interpreter().switch_interval = Some(v)),
        test: "python_settings",
        ..ROW
    },
    Directive {
        name: c"WSGIRestrictStdin",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether reading standard input is an error",
        doc: "On: an application that reads `sys.stdin` gets an exception.",
        scopable: true,
        set: |t, raw| set::put(raw, scalar::flag, |v| t.interpreter().restrict_stdin = Some(v)),
        test: "interpreter_options_are_scoped",
        ..ROW
    },
    Directive {
        name: c"WSGIRestrictStdout",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether writing standard output is an error",
        doc: "On: an application that writes `sys.stdout` gets an exception. Off: what it writes goes to the error log.",
        scopable: true,
        set: |t, raw| set::put(raw, scalar::flag, |v| t.interpreter().restrict_stdout = Some(v)),
        test: "interpreter_options_are_scoped",
        ..ROW
    },
    Directive {
        name: c"WSGIRestrictSignal",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "On",
        summary: c"Whether applications are kept from handling signals",
        doc: "On: `signal.signal()` called by an application is ignored, with a warning in the error log.",
        scopable: true,
        set: |t, raw| set::put(raw, scalar::flag, |v| t.interpreter().restrict_signal = Some(v)),
        test: "interpreter_options_are_scoped",
        ..ROW
    },
    Directive {
        name: c"WSGIPerInterpreterGIL",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether sub-interpreters have locks of their own",
        doc: "In mod_wsgi, On gives each sub-interpreter a lock of its own.",
        notice: Some("every application group has processes of its own, hence a lock of its own, whatever this says"),
        scopable: true,
        set: |t, raw| set::put(raw, scalar::flag, |v| t.interpreter().per_interpreter_gil = Some(v)),
        test: "interpreter_options_are_scoped",
        ..ROW
    },
    Directive {
        name: c"WSGIFreeThreading",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether a free-threaded Python runs without its lock",
        doc: "In mod_wsgi, On runs a free-threaded build of Python without the lock.",
        notice: Some("the interpreter that python= or python-home= names decides whether there is a lock"),
        scopable: true,
        set: |t, raw| set::put(raw, scalar::flag, |v| t.interpreter().free_threading = Some(v)),
        test: "interpreter_options_are_scoped",
        ..ROW
    },
    Directive {
        name: c"<WSGIInterpreterOptions",
        theme: Theme::Python,
        contexts: Contexts::GlobalOnly,
        synopsis: "[process-group=name] [application-group=name]>",
        summary: c"Narrow Python settings to some interpreters",
        doc: "Settings inside are for the interpreters of this process group and application group; an option that is left out means all. Where several blocks match, the one with more options wins, then the later one; search paths add up. `%{GLOBAL}` is the implicit process group, or the global application group. Inside may stand WSGIPythonPath, WSGISwitchInterval, WSGIRestrictStdin, WSGIRestrictStdout, WSGIRestrictSignal, WSGIPerInterpreterGIL and WSGIFreeThreading.",
        difference: "Anything else inside is an error, as mod_wsgi's documentation has it; its code lets it apply to the whole server.",
        container: true,
        set: set::interpreter_options,
        test: "interpreter_options_are_scoped",
        ..ROW
    },
    Directive {
        name: c"WSGIPassAuthorization",
        theme: Theme::Requests,
        contexts: Contexts::FileInfo,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether applications get the Authorization header",
        doc: "On: the application gets HTTP_AUTHORIZATION, for applications that check passwords themselves.",
        set: |t, raw| set::put(raw, scalar::flag, |v| t.settings().pass_authorization = Some(v)),
        test: "switches_per_directory",
        ..ROW
    },
    Directive {
        name: c"WSGIChunkedRequest",
        theme: Theme::Requests,
        contexts: Contexts::FileInfo,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether request bodies of unknown length are accepted",
        doc: "Off: a request with `Transfer-Encoding: chunked` is answered with 411.",
        set: |t, raw| set::put(raw, scalar::flag, |v| t.settings().chunked_request = Some(v)),
        test: "switches_per_directory",
        ..ROW
    },
    Directive {
        name: c"WSGIErrorOverride",
        theme: Theme::Requests,
        contexts: Contexts::FileInfo,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether Apache's error documents replace those of applications",
        doc: "On: for a status of 400 and above, the body of the application is replaced by Apache's ErrorDocument.",
        set: |t, raw| set::put(raw, scalar::flag, |v| t.settings().error_override = Some(v)),
        test: "switches_per_directory",
        ..ROW
    },
    Directive {
        name: c"WSGIMapHEADToGET",
        theme: Theme::Requests,
        contexts: Contexts::FileInfo,
        synopsis: "On|Off|Auto",
        default: "Auto",
        summary: c"Whether applications see GET where the client said HEAD",
        doc: "On: always. Auto: when an output filter needs the body to make the head of the response. Apache cuts the body off again.",
        set: |t, raw| set::put(raw, set::map_head, |v| t.settings().map_head_to_get = Some(v)),
        test: "switches_per_directory",
        ..ROW
    },
    Directive {
        name: c"WSGIIgnoreActivity",
        theme: Theme::Requests,
        contexts: Contexts::FileInfo,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether requests here do not count against inactivity-timeout",
        doc: "On: a request here does not keep a process from being ended by `inactivity-timeout`; for health checks.",
        set: |t, raw| set::put(raw, scalar::flag, |v| t.settings().ignore_activity = Some(v)),
        test: "switches_per_directory",
        ..ROW
    },
    Directive {
        name: c"WSGIEnableSendfile",
        theme: Theme::Requests,
        contexts: Contexts::FileInfo,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether wsgi.file_wrapper may use sendfile",
        doc: "On: a file that an application returns through `wsgi.file_wrapper` may be sent by the kernel.",
        set: |t, raw| set::put(raw, scalar::flag, |v| t.settings().enable_sendfile = Some(v)),
        test: "switches_per_directory",
        ..ROW
    },
    Directive {
        name: c"WSGIPassApacheRequest",
        theme: Theme::Requests,
        contexts: Contexts::Directory,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether applications get Apache's request object",
        doc: "In mod_wsgi, On gives applications in embedded mode the key `apache.request_rec`.",
        notice: Some(
            "the request object exists in Apache's own processes only, where applications never run; as in mod_wsgi's daemon mode there is no apache.request_rec",
        ),
        set: |t, raw| set::put(raw, scalar::flag, |v| t.settings().pass_apache_request = Some(v)),
        test: "switches_per_directory",
        ..ROW
    },
    Directive {
        name: c"WSGITrustedProxyHeaders",
        theme: Theme::Proxies,
        contexts: Contexts::FileInfo,
        synopsis: "header ...",
        summary: c"Headers of a proxy that are believed",
        doc: "From these headers the address of the client, the host, the port, the scheme and SCRIPT_NAME are taken. Of headers that say the same, only the one that was used stays in the environment. Known are X-Forwarded-For, X-Client-IP, X-Real-IP; X-Forwarded-Host, X-Host; X-Forwarded-Server; X-Forwarded-Port; X-Script-Name, X-Forwarded-Script-Name; X-Forwarded-Proto, X-Forwarded-Scheme, X-Scheme, X-Forwarded-HTTPS, X-Forwarded-SSL, X-HTTPS. May be repeated.",
        difference: "A header that is not known is ignored with a notice; in mod_wsgi silently.",
        set: set::trusted_proxy_headers,
        test: "lists",
        ..ROW
    },
    Directive {
        name: c"WSGITrustedProxies",
        theme: Theme::Proxies,
        contexts: Contexts::FileInfo,
        synopsis: "address|network ...",
        default: "everybody",
        summary: c"Proxies whose headers are believed",
        doc: "Addresses and networks such as `10.0.0.0/8` from which the headers of WSGITrustedProxyHeaders are accepted. May be repeated.",
        set: set::trusted_proxies,
        test: "lists",
        ..ROW
    },
    Directive {
        name: c"WSGIAuthUserScript",
        theme: Theme::Later,
        contexts: Contexts::AuthConfig,
        synopsis: "path [application-group=name]",
        summary: c"Check passwords with a script",
        doc: "A script whose `check_password` or `get_realm_hash` Apache asks about a user.",
        set: |_, _| {
            Err(Problem::NotAvailable {
                lacking: "passwords cannot be checked by a Python script",
                advice: "Use another AuthBasicProvider (file, dbd, ldap), or let the application check passwords and set WSGIPassAuthorization On",
            })
        },
        test: "scripts_that_are_not_available_are_refused",
        ..ROW
    },
    Directive {
        name: c"WSGIAuthGroupScript",
        theme: Theme::Later,
        contexts: Contexts::AuthConfig,
        synopsis: "path [application-group=name]",
        summary: c"Find the groups of a user with a script",
        doc: "A script whose `groups_for_user` Apache asks for `Require wsgi-group`.",
        set: |_, _| {
            Err(Problem::NotAvailable {
                lacking: "groups of users cannot be found by a Python script",
                advice: "Use Require group, dbd-group or ldap-group, or let the application decide",
            })
        },
        test: "scripts_that_are_not_available_are_refused",
        ..ROW
    },
    Directive {
        name: c"WSGIAccessScript",
        theme: Theme::Later,
        contexts: Contexts::AuthConfig,
        synopsis: "path [application-group=name]",
        summary: c"Allow or deny hosts with a script",
        doc: "A script whose `allow_access` Apache asks about a client.",
        set: |_, _| {
            Err(Problem::NotAvailable {
                lacking: "access cannot be decided by a Python script",
                advice: "Use Require ip, host or expr, or let the application decide",
            })
        },
        test: "scripts_that_are_not_available_are_refused",
        ..ROW
    },
    Directive {
        name: c"WSGIDispatchScript",
        theme: Theme::Later,
        contexts: Contexts::Directory,
        synopsis: "path [application-group=name]",
        summary: c"Choose groups with a script",
        doc: "A script that chooses the process group, application group and callable of a request.",
        set: |_, _| {
            Err(Problem::NotAvailable {
                lacking: "groups cannot be chosen by a Python script",
                advice: "Set a variable with SetEnvIf or RewriteRule and write WSGIProcessGroup %{ENV:variable}",
            })
        },
        test: "scripts_that_are_not_available_are_refused",
        ..ROW
    },
    Directive {
        name: c"WSGIHandlerScript",
        theme: Theme::Later,
        contexts: Contexts::Directory,
        synopsis: "name path [process-group=name] [application-group=name] [pass-authorization=On|Off]",
        summary: c"Define a handler by a script",
        doc: "A script that answers requests for files of the handler *name*.",
        set: |_, _| {
            Err(Problem::NotAvailable {
                lacking: "handlers cannot be defined by a Python script",
                advice: "Use WSGIScriptAliasMatch, and let the application read PATH_INFO",
            })
        },
        test: "scripts_that_are_not_available_are_refused",
        ..ROW
    },
    Directive {
        name: c"WSGIGroupAuthoritative",
        theme: Theme::Inert,
        contexts: Contexts::AuthConfig,
        synopsis: "On|Off",
        default: "On",
        summary: c"Whether WSGIAuthGroupScript has the last word",
        doc: "Of use only with WSGIAuthGroupScript.",
        notice: Some("it is about WSGIAuthGroupScript, without which mod_wsgi ignores it too"),
        set: |_, raw| set::checked(raw, scalar::flag),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"DroverControlSocket",
        theme: Theme::Operation,
        contexts: Contexts::GlobalOnly,
        synopsis: "path|off",
        default: "drover.sock in the runtime directory",
        summary: c"The socket through which the command drover reaches the server",
        doc: "`drover status`, `drover reload` and `drover stop` connect to it. Everybody may; root and the user of the daemons' supervisor may do everything, the user of a group may see and steer that group. A relative path is below the runtime directory (`DefaultRuntimeDir`); only root should be able to write the directory.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, set::control_socket, |v| t.server.control_socket = Some(v)),
        test: "control_socket",
        ..ROW
    },
    Directive {
        name: c"DroverMaxWaiting",
        theme: Theme::Operation,
        contexts: Contexts::GlobalOnly,
        synopsis: "requests|off",
        default: "3/4 of MaxRequestWorkers, or as many as the group can run if that is more; off when there is one group only",
        summary: c"How many of httpd's threads one group may hold",
        doc: "A request that waits for a daemon process holds a thread (with prefork, a process) of httpd. When one group has so many requests, running and waiting, further ones are answered at once with 503 and `Retry-After`, so that threads are left for other groups and for static files. Counted over all children of httpd.",
        difference: "Not in mod_wsgi, where one group that hangs takes all of httpd's threads.",
        set: |t, raw| set::put(raw, set::max_waiting, |v| t.server.max_waiting = Some(v)),
        test: "overload_and_death",
        ..ROW
    },
    Directive {
        name: c"DroverRetry",
        theme: Theme::Operation,
        contexts: Contexts::Directory,
        synopsis: "idempotent|off",
        default: "idempotent",
        summary: c"Whether a request whose process died is run once more",
        doc: "A GET, HEAD, OPTIONS or TRACE request without a body, of whose answer nothing has come when its process dies, is given to another process, once. Any other request is answered with 502: it may have changed something.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, set::retry, |v| t.dir.retry = Some(v)),
        test: "overload_and_death",
        ..ROW
    },
    Directive {
        name: c"DroverSession",
        theme: Theme::Sessions,
        contexts: Contexts::Server,
        synopsis: "auto|memory|disk|socache:PROVIDER[:ARGUMENTS]|off",
        default: "auto",
        summary: c"Where sessions are kept",
        doc: "`auto`: in memory where httpd is one child with threads, else on disk; asked of the MPM at start, and logged. `memory` is refused at `apachectl -t` where children of httpd do not share memory. `socache:` is one of httpd's shared object caches (`shmcb`, `dbm`, `memcache`, `redis`; its module must be loaded), with its own arguments, as in `socache:redis:127.0.0.1:6379`. See [sessions.md](sessions.md).",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, session::asked, |v| t.server.session.asked = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionDirectory",
        theme: Theme::Sessions,
        contexts: Contexts::GlobalOnly,
        synopsis: "path",
        default: "/var/lib/mod_drover/sessions; drover-sessions in the runtime directory when httpd does not start as root",
        summary: c"Where the stores of sessions lie",
        doc: "Made at start if it is not there, for httpd's user alone. Below it each scope has a directory of its own, `scope-` and a hash; there may be 256. It must lie on a disk of this machine, not on a network file system. A relative path is below ServerRoot. All httpds that start as root and name none share the default. A directory that belongs to somebody else, or cannot be made, is refused where a DroverSession directive asks for sessions; else httpd warns and serves, and what touches its session gets 503.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, set::any, |v| t.server.session.directory = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionMemory",
        theme: Theme::Sessions,
        contexts: Contexts::GlobalOnly,
        synopsis: "bytes",
        default: "64M",
        summary: c"How much memory sessions may take",
        doc: "For sessions in memory, for each scope (`DroverSessionScope`): beyond it, those used least recently go to the disk.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, |w| session::size(w, 1 << 20, 1 << 40), |v| t.server.session.memory = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionDiskSize",
        theme: Theme::Sessions,
        contexts: Contexts::GlobalOnly,
        synopsis: "bytes",
        default: "1G",
        summary: c"How large the store of a scope may become on disk",
        doc: "Each scope (`DroverSessionScope`) has a store of its own, so that one that is full does not concern the others. A change that does not fit is an error in the application (`StoreUnavailable`), and the old value stays. The size may be changed at any time: what is stored stays, even if it is more than the new size.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, |w| session::size(w, 1 << 20, 1 << 44), |v| t.server.session.disk_size = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionSync",
        theme: Theme::Sessions,
        contexts: Contexts::GlobalOnly,
        synopsis: "seconds|always",
        default: "1",
        summary: c"How often the store is written through to the disk",
        doc: "What a power failure may cost: the changes of so many seconds. The death of a process costs nothing in any case. `always`: each change waits for the disk.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, session::sync, |v| t.server.session.sync = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionTimeout",
        theme: Theme::Sessions,
        contexts: Contexts::Server,
        synopsis: "seconds",
        default: "1800",
        summary: c"After how long without a request a session is over",
        doc: "An application can set another time for a session.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, |w| session::seconds(w, 1), |v| t.server.session.timeout_s = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionLockTimeout",
        theme: Theme::Sessions,
        contexts: Contexts::Server,
        synopsis: "seconds",
        default: "30",
        summary: c"How long a request waits for a session that another one holds",
        doc: "Then the application gets the exception `LockTimeout`, and the client 503 if it does not handle it.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, |w| session::seconds(w, 0), |v| t.server.session.lock_timeout_s = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionMaxSize",
        theme: Theme::Sessions,
        contexts: Contexts::Server,
        synopsis: "bytes",
        default: "1M",
        summary: c"How large one session may be",
        doc: "At most 16M. A larger one is an exception (`TooLarge`).",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, session::max_size, |v| t.server.session.max_size = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionScope",
        theme: Theme::Sessions,
        contexts: Contexts::Server,
        synopsis: "group|vhost|name",
        default: "group",
        summary: c"Whose sessions are kept together",
        doc: "`group`: each daemon process group has sessions of its own, which no other can reach. `vhost`: each virtual host. A name: all servers that say the same.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, session::scope, |v| t.server.session.scope = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionSerializer",
        theme: Theme::Sessions,
        contexts: Contexts::Server,
        synopsis: "json|pickle|msgpack",
        default: "json",
        summary: c"How an application's values become bytes",
        doc: "`pickle` runs code when it reads: only where all applications of a scope trust each other. `msgpack` needs the package of that name.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::put(raw, session::serializer, |v| t.server.session.serializer = Some(v)),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"DroverSessionCookie",
        theme: Theme::Sessions,
        contexts: Contexts::Server,
        synopsis: "[name=name] [path=path] [domain=domain] [secure=Auto|On|Off] [httponly=On|Off] [samesite=Strict|Lax|None] [max-age=seconds]",
        default: "name=drover_session_ and the scope's name, path=/ secure=Auto httponly=On samesite=Lax",
        summary: c"The cookie that names the session",
        doc: "The name is `drover_session_shop` for the group or the named scope `shop`, so that two of them on one host keep out of each other's way, and \
            `drover_session` with `DroverSessionScope vhost`. `secure=Auto`: when the request came over TLS. Without `max-age` the browser forgets it when it is closed; \
            with it, it is given anew when the session changes, and as its time moves.",
        difference: "Not in mod_wsgi.",
        set: |t, raw| set::session_cookie(t, raw),
        test: "sessions",
        ..ROW
    },
    Directive {
        name: c"WSGISocketPrefix",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "path",
        default: "the runtime directory",
        summary: c"Where mod_wsgi puts its socket files",
        doc: "In mod_wsgi, the beginning of the paths of its sockets and locks.",
        notice: Some("there are no socket files: Apache's children inherit the queue of each group"),
        set: |_, raw| set::checked(raw, set::any),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGISocketRotation",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "On",
        summary: c"Whether mod_wsgi's socket files change name at a restart",
        doc: "In mod_wsgi, Off keeps the names of sockets over restarts.",
        notice: Some("there are no socket files, and requests in flight survive a graceful restart either way"),
        set: |_, raw| set::checked(raw, scalar::flag),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGIAcceptMutex",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "Default|flock|fcntl|sysvsem|posixsem|pthread",
        default: "Default",
        summary: c"The lock around accept() in mod_wsgi",
        doc: "In mod_wsgi, the lock that its processes take in turns.",
        notice: Some("processes take requests from a queue and need no lock"),
        set: |_, raw| set::checked(raw, set::accept_mutex),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGIDestroyInterpreter",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "On",
        summary: c"Whether the interpreter is taken down at the end",
        doc: "In mod_wsgi, Off makes processes end sooner.",
        notice: Some("a process that ends runs its atexit functions, and shutdown-timeout= bounds the time it takes"),
        set: |_, raw| set::checked(raw, scalar::flag),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGIServerMetrics",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Whether applications may read Apache's scoreboard",
        doc: "In mod_wsgi, On makes `mod_wsgi.server_metrics()` answer.",
        notice: Some("Apache's scoreboard is not handed to applications, mod_status shows it"),
        set: |t, raw| set::put(raw, scalar::flag, |v| t.server.server_metrics = Some(v)),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGITelemetryService",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "unix:/path [interval=seconds]",
        summary: c"Where mod_wsgi sends its measurements",
        doc: "In mod_wsgi 6, the socket of the package mod_wsgi-telemetry.",
        notice: Some("nothing is sent: the format is private to the package mod_wsgi-telemetry; requests are served all the same"),
        set: |_, raw| set::telemetry_service(raw),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGISlowRequests",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "seconds",
        summary: c"From when on mod_wsgi reports a slow request",
        doc: "Of use only with WSGITelemetryService.",
        notice: Some("it is about WSGITelemetryService, to which nothing is sent; %D in a LogFormat logs the time of requests"),
        set: |_, raw| set::slow_requests(raw),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGITelemetryOptions",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "[+|-]CaptureUserAgent|None|All ...",
        default: "None",
        summary: c"What mod_wsgi measures",
        doc: "Of use only with WSGITelemetryService.",
        notice: Some("it is about WSGITelemetryService, to which nothing is sent"),
        set: |_, raw| set::telemetry_options(raw),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGIVerboseDebugging",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Messages for debugging mod_wsgi",
        doc: "Without effect in mod_wsgi 6 too.",
        notice: Some("as in mod_wsgi 6, LogLevel wsgi:debug does this"),
        set: |_, raw| set::checked(raw, scalar::flag),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGILazyInitialization",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "On",
        summary: c"When mod_wsgi starts Python",
        doc: "Of mod_wsgi 4.9 and 5.0.",
        notice: Some("removed in mod_wsgi 6: Python is never started in Apache's own processes"),
        set: |_, raw| set::checked(raw, scalar::flag),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGIPy3kWarningFlag",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "On|Off",
        default: "Off",
        summary: c"Warnings of Python 2 about Python 3",
        doc: "Of mod_wsgi for Python 2.",
        notice: Some("it is about Python 2"),
        set: |_, raw| set::checked(raw, scalar::flag),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGIUserAuthoritative",
        theme: Theme::Inert,
        contexts: Contexts::AuthConfig,
        synopsis: "On|Off",
        default: "On",
        summary: c"Whether WSGIAuthUserScript has the last word",
        doc: "Of mod_wsgi 4.9 and 5.0, for Apache 2.0.",
        notice: Some("removed in mod_wsgi 6: the order of AuthBasicProvider decides"),
        set: |_, raw| set::checked(raw, scalar::flag),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGINewRelicConfigFile",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "path",
        summary: c"Configuration file of the New Relic agent",
        doc: "Of mod_wsgi 4.9 and 5.0.",
        notice: Some("removed in mod_wsgi 6: start the New Relic agent in the script or with newrelic-admin"),
        set: |_, raw| set::checked(raw, set::any),
        test: "directives_without_effect",
        ..ROW
    },
    Directive {
        name: c"WSGINewRelicEnvironment",
        theme: Theme::Inert,
        contexts: Contexts::GlobalOnly,
        synopsis: "name",
        summary: c"Section of the New Relic configuration file",
        doc: "Of mod_wsgi 4.9 and 5.0.",
        notice: Some("removed in mod_wsgi 6: start the New Relic agent in the script or with newrelic-admin"),
        set: |_, raw| set::checked(raw, set::any),
        test: "directives_without_effect",
        ..ROW
    },
];
