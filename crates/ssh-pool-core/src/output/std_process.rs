//! What a remote command left behind, in the types of `std::process`.

use std::os::unix::process::ExitStatusExt;
use std::process;

use nix::sys::signal::Signal;

use super::{ExitStatus, Output};

/// What ssh exits with when it cannot say with what the command did (ssh(1)).
const UNKNOWN: i32 = 255;

/// A code or a signal as `wait` reports it on this machine. A signal that this machine does not have,
/// and a code that no process here could exit with, is exit code 255, as ssh has it.
impl From<ExitStatus> for process::ExitStatus {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal().and_then(number);
        let code = || match status.code() {
            Some(code @ 0..=255) => code,
            _ => UNKNOWN,
        };
        // wait(2): a signal is the low byte, an exit code the one above.
        Self::from_raw(signal.unwrap_or_else(|| code() << 8))
    }
}

/// Attempts, waits and address are left out.
impl From<Output> for process::Output {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.into(),
            stdout: output.stdout,
            stderr: output.stderr,
        }
    }
}

/// The number on this machine of a signal, by its name in RFC 4254, section 6.10, or in OpenSSH's
/// addition to that.
fn number(name: &str) -> Option<i32> {
    let name = name.strip_suffix("@openssh.com").unwrap_or(name);
    let signal: Signal = format!("SIG{name}").parse().ok()?;
    Some(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(status: ExitStatus) -> process::ExitStatus {
        status.into()
    }

    #[test]
    fn a_code_stays_a_code_and_a_signal_a_signal() {
        for code in [0, 1, 127, 255] {
            let status = converted(ExitStatus::from_code(code));
            assert_eq!(status.code(), Some(code.cast_signed()));
            assert_eq!(status.success(), code == 0);
        }
        for (name, number) in [
            ("KILL", 9),
            ("TERM", 15),
            ("XCPU@openssh.com", Signal::SIGXCPU as i32),
        ] {
            let status = converted(ExitStatus::from_signal(name));
            assert_eq!((status.code(), status.signal()), (None, Some(number)));
        }
    }

    #[test]
    fn what_this_machine_does_not_have_is_no_success() {
        for status in [
            ExitStatus::from_code(256),
            ExitStatus::from_code(u32::MAX),
            ExitStatus::from_signal("NOSUCH"),
        ] {
            assert_eq!(converted(status).code(), Some(255));
        }
    }
}
