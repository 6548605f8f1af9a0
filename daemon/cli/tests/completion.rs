//! `towline completion` as a shell reads it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};

fn completion(stdout: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline"));
    let child = command
        .args(["completion", "bash"])
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn();
    child.unwrap().wait_with_output().unwrap()
}

#[test]
fn a_reader_who_has_enough_is_no_failure() {
    let whole = completion(Stdio::piped());
    assert!(whole.status.success());
    assert!(whole.stdout.starts_with(b"_towline()"));

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let cut = completion(writer.into());
    assert_eq!(String::from_utf8(cut.stderr).unwrap(), "");
    assert!(cut.status.success());
}
