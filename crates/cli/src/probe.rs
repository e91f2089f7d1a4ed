//! Whether the interpreter can import the application's module.
//!
//! Responsible for: refusing, before httpd starts, a module or a callable that does not exist. Must
//! never: refuse an application that could work in a worker. Called by: `serve.rs`.
use crate::error::Error;
use crate::places::Account;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Exits with status 3 if the import cannot succeed. Other errors are left to the workers: only
/// they have the modules that an application may import (mod_wsgi, mod_drover). The alarm ends an
/// import that hangs.
const PROBE: &str = "
import importlib, operator, os, signal, sys
home, module, name = sys.argv[1:]
signal.alarm(30)
sys.path.insert(0, home)
said = None
try:
    found = operator.attrgetter(name)(importlib.import_module(module))
    if not callable(found):
        said = '%s of module %r is not a WSGI application: its type %r is not callable' % (name, module, type(found).__name__)
except ModuleNotFoundError as e:
    if e.name and (module + '.').startswith(e.name + '.'):
        said = 'no module %r in %s or in the sys.path of the interpreter' % (e.name, home)
except AttributeError as e:
    if e.__traceback__.tb_next is None:
        said = str(e)
except BaseException:
    pass
if said:
    os.write(2, said.encode(errors='replace'))
os._exit(3 if said else 0)
";

/// Imports the module in the interpreter, as the workers will.
pub fn must_exist(python: &Path, account: Option<&Account>, home: &Path, module: &str, callable: &str) -> Result<(), Error> {
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
    let why = said.lines().last().unwrap_or_default().to_owned();
    Err(Error::NotImportable { application: format!("{module}:{callable}"), python: python.into(), why })
}
