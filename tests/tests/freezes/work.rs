//! What is done while the network freezes.

use std::time::Duration;

use ssh_pool::{Error, Host, Pool, Pty, Stdio, Timeouts};
use tokio::runtime::Handle;

use crate::ends;

/// Of commands and streams.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
/// `Timeouts::kill_grace` and `Timeouts::drain`.
const KILL_GRACE: Duration = Duration::from_millis(200);
const DRAIN: Duration = Duration::from_secs(1);

/// Short ones. Keepalives have their default, and find nothing in time.
pub(crate) fn timeouts() -> Timeouts {
    Timeouts::default()
        .connect(Duration::from_millis(1500))
        .acquire(DEADLINE)
        .check(Duration::from_millis(500))
        .kill_grace(KILL_GRACE)
        .drain(DRAIN)
}

/// Something that a caller does with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A command with a variable that the server is asked for, and input.
    Output,
    /// A command without anything.
    Status,
    /// A command with a terminal.
    Terminal,
    /// A command that is started and waited for.
    Child,
    /// The same on a shared connection, with its output.
    SharedChild,
    /// A command that is killed.
    Kill,
    /// A command that is signalled, and then dropped.
    Signal,
    Stream,
    Subsystem,
    Forward,
    Warm,
    /// A command, and the end of its pool.
    Close,
}

impl Work {
    pub(crate) const ALL: [Self; 12] = [
        Self::Output,
        Self::Status,
        Self::Terminal,
        Self::Child,
        Self::SharedChild,
        Self::Kill,
        Self::Signal,
        Self::Stream,
        Self::Subsystem,
        Self::Forward,
        Self::Warm,
        Self::Close,
    ];

    /// How long it takes at most: the deadlines of its calls, and the grace of those that have to
    /// end a command.
    pub(crate) fn most(self) -> Duration {
        let ends_a_command = KILL_GRACE + crate::GRACE;
        match self {
            Self::Stream | Self::Subsystem | Self::Forward | Self::Warm => DEADLINE,
            Self::Output | Self::Status | Self::Terminal => DEADLINE + ends_a_command,
            Self::Child | Self::SharedChild => 2 * DEADLINE + ends_a_command,
            Self::Kill | Self::Signal => 2 * DEADLINE + ends_a_command,
            // What it leaves behind has its grace while the pool drains; then connections have two
            // seconds to say goodbye.
            Self::Close => DEADLINE + ends_a_command + DRAIN + Duration::from_secs(2),
        }
    }

    /// Does it once.
    pub(crate) async fn run(self, pool: &Pool, host: &Host) -> Result<(), Error> {
        match self {
            Self::Output => {
                let mut command = host.command("cat");
                command.env("LC_ALL", "C").stdin("input").timeout(DEADLINE);
                assert_eq!(command.output().await?.stdout, b"input");
            }
            Self::Status => {
                let status = host.command("true").timeout(DEADLINE).status().await?;
                assert!(status.success());
            }
            Self::Terminal => {
                let mut command = host.command("tty");
                let output = command.pty(Pty::default()).timeout(DEADLINE).output();
                assert!(output.await?.status.success());
            }
            Self::Child => {
                let mut command = host.command("true");
                let mut child = command.timeout(DEADLINE).spawn().await?;
                assert!(child.wait().await?.success());
            }
            Self::SharedChild => {
                let mut command = host.command("echo");
                command.arg("here").shared().timeout(DEADLINE);
                let child = command.spawn().await?;
                assert_eq!(child.wait_with_output().await?.stdout, b"here\n");
            }
            Self::Kill => {
                let mut child = host.command("sleep").arg("600").spawn().await?;
                child.kill().await?;
            }
            Self::Signal => {
                let mut command = host.command("sleep");
                command.arg("600").stdin(Stdio::piped());
                let child = command.spawn().await?;
                let signal = async {
                    child.signal("HUP").await?;
                    child.resize(80, 25).await;
                    Ok::<_, Error>(())
                };
                // This future cannot go to another thread, so it is kept on this one.
                let signal = ends("signal", 2 * DEADLINE, signal);
                tokio::task::block_in_place(|| Handle::current().block_on(signal))?;
            }
            Self::Stream => drop(host.connect_unix("/nonexistent").timeout(DEADLINE).await),
            Self::Subsystem => drop(host.subsystem("sftp").await?),
            Self::Forward => {
                let on = ("127.0.0.1", 0);
                drop(host.forward_remote(on, ("127.0.0.1", 1)).await?);
            }
            Self::Warm => host.warm().await?,
            Self::Close => {
                let status = host.command("true").timeout(DEADLINE).status().await;
                pool.close().await;
                status?;
            }
        }
        Ok(())
    }
}

/// An error that a frozen network may cause.
pub(crate) fn is_expected(error: &Error) -> bool {
    error.is_timeout()
        || matches!(
            error,
            Error::NotKilled { .. }
                | Error::ConnectionLost { .. }
                | Error::Connect { .. }
                | Error::ClosedWithoutStatus { .. }
        )
}
