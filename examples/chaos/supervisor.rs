//! The process with the servers and the proxies: what they need is not counted with the pool.
//!
//! It reads and writes lines of JSON, and ends with its input.

use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use ssh_pool_examples::Interrupts;
use ssh_pool_tests::eventually;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::fault::Fault;
use crate::host::{HostInfo, millis, now};
use crate::schedule::Strike;
use crate::test_host::{self, Echo, TestHost};

/// How long sessions may take to end when their connections have.
const SOON: Duration = Duration::from_secs(15);

/// What the stage is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// The storm begins.
    Begin(Vec<Strike>),
    /// The pool is closed.
    End,
}

/// What it says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// All servers listen.
    Ready(Vec<HostInfo>),
    /// All is over.
    Ended {
        struck: Vec<Struck>,
        /// What could not be broken or mended.
        failed: Vec<String>,
        /// Of each host.
        left: Vec<Left>,
    },
}

/// A fault that struck, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Struck {
    pub(crate) host: usize,
    pub(crate) fault: Fault,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl Struck {
    /// Whether it was there at some time between these two, or had been mended no longer than
    /// `after` before.
    pub(crate) fn touches(&self, from: u64, until: u64, after: Duration) -> bool {
        self.from <= until && from <= self.until + millis(after)
    }
}

/// What a host has seen, and what is left on it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) open: usize,
    pub(crate) processes: Vec<String>,
    pub(crate) logins: usize,
    pub(crate) failed_logins: usize,
    pub(crate) penalties: usize,
    pub(crate) refused_for_penalties: usize,
}

/// The whole life of the process.
pub(crate) async fn run(folder: &Path) -> anyhow::Result<()> {
    // A terminal interrupts both processes. This one ends with its input, so that nothing is left.
    let _ignored = Interrupts::new()?;
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let path = folder.join("echo");
    let unix = UnixListener::bind(&path).context("cannot listen on a socket file")?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    let echo = Echo {
        tcp: tcp.local_addr()?,
        unix: path,
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = tcp.accept().await {
            tokio::spawn(send_back(stream));
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = unix.accept().await {
            tokio::spawn(send_back(stream));
        }
    });
    let sites: Arc<Vec<TestHost>> = Arc::new(test_host::start(folder, &echo).await?);
    say(&Word::Ready(
        sites
            .iter()
            .map(|test_host| test_host.info.clone())
            .collect(),
    ))?;
    tokio::task::block_in_place(|| obey(sites))
}

async fn send_back(stream: impl AsyncRead + AsyncWrite) {
    let (mut from, mut to) = tokio::io::split(stream);
    // Lost connections are what this is about.
    tokio::io::copy(&mut from, &mut to).await.ok();
}

fn say(word: &Word) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(word)?;
    line.push('\n');
    // One call, one line: others say something as well.
    stdout().lock().write_all(line.as_bytes())?;
    Ok(())
}

fn obey(sites: Arc<Vec<TestHost>>) -> anyhow::Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let mut storms = Vec::new();
    for line in stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Order::Begin(schedule) => {
                let (sites, over) = (sites.clone(), over.clone());
                let strike = move || strike_all(&sites, &schedule, &over);
                storms.push(std::thread::spawn(strike));
            }
            Order::End => {
                let (mut struck, mut failed) = (Vec::new(), Vec::new());
                for storm in storms {
                    let done = storm.join();
                    for result in done.map_err(|_| anyhow::anyhow!("a storm broke off"))? {
                        match result {
                            Ok(one) => struck.push(one),
                            Err(error) => failed.push(format!("{error:#}")),
                        }
                    }
                }
                // Nobody else has them now.
                let mut sites = Arc::into_inner(sites).context("a host is still being broken")?;
                let left = leave(&mut sites);
                return say(&Word::Ended {
                    struck,
                    failed,
                    left,
                });
            }
        }
    }
    // Nobody waits any more. Servers end when they are dropped, which has to happen here.
    over.store(true, Ordering::Relaxed);
    for storm in storms {
        storm.join().ok();
    }
    Ok(())
}

/// Sleeps, unless all is over.
fn pause(time: Duration, over: &AtomicBool) -> bool {
    !eventually(time, || over.load(Ordering::Relaxed))
}

/// Each fault has a thread, for as long as it lasts: to stop a server is to wait.
fn strike_all(
    sites: &[TestHost],
    schedule: &[Strike],
    over: &AtomicBool,
) -> Vec<anyhow::Result<Struck>> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let mut done = Vec::new();
        for strike in schedule {
            let at = Duration::from_millis(strike.at);
            let Some(test_host) = sites.get(strike.host) else {
                continue;
            };
            if !pause(at.saturating_sub(begun.elapsed()), over) {
                break;
            }
            let one = || one(test_host, *strike, over).with_context(|| strike.to_string());
            done.push(scope.spawn(one));
        }
        let panicked = |_| Err(anyhow::anyhow!("a fault could not be made, see above"));
        let joined = done
            .into_iter()
            .map(|one| one.join().unwrap_or_else(panicked));
        joined.collect()
    })
}

fn one(test_host: &TestHost, strike: Strike, over: &AtomicBool) -> anyhow::Result<Struck> {
    // The one before may be late: mending it would mend this one too.
    let _turn = test_host
        .turn
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let from = now();
    let broken = test_host.strike(strike.fault)?;
    pause(
        Duration::from_millis(strike.until.saturating_sub(strike.at)),
        over,
    );
    test_host.mend(strike.fault, broken)?;
    Ok(Struck {
        host: strike.host,
        fault: strike.fault,
        from,
        until: now(),
    })
}

/// Waits for what runs to end, and says what does not.
fn leave(sites: &mut [TestHost]) -> Vec<Left> {
    for test_host in sites.iter_mut() {
        test_host.close_way();
    }
    let is_quiet = |test_host: &TestHost| {
        test_host.server.open() == 0 && test_host.server.processes().is_empty()
    };
    let _all_quiet = eventually(SOON, || sites.iter().all(is_quiet));
    let left = sites.iter().map(|TestHost { server, .. }| {
        let ((logins, failed_logins), (penalties, refused)) = (server.logins(), server.penalties());
        Left {
            open: server.open(),
            processes: server.processes(),
            logins,
            failed_logins,
            penalties,
            refused_for_penalties: refused,
        }
    });
    left.collect()
}
