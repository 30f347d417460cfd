//! How a scripted server behaves.

use std::time::Duration;

use crate::transport::{Request, ServerProfile, Signals, Sizes};

/// How the server behaves.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// One way through the network.
    pub(crate) hop: Duration,
    /// A whole handshake.
    pub(crate) handshake: Duration,
    /// sshd's MaxSessions.
    pub(crate) max_sessions: u32,
    /// How long a command runs.
    pub(crate) runtime: Duration,
    /// How long one runs that has no tag where the others have one: a helper command.
    pub(crate) control_runtime: Duration,
    /// Whether a signal ends a command.
    pub(crate) heeds_signals: bool,
    /// What it does with them otherwise.
    pub(crate) signals: Signals,
    /// Whether it answers requests for environment variables, all of which it takes.
    pub(crate) answers_variables: bool,
    /// Whether it answers requests to run a command.
    pub(crate) replies: bool,
    /// What ends its connection.
    pub(crate) fatal: Option<Fatal>,
}

/// What a server does not survive: it ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fatal {
    /// To be asked for an environment variable.
    Variable,
    /// To be asked for a stream.
    Stream,
    /// To have granted a session.
    Session,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            hop: Duration::from_millis(2),
            handshake: Duration::from_millis(10),
            max_sessions: 10,
            runtime: Duration::from_millis(10),
            control_runtime: Duration::from_millis(10),
            heeds_signals: true,
            signals: Signals::Group,
            answers_variables: false,
            replies: true,
            fatal: None,
        }
    }
}

impl Script {
    pub(super) fn profile(&self) -> ServerProfile {
        ServerProfile {
            sessions_at_most: None,
            signals: self.signals,
            sizes: Sizes::OPENSSH,
        }
    }
}

/// Whether only a signal ends it: `hold`, as a command or a subsystem.
pub(super) fn is_held(request: &Request) -> bool {
    match request {
        Request::Exec(line) => line == b"hold",
        Request::Subsystem(name) => name == "hold",
    }
}

/// What a tagged command says first.
pub(super) fn mark(request: &Request) -> Option<Vec<u8>> {
    let Request::Exec(line) = request else {
        return None;
    };
    let line = line.strip_prefix(b"echo ".as_slice())?;
    let mark = line.split(|byte| *byte == b' ').next()?;
    (mark.starts_with(b"SSH_POOL_MARK=")).then(|| [mark, b"\n"].concat())
}
