//! What callers ask for, and whether what they get is right.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ssh_pool::{Child, CommandState, Error, Host, Output};
use ssh_pool_examples::{Lines, explain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::HostInfo;
use crate::ledger;
use crate::record::{Blame, StreamState};

/// How a host is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    Output,
    Status,
    /// It may run more than once.
    Idempotent,
    Script,
    /// With input.
    Stdin,
    /// With a megabyte of output.
    Big,
    /// Line by line, on a connection of its own.
    Isolated,
    /// Line by line, on a shared one.
    Shared,
    /// So slowly that the command is held back.
    Slow,
    Tcp,
    Unix,
    Warm,
}

impl Way {
    pub(crate) const ALL: [Self; 12] = [
        Self::Output,
        Self::Status,
        Self::Idempotent,
        Self::Script,
        Self::Stdin,
        Self::Big,
        Self::Isolated,
        Self::Shared,
        Self::Slow,
        Self::Tcp,
        Self::Unix,
        Self::Warm,
    ];

    /// Whether it is a command, which writes to the ledger.
    pub(crate) fn is_command(self) -> bool {
        !matches!(self, Self::Tcp | Self::Unix | Self::Warm)
    }
}

/// Bytes of output, and of input.
const BIG: usize = 1 << 20;
const INPUT: usize = 50_000;
/// Lines of a stream, and of one that is read slowly.
const LINES: usize = 12;
const SLOW_LINES: usize = 40_000;
const STREAM: usize = 20_000;
/// No line of ours is longer.
const LONGEST: usize = 256;

/// What came of it.
pub(crate) struct Answer {
    pub(crate) stream_state: StreamState,
    pub(crate) attempts: u32,
    pub(crate) timed_out: bool,
    pub(crate) blame: Option<Blame>,
    pub(crate) text: Option<String>,
}

/// One call.
pub(crate) struct Work<'a> {
    pub(crate) host: &'a Host,
    pub(crate) info: &'a HostInfo,
    pub(crate) id: &'a str,
    pub(crate) way: Way,
    /// Milliseconds that it takes on the server.
    pub(crate) sleep: u64,
    pub(crate) limit: Duration,
}

impl Answer {
    fn ok(attempts: u32) -> Self {
        Self {
            stream_state: StreamState::Ok,
            attempts,
            timed_out: false,
            blame: None,
            text: None,
        }
    }

    fn wrong(text: String) -> Self {
        Self {
            stream_state: StreamState::Wrong,
            text: Some(text),
            ..Self::ok(1)
        }
    }

    fn error(error: &Error) -> Self {
        let stream_state = match error.command_state() {
            CommandState::NotStarted => StreamState::NotStarted,
            CommandState::Unknown => StreamState::Unknown,
        };
        Self {
            stream_state,
            attempts: error.attempts(),
            timed_out: error.is_timeout(),
            blame: Some(Blame::of(error)),
            text: Some(explain(error)),
        }
    }

    /// Of a stream that was open already.
    fn broken(error: &std::io::Error) -> Self {
        Self {
            stream_state: StreamState::Unknown,
            blame: Some(Blame::Way),
            text: Some(format!("a stream broke: {error}")),
            ..Self::ok(1)
        }
    }
}

impl Work<'_> {
    pub(crate) async fn run(&self) -> Answer {
        match self.ask().await {
            Ok(answer) => answer,
            Err(error) => Answer::error(&error),
        }
    }

    async fn ask(&self) -> Result<Answer, Error> {
        let entry = ledger::entry(self.id, &self.info.ledger);
        let done = format!("done {}\n", self.id);
        let say_done = format!("echo 'done {}'", self.id);
        let sleep = format!("sleep {}.{:03}", self.sleep / 1000, self.sleep % 1000);
        let host = self.host;
        let line = |middle: &str| format!("{entry}; {middle}; {say_done}");
        match self.way {
            Way::Output => {
                let output = (host.shell(line(&sleep)).timeout(self.limit))
                    .output()
                    .await?;
                Ok(judge(&output, |stdout| stdout == done.as_bytes()))
            }
            Way::Status => {
                let mut command = host.shell(line(&sleep));
                let status = command.timeout(self.limit).status().await?;
                Ok(match status.success() {
                    true => Answer::ok(1),
                    false => Answer::wrong(status.to_string()),
                })
            }
            Way::Idempotent => {
                let mut command = host.shell(line(&sleep));
                let output = command.timeout(self.limit).idempotent().output().await?;
                Ok(judge(&output, |stdout| stdout == done.as_bytes()))
            }
            Way::Script => {
                let mut script = host.script(format!("{entry}\n{sleep}\n{say_done}\n"));
                let output = script.timeout(self.limit).output().await?;
                Ok(judge(&output, |stdout| stdout == done.as_bytes()))
            }
            Way::Stdin => {
                let mut command = host.shell(line("wc -c"));
                let input = vec![b'x'; INPUT];
                let output = command.timeout(self.limit).stdin(input).output().await?;
                let expected = format!("{INPUT}\n{done}");
                Ok(judge(&output, |stdout| stdout == expected.as_bytes()))
            }
            Way::Big => {
                let big = format!("head -c {BIG} /dev/zero | tr '\\0' x");
                let output = (host.shell(line(&big)).timeout(self.limit))
                    .output()
                    .await?;
                Ok(judge(&output, |stdout| {
                    stdout.len() == BIG + done.len() && stdout.ends_with(done.as_bytes())
                }))
            }
            Way::Isolated | Way::Shared | Way::Slow => self.follow(entry, &say_done).await,
            Way::Tcp | Way::Unix => self.stream().await,
            Way::Warm => host.warm().await.map(|()| Answer::ok(1)),
        }
    }

    /// Reads a command's lines as it writes them.
    async fn follow(&self, entry: String, say_done: &str) -> Result<Answer, Error> {
        let (lines, middle) = match self.way {
            Way::Slow => (SLOW_LINES, format!("yes line | head -n {SLOW_LINES}")),
            _ => {
                let numbers: Vec<_> = (0..LINES).map(|number| number.to_string()).collect();
                let loop_over = numbers.join(" ");
                (
                    LINES,
                    format!("for n in {loop_over}; do echo $n; sleep 0.02; done"),
                )
            }
        };
        let mut command = self.host.shell(format!("{entry}; {middle}; {say_done}"));
        command.timeout(self.limit);
        if self.way == Way::Shared {
            command.shared();
        }
        let mut child = command.spawn().await?;
        let read = self.read(&mut child).await;
        let status = child.wait().await?;
        Ok(match read {
            // The child says why, and it says that all is well.
            Err(error) => Answer::wrong(format!("{status}, and a stream broke: {error}")),
            Ok(_) if !status.success() => Answer::wrong(status.to_string()),
            Ok((count, last)) if count == lines + 1 && last == format!("done {}", self.id) => {
                Answer::ok(1)
            }
            Ok((count, last)) => Answer::wrong(format!("{count} lines, and the last is {last:?}")),
        })
    }

    /// How many lines there are, and the last of them.
    async fn read(&self, child: &mut Child) -> std::io::Result<(usize, String)> {
        let Some(stdout) = child.stdout.take() else {
            return Ok((0, String::new()));
        };
        let mut lines = Lines::new(stdout, LONGEST);
        let (mut count, mut last) = (0, String::new());
        while let Some(line) = lines.next().await? {
            count += 1;
            last = line.text;
            if self.way == Way::Slow && usize::is_multiple_of(count, 8_000) {
                // What is there already is read after a deadline too: not for longer than is allowed.
                tokio::time::sleep(Duration::from_millis(self.sleep.min(150))).await;
            }
        }
        Ok((count, last))
    }

    /// Sends something to and fro.
    async fn stream(&self) -> Result<Answer, Error> {
        let connect = match (self.way, &self.info.unix, self.info.tcp) {
            (Way::Unix, Some(path), _) => self.host.connect_unix(path),
            (_, _, Some(to)) => self.host.connect_tcp(to.ip().to_string(), to.port()),
            _ => return Ok(Answer::ok(1)),
        };
        // Half of them share.
        let connect = match self.sleep % 2 {
            0 => connect.shared(),
            _ => connect,
        };
        let mut stream = connect.timeout(self.limit).await?;
        let sent = vec![b'x'; STREAM];
        let mut got = Vec::new();
        let talk = async {
            stream.write_all(&sent).await?;
            stream.shutdown().await?;
            stream.read_to_end(&mut got).await
        };
        Ok(match talk.await {
            Ok(_) if got == sent => Answer::ok(1),
            Ok(_) => Answer::wrong(format!("{} bytes of {STREAM} came back", got.len())),
            Err(error) => Answer::broken(&error),
        })
    }
}

fn judge(output: &Output, is_right: impl Fn(&[u8]) -> bool) -> Answer {
    if output.status.success() && is_right(&output.stdout) {
        return Answer::ok(output.attempts);
    }
    let begin: Vec<u8> = output.stdout.iter().copied().take(200).collect();
    Answer::wrong(format!(
        "{}, {} bytes of output: {:?}, errors: {:?}",
        output.status,
        output.stdout.len(),
        String::from_utf8_lossy(&begin),
        String::from_utf8_lossy(&output.stderr),
    ))
}
