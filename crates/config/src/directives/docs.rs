//! The tables as documentation.
//!
//! Responsible for: docs/directives.md and apache-conf/drover.conf, which are generated and never
//! edited. Must never: say anything about a directive that is not in its row. Called by:
//! `tests/generated.rs`, which keeps the files up to date.

use super::directive::{Directive, Theme};
use super::effect::Effect;
use super::options::{DAEMON_OPTIONS, DaemonOption};
use super::table::DIRECTIVES;
use super::target::{Context, Target};
use super::value::{DirConfig, ServerConfig};

const INTRODUCTION: &str = "\
# Directives

<!-- Generated from crates/config/src/directives/table.rs and options.rs. Do not edit. -->

mod_drover has all directives of mod_wsgi 4.9, 5.0 and 6, with the same names and the same meaning. *Differs* names the exceptions.

- An option is written `name=value`. Quote a value that contains white space: `home='/srv/my site'` or `home=\"/srv/my site\"`.
- A size is a number of bytes, or a number followed by `K`, `M` or `G` (`512M`).
- A time is a number of seconds, or a number followed by `s`, `min`, `h` or `d` (`30s`, `5min`). The case of letters is ignored.
- `apachectl -t` reports invalid values and unknown options. A directive or option without effect is logged once, with the reason.

";

const CONFIGURATION: &str = "\
# Configuration of mod_drover. Generated from the module's table of directives;
# docs/directives.md describes each of them. The values below are the defaults, or
# the syntax of the arguments if there is no default.
#
# What most sites need, inside their <VirtualHost>:
#
#   WSGIDaemonProcess example python-home=/srv/example/venv home=/srv/example
#   WSGIScriptAlias / /srv/example/app.wsgi process-group=example application-group=%{GLOBAL}
#   <Directory /srv/example>
#       Require all granted
#   </Directory>

<IfModule wsgi_module>
";

/// docs/directives.md.
pub fn directives_markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for theme in Theme::ALL {
        page.push_str(&format!("## {}\n\n", theme.title()));
        for row in rows(theme) {
            page.push_str(&directive_section(row));
        }
        if theme == Theme::Groups {
            page.push_str("## Options of WSGIDaemonProcess\n\n");
            for row in DAEMON_OPTIONS {
                page.push_str(&option_section(row));
            }
        }
    }
    page
}

/// apache-conf/drover.conf.
pub fn apache_conf() -> String {
    let mut file = CONFIGURATION.to_owned();
    for theme in Theme::ALL.into_iter().filter(|theme| !matches!(theme, Theme::Later | Theme::Inert)) {
        file.push_str(&format!("\n    # {}\n", theme.title()));
        for row in rows(theme).filter(|row| row.notice.is_none()) {
            file.push_str(&format!("\n    # {}.\n", row.summary.to_str().unwrap_or_default()));
            for line in example(row) {
                file.push_str(&format!("    #{line}\n"));
            }
        }
    }
    file.push_str("\n</IfModule>\n");
    file
}

fn rows(theme: Theme) -> impl Iterator<Item = &'static Directive> {
    DIRECTIVES.iter().filter(move |row| row.theme == theme)
}

fn directive_section(row: &Directive) -> String {
    let mut section = format!("### {}\n\n{}\n\n", row.title(), row.doc);
    let bracket = if row.container { "<" } else { "" };
    section.push_str(&format!("- Syntax: `{bracket}{} {}`\n", row.title(), row.synopsis));
    section.push_str(&format!("- Context: {}\n", row.contexts.describe()));
    if row.theme != Theme::Later && row.default != "none" {
        section.push_str(&format!("- Default: {}\n", as_code(row.default)));
    }
    push_item(&mut section, "Differs", row.difference);
    push_item(&mut section, "No effect", row.notice.unwrap_or_default());
    if row.theme == Theme::Later {
        push_item(&mut section, "Not available yet", &refusal(row));
    }
    section.push('\n');
    section
}

fn option_section(row: &DaemonOption) -> String {
    let mut section = format!("### {}=\n\n{}\n\n", row.name, row.doc);
    section.push_str(&format!("- Value: {}\n", row.take.in_unit(row.take.range().into(), row.unit)));
    section.push_str(&format!("- Default: {}\n", as_code(row.default)));
    push_item(&mut section, "Differs", row.difference);
    push_item(&mut section, "No effect", row.notice.unwrap_or_default());
    section.push('\n');
    section
}

fn push_item(section: &mut String, title: &str, text: &str) {
    if !text.is_empty() {
        section.push_str(&format!("- {title}: {text}\n"));
    }
}

/// A default as Markdown: a value as code, a phrase as text.
fn as_code(default: &str) -> String {
    let phrase = default.contains(' ') || default.contains('\'') || default == "none";
    if phrase { default.to_owned() } else { format!("`{default}`") }
}

/// The error of a directive that is not available.
fn refusal(row: &Directive) -> String {
    tried(row, "").err().unwrap_or_default()
}

/// The lines of the commented file: with the default if it is a valid argument, else with the
/// syntax.
fn example(row: &Directive) -> Vec<String> {
    let name = row.title();
    if row.container {
        return vec![format!("<{name} {}", row.synopsis), format!("</{name}>")];
    }
    let writable = tried(row, row.default).is_ok() && row.default != "none" && !row.default.contains([' ', '\'']);
    vec![format!("{name} {}", if writable { row.default } else { row.synopsis })]
}

/// Applies a row with these arguments in the first context that allows it.
fn tried(row: &Directive, arguments: &str) -> Result<Effect, String> {
    let (mut server, mut dir) = (ServerConfig::default(), DirConfig::default());
    let context = if row.contexts.allow(Context::Server) { Context::Server } else { Context::Directory };
    let mut target = Target { server: &mut server, dir: &mut dir, context, scope: None, defined_groups: &[] };
    row.apply(&mut target, arguments.as_bytes()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directive;

    #[test]
    fn every_row_is_documented() {
        let page = directives_markdown();
        for row in DIRECTIVES {
            assert!(page.contains(&format!("### {}\n", row.title())), "{}", row.title());
        }
        for row in DAEMON_OPTIONS {
            assert!(page.contains(&format!("### {}=\n", row.name)), "{}", row.name);
        }
        assert!(page.contains("- Default: `Off`"));
        assert!(page.contains("- Not available yet: WSGIAuthUserScript is not available yet: "));
    }

    #[test]
    fn the_commented_configuration_is_a_comment_in_a_block() {
        let file = apache_conf();
        let active: Vec<_> = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(active, ["<IfModule wsgi_module>", "</IfModule>"]);
        assert!(file.contains("    #WSGIPassAuthorization Off\n"));
        assert!(
            file.lines()
                .filter(|line| !line.contains("    #WSGI") && !line.contains("    #Drover") && !line.contains("    #<"))
                .all(|line| line.len() <= 100),
            "{file}"
        );
    }

    #[test]
    fn defaults_that_are_shown_can_be_switched_on() {
        for line in apache_conf().lines() {
            let Some(line) = line.strip_prefix("    #WSGI") else { continue };
            let (name, arguments) = line.split_once(' ').unwrap();
            let row = directive(format!("WSGI{name}").as_bytes()).unwrap();
            if arguments == row.default {
                assert!(tried(row, arguments).is_ok(), "{line}");
            } else {
                assert_eq!(arguments, row.synopsis);
            }
        }
    }
}
