//! Everything that the program promises, checked on servers of its own: through a stream to the
//! socket, and through `docker system dial-stdio`.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bollard::Docker;
use futures_util::{Stream, TryStreamExt as _};
use ssh_pool_examples::Timings;
use ssh_pool_tests::{Dockerd, eventually_async};
use tokio::task::JoinSet;

use crate::cli;
use crate::engine::{self, Piece};
use crate::test_host::{TestHost, Way};

/// Long enough for anything that happens at all, on a busy machine too.
const SOON: Duration = Duration::from_secs(60);
/// Of the log that nobody reads: lines, and numbers in each. In all some 27 MB.
const LINES: usize = 3000;
const NUMBERS: usize = 2000;

pub(crate) async fn run_all() -> anyhow::Result<()> {
    for way in [Way::Stream, Way::DialStdio] {
        let test_host = TestHost::start(way)?;
        let docker = engine::connect(test_host.host()?, Some(&test_host.dockerd.socket())).await?;
        all(&test_host, &docker, way)
            .await
            .with_context(|| format!("through {way}"))?;
        test_host.fleet.pool.close().await;
    }
    println!("all checks have passed");
    Ok(())
}

async fn all(test_host: &TestHost, docker: &Docker, way: Way) -> anyhow::Result<()> {
    let tell = |what: String| println!("ok  {way}: {what}");
    tell(many_lists(test_host, docker, way).await?);
    tell(run(docker).await?);
    tell(exec(docker).await?);
    tell(archives(docker).await?);
    tell(followed(docker).await?);
    tell(unread(test_host, docker).await?);
    for [id, ..] in engine::list(docker).await? {
        engine::remove(docker, &id).await?;
    }
    tell(cli::check(test_host, test_host.member()?).await?);
    tell(nothing_is_left(test_host, way).await?);
    Ok(())
}

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

async fn start(docker: &Docker, script: &str) -> anyhow::Result<String> {
    engine::start(docker, Dockerd::IMAGE, &shell(script)).await
}

/// So many lists, some at once, each of which must show the container. The slowest.
async fn lists(
    docker: &Docker,
    id: &str,
    count: usize,
    at_once: usize,
) -> anyhow::Result<Duration> {
    let mut running = JoinSet::new();
    let mut slowest = Duration::ZERO;
    let mut begun = 0;
    loop {
        while begun < count && running.len() < at_once {
            begun += 1;
            let (docker, id) = (docker.clone(), id.to_owned());
            running.spawn(async move {
                let started = Instant::now();
                let found = engine::list(&docker).await?;
                ensure!(found.iter().any(|[one, ..]| *one == id), "{found:?}");
                Ok(started.elapsed())
            });
        }
        match running.join_next().await {
            Some(took) => slowest = slowest.max(took??),
            None => return Ok(slowest),
        }
    }
}

async fn many_lists(test_host: &TestHost, docker: &Docker, way: Way) -> anyhow::Result<String> {
    let id = start(docker, "true").await?;
    let begun = Instant::now();
    lists(docker, &id, 200, 50).await?;
    let took = begun.elapsed();
    let logins = test_host.logins();
    let most = match way {
        Way::Stream => 1,
        Way::DialStdio => 4,
    };
    ensure!(logins <= most, "{logins} logins");
    let mut alone = Timings::default();
    for _ in 0..100 {
        alone.push(lists(docker, &id, 1, 1).await?);
    }
    let alone = alone.quantile_ms(0.5);
    Ok(format!(
        "200 lists, 50 at once: {took:.0?}, logins: {logins}; one by one: {alone:.1} ms each"
    ))
}

/// All output, apart.
async fn collect(output: impl Stream<Item = anyhow::Result<Piece>>) -> anyhow::Result<[String; 2]> {
    let mut said = [Vec::new(), Vec::new()];
    let mut output = pin!(output);
    while let Some((is_error, bytes)) = output.try_next().await? {
        let [stdout, stderr] = &mut said;
        if is_error { stderr } else { stdout }.extend(bytes);
    }
    let [stdout, stderr] = said.map(String::from_utf8);
    Ok([stdout?, stderr?])
}

async fn run(docker: &Docker) -> anyhow::Result<String> {
    let id = start(docker, "echo out; echo err >&2; exit 3").await?;
    let said = collect(engine::logs(docker, &id, true)).await?;
    ensure!(said == ["out\n", "err\n"], "{said:?}");
    let code = engine::wait(docker, &id).await?;
    ensure!(code == 3, "exit code {code}");
    engine::remove(docker, &id).await?;
    Ok("run: both outputs, exit code 3".into())
}

async fn exec(docker: &Docker) -> anyhow::Result<String> {
    let id = start(docker, "sleep 1000").await?;
    let input: Vec<u8> = (0..1_u32 << 20).map(|i| (i % 251) as u8).collect();
    let mut output = Vec::new();
    let mut warned = false;
    let command = shell("cat; echo warned >&2; exit 7");
    let code = engine::exec(
        docker,
        &id,
        &command,
        input.as_slice(),
        |(is_error, bytes)| {
            if is_error {
                warned = bytes == b"warned\n";
            } else {
                output.extend(bytes);
            }
            Ok(())
        },
    );
    let code = code.await?;
    ensure!(code == 7, "exit code {code}");
    ensure!(
        output == input && warned,
        "{} bytes came back",
        output.len()
    );
    engine::remove(docker, &id).await?;
    Ok("exec: 1 MiB in and out, exit code 7".into())
}

async fn archives(docker: &Docker) -> anyhow::Result<String> {
    let id = start(docker, "sleep 1000").await?;
    let content: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 253) as u8).collect();
    engine::copy_in(docker, &id, "/tmp", archive("data", &content)?).await?;
    let back = engine::copy_out(docker, &id, "/tmp/data").await?;
    let mut back = tar::Archive::new(back.as_slice());
    let mut file = back.entries()?.next().context("an empty archive")??;
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut read)?;
    ensure!(read == content, "{} bytes came back", read.len());
    engine::remove(docker, &id).await?;
    Ok("archive in and out: 5 MB, byte by byte".into())
}

fn archive(name: &str, content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content)?;
    Ok(archive.into_inner()?)
}

async fn followed(docker: &Docker) -> anyhow::Result<String> {
    let script = "i=0; while [ ! -e /tmp/stop ]; do for n in 1 2 3 4 5 6 7 8 9 10; do \
                  i=$((i+1)); echo $i; done; sleep 0.01; done";
    let id = start(docker, script).await?;
    let log = tokio::spawn(collect(engine::logs(docker, &id, true)));
    let slowest = lists(docker, &id, 100, 10).await?;
    ensure!(!log.is_finished(), "it ends while its container runs");
    engine::copy_in(docker, &id, "/tmp", archive("stop", b"")?).await?;
    let [said, _] = log.await??;
    let count = said.lines().count();
    let wanted: String = (1..=count).map(|i| format!("{i}\n")).collect();
    ensure!(count > 0 && said == wanted, "lines are missing in {said}");
    Ok(format!(
        "a followed log lost none of {count} lines while 100 lists ran, {slowest:.0?} at most"
    ))
}

async fn unread(test_host: &TestHost, docker: &Docker) -> anyhow::Result<String> {
    let script = format!(
        "line=$(seq -s x 1 {NUMBERS}); i=0; \
         while [ $i -lt {LINES} ]; do echo $i $line; i=$((i+1)); done"
    );
    let id = start(docker, &script).await?;
    engine::wait(docker, &id).await?;
    let mut log = pin!(engine::logs(docker, &id, true));
    // It flows, and then nobody reads on.
    let mut bytes = log.try_next().await?.context("no log")?.1;
    let others = async {
        let slowest = lists(docker, &id, 100, 10).await?;
        let status = test_host.host()?.command("true").status().await?;
        ensure!(status.success(), "{status}");
        Ok(slowest)
    };
    let slowest = tokio::time::timeout(SOON, others).await??;
    while let Some((_, piece)) = log.try_next().await? {
        bytes.extend(piece);
    }
    let line: Vec<String> = (1..=NUMBERS).map(|i| i.to_string()).collect();
    let line = line.join("x");
    let text = String::from_utf8(bytes)?;
    let whole = (text.lines().enumerate()).all(|(i, it)| *it == format!("{i} {line}"));
    ensure!(
        whole && text.lines().count() == LINES,
        "the log is not whole"
    );
    Ok(format!(
        "a log of {} MB was left unread while 100 lists ran, {slowest:.0?} at most, and then read",
        text.len() / 1_000_000
    ))
}

async fn nothing_is_left(test_host: &TestHost, way: Way) -> anyhow::Result<String> {
    let host = test_host.host()?;
    let idle = || {
        let status = host.status();
        status.streams + status.running + status.isolated_busy == 0 && test_host.processes() == 0
    };
    ensure!(eventually_async(SOON, idle).await, "{:?}", host.status());
    let logins = test_host.logins();
    Ok(match way {
        Way::Stream => format!("no stream is left; logins in all: {logins}"),
        Way::DialStdio => format!("no process is left; logins in all: {logins}"),
    })
}
