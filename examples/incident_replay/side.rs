//! The two contenders, seen alike.

use crate::coolify::Coolify;
use crate::fault::Fault;
use crate::ledger::Id;
use crate::pooled::Pooled;
use crate::test_host::TestHost;

/// What a caller was told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Answer {
    /// Exit code 0, and the command's own output.
    Done,
    /// Exit code 0, and not the command's own output.
    Wrong,
    /// An error that says that it has not run. Only ssh-pool knows.
    NotStarted(String),
    /// An error that says that it may have run.
    Unknown(String),
    /// An error that does not say. All that ssh has is an exit code.
    Failed(String),
    /// None at all.
    #[default]
    Nothing,
}

impl Answer {
    /// What the caller could read.
    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Wrong => Some("another command's output"),
            Self::NotStarted(text) | Self::Unknown(text) | Self::Failed(text) => Some(text),
            Self::Nothing => Some("nothing"),
        }
    }
}

/// One command, as its caller saw it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) answer: Answer,
    /// Something had to be ended because its time was over.
    pub(crate) hung: bool,
    /// How often it was tried again.
    pub(crate) retries: usize,
    /// Lines that ssh wrote into the command's standard error.
    pub(crate) noise: usize,
}

/// What is there and should not be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Left {
    /// Control sockets that nobody answers.
    pub(crate) stale: usize,
    /// Connections, and background processes, that serve nobody.
    pub(crate) behind: usize,
}

pub(crate) enum Side {
    OpenSsh(Coolify),
    Pool(Pooled),
}

impl Left {
    /// What has come since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            stale: self.stale.saturating_sub(before.stale),
            behind: self.behind.saturating_sub(before.behind),
        }
    }
}

impl Side {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::OpenSsh(_) => "OpenSSH",
            Self::Pool(_) => "ssh-pool",
        }
    }

    pub(crate) fn test_host(&self) -> &TestHost {
        match self {
            Self::OpenSsh(side) => &side.test_host,
            Self::Pool(side) => &side.test_host,
        }
    }

    pub(crate) async fn ask(&self, id: Id) -> Asked {
        match self {
            Self::OpenSsh(side) => side.ask(id).await,
            Self::Pool(side) => side.ask(id).await,
        }
    }

    /// Before a cold round: there is no connection any more.
    pub(crate) async fn chill(&self) {
        match self {
            Self::OpenSsh(side) => side.chill().await,
            Self::Pool(side) => side.chill(),
        }
    }

    /// Breaks something, now.
    pub(crate) fn strike(&self, fault: Fault) {
        match (fault, self) {
            (Fault::Cold | Fault::Overflow, _) => {}
            (Fault::MasterKilled, Self::OpenSsh(side)) => side.masters.kill_all(),
            (Fault::Stopped, Self::OpenSsh(side)) => side.masters.pause(),
            (Fault::Stopped, Self::Pool(side)) => side.pause(),
            (Fault::MasterKilled, Self::Pool(side)) => side.kill_busiest(),
            (Fault::ServerSideKilled, _) => self.test_host().kill_connections(),
            (Fault::Frozen, _) => self.test_host().proxy.freeze(),
            (Fault::Restart, _) => self.test_host().restart(),
        }
    }

    /// What somebody who looks after the machine does in the end.
    pub(crate) fn mend(&self, fault: Fault) {
        match (fault, self) {
            (Fault::Stopped, Self::OpenSsh(side)) => side.masters.kill_all(),
            (Fault::Stopped, Self::Pool(side)) => side.resume(),
            _ => self.test_host().proxy.thaw(),
        }
    }

    /// What a round has left behind.
    pub(crate) async fn left(&self) -> Left {
        match self {
            Self::OpenSsh(side) => side.masters.left().await,
            Self::Pool(side) => side.left().await,
        }
    }

    /// Ends everything in the middle of something.
    pub(crate) async fn abandon(&self) {
        self.test_host().proxy.thaw();
        match self {
            Self::OpenSsh(side) => tokio::task::block_in_place(|| side.masters.end()),
            Self::Pool(side) => {
                side.end().await;
            }
        }
    }

    /// Ends everything, and says what did not end by itself.
    pub(crate) async fn end(&self) -> Left {
        match self {
            Self::OpenSsh(side) => side.end().await,
            Self::Pool(side) => side.end().await,
        }
    }
}
