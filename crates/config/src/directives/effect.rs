//! What an accepted directive did.
//!
//! Responsible for: the caller knowing what a directive added and what to log, without comparing
//! configurations. Must never: write anything. Made by `set`, read by `httpd::commands`.

use super::alias::{ImportScript, ScriptAlias};
use super::expr::Expr;
use super::group::DaemonGroup;
use std::borrow::Cow;

/// What an accepted directive did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effect {
    /// For the log: why the directive has no effect here, or what looks wrong in it.
    pub notice: Option<Cow<'static, str>>,
    /// What it added to the configuration of its server.
    pub added: Added,
}

/// What a directive added to the configuration of its server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Added {
    /// WSGIDaemonProcess.
    pub group: Option<DaemonGroup>,
    /// WSGIScriptAlias and WSGIScriptAliasMatch.
    pub alias: Option<ScriptAlias>,
    /// WSGIImportScript.
    pub import: Option<ImportScript>,
    /// WSGIPythonHome.
    pub python_home: Option<Vec<u8>>,
    /// Process groups that it names for all requests. Whether they exist is known when the whole
    /// configuration has been read.
    pub named_groups: Vec<Vec<u8>>,
}

impl Effect {
    /// With these texts to log, if any.
    #[must_use]
    pub fn with_notices(notices: Vec<Cow<'static, str>>) -> Self {
        notices.into_iter().fold(Self::default(), Self::and)
    }

    /// The same, with one more text to log.
    #[must_use]
    pub fn and(self, more: Cow<'static, str>) -> Self {
        let notice = match self.notice {
            None => more,
            Some(text) => Cow::Owned(format!("{text}. {more}")),
        };
        Self { notice: Some(notice), ..self }
    }

    /// The same, naming the process groups among these that are the same for all requests.
    #[must_use]
    pub fn naming<'e>(mut self, groups: impl IntoIterator<Item = &'e Expr>) -> Self {
        let names = groups.into_iter().filter_map(Expr::fixed).filter(|name| !name.is_empty());
        self.added.named_groups.extend(names.map(<[u8]>::to_vec));
        self
    }
}
