//! Following a new container until it is healthy.
//!
//! Healthy is what Docker says it is: the `HEALTHCHECK` of the Dockerfile, or `--check`, which the
//! daemon runs inside the container. The log is for whoever looks on, and for the report.

use std::pin::pin;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerState, HealthStatusEnum};
use tokio::time::{Instant, sleep, timeout};

use crate::answer::Answer;
use crate::daemon::Daemon;
use crate::failure::{Failure, Said};
use crate::progress::Progress;

const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// The end of a container is seen before the end of its log may be.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often the log is followed again after its connection was lost.
const FOLLOWS: u32 = 3;

/// Why a container is not healthy.
struct Verdict {
    why: String,
    /// It does not run any more.
    ended: bool,
}

/// Waits until a container is healthy.
///
/// What is asked here changes nothing, and neither does following a log: so a connection that is
/// lost meanwhile does not end the deploy. Both go on over another one.
pub(crate) async fn wait(
    daemon: &Daemon,
    id: &str,
    patience: Duration,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut said = Said::default();
    let verdict = {
        let mut log = pin!(follow(daemon, id, &mut said, progress));
        let mut judge = pin!(judge(daemon, id, patience, progress));
        let mut log_ended = false;
        let verdict = loop {
            tokio::select! {
                verdict = judge.as_mut() => break verdict?,
                () = log.as_mut(), if !log_ended => log_ended = true,
            }
        };
        if !log_ended && verdict.as_ref().is_some_and(|verdict| verdict.ended) {
            // What it had to say, at least in part.
            timeout(LAST_WORDS, log).await.ok();
        }
        verdict
    };
    match verdict {
        None => Ok(()),
        Some(Verdict { why, .. }) => Err(Failure::Unhealthy {
            why,
            said: said.last(),
        }),
    }
}

/// Asks until it is known whether it is healthy; `None` is healthy.
async fn judge(
    daemon: &Daemon,
    id: &str,
    patience: Duration,
    progress: &Progress,
) -> Result<Option<Verdict>, Failure> {
    let deadline = Instant::now() + patience;
    let mut shown = None;
    loop {
        let inspect = async |d: Docker| d.inspect_container(id, None).await;
        let found = daemon.again("inspect the container", inspect).await?;
        let state = found.state.unwrap_or_default();
        if state.running != Some(true) {
            let why = format!(
                "not healthy: it has ended with exit code {}",
                state.exit_code.unwrap_or(-1)
            );
            return Ok(Some(Verdict { why, ended: true }));
        }
        let still = |why| Ok(Some(Verdict { why, ended: false }));
        match health(&state) {
            Some(HealthStatusEnum::HEALTHY) => return Ok(None),
            Some(HealthStatusEnum::UNHEALTHY) => {
                return still(format!("not healthy: {}", last_probe(&state)));
            }
            now => {
                if shown != Some(now) {
                    shown = Some(now);
                    let word = now.map_or("unknown".into(), |now| now.to_string());
                    progress.say(&format!("(health: {word})"));
                }
            }
        }
        if Instant::now() >= deadline {
            return still(format!("not healthy after {patience:?}"));
        }
        sleep(BETWEEN_LOOKS).await;
    }
}

fn health(state: &ContainerState) -> Option<HealthStatusEnum> {
    state.health.as_ref()?.status
}

/// What the check has said last.
fn last_probe(state: &ContainerState) -> String {
    let log = state.health.as_ref().and_then(|health| health.log.as_ref());
    let last = log.and_then(|log| log.last());
    let code = last.and_then(|probe| probe.exit_code).unwrap_or(-1);
    let output = last.and_then(|probe| probe.output.as_deref());
    let output = output.unwrap_or_default().trim().escape_debug();
    format!("its check says \"{output}\", exit code {code}")
}

/// Shows the log as it grows, to the end of the container.
async fn follow(daemon: &Daemon, id: &str, said: &mut Said, progress: &Progress) {
    let mut seen = 0;
    for _ in 0..=FOLLOWS {
        let Err(failure) = read(daemon, id, &mut seen, said, progress).await else {
            return;
        };
        progress.note(format!("{failure}; it is followed again"));
        sleep(BETWEEN_LOOKS).await;
    }
    progress.note("the log is not followed any more".into());
}

/// Reads the log from its beginning, for Docker keeps it. What was `seen` before is left out.
async fn read(
    daemon: &Daemon,
    id: &str,
    seen: &mut usize,
    said: &mut Said,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut log = Answer::of_log(daemon, id).await?;
    let mut number = 0;
    while let Some(piece) = log.next_piece().await? {
        number += 1;
        if number <= *seen {
            continue;
        }
        *seen = number;
        for line in said.add(&piece).await {
            progress.say(&line);
        }
    }
    Ok(())
}
