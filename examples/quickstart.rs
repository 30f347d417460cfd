//! Commands over SSH through one pool.
//!
//! ```text
//! cargo run --release --example quickstart                          three servers, made on the spot
//! cargo run --release --example quickstart -- deploy@web-1 uptime   a host of your own
//! ```

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ssh_pool::{CommandState, Error, HostKeyPolicy, Identity, Output, Pool, Target, Timeouts};
use ssh_pool_examples::{Timings, bar};
use ssh_pool_tests::Embedded;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// One command on a host of your own, known and logged in to as ssh does without a configuration.
async fn run(target: &str, line: &str) -> Result<Output, Error> {
    let pool = Pool::builder(HostKeyPolicy::known_hosts()) // an unknown host key is refused
        .identity(Identity::like_ssh()) // the agent, then the default key files
        .build()?;
    let host = pool.host(target)?; // cheap, Clone, dials nothing
    let output = host.shell(line).output().await?; // dials, unless somebody already has
    pool.close().await;
    Ok(output)
}

/// Many commands on three servers: 300 of them, 50 at once.
async fn demo() -> anyhow::Result<ExitCode> {
    let servers = [
        Embedded::start().await,
        Embedded::start().await,
        Embedded::start().await,
    ];
    // While the oldest waiting command has waited for less than this, no further connection is
    // dialled. One to each host is plenty for this load, also on a very slow machine.
    let patience = Duration::from_secs(20);
    let pool = Pool::builder(HostKeyPolicy::known_hosts())
        .identity(Identity::agent())
        .timeouts(Timeouts::default().patience(patience))
        .build()?;

    let mut hosts = Vec::new();
    for server in &servers {
        // These servers have keys of their own, so each target says what replaces the pool's
        // identity and host-key policy.
        let target = Target::try_from(server.target())?
            .identity(Identity::key_file(server.client_key()))
            .host_key_policy(HostKeyPolicy::pinned(server.host_key()));
        hosts.push((pool.host(target)?, Timings::default()));
    }

    let bar = bar(300, "300 commands, 50 at once");
    let at_once = Arc::new(Semaphore::new(50));
    let mut commands = JoinSet::new();
    for (number, at) in (0..300).zip((0..hosts.len()).cycle()) {
        let Some((host, _)) = hosts.get(at) else {
            continue;
        };
        let (host, bar) = (host.clone(), bar.clone());
        let permit = at_once.clone().acquire_owned().await?;
        commands.spawn(async move {
            let began = Instant::now();
            let result = host.command("echo").arg(number.to_string()).output().await;
            let took = began.elapsed();
            drop(permit);
            bar.inc(1);
            (at, number, took, result)
        });
    }

    let mut failures = 0;
    while let Some(finished) = commands.join_next().await {
        let (at, number, took, result) = finished?;
        if let Some((_, timings)) = hosts.get_mut(at) {
            timings.push(took);
        }
        match result {
            Ok(output) if output.stdout == format!("{number}\n").as_bytes() => continue,
            Ok(output) => eprintln!("command {number}: wrong answer, {}", output.status),
            Err(error) => explain(&error),
        }
        failures += 1;
    }
    bar.finish_and_clear();

    println!("host                  commands  connections  dials  median ms  p99 ms");
    let mut connections = 0;
    for (host, timings) in &hosts {
        let status = host.status();
        connections += status.connections;
        println!(
            "{:20}  {:8}  {:11}  {:5}  {:9.1}  {:6.1}",
            status.target,
            timings.len(),
            status.connections,
            status.dials,
            timings.quantile_ms(0.5),
            timings.quantile_ms(0.99),
        );
    }
    println!("{failures} failures, {connections} connections in all");
    pool.close().await;
    Ok(ExitCode::from(u8::from(failures > 0)))
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let Some(target) = arguments.next() else {
        return demo().await;
    };
    let line = arguments.collect::<Vec<_>>().join(" "); // as ssh does
    let output = match run(&target, &line).await {
        Ok(output) => output,
        Err(error) => {
            explain(&error);
            return Ok(ExitCode::from(255)); // as ssh does
        }
    };
    std::io::stdout().write_all(&output.stdout)?;
    std::io::stderr().write_all(&output.stderr)?;
    if let Some(signal) = output.status.signal() {
        eprintln!("{target}: the command was ended by SIG{signal}");
    }
    let code = output.status.code().and_then(|code| code.try_into().ok());
    Ok(ExitCode::from(code.unwrap_or(255)))
}

/// An error with its causes, and whether it is safe to run the command again.
fn explain(error: &Error) {
    eprintln!("{error}");
    for cause in anyhow::Chain::new(error).skip(1) {
        eprintln!("  because: {cause}");
    }
    eprintln!(
        "  {}",
        match error.command_state() {
            CommandState::NotStarted => "the command did not start",
            CommandState::Unknown => "the command may have run: look before you run it again",
        }
    );
}
