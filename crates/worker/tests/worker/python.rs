//! The unit tests of what is written in Python, under the interpreter of the tests.
use crate::harness::python;
use std::path::Path;
use std::process::Command;

#[test]
fn the_python_packages_pass_their_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut tests = Command::new(python());
    tests.args(["-B", "-m", "unittest", "discover", "-s"]).arg(root.join("tests/python"));
    let output = tests.env("PYTHONPATH", root.join("python")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("Ran 0 tests"), "{said}");
}
