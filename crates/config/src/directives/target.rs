//! The context of a directive and what it may write.
//!
//! Responsible for: the choice between the settings of the server and of the directory, and the
//! blocks of `<WSGIInterpreterOptions>`. Must never: outlive one directive. Called by:
//! `httpd::commands`, which builds it from httpd's `cmd_parms`, and `set`.

use super::value::{DirConfig, InterpreterOptions, InterpreterScope, ScopedOptions, ServerConfig};

/// The context of a directive. Everything that httpd treats as a directory (`<Location>`,
/// `<Files>`, `<If>`…) is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    Server,
    VirtualHost,
    Directory,
    Htaccess,
}

/// What a directive may read and write.
pub struct Target<'a> {
    pub server: &'a mut ServerConfig,
    pub dir: &'a mut DirConfig,
    pub context: Context,
    /// The block of `<WSGIInterpreterOptions>` around the directive.
    pub scope: Option<&'a InterpreterScope>,
    /// The names of all groups that were defined before, in all servers.
    pub defined_groups: &'a [Vec<u8>],
}

impl Target<'_> {
    /// The per-directory settings in the context of the directive.
    pub fn settings(&mut self) -> &mut DirConfig {
        match self.context {
            Context::Server | Context::VirtualHost => &mut self.server.dir,
            Context::Directory | Context::Htaccess => self.dir,
        }
    }

    /// The interpreter settings: those of the block around the directive, else of the server.
    pub fn interpreter(&mut self) -> &mut InterpreterOptions {
        let Some(scope) = self.scope else { return &mut self.server.interpreter };
        let at = self.server.scopes.iter().rposition(|block| &block.scope == scope).unwrap_or_else(|| {
            self.server.scopes.push(ScopedOptions { scope: scope.clone(), options: InterpreterOptions::default() });
            self.server.scopes.len() - 1
        });
        match self.server.scopes.get_mut(at) {
            Some(block) => &mut block.options,
            None => &mut self.server.interpreter,
        }
    }
}
