//! The man page and `drover --help` agree.
//!
//! Responsible for: man/drover.1 has every command and option of the help, and no others. Must
//! never: need httpd. Called by: cargo test.
// A test may stop at anything unexpected.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::Command;

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_drover")).arg("--help").output().expect("drover");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../man/drover.1")).expect("man/drover.1")
}

fn commands_of_help() -> BTreeSet<String> {
    let commands = help().lines().filter_map(|line| line.strip_prefix("  drover ")?.split_whitespace().next().map(str::to_owned)).collect();
    let commands: BTreeSet<String> = commands;
    commands.into_iter().filter(|command| !command.starts_with('-')).collect()
}

fn options_of_help() -> BTreeSet<String> {
    let help = help();
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--")).map(str::to_owned).collect()
}

/// The arguments of an mdoc macro, each up to the next macro.
fn arguments_of(page: &str, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with('.')) {
        let mut words = line.trim_start_matches('.').split_whitespace();
        while let Some(word) = words.next() {
            if word == name {
                found.extend(words.next().map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn every_command_and_option_of_the_help_is_in_the_man_page() {
    let (page, commands, options) = (page(), commands_of_help(), options_of_help());
    assert!(commands.len() >= 6 && options.len() >= 16, "{commands:?} {options:?}");
    let (in_page, flags) = (arguments_of(&page, "Cm"), arguments_of(&page, "Fl"));
    for command in commands {
        assert!(in_page.contains(&command), "man/drover.1 lacks the command {command}");
    }
    for option in options {
        assert!(flags.contains(&option[1..]), "man/drover.1 lacks the option {option}");
    }
}

#[test]
fn the_man_page_names_no_command_or_option_that_the_help_lacks() {
    let (page, commands, options) = (page(), commands_of_help(), options_of_help());
    // One letter stands for an option with a long name, which is beside it in the page.
    for flag in arguments_of(&page, "Fl").into_iter().filter(|flag| flag.starts_with('-')) {
        assert!(options.contains(&format!("-{flag}")), "drover --help lacks -{flag}");
    }
    let synopsis = page.split(".Sh ").find(|section| section.starts_with("SYNOPSIS")).expect("synopsis");
    assert_eq!(arguments_of(synopsis, "Cm"), commands);
}
