//! When a command that may run twice is run again.

use std::time::Duration;

use crate::error::{CommandState, Error};
use crate::group::{Deadline, doubled, jitter};

/// How often an idempotent command is tried, the first time included. A connection that is lost
/// three times under the same command may be lost because of it.
const ATTEMPTS: u32 = 3;

/// How long to wait before the next attempt, as between dials; `None` if there is none. `attempts`
/// are over, and the last of them ended with `error`.
pub(super) fn pause(error: &Error, attempts: u32, overall: Option<Deadline>) -> Option<Duration> {
    if attempts >= ATTEMPTS || !is_loss(error) {
        return None;
    }
    let pause = jitter(doubled(attempts));
    // An attempt that could not begin in time is not waited for.
    let in_time = |overall: Deadline| Deadline::after(pause).at < overall.at;
    overall.is_none_or(in_time).then_some(pause)
}

/// Whether a command was lost with its connection, and nothing is wrong but that.
///
/// Not `ClosedWithoutStatus`: the server is there, and has let go of this command by a rule of its
/// own (sshd's `ChannelTimeout`), which it would follow again; and the process goes on. Not a
/// time-out or a cap on output: those are the caller's own word.
fn is_loss(error: &Error) -> bool {
    matches!(error, Error::ConnectionLost { .. }) && error.command_state() == CommandState::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Cause, Phase};

    fn lost(phase: Phase) -> Error {
        let source = Cause::new("reset");
        Error::ConnectionLost {
            target: "t".into(),
            phase,
            source,
        }
    }

    #[test]
    fn pauses_double_and_end_with_the_last_attempt() {
        for (attempts, full) in [(1, 100), (2, 200)] {
            let full = Duration::from_millis(full);
            for _ in 0..100 {
                let pause = pause(&lost(Phase::Running), attempts, None).expect("again");
                assert!(pause >= full / 2 && pause <= full, "{attempts}: {pause:?}");
            }
        }
        assert_eq!(pause(&lost(Phase::Exec), ATTEMPTS, None), None);
    }

    #[test]
    fn only_a_lost_connection_is_worth_another_attempt() {
        let target = || "t".into();
        for error in [
            lost(Phase::Channel), // was not sent
            Error::ClosedWithoutStatus { target: target() },
            Error::ExecRefused { target: target() },
            Error::Closed { target: target() },
            Error::NotKilled {
                target: target(),
                after: Duration::ZERO,
            },
            Error::OutputLimit {
                target: target(),
                stream: crate::Stream::Stdout,
                limit: 1,
            },
            Error::Timeout {
                target: target(),
                phase: Phase::Running,
                after: Duration::ZERO,
                state: CommandState::Unknown,
                killed: false,
                source: None,
            },
        ] {
            assert_eq!(pause(&error, 1, None), None, "{error:?}");
        }
        assert!(pause(&lost(Phase::Exec), 1, None).is_some());
    }
}
