//! The application to serve.
//!
//! Responsible for: distinguishing a script file from `package.module:callable`, and the small
//! script that imports the latter. Must never: run the application. Called by: `serve.rs`.
use crate::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The application to serve.
#[derive(Debug, PartialEq)]
pub enum Application {
    /// A WSGI script file, absolute.
    Script(PathBuf),
    /// A callable of a module.
    Module { module: String, callable: String },
}

impl Application {
    /// Parses the argument; a relative path is relative to `here`.
    pub fn parse(argument: &OsStr, here: &Path) -> Result<Application, Error> {
        let path = here.join(argument);
        if path.is_file() {
            return path.canonicalize().map(Application::Script).map_err(|e| Error::io(path.display(), e));
        }
        let text = argument.to_str().unwrap_or_default();
        let (module, callable) = text.split_once(':').unwrap_or((text, "application"));
        let has_suffix = Path::new(text).extension().is_some_and(|e| e == "wsgi" || e == "py");
        let looks_like_file = text.contains('/') || (has_suffix && !text.contains(':'));
        if looks_like_file || !is_dotted(module) || !is_dotted(callable) {
            return Err(Error::NoApplication(path, is_dotted(text).then(|| text.to_owned())));
        }
        Ok(Application::Module { module: module.into(), callable: callable.into() })
    }

    /// The text of the script that imports a module.
    pub fn script(module: &str, callable: &str) -> String {
        format!("import importlib, operator\n\napplication = operator.attrgetter({callable:?})(importlib.import_module({module:?}))\n")
    }
}

/// Whether a text is one or more Python names separated by dots, so that it can be written into a
/// script as it is.
fn is_dotted(text: &str) -> bool {
    text.split('.').all(|name| {
        let mut letters = name.chars();
        letters.next().is_some_and(|c| c == '_' || c.is_alphabetic()) && letters.all(|c| c == '_' || c.is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Application, Error> {
        Application::parse(text.as_ref(), Path::new("/nowhere"))
    }

    #[test]
    fn modules_and_files_are_distinguished() {
        let shop = |callable: &str| Application::Module { module: "shop.wsgi".into(), callable: callable.into() };
        assert_eq!(parse("shop.wsgi:app").ok(), Some(shop("app")));
        assert_eq!(parse("shop:app.wsgi").ok(), Some(Application::Module { module: "shop".into(), callable: "app.wsgi".into() }));
        for text in ["mysite.wsgi", "shop.py"] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.ends_with(&format!("for the module {text} write {text}:application")), "{said}");
        }
        for text in ["missing-.wsgi", "dir/app", "a b", "1x:y", "x:y:z", "", "x:\"+1"] {
            assert!(matches!(parse(text), Err(Error::NoApplication(_, None))), "{text}");
        }
    }
}
