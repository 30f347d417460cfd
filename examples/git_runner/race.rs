//! `git ls-remote`, a hundred times, beside ssh with ControlMaster.

use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ssh_pool_examples::Timings;
use ssh_pool_tests::{TempDir, git_env};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::demo::Demo;

/// How often, one after the other; and then all at once, so many at a time.
const RUNS: usize = 100;
const AT_ONCE: usize = 50;

/// What of ControlMaster's median we would like to take. git itself and what the server has to do
/// take more than that where ssh's own start is quick: see the README.
const GOAL: f64 = 0.5;

/// A contender.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Pool,
    Master,
}

struct Race {
    demo: Demo,
    url: String,
    /// The ssh of the other one, with its control socket.
    ssh: OsString,
    folder: TempDir,
}

pub(crate) async fn run() -> anyhow::Result<()> {
    let demo = Demo::start()?;
    demo.repos.create("app", 20);
    let folder = TempDir::new();
    let ssh = format!(
        "ssh -F none -i {} -o IdentityAgent=none -o IdentitiesOnly=yes -o BatchMode=yes \
         -o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile={} \
         -o ControlMaster=auto -o ControlPersist=60 -o ControlPath={}/%C",
        demo.server.client_key().display(),
        demo.server.known_hosts().display(),
        folder.path().display(),
    );
    let race = Arc::new(Race {
        url: demo.url("app"),
        demo,
        ssh: ssh.into(),
        folder,
    });
    let result = race.clone().measure().await;
    race.end_master().await?;
    result
}

impl Race {
    async fn measure(self: Arc<Self>) -> anyhow::Result<()> {
        // Both are warm: logged in, and git's own files are in memory.
        for way in [Way::Pool, Way::Master] {
            self.ask(way).await.context("the first one")?;
        }
        let (mut pool, mut master) = (Timings::default(), Timings::default());
        for _ in 0..RUNS {
            let mut order = [Way::Pool, Way::Master];
            fastrand::shuffle(&mut order);
            for way in order {
                let begun = Instant::now();
                self.ask(way).await?;
                match way {
                    Way::Pool => pool.push(begun.elapsed()),
                    Way::Master => master.push(begun.elapsed()),
                }
            }
        }
        let (ours, theirs) = (pool.quantile_ms(0.5), master.quantile_ms(0.5));
        let ratio = ours / theirs;
        println!("git ls-remote, {RUNS} times, one after the other");
        println!("              median ms  p90 ms");
        for (name, timings) in [("ssh-pool", &pool), ("ControlMaster", &master)] {
            let (half, most) = (timings.quantile_ms(0.5), timings.quantile_ms(0.9));
            println!("{name:13} {half:9.1} {most:7.1}");
        }
        let reached = if ratio <= GOAL {
            "reached"
        } else {
            "not reached"
        };
        println!("ratio of medians {ratio:.2}; the goal of {GOAL} is {reached}");

        println!("git ls-remote, {RUNS} times, {AT_ONCE} at once");
        println!("              failures  new logins  seconds");
        let mut failures = Vec::new();
        for (name, way) in [("ssh-pool", Way::Pool), ("ControlMaster", Way::Master)] {
            let before = self.demo.server.accepted();
            let (failed, took) = self.clone().storm(way).await?;
            // ssh logs in by itself when its master is refused a session.
            let logins = self.demo.server.accepted() - before;
            let seconds = took.as_secs_f64();
            println!("{name:13} {failed:9} {logins:11} {seconds:8.2}");
            failures.push(failed);
        }
        ensure!(failures.first() == Some(&0), "some of ours failed");
        ensure!(ratio < 1.0, "ControlMaster is quicker");
        Ok(())
    }

    /// How many fail, and how long it takes in all.
    async fn storm(self: Arc<Self>, way: Way) -> anyhow::Result<(usize, Duration)> {
        let begun = Instant::now();
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut asked = JoinSet::new();
        for _ in 0..RUNS {
            let permit = room.clone().acquire_owned().await?;
            let race = self.clone();
            asked.spawn(async move {
                let answer = race.ask(way).await;
                drop(permit);
                answer
            });
        }
        let mut failed = 0;
        while let Some(answer) = asked.join_next().await {
            failed += usize::from(answer?.is_err());
        }
        Ok((failed, begun.elapsed()))
    }

    async fn ask(&self, way: Way) -> anyhow::Result<()> {
        let words = ["ls-remote", &self.url, "main"];
        let (status, answer, told) = match way {
            Way::Pool => {
                let mut git = self.demo.git.command();
                for (name, value) in git_env() {
                    git.env(name, value);
                }
                let output = git.args(words).output().await?;
                (output.status, output.stdout, output.stderr)
            }
            Way::Master => {
                let output = Command::new("git")
                    .envs(git_env())
                    .env("GIT_SSH_COMMAND", &self.ssh)
                    .args(words)
                    .stdin(Stdio::null())
                    .output()
                    .await?;
                (output.status, output.stdout, output.stderr)
            }
        };
        let told = String::from_utf8_lossy(&told);
        ensure!(status.success(), "{status}: {told}");
        ensure!(
            answer.ends_with(b"refs/heads/main\n"),
            "it has another answer"
        );
        Ok(())
    }

    /// The master would outlive us by a minute.
    async fn end_master(&self) -> anyhow::Result<()> {
        for socket in std::fs::read_dir(self.folder.path())? {
            let status = Command::new("ssh")
                .args(["-F", "none", "-O", "exit", "-o"])
                .arg(format!("ControlPath={}", socket?.path().display()))
                .arg("nobody")
                .stderr(Stdio::null())
                .status()
                .await?;
            ensure!(status.success(), "the master does not end: {status}");
        }
        Ok(())
    }
}
