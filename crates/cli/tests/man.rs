//! The man page and `drover --help` agree.
//!
//! Responsible for: every command and option of the help is in man/drover.1. Called by: cargo test.
// A test may stop at whatever it did not expect.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::process::Command;

#[test]
fn every_command_and_option_of_the_help_is_in_the_man_page() {
    let output = Command::new(env!("CARGO_BIN_EXE_drover")).arg("--help").output().expect("drover");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../man/drover.1")).expect("man/drover.1");
    let in_page = |words: &str| page.lines().any(|line| line.contains(words));

    let commands: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  drover ")?.split_whitespace().next()).collect();
    assert!(commands.len() >= 6, "{help}");
    for command in commands.into_iter().filter(|command| !command.starts_with('-')) {
        assert!(in_page(&format!(".Cm {command}")), "man/drover.1 lacks the command {command}");
    }
    let options: Vec<&str> = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|w| w.starts_with("--")).collect();
    assert!(options.len() >= 16, "{help}");
    for option in options {
        assert!(in_page(&format!("Fl {}", &option[1..])), "man/drover.1 lacks the option {option}");
    }
}
