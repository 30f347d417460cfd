//! The ways to run a command.

use ssh_pool::{Command, Error, ExitStatus, Host, Output};
use tokio::time::timeout;

use crate::SOON;

/// How a command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Output,
    Status,
    /// Spawned, on a connection of its own.
    Isolated,
    /// Spawned, on a connection that others use too.
    Shared,
}

pub(crate) const ALL: [Way; 4] = [Way::Output, Way::Status, Way::Isolated, Way::Shared];
/// Those that say what the command has written.
pub(crate) const WITH_OUTPUT: [Way; 3] = [Way::Output, Way::Isolated, Way::Shared];
pub(crate) const SPAWNED: [Way; 2] = [Way::Isolated, Way::Shared];

impl Way {
    /// A command that [`spawn`](Command::spawn) runs this way.
    pub(crate) fn shell(self, host: &Host, line: impl AsRef<str>) -> Command {
        let mut command = host.shell(line.as_ref());
        if self == Way::Shared {
            command.shared();
        }
        command
    }

    /// How the command ended.
    pub(crate) async fn status(self, command: &mut Command) -> Result<ExitStatus, Error> {
        let ended = async {
            match self {
                Way::Output => Ok(command.output().await?.status),
                Way::Status => command.status().await,
                Way::Isolated => command.spawn().await?.wait().await,
                Way::Shared => command.shared().spawn().await?.wait().await,
            }
        };
        timeout(SOON * 3, ended).await.unwrap()
    }

    /// What the command has written, and how it ended.
    pub(crate) async fn output(self, command: &mut Command) -> Result<Output, Error> {
        let ended = async {
            match self {
                Way::Output => command.output().await,
                Way::Status => panic!("the status alone has no output"),
                Way::Isolated => command.spawn().await?.wait_with_output().await,
                Way::Shared => command.shared().spawn().await?.wait_with_output().await,
            }
        };
        timeout(SOON * 3, ended).await.unwrap()
    }
}
