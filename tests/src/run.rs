//! Running the small programs that the fixtures are made with.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs a program to its end and gives what it printed.
///
/// Panics with what to install when it is missing, and with its stderr when it fails.
pub(crate) fn run(command: &mut Command, package: &str) -> String {
    run_with_input(command, package, "")
}

/// [`run`], with something to read on stdin.
pub(crate) fn run_with_input(command: &mut Command, package: &str, input: &str) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}", missing(&program, package, &e)));
    // A program that does not read is not a failure; its exit status tells.
    let _ = child
        .stdin
        .take()
        .expect("stdin is a pipe")
        .write_all(input.as_bytes());
    let output = child
        .wait_with_output()
        .unwrap_or_else(|e| panic!("wait for {program}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The message for a program that cannot be started.
pub(crate) fn missing(program: &str, package: &str, error: &std::io::Error) -> String {
    format!(
        "cannot start {program}: {error}; this test needs it: run scripts/test as root, or \
         apt-get install {package}"
    )
}
