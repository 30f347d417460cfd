//! `docker compose`, which follows every service for as long as it runs.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ssh_pool::docker::{Cli, Command};
use ssh_pool_tests::{Dockerd, TempDir, compose_config};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::TestHost;

/// Starting a container takes a daemon its time, one after the other.
const LONG: Duration = Duration::from_secs(180);

/// How many services, unless the environment says otherwise.
const SERVICES: usize = 15;

fn services() -> usize {
    let asked = std::env::var("SSH_POOL_TEST_SERVICES").ok();
    asked
        .and_then(|count| count.parse().ok())
        .unwrap_or(SERVICES)
}

/// A project whose services all run until they are told to end.
struct Project {
    config: TempDir,
    dir: TempDir,
    cli: Cli,
}

impl Project {
    fn new(test_host: &TestHost, services: usize) -> Self {
        let mut file = String::from("services:\n");
        for number in 0..services {
            write!(
                file,
                "  svc-{number}:\n    image: {}\n    network_mode: none\n    stop_grace_period: 0s\n    \
                 command: [sh, -c, 'echo begun; exec sleep 600']\n",
                Dockerd::IMAGE,
            )
            .unwrap();
        }
        let dir = TempDir::new();
        std::fs::write(dir.path().join("compose.yaml"), file).unwrap();
        let target = test_host.host.status().target;
        let cli = Cli::at(&test_host.pool, target, test_host.dockerd.socket()).unwrap();
        Self {
            config: compose_config(),
            dir,
            cli: cli.shim(Path::new(env!("CARGO_BIN_EXE_ssh-pool-test-shim"))),
        }
    }

    fn compose(&self, words: &[&str]) -> Command {
        let mut command = self.cli.command();
        command
            .env("DOCKER_CONFIG", self.config.path())
            .current_dir(self.dir.path())
            .args(["compose", "--project-name=app", "--ansi=never"])
            .args(words);
        command
    }
}

async fn comes_up_and_is_followed(test_host: &TestHost, services: usize) {
    let project = Project::new(test_host, services);
    let mut up = project.compose(&["up", "--pull=never"]);
    let mut up = up
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let stderr = up.stderr.take().unwrap();
    let told = tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        let mut told = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            told.push(line);
        }
        told
    });
    let mut begun = 0;
    let all = async {
        while begun < services {
            match lines.next_line().await.unwrap() {
                Some(line) => begun += usize::from(line.ends_with("| begun")),
                None => break,
            }
        }
    };
    let in_time = tokio::time::timeout(LONG, all).await;
    println!(
        "{services} services: {:?}",
        test_host.pool.status().hosts[0]
    );
    if in_time.is_err() || begun < services {
        drop(up);
        panic!("{begun} of {services} services: {:?}", told.await);
    }
    // The streams of `up` are held while this one works through its own.
    let down = project.compose(&["down", "--timeout=0"]).output().await;
    let down = down.unwrap();
    let said = String::from_utf8_lossy(&down.stderr).into_owned();
    assert!(down.status.success(), "{said} {:?}", down.troubles);
    let up = tokio::time::timeout(LONG, up.wait_with_output()).await;
    let up = up.expect("`up` ends with its services").unwrap();
    assert!(up.troubles.is_empty(), "{:?}", up.troubles);
    assert!(up.status.success(), "{:?}", told.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_compose_up_starts_and_follows_all_of_its_services() {
    comes_up_and_is_followed(&TestHost::direct(), services()).await;
}
