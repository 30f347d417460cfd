//! One file on one host, followed over all that happens to the connection.

use std::time::Duration;

use ssh_pool::{Child, Error, ExitStatus, Host};
use ssh_pool_examples::{Lines, explain};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::printer::{LONGEST, Shown};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pool takes two seconds before it forces a process, and one more before it gives up.
const KILL_BOUND: Duration = Duration::from_secs(10);
/// From here on an exit code is a shell's way to say that a signal has ended its command.
const KILLED: i32 = 128;

/// Follows one file.
///
/// It begins at the end of the file, or at its beginning, and knows by counting at which byte it
/// is. After a lost connection it goes on from there: a line that was cut in two is read again, no
/// other line is shown twice, and none is left out. It cannot know whether the file was replaced
/// while nobody looked. If the file is shorter than before, it is read from its beginning. If a
/// new file has grown longer than the old one was, or was rotated in while we followed (`tail -F`
/// goes on with the new one, and our count does not begin again), lines may be missing or shown
/// twice after a lost connection. To be better than that, a log needs sequence numbers.
pub(crate) struct Follower {
    pub(crate) host: Host,
    pub(crate) file: String,
    /// What stands before each line.
    pub(crate) label: String,
    pub(crate) screen: mpsc::Sender<Shown>,
    /// Turns true when everything is to end.
    pub(crate) stop: watch::Receiver<bool>,
    /// How many bytes of the file have been shown; `None` begins at its end.
    pub(crate) at: Option<u64>,
}

/// How following has ended.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) label: String,
    /// How often it was begun again.
    pub(crate) restarts: u32,
    /// Why it ended, if it was not asked to, or could not end well.
    pub(crate) problem: Option<String>,
}

/// Why one run of `tail` is over.
enum Over {
    /// We are to stop, and its process has ended.
    Stopped,
    /// We are to stop, and the server has not said that the process has ended.
    NotKilled(String),
    /// It has ended by itself.
    Ended(ExitStatus),
}

impl Follower {
    /// Follows until it is stopped, or until there is no hope.
    pub(crate) async fn run(mut self) -> Report {
        let mut restarts = 0;
        let mut worked = false;
        let mut pause = FIRST_PAUSE;
        let problem = loop {
            let before = self.at;
            let result = self.once(restarts > 0).await;
            if self.at != before {
                worked = true;
                pause = FIRST_PAUSE;
            }
            let why = match result {
                Ok(Over::Stopped) => break None,
                Ok(Over::NotKilled(problem)) => break Some(problem),
                // It cannot follow this file, or there is no tail.
                Ok(Over::Ended(status)) if status.code().is_some_and(|code| code < KILLED) => {
                    break Some(format!("tail has ended ({status})"));
                }
                Ok(Over::Ended(status)) => format!("tail has ended ({status})"),
                Err(error) if is_hopeless(&error, worked) => break Some(explain(&error)),
                Err(error) => explain(&error),
            };
            // Up to a quarter less, so that many hosts behind one router do not come back at once.
            let pausing = pause - pause.mul_f64(fastrand::f64() / 4.0);
            let note = format!("{why}; again in {} ms", pausing.as_millis());
            let stopped = async {
                self.note(&note).await;
                sleep(pausing).await;
            };
            if unless_stopped(&mut self.stop.clone(), stopped)
                .await
                .is_none()
            {
                break None;
            }
            restarts += 1;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        if let Some(problem) = &problem
            && !*self.stop.borrow()
        {
            self.note(&format!("given up: {problem}")).await;
        }
        Report {
            label: self.label,
            restarts,
            problem,
        }
    }

    /// Runs `tail` once, to its end or ours.
    async fn once(&mut self, again: bool) -> Result<Over, Error> {
        let mut stop = self.stop.clone();
        // Dropped while it waits, nothing has started; dropped later, the pool ends what has.
        let Some(started) = unless_stopped(&mut stop, self.start(again)).await else {
            return Ok(Over::Stopped);
        };
        let mut child = started?;
        if unless_stopped(&mut stop, self.read(&mut child)).await == Some(Wanted::Nothing) {
            return child.wait().await.map(Over::Ended);
        }
        match timeout(KILL_BOUND, child.kill()).await {
            Ok(Ok(())) => Ok(Over::Stopped),
            Ok(Err(error)) => Ok(Over::NotKilled(explain(&error))),
            Err(_) => Ok(Over::NotKilled(format!(
                "tail has not ended after {KILL_BOUND:?}"
            ))),
        }
    }

    async fn start(&mut self, again: bool) -> Result<Child, Error> {
        let size = self.size().await?;
        let from = match self.at {
            None => size,
            Some(at) if at <= size => at,
            Some(at) => {
                self.note(&format!(
                    "the file had {at} bytes and has {size}: from its beginning"
                ))
                .await;
                0
            }
        };
        // Shared: many light streams over one connection.
        let child = (self.host.command("tail"))
            .arg("-c")
            .arg(format!("+{}", from + 1))
            .args(["-F", "--", &self.file])
            .shared()
            .spawn()
            .await?;
        self.at = Some(from);
        if again {
            self.note(&format!("following again, from byte {from}"))
                .await;
        }
        Ok(child)
    }

    /// How long the file is now. One that is not there is empty: `tail -F` waits for it.
    async fn size(&self) -> Result<u64, Error> {
        let output = (self.host.shell("wc -c <").arg(&self.file))
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.trim().parse().unwrap_or(0))
    }

    /// Shows what `tail` writes, until both of its streams have ended.
    async fn read(&mut self, child: &mut Child) -> Wanted {
        let mut lines = child.stdout.take().map(|out| Lines::new(out, LONGEST));
        let mut notes = child.stderr.take().map(|err| Lines::new(err, LONGEST));
        while lines.is_some() || notes.is_some() {
            tokio::select! {
                line = next(&mut lines) => match line {
                    // At a clean end there is no more to come of this line.
                    Some(line) => {
                        // While the terminal is slow, this waits, and nothing is read. The pool
                        // keeps `Limits::stream_bytes` of a shared stream, then ends it with an
                        // error: we come back when there is room, and go on from this byte.
                        let shown = format!("{}: {}", self.label, line.text);
                        if self.screen.send(Shown::Line(shown)).await.is_err() {
                            return Wanted::NoMore;
                        }
                        self.at = self.at.map(|at| at + line.bytes);
                    }
                    None => lines = None,
                },
                note = next(&mut notes) => match note {
                    Some(note) => self.note(&note.text).await,
                    None => notes = None,
                },
            }
        }
        Wanted::Nothing
    }

    async fn note(&self, text: &str) {
        let note = Shown::Note(format!("{}: {text}", self.label));
        // Without a screen there is nobody to tell.
        self.screen.send(note).await.ok();
    }
}

/// Why reading is over.
#[derive(PartialEq, Eq)]
enum Wanted {
    /// There is nothing more to read.
    Nothing,
    /// Nobody wants more.
    NoMore,
}

/// The next line; `None` at the end, whether it is a good one or not: the child says why. Half a
/// line before a bad end is not one: it will be read again.
async fn next<R>(lines: &mut Option<Lines<R>>) -> Option<ssh_pool_examples::Line>
where
    R: tokio::io::AsyncRead + Unpin,
{
    match lines {
        Some(lines) => lines.next().await.ok().flatten(),
        // Not now, and not ever.
        None => std::future::pending().await,
    }
}

/// What does not get better by waiting. At first a wrong name or a missing key is told at once;
/// what has worked once may have gone for a while only, but for a host key or a login that is
/// refused now.
fn is_hopeless(error: &Error, worked: bool) -> bool {
    match error {
        Error::HostKey { .. } | Error::AuthRejected { .. } | Error::Closed { .. } => true,
        Error::OutputLimit { .. } | Error::ClosedWithoutStatus { .. } => false,
        _ => !worked && !error.is_transient(),
    }
}

/// `None` when everything is to end before `work` has.
async fn unless_stopped<T>(
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => None,
        done = work => Some(done),
    }
}
