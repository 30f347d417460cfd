//! What is measured. Each scenario has two sides: the stage, in this process, and the work, in a
//! worker.

pub(crate) mod bulk;
pub(crate) mod burst;
pub(crate) mod cold;
pub(crate) mod cost;
pub(crate) mod fleet;
pub(crate) mod scale;
pub(crate) mod warm;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use ssh_pool_benches::report::names::metric;
use tokio::time::timeout;

use crate::bench::Bench;
use crate::contender::{Contender, Session};
use crate::place::Place;
use crate::serve::Servers;
use crate::worker::Found;

/// After that a command counts as one that never gets an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// One command after the other over a connection that is there, near and far.
    Warm,
    /// 200 commands, 50 at once.
    Burst,
    /// Processor time and memory of the client.
    Cost,
    /// A gigabyte in each direction.
    Bulk,
    /// From nothing to the first result.
    Cold,
    /// A hundred hosts at once.
    Fleet,
    /// A thousand hosts, and ten thousand targets; ssh-pool alone.
    Scale,
}

impl Scenario {
    pub(crate) async fn run(self, bench: &mut Bench) -> anyhow::Result<()> {
        match self {
            Self::Warm => warm::run(bench).await,
            Self::Burst => burst::run(bench).await,
            Self::Cost => cost::run(bench).await,
            Self::Bulk => bulk::run(bench).await,
            Self::Cold => cold::run(bench).await,
            Self::Fleet => fleet::run(bench).await,
            Self::Scale => scale::run(bench).await,
        }
    }
}

/// What a worker does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Job {
    /// See [`warm`].
    Warm {
        place: Place,
        warm_up: usize,
        commands: usize,
    },
    /// See [`burst`].
    Burst {
        place: Place,
        warm_up: usize,
        commands: usize,
        at_once: usize,
    },
    /// See [`cost`].
    Cost {
        place: Place,
        warm_up: usize,
        commands: usize,
    },
    /// See [`cost`].
    Idle { places: Vec<Place> },
    /// See [`cost`].
    Master { place: Place },
    /// See [`bulk`].
    Bulk { place: Place, up: bool, bytes: u64 },
    /// See [`cold`].
    Cold { place: Place, times: usize },
    /// See [`cold`].
    Trips { place: Place },
    /// See [`fleet`].
    Fleet { places: Vec<Place>, warm: bool },
    /// See [`scale`].
    ManyIdle { servers: Servers, window: Duration },
    /// See [`scale`].
    ManyTargets {
        servers: Servers,
        targets: usize,
        busy: usize,
        window: Duration,
    },
}

impl Job {
    pub(crate) async fn work(self, contender: Contender) -> anyhow::Result<Found> {
        match self {
            Self::Warm {
                place,
                warm_up,
                commands,
            } => warm::work(contender, &place, warm_up, commands).await,
            Self::Burst {
                place,
                warm_up,
                commands,
                at_once,
            } => burst::work(contender, &place, warm_up, commands, at_once).await,
            Self::Cost {
                place,
                warm_up,
                commands,
            } => cost::work(contender, &place, warm_up, commands).await,
            Self::Idle { places } => cost::idle(contender, &places).await,
            Self::Master { place } => cost::master(contender, &place).await,
            Self::Bulk { place, up, bytes } => bulk::work(contender, &place, up, bytes).await,
            Self::Cold { place, times } => cold::work(contender, &place, times).await,
            Self::Trips { place } => cold::answered(contender, &place).await,
            Self::Fleet { places, warm } => fleet::work(contender, places, warm).await,
            Self::ManyIdle { servers, window } => scale::idle(&servers, window).await,
            Self::ManyTargets {
                servers,
                targets,
                busy,
                window,
            } => scale::working(&servers, targets, busy, window).await,
        }
    }
}

/// Opens a session and runs that many commands, after which everything is as warm as it gets.
async fn warmed(contender: Contender, place: &Place, commands: usize) -> anyhow::Result<Session> {
    let session = Session::open(contender, place).await?;
    for _ in 0..commands {
        session.succeed("true").await?;
    }
    Ok(session)
}

/// What came of a command that has to say who it is.
#[derive(Debug, Default)]
struct Answer {
    failure: Option<String>,
    stderr: Vec<String>,
}

/// Runs one command among many. No answer in time is a failure, and so is that of another one.
async fn ask(session: &Session, id: usize) -> Answer {
    let line = format!("echo id-{id}");
    let ran = match timeout(PATIENCE, session.run(&line)).await {
        Err(_) => return Answer::failed(format!("no answer in {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => return Answer::failed(format!("{error:#}")),
        Ok(Ok(ran)) => ran,
    };
    let stderr = String::from_utf8_lossy(&ran.stderr);
    let stderr: Vec<String> = stderr.lines().map(|line| line.trim().to_owned()).collect();
    let failure = if ran.code != Some(0) {
        Some(ran.words())
    } else if ran.stdout != format!("id-{id}\n").into_bytes() {
        Some("the answer is another one's".to_owned())
    } else {
        None
    };
    Answer { failure, stderr }
}

impl Answer {
    fn failed(words: String) -> Self {
        Self {
            failure: Some(words),
            ..Self::default()
        }
    }
}

/// Ends sessions that have done what was measured. What is said then is the contender's noise: the
/// crate openssh, for one, gives now what its master has complained about before.
async fn close_all(sessions: impl IntoIterator<Item = Session>, found: &mut Found) {
    for session in sessions {
        if let Err(error) = session.close().await {
            found.noise.push(format!("{error:#}"));
        }
    }
}

/// Counts what many commands came to, which took so long. Where most of them have failed there is
/// no time: to fail is quick.
fn tally(answers: Vec<Answer>, time: f64, found: &mut Found) {
    let asked = answers.len();
    let (mut failures, mut noise) = (0, 0);
    for mut answer in answers {
        noise += answer.stderr.len();
        if let Some(words) = answer.failure {
            failures += 1;
            // What is quoted as a failure is not quoted once more.
            answer.stderr.retain(|line| *line != words);
            found.failures.push(words);
        }
        found.noise.extend(answer.stderr);
    }
    if failures <= asked / 2 {
        found.set(metric::TIME, time);
    }
    for (metric, count) in [(metric::FAILURES, failures), (metric::NOISE, noise)] {
        #[allow(clippy::cast_precision_loss, reason = "counts of commands")]
        found.set(metric, count as f64);
    }
}

/// Since then, in ms.
fn since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_as_a_failure_is_quoted_once_and_counted_as_noise_too() {
        let refused = "Session open refused by peer".to_owned();
        let other = "ControlSocket already exists".to_owned();
        let answers = vec![
            Answer::default(),
            Answer::failed("no answer".into()),
            Answer {
                failure: Some(refused.clone()),
                stderr: vec![other.clone(), refused.clone()],
            },
        ];
        let mut found = Found::default();
        tally(answers, 7.0, &mut found);
        assert_eq!(found.value("time"), None, "two of three have failed");
        assert_eq!(found.value("failures"), Some(2.0));
        assert_eq!(found.value("noise"), Some(2.0));
        assert_eq!(found.failures, ["no answer".to_owned(), refused]);
        assert_eq!(found.noise, [other]);
    }
}
