//! Files that are generated from the table of directives, and what the table promises.
//!
//! Responsible for: noticing when docs/directives.md or apache-conf/drover.conf is older than the table. `UPDATE=1 cargo test --test generated`
//! writes them. Links no httpd: only pure functions of the module are used. Called by: `make check`, `make test`.
// A test may stop at whatever it did not expect.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use mod_drover::config::docs;
use std::path::Path;

#[track_caller]
fn fresh(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, wanted).expect("write generated file");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{name} is not what the table of directives gives; run: UPDATE=1 cargo test --test generated");
}

#[test]
fn directives_md_is_fresh() {
    fresh("docs/directives.md", &docs::directives_markdown());
}

#[test]
fn drover_conf_is_fresh() {
    fresh("apache-conf/drover.conf", &docs::apache_conf());
}
