//! What is done on one host.
//!
//! ```text
//! DIR/releases/NAME/app       uploaded
//! DIR/releases/NAME/config    a copy of DIR/config, if there is one
//! DIR/current                 -> releases/NAME
//! ```

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use ssh_pool::{Error, Host, Output, Stdio};
use ssh_pool_examples::Lines;
use tokio::io::AsyncWriteExt as _;

use crate::summary::Failure;

/// The longest that a step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(300);
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// A program may need a moment before it is healthy. Only the check is ever repeated: it changes
/// nothing.
const CHECKS: u32 = 3;
const BETWEEN_CHECKS: Duration = Duration::from_millis(500);
/// Lines of a failed step's standard error that are shown, and how much of each.
const LAST_LINES: usize = 5;
const LONGEST_LINE: usize = 300;
const CHUNK: usize = 32 << 10;

/// Input that was cut off ends like one that is whole, so the bytes are counted. The file has its
/// name only when it is complete.
pub(crate) const RECEIVE: &str = r#"
dir=$1 name=$2 size=$3
mkdir -p -- "$dir/releases/$name"
cd -- "$dir/releases/$name"
cat > app.part
got=$(wc -c < app.part)
if [ "$got" -ne "$size" ]; then
    echo "received $got bytes of $size" >&2
    exit 1
fi
mv -f app.part app
"#;

const INSTALL: &str = r#"
dir=$1 name=$2
chmod 755 "$dir/releases/$name/app"
if [ -e "$dir/config" ]; then
    port=$(sed -n 's/^port=//p' "$dir/config")
    case $port in
        '' | *[!0-9]*)
            echo "checking $dir/config" >&2
            echo "config: port=$port is not a number" >&2
            exit 3
            ;;
    esac
    cp "$dir/config" "$dir/releases/$name/config"
fi
"#;

/// A rename, so that there is no moment without a `current`; -T: never into a folder of that name.
const SWITCH: &str = r#"
dir=$1 name=$2
ln -sfn "releases/$name" "$dir/current.new"
mv -T "$dir/current.new" "$dir/current"
"#;

/// What is deployed if nothing else is.
const APP: &str = r#"#!/bin/sh
case $1 in
    health)
        if [ -e ../../maintenance ]; then
            echo "in maintenance" >&2
            exit 1
        fi
        echo ok
        ;;
esac
"#;

/// What is deployed.
pub(crate) struct Release {
    pub(crate) name: String,
    pub(crate) app: Vec<u8>,
    pub(crate) script: Vec<u8>,
    pub(crate) check: String,
}

impl Release {
    /// A release of the built-in script, named after the time.
    pub(crate) fn new(check: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            name: format!("r{}", now.unwrap_or_default().as_millis()),
            app: APP.into(),
            script: INSTALL.into(),
            check: check.to_owned(),
        }
    }
}

/// One of the steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Upload,
    Install,
    Switch,
    Check,
}

pub(crate) const STEPS: [Step; 4] = [Step::Upload, Step::Install, Step::Switch, Step::Check];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Step::Upload => "upload",
            Step::Install => "install",
            Step::Switch => "switch",
            Step::Check => "check",
        })
    }
}

/// How far a host has come. It outlives a deploy that is interrupted.
pub(crate) struct Progress {
    host: String,
    bar: ProgressBar,
    /// Steps that were begun; all but the last are done.
    begun: usize,
    done: usize,
}

impl Progress {
    pub(crate) fn new(host: String, bar: ProgressBar) -> Self {
        Self {
            host,
            bar,
            begun: 0,
            done: 0,
        }
    }

    fn begin(&mut self, step: Step) {
        self.begun += 1;
        self.bar.set_message(format!("{} {step}", self.host));
    }

    fn uploaded(&self, bytes: usize, of: usize) {
        let percent = bytes * 100 / of.max(1);
        self.bar
            .set_message(format!("{} upload {percent} %", self.host));
    }

    fn done_with_it(&mut self) {
        self.done += 1;
        self.bar.inc(1);
    }

    pub(crate) fn done(&self) -> Done {
        Done {
            begun: self.begun,
            done: self.done,
        }
    }
}

/// How many steps have begun, and how many of them are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) begun: usize,
    pub(crate) done: usize,
}

impl Done {
    /// The step that was begun and is not done.
    pub(crate) fn under_way(self) -> Option<Step> {
        (self.begun > self.done).then(|| STEPS.get(self.done).copied())?
    }
}

/// Deploys to one host, step by step; the first that fails is the last.
///
/// No step is run twice: the pool does not do it, and an error may mean that the step has run.
pub(crate) async fn run(
    host: &Host,
    dir: &str,
    release: &Release,
    progress: &mut Progress,
) -> Result<(), Failure> {
    for step in STEPS {
        progress.begin(step);
        let result = match step {
            Step::Upload => upload(host, dir, release, progress).await,
            Step::Install => {
                let mut script = host.script(release.script.as_slice());
                let script = script.args([dir, &release.name]);
                script.timeout(STEP_TIMEOUT).output().await
            }
            Step::Switch => {
                let mut script = host.script(SWITCH);
                let script = script.args([dir, &release.name]);
                script.timeout(STEP_TIMEOUT).output().await
            }
            Step::Check => check(host, dir, release).await,
        };
        match result {
            Ok(output) if output.status.success() => progress.done_with_it(),
            Ok(output) => {
                return Err(Failure::Status {
                    status: output.status,
                    stderr: last_lines(&output.stderr).await,
                });
            }
            Err(error) => return Err(Failure::Error(error)),
        }
    }
    Ok(())
}

async fn upload(
    host: &Host,
    dir: &str,
    release: &Release,
    progress: &Progress,
) -> Result<Output, Error> {
    let size = release.app.len();
    let mut child = (host.command("sh"))
        .args(["-ec", RECEIVE, "receive", dir, &release.name])
        .arg(size.to_string())
        .stdin(Stdio::piped())
        .shared() // with the commands: one login for each host
        .timeout(STEP_TIMEOUT)
        .spawn()
        .await?;
    let stdin = child.stdin.take();
    let feed = async {
        let Some(mut stdin) = stdin else { return };
        let mut sent = 0;
        for chunk in release.app.chunks(CHUNK) {
            // It ends early only with the command, and that says why.
            if stdin.write_all(chunk).await.is_err() {
                break;
            }
            sent += chunk.len();
            progress.uploaded(sent, size);
        }
        // Dropping it is the end of the input.
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    output
}

async fn check(host: &Host, dir: &str, release: &Release) -> Result<Output, Error> {
    let mut turn = 1;
    loop {
        let output = (host.shell(&release.check))
            .current_dir(format!("{dir}/current"))
            .timeout(CHECK_TIMEOUT)
            .output()
            .await?;
        if output.status.success() || turn == CHECKS {
            return Ok(output);
        }
        turn += 1;
        tokio::time::sleep(BETWEEN_CHECKS).await;
    }
}

async fn last_lines(bytes: &[u8]) -> Vec<String> {
    let mut lines = Lines::new(bytes, LONGEST_LINE);
    let mut last = std::collections::VecDeque::new();
    // Bytes in memory are read without an error.
    while let Ok(Some(line)) = lines.next().await {
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.text);
    }
    last.into()
}
