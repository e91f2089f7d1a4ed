//! Where a directive stands and what it may write.
//!
//! Responsible for the rule that decides between the server's settings and the directory's, and for the blocks of `<WSGIInterpreterOptions>`.
//! Must never be kept: a target lives for one directive. Built by `httpd::commands` from the `cmd_parms` httpd hands it, used by `set`.

use super::value::{DirConfig, InterpreterOptions, InterpreterScope, ScopedOptions, ServerConfig};
use std::borrow::Cow;

/// The place of a directive. Everything httpd treats as a directory (`<Location>`, `<Files>`, `<If>`…) is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    Server,
    VirtualHost,
    Directory,
    Htaccess,
}

/// What came of a directive that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Applied,
    /// Accepted, and something should be said in the log, once: why it changes nothing here.
    Notice(Cow<'static, str>),
}

impl Effect {
    /// The same, with one more thing to say.
    #[must_use]
    pub fn and(self, more: Cow<'static, str>) -> Self {
        match self {
            Self::Applied => Self::Notice(more),
            Self::Notice(text) => Self::Notice(Cow::Owned(format!("{text}. {more}"))),
        }
    }

    /// With all of these to say, if any.
    #[must_use]
    pub fn of(said: Vec<Cow<'static, str>>) -> Self {
        said.into_iter().fold(Self::Applied, Self::and)
    }
}

pub struct Target<'a> {
    pub server: &'a mut ServerConfig,
    pub dir: &'a mut DirConfig,
    pub context: Context,
    /// The block of `<WSGIInterpreterOptions>` around the directive.
    pub scope: Option<&'a InterpreterScope>,
    /// The names of all groups defined above, in all servers.
    pub defined_groups: &'a [Vec<u8>],
    /// Takes the names of groups that the directive says and that are the same for all requests: whether there are such groups is known only when
    /// the whole configuration has been read.
    pub named_groups: &'a mut Vec<Vec<u8>>,
}

impl Target<'_> {
    /// The settings that exist per server and per directory, at the place of the directive.
    pub fn settings(&mut self) -> &mut DirConfig {
        match self.context {
            Context::Server | Context::VirtualHost => &mut self.server.dir,
            Context::Directory | Context::Htaccess => self.dir,
        }
    }

    /// The settings that a block narrows: those of the block around the directive, or of the server.
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
