//! `drover serve` and `drover config`.
//!
//! Responsible for: the temporary directory, the checks that give a clear message before httpd would give an unclear one, and httpd as a
//! child from start to end. Must never: leave a process or a file behind. Called by: `main.rs`.
use crate::application::Application;
use crate::arguments::Options;
use crate::configuration::Configuration;
use crate::error::Error;
use crate::places::{self, Account, Httpd};
use crate::relay::Relay;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::fs::Permissions;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

/// Stands for the directory in a printed configuration: httpd takes it from its environment.
const DIRECTORY: &str = "${DROVER_DIRECTORY}";

/// `drover config`: the configuration as `serve` would write it, for a directory of the person's own.
pub fn print(options: &Options) -> Result<String, Error> {
    let directory = Path::new(DIRECTORY);
    let (httpd, configuration) = configure(options, directory, directory.join("error.log"))?;
    let mut hint = String::from("# To run it, in a directory that nobody else can have made (this file is its httpd.conf):\n");
    let mut say = |line: &str| hint += &format!("#   {line}\n");
    say("export DROVER_DIRECTORY=\"$(mktemp -d)\"");
    say("chmod 711 \"$DROVER_DIRECTORY\" && mkdir \"$DROVER_DIRECTORY/run\"");
    say("drover config ... >\"$DROVER_DIRECTORY/httpd.conf\"");
    if let Application::Module { module, callable } = application(options)? {
        // Of names and dots only, so that nothing has to be quoted.
        say(&format!(
            "printf 'import importlib, operator\\napplication = operator.attrgetter(\"{callable}\")(importlib.import_module(\"{module}\"))\\n' \
             >\"$DROVER_DIRECTORY/application.wsgi\""
        ));
    }
    say(&format!("{} -f \"$DROVER_DIRECTORY/httpd.conf\" -DFOREGROUND", httpd.program.display()));
    Ok(hint + &configuration.to_string())
}

/// `drover serve`: until a signal, or until httpd ends by itself.
pub fn serve(options: &Options) -> Result<ExitCode, Error> {
    let scratch = tempfile::Builder::new().prefix("drover-").tempdir().map_err(|e| Error::io("temporary directory", e))?;
    let directory = scratch.path();
    let fail = |e| Error::io(directory.display(), e);
    let log = directory.join("error.fifo");
    let (httpd, configuration) = configure(options, directory, log.clone())?;
    if configuration.account.is_some() {
        // The workers' user must be able to pass, but not to look around.
        std::fs::set_permissions(directory, Permissions::from_mode(0o711)).map_err(fail)?;
    }
    std::fs::create_dir(directory.join("run")).map_err(fail)?;
    if let Application::Module { module, callable } = application(options)? {
        std::fs::write(&configuration.script, Application::script(&module, &callable)).map_err(fail)?;
    }
    let file = directory.join("httpd.conf");
    std::fs::write(&file, configuration.to_string()).map_err(fail)?;
    let address = SocketAddr::new(options.host, options.port);
    match TcpListener::bind(address) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => return Err(Error::PortInUse(address.to_string())),
        Err(e) => return Err(Error::io(address, e)),
    }
    // Before httpd starts, so that a Ctrl-C in this moment ends both.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD]).map_err(|e| Error::io("signals", e))?;
    let message = format!("drover: serving {} at http://{address}/ (Ctrl-C ends it)", options.application.display());
    let relay = Relay::start(&log, move || {
        // Standard output may have been closed; that is no reason to stop.
        let _ = writeln!(std::io::stdout(), "{message}");
    })?;
    let child = Command::new(&httpd.program)
        .arg("-f")
        .arg(&file)
        .arg("-DFOREGROUND")
        .process_group(0)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| Error::io(httpd.program.display(), e))?;
    let status = attend(child, &mut signals)?;
    relay.finish();
    scratch.close().map_err(|e| Error::io("temporary directory", e))?;
    status
}

/// Waits for httpd, forwarding signals.
fn attend(mut child: Child, signals: &mut Signals) -> Result<Result<ExitCode, Error>, Error> {
    let pid = Pid::from_child(&child);
    let mut stopping = false;
    for signal in signals.forever() {
        match signal {
            SIGUSR1 => {
                let _ = kill_process(pid, Signal::USR1);
            }
            SIGCHLD => {
                if let Some(status) = child.try_wait().map_err(|e| Error::io("httpd", e))? {
                    let by_itself = Error::Httpd(format!("ended with {status}; its messages are above"));
                    return Ok(if stopping || status.success() { Ok(ExitCode::SUCCESS) } else { Err(by_itself) });
                }
            }
            _ if stopping => {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            _ => {
                stopping = true;
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }
    Ok(Ok(ExitCode::SUCCESS))
}

fn here() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|e| Error::io("this directory", e))
}

fn application(options: &Options) -> Result<Application, Error> {
    Application::parse(&options.application, &here()?)
}

/// Finds all parts and makes the configuration of them.
fn configure(options: &Options, directory: &Path, error_log: PathBuf) -> Result<(Httpd, Configuration), Error> {
    let here = here()?;
    let (script, default_home) = match application(options)? {
        Application::Script(path) => {
            // A project's directory is where one stands when one serves a script of it.
            let home = if path.starts_with(&here) { here.as_path() } else { path.parent().unwrap_or(Path::new("/")) };
            let home = home.to_path_buf();
            (path, home)
        }
        Application::Module { .. } => (directory.join("application.wsgi"), here.clone()),
    };
    let home = options.working_directory.as_ref().map_or(default_home, |d| here.join(d));
    let companions = places::companions()?;
    let httpd = Httpd::find(options)?;
    let python = places::python(options)?;
    let account = places::account(options)?;
    let beside = script.parent().filter(|directory| *directory != home && script.exists()).map(Path::to_path_buf);
    if let Some(account) = &account {
        check_readable(account, &[&home, &companions.extension, &companions.python, &python])?;
        if script.exists() {
            account.must_read(&script)?;
        }
    }
    if let Application::Module { module, callable } = application(options)? {
        must_be_there(&python, account.as_ref(), &home, &module, &callable)?;
    }
    let mut modules = vec![format!("mpm_{}", httpd.mpm(options.mpm.as_deref())?)];
    modules.extend(["unixd", "log_config", "authz_core", "mime", "alias"].map(String::from));
    modules.retain(|m| !httpd.has_compiled_in(m) && !httpd.has_compiled_in(m.trim_start_matches("mpm_")));
    let mime_types = ["/etc/mime.types", "/usr/local/apache2/conf/mime.types"].map(PathBuf::from).into_iter().find(|p| p.exists());
    let configuration = Configuration {
        directory: directory.into(),
        error_log,
        address: SocketAddr::new(options.host, options.port),
        modules_dir: httpd.modules.clone(),
        modules,
        module: companions.module,
        account: account.map(|a| (a.user, a.group)),
        script,
        home,
        path: beside,
        python,
        processes: options.processes,
        threads: options.threads,
        aliases: options.aliases.iter().map(|(url, path)| alias(url, &here.join(path))).collect(),
        log_level: options.log_level.clone(),
        access_log: options.access_log.as_ref().map(|f| here.join(f)),
        includes: options.includes.iter().map(|f| here.join(f)).collect(),
        mime_types: Some(mime_types.unwrap_or_else(|| "/dev/null".into())),
    };
    Ok((httpd, configuration))
}

/// A single file is allowed through its directory, a directory through itself.
fn alias(url: &str, path: &Path) -> (String, PathBuf, PathBuf) {
    let directory = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    (url.into(), path.into(), directory.into())
}

fn check_readable(account: &Account, paths: &[&Path]) -> Result<(), Error> {
    paths.iter().try_for_each(|path| account.must_read(path))
}

/// Says with status 3 what will never be there however often it is tried; any other failure of an import the workers will report, who alone have
/// what an application may import (mod_wsgi). The alarm ends it when the import hangs.
const PROBE: &str = "
import importlib, operator, os, signal, sys
home, module, name = sys.argv[1:]
signal.alarm(30)
sys.path.insert(0, home)
said = None
try:
    operator.attrgetter(name)(importlib.import_module(module))
except ModuleNotFoundError as e:
    if e.name and (module + '.').startswith(e.name + '.'):
        said = 'no module %r in %s or in the sys.path of %s' % (e.name, home, sys.executable)
except AttributeError as e:
    if e.__traceback__.tb_next is None:
        said = str(e)
except BaseException:
    pass
if said:
    os.write(2, said.encode(errors='replace'))
os._exit(3 if said else 0)
";

/// Lets the interpreter import the module as the workers will, and refuses what is not there. `drover` serves nothing then for ever.
fn must_be_there(python: &Path, account: Option<&Account>, home: &Path, module: &str, callable: &str) -> Result<(), Error> {
    let mut command = Command::new(python);
    command.args(["-c", PROBE]).arg(home).args([module, callable]).current_dir(home).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    let output = command.output().map_err(|e| Error::io(python.display(), e))?;
    if output.status.code() != Some(3) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::NotImportable(format!("{module}:{callable}"), said.lines().last().unwrap_or_default().to_owned()))
}
