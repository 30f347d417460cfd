//! Which host is in which state.

use std::fmt;
use std::time::Duration;

use ssh_pool::{CommandState, Error, ExitStatus};
use ssh_pool_examples::explain;

use crate::deploy::{Done, STEPS, Step};

/// Why a host has not come to the end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A step ran and said no.
    Status {
        status: ExitStatus,
        stderr: Vec<String>,
    },
    /// A step has no exit status.
    Error(Error),
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// What is known of a host now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The new release is there and well.
    Live,
    /// What was there before is there still.
    Unchanged,
    /// Before or after the switch: look.
    Unknown,
    /// The new release is there, and its check says that it is not well.
    Unhealthy,
    /// The new release is there, and nobody knows how it is.
    Unchecked,
}

impl State {
    pub(crate) fn short(self) -> &'static str {
        match self {
            State::Live => "live",
            State::Unchanged => "unchanged",
            State::Unknown => "unknown",
            State::Unhealthy => "unhealthy",
            State::Unchecked => "unchecked",
        }
    }

    fn words(self) -> &'static str {
        match self {
            State::Live => "the new release is live",
            State::Unchanged => "unchanged: still what it was before",
            State::Unknown => "unknown: may have switched or not, look at it",
            State::Unhealthy => "switched to the new release, which is not healthy",
            State::Unchecked => "switched to the new release, health unknown",
        }
    }
}

/// One host.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) host: String,
    pub(crate) steps: Done,
    /// `None`: it was never its turn.
    pub(crate) took: Option<Duration>,
    pub(crate) failure: Option<Failure>,
}

impl Row {
    /// What follows from how far it came, and from how it failed there.
    pub(crate) fn state(&self) -> State {
        let may_have_run = match &self.failure {
            None => return State::Live,
            // The switch is one rename: its own exit code says that it was not done. Ended by a
            // signal, which a shell tells as 128 and more, it may have been.
            Some(Failure::Status { status, .. }) => status.code().is_none_or(|code| code >= 128),
            Some(Failure::Error(error)) => error.command_state() == CommandState::Unknown,
            Some(Failure::Interrupted) => true,
        };
        match self.steps.under_way() {
            Some(Step::Switch) if may_have_run => State::Unknown,
            None | Some(Step::Upload | Step::Install | Step::Switch) => State::Unchanged,
            Some(Step::Check) => match &self.failure {
                Some(Failure::Status { .. }) => State::Unhealthy,
                _ => State::Unchecked,
            },
        }
    }
}

/// All hosts.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) release: String,
    pub(crate) rows: Vec<Row>,
    /// The exit code that goes with the signal.
    pub(crate) interrupted: Option<u8>,
}

impl Summary {
    /// 0 only if every host has the new release.
    pub(crate) fn code(&self) -> u8 {
        let failed = self.rows.iter().any(|row| row.failure.is_some());
        match self.interrupted {
            Some(code) if failed => code,
            _ => u8::from(failed),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.rows.iter().map(|row| row.host.len()).max();
        let width = widest.unwrap_or(0).max("host".len());
        writeln!(f, "{:width$}  steps  seconds  state", "host")?;
        for row in &self.rows {
            let took = match row.took {
                Some(took) => format!("{:.2}", took.as_secs_f64()),
                None => "-".into(),
            };
            writeln!(
                f,
                "{:width$}  {:>5}  {took:>7}  {}",
                row.host,
                format!("{}/{}", row.steps.done, STEPS.len()),
                row.state().words(),
            )?;
            let step = (row.steps.under_way()).map_or("not begun".into(), |step| step.to_string());
            match &row.failure {
                None => {}
                Some(Failure::Status { status, stderr }) => {
                    writeln!(f, "{:width$}  {step}: {status}", "")?;
                    for line in stderr {
                        writeln!(f, "{:width$}  | {line}", "")?;
                    }
                }
                Some(Failure::Error(error)) => {
                    writeln!(f, "{:width$}  {step}: {}", "", explain(error))?;
                }
                Some(Failure::Interrupted) => writeln!(f, "{:width$}  {step}: interrupted", "")?,
            }
        }
        let count = |state| self.rows.iter().filter(|row| row.state() == state).count();
        let all = [
            State::Live,
            State::Unchanged,
            State::Unhealthy,
            State::Unchecked,
            State::Unknown,
        ];
        let counts: Vec<String> = (all.into_iter())
            .filter(|state| *state == State::Live || count(*state) > 0)
            .map(|state| format!("{} {}", count(state), state.short()))
            .collect();
        let hosts = self.rows.len();
        writeln!(
            f,
            "release {}: {hosts} hosts, {}",
            self.release,
            counts.join(", ")
        )
    }
}
