//! Why a host has not come to the end.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use ssh_pool::{CommandState, ExitStatus, docker};
use ssh_pool_examples::{Lines, explain};

/// How many of the last lines are kept of what somebody says, and how much of each.
const LAST: usize = 6;
const LONGEST: usize = 300;

/// Why a step is not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// SSH says that a command has no exit status.
    Ssh(ssh_pool::Error),
    /// git said no.
    Git {
        doing: &'static str,
        status: ExitStatus,
        said: Vec<String>,
    },
    /// The daemon said no, or there was no answer.
    Docker {
        doing: &'static str,
        error: bollard::errors::Error,
    },
    /// The image could not be built.
    Build { why: String, said: Vec<String> },
    /// The new container is not well.
    Unhealthy { why: String, said: Vec<String> },
    /// It took too long.
    TooLong {
        doing: &'static str,
        after: Duration,
    },
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

impl Failure {
    /// The status of the daemon's answer, if there was one.
    pub(crate) fn status(&self) -> Option<u16> {
        use bollard::errors::Error::DockerResponseServerError as Answer;
        match self {
            Self::Docker {
                error: Answer { status_code, .. },
                ..
            } => Some(*status_code),
            _ => None,
        }
    }

    /// Whether it says nothing of the daemon, but that its answer did not come.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Docker { .. }) && self.status().is_none()
    }

    /// Whether the host may still be at work on what it was asked to do.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Interrupted | Self::TooLong { .. } => true,
            Self::Ssh(error) => error.command_state() == CommandState::Unknown,
            Self::Docker { error, .. } => {
                self.is_loss()
                    && docker::Error::find::<docker::Error>(cause(error))
                        .is_none_or(|error| error.command_state() == CommandState::Unknown)
            }
            Self::Git { .. } | Self::Build { .. } | Self::Unhealthy { .. } => false,
        }
    }

    /// The last that was heard of it.
    pub(crate) fn said(&self) -> &[String] {
        match self {
            Self::Git { said, .. } | Self::Build { said, .. } | Self::Unhealthy { said, .. } => {
                said
            }
            _ => &[],
        }
    }
}

impl From<ssh_pool::Error> for Failure {
    fn from(error: ssh_pool::Error) -> Self {
        Self::Ssh(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh(error) => write!(f, "{}", explain(error)),
            Self::Git { doing, status, .. } => write!(f, "git {doing}: {status}"),
            Self::Docker { doing, error } => write!(f, "{doing}: {}", explain_docker(error)),
            Self::Build { why, .. } | Self::Unhealthy { why, .. } => write!(f, "{why}"),
            Self::TooLong { doing, after } => write!(f, "{doing}: not done in {after:?}"),
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

/// What bollard has wrapped in an error of its own, whose source leaves out the first of its causes.
fn cause(error: &bollard::errors::Error) -> &(dyn std::error::Error + 'static) {
    match error {
        bollard::errors::Error::IOError { err } => err,
        other => other,
    }
}

/// The pool's own error is in there somewhere, if it is one.
fn explain_docker(error: &bollard::errors::Error) -> String {
    let error = cause(error);
    let Some(found) = docker::Error::find::<docker::Error>(error) else {
        // In the middle of an answer there is only what the stream said.
        return match docker::Error::find::<ssh_pool::Error>(error) {
            Some(ssh) => explain(ssh),
            None => chain(error),
        };
    };
    let text = match docker::Error::find::<ssh_pool::Error>(found) {
        Some(ssh) => format!("{found}: {}", explain(ssh)),
        None => chain(found),
    };
    let request = match found.command_state() {
        CommandState::NotStarted => "not sent",
        CommandState::Unknown => "may have been received",
    };
    format!("{text} [request: {request}]")
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = anyhow::Chain::new(error).map(ToString::to_string);
    let mut causes: Vec<String> = causes.collect();
    // A wrapper without words of its own repeats those of what it holds.
    causes.dedup();
    causes.join(": ")
}

/// The last lines of what somebody says.
#[derive(Debug, Default)]
pub(crate) struct Said(VecDeque<String>);

impl Said {
    /// Adds what came, and gives it as lines that can be shown.
    pub(crate) async fn add(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(bytes, LONGEST);
        let mut added = Vec::new();
        // Bytes in memory are read without an error.
        while let Ok(Some(line)) = lines.next().await {
            if line.text.is_empty() {
                continue;
            }
            if self.0.len() == LAST {
                self.0.pop_front();
            }
            self.0.push_back(line.text.clone());
            added.push(line.text);
        }
        added
    }

    pub(crate) fn last(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}
