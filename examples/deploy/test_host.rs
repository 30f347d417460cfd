//! What the self-test plays on: the two hosts of the demo, and what really is on them.

use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use indicatif::{MultiProgress, ProgressDrawTarget};
use ssh_pool_examples::Interrupts;
use ssh_pool_tests::{Dockerd, Sshd, eventually_async};
use tokio::task::block_in_place;

use crate::app::App;
use crate::demo::{Demo, Version};
use crate::run;
use crate::summary::{Outcome, Summary};

/// For whatever takes longer than this something is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Two hosts, and all lines that were shown of them.
pub(crate) struct TestHost<'a> {
    pub(crate) demo: Demo,
    pub(crate) deploys: usize,
    interrupts: &'a mut Interrupts,
    lines: Shown,
}

/// Lines that were shown since the last deploy began.
#[derive(Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<Vec<String>>>);

impl Shown {
    fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line.to_owned());
    }

    fn all(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clone()
    }

    pub(crate) fn count(&self, end: &str) -> usize {
        self.all().iter().filter(|line| line.ends_with(end)).count()
    }

    /// Waits until that many lines that end so were shown: one for each host.
    pub(crate) async fn wait(&self, end: &str, hosts: usize) -> anyhow::Result<()> {
        let shown = eventually_async(SOON, || self.count(end) >= hosts).await;
        ensure!(
            shown,
            "\"{end}\" was shown {} times in\n{}",
            self.count(end),
            self.all().join("\n")
        );
        Ok(())
    }
}

impl<'a> TestHost<'a> {
    pub(crate) fn start(interrupts: &'a mut Interrupts) -> anyhow::Result<Self> {
        Ok(Self {
            demo: block_in_place(Demo::start)?,
            deploys: 0,
            interrupts,
            lines: Shown::default(),
        })
    }

    /// Deploys the app to the first hosts, while a scenario runs.
    pub(crate) async fn deploy_while(
        &mut self,
        app: App,
        hosts: usize,
        story: impl AsyncFnOnce(&Demo, &Shown) -> anyhow::Result<()>,
    ) -> anyhow::Result<Summary> {
        self.deploys += 1;
        self.lines.clear();
        let lines = self.lines.clone();
        let mut places = self.demo.places();
        places.truncate(hosts);
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let screen = Arc::new(move |line: &str| lines.push(line));
        let deploy = run(places, app, screen, &bars, self.interrupts);
        let both = async { tokio::try_join!(deploy, story(&self.demo, &self.lines)) };
        let bounded = tokio::time::timeout(SOON * 2, both).await;
        let (summary, ()) = bounded.context("it did not end")??;
        Ok(summary)
    }

    /// Commits a version, and deploys it to the first hosts.
    pub(crate) async fn deploy(
        &mut self,
        version: Version,
        hosts: usize,
    ) -> anyhow::Result<(u32, Summary)> {
        let number = self.demo.commit(version);
        let app = self.demo.app()?;
        let summary = self.deploy_while(app, hosts, async |_, _| Ok(())).await?;
        Ok((number, summary))
    }

    /// The id of the one container of a host. It runs that version, and there is nothing else: no
    /// other container, running or not, and no other image, named or not.
    pub(crate) fn only(&self, host: usize, version: u32) -> anyhow::Result<String> {
        let dockerd = self.daemon(host)?;
        let found = containers(dockerd)?;
        let [one] = found.as_slice() else {
            anyhow::bail!("{} containers: {found:?}", found.len());
        };
        let words: Vec<&str> = one.split(' ').collect();
        let [id, name, "running"] = words.as_slice() else {
            anyhow::bail!("the only container: {one}");
        };
        ensure!(!name.ends_with("candidate"), "the only container: {one}");
        let content = docker(dockerd, &["exec", id, "cat", "/srv/version"])?;
        ensure!(
            content.trim() == version.to_string(),
            "version {content:?} runs in the place of {version}"
        );
        let images = docker(dockerd, &["images", "--format", "{{.Repository}}:{{.Tag}}"])?;
        let images: Vec<&str> = images.lines().filter(|l| *l != "base:latest").collect();
        ensure!(
            matches!(images.as_slice(), [one] if one.starts_with("shop:")),
            "images: {images:?}"
        );
        Ok((*id).to_owned())
    }

    /// The version that is live on a host.
    pub(crate) fn version(&self, host: usize) -> anyhow::Result<u32> {
        let dockerd = self.daemon(host)?;
        let live = docker(dockerd, &["ps", "--quiet"])?;
        let version = docker(dockerd, &["exec", live.trim(), "cat", "/srv/version"])?;
        Ok(version.trim().parse()?)
    }

    /// [`only`](Self::only) for both hosts.
    pub(crate) fn only_on_both(&self, version: u32) -> anyhow::Result<[String; 2]> {
        Ok([
            self.only(0, version).context("web-1")?,
            self.only(1, version).context("web-2")?,
        ])
    }

    pub(crate) fn daemon(&self, host: usize) -> anyhow::Result<&Dockerd> {
        self.demo.daemons.get(host).context("no daemon")
    }

    pub(crate) fn server(&self, host: usize) -> anyhow::Result<&Sshd> {
        self.demo.fleet.servers.get(host).context("no server")
    }

    /// How often it was logged in to each host.
    pub(crate) fn logins(&self) -> Vec<usize> {
        self.demo.fleet.servers.iter().map(Sshd::accepted).collect()
    }
}

/// The containers that are live until further notice, and their version.
pub(crate) struct Live {
    pub(crate) ids: [String; 2],
    pub(crate) number: u32,
}

impl Live {
    /// The same containers run, and nothing else.
    pub(crate) fn is_untouched(&self, test_host: &TestHost<'_>) -> anyhow::Result<()> {
        let now = test_host.only_on_both(self.number)?;
        ensure!(now == self.ids, "other containers: {now:?}");
        Ok(())
    }
}

/// All containers of a daemon: id, name and state.
pub(crate) fn containers(dockerd: &Dockerd) -> anyhow::Result<Vec<String>> {
    let format = "{{.ID}} {{.Names}} {{.State}}";
    let found = docker(dockerd, &["ps", "--all", "--no-trunc", "--format", format])?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// The stock client, beside the pool.
pub(crate) fn docker(dockerd: &Dockerd, arguments: &[&str]) -> anyhow::Result<String> {
    let mut docker: Command = dockerd.docker();
    let output = block_in_place(|| docker.args(arguments).output()).context("docker")?;
    ensure!(
        output.status.success(),
        "docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The exit code, what became of each host, and that it is said.
pub(crate) fn check(
    summary: &Summary,
    code: u8,
    outcomes: &[Outcome],
    said: &[&str],
) -> anyhow::Result<String> {
    let text = summary.to_string();
    ensure!(
        summary.code() == code,
        "exit code {}\n{text}",
        summary.code()
    );
    let found: Vec<Outcome> = summary.rows.iter().map(|row| row.outcome).collect();
    ensure!(found == outcomes, "{found:?}\n{text}");
    for words in said {
        ensure!(text.contains(words), "\"{words}\" is not in\n{text}");
    }
    Ok(text)
}

/// The line of a summary that has these words.
pub(crate) fn line<'a>(text: &'a str, words: &str) -> &'a str {
    let found = text.lines().find(|line| line.contains(words));
    found.unwrap_or_default().trim()
}
