//! What callers ask of a hostile host, all at once, and what they are told.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant};

use ssh_pool::{Error, Host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::text;

/// The deadline of a command.
const DEADLINE: Duration = Duration::from_millis(1500);
/// Deadline, the time in which a command is ended, and a machine that has other work.
const HANG: Duration = Duration::from_secs(20);

/// What a call told its caller, and how long it took.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) problems: Vec<String>,
    pub(crate) slowest: Duration,
    /// How long the pool took to close.
    pub(crate) closing: Duration,
}

impl Told {
    /// A text that was shown.
    pub(crate) fn text(&mut self, what: &str, text: &str) {
        if let Some(problem) = text::problem(text) {
            self.problems.push(format!("{what}: {problem}"));
        }
    }

    pub(crate) fn value(&mut self, what: &str, value: &impl Debug) {
        self.text(what, &format!("{value:?}"));
    }

    /// An error as people print it: by itself, with its causes, and for debugging.
    fn error(&mut self, what: &str, error: &(dyn std::error::Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.text(what, &error.to_string());
            self.text(what, &format!("{error:?}"));
            self.text(what, &format!("{error:#?}"));
            next = error.source();
        }
    }

    fn result<T: Debug>(&mut self, what: &str, result: &Result<T, Error>) {
        match result {
            Ok(value) => self.value(what, value),
            Err(error) => self.error(what, error),
        }
    }
}

async fn timed<T>(told: &mut Told, what: &str, call: impl Future<Output = T>) -> Option<T> {
    let started = Instant::now();
    let result = tokio::time::timeout(HANG, call).await;
    let took = started.elapsed();
    told.slowest = told.slowest.max(took);
    // No timer runs while something blocks the thread.
    if result.is_err() || took > HANG {
        told.problems.push(format!("{what} has no end"));
    }
    result.ok()
}

async fn output(host: &Host) -> Told {
    let mut told = Told::default();
    let call = host.command("echo").timeout(DEADLINE).output();
    if let Some(result) = timed(&mut told, "output", call).await {
        told.result("output", &result);
        if let Ok(output) = result {
            told.text("exit status", &output.status.to_string());
            told.value("signal", &output.status.signal());
        }
    }
    told
}

async fn status(host: &Host) -> Told {
    let mut told = Told::default();
    let call = host.command("linger").timeout(DEADLINE).status();
    if let Some(result) = timed(&mut told, "status", call).await {
        told.result("status", &result);
        if let Ok(status) = result {
            told.text("exit status", &status.to_string());
        }
    }
    told
}

async fn child(host: &Host) -> Told {
    let mut told = Told::default();
    let call = async {
        let mut command = host.command("cat");
        command.timeout(DEADLINE).stdin(ssh_pool::Stdio::piped());
        let mut child = command.spawn().await?;
        if let Some(mut stdin) = child.stdin.take() {
            // A server may take less than this, or nothing: the deadline ends the child.
            drop(tokio::time::timeout(DEADLINE, stdin.write_all(&[b'x'; 100_000])).await);
        }
        child.wait_with_output().await
    };
    if let Some(result) = timed(&mut told, "a child", call).await {
        told.result("a child", &result);
    }
    told
}

async fn stream(host: &Host) -> Told {
    let mut told = Told::default();
    let call = async {
        let mut stream = host.connect_tcp("db", 5432).timeout(DEADLINE).await?;
        let mut bytes = [0; 512];
        // A stream has no deadline of its own.
        let exchange = async {
            stream.write_all(b"hello").await?;
            while stream.read(&mut bytes).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        match tokio::time::timeout(DEADLINE, exchange).await {
            Ok(Err(error)) => Ok(Some(error)),
            Ok(Ok(())) | Err(_) => Ok(None),
        }
    };
    match timed(&mut told, "a stream", call).await {
        Some(Ok(Some(error))) => told.error("a stream", &error),
        Some(Err(error)) => told.result::<()>("a stream", &Err(error)),
        Some(Ok(None)) | None => {}
    }
    told
}

async fn forward(host: &Host) -> Told {
    let mut told = Told::default();
    let call = async {
        // Nothing listens there: each connection that the server has for us is refused.
        let forward = host.forward_remote(("localhost", 4000), ("127.0.0.1", 1));
        let Ok(forward) = tokio::time::timeout(DEADLINE, forward).await else {
            return Ok(None);
        };
        let forward = forward?;
        Ok(tokio::time::timeout(DEADLINE, forward.lost()).await.ok())
    };
    if let Some(result) = timed(&mut told, "a forward", call).await {
        told.result("a forward", &result);
    }
    told
}

async fn subsystem(host: &Host) -> Told {
    let mut told = Told::default();
    let call = async {
        let stream = host.subsystem("linger").timeout(DEADLINE).await?;
        drop(stream);
        Ok(())
    };
    if let Some(result) = timed(&mut told, "a subsystem", call).await {
        told.result("a subsystem", &result);
    }
    told
}

/// Everything at once.
pub(crate) async fn all(host: &Host) -> Told {
    let (a, b, c, d, e, f) = tokio::join!(
        output(host),
        status(host),
        child(host),
        stream(host),
        forward(host),
        subsystem(host),
    );
    let mut all = Told::default();
    for told in [a, b, c, d, e, f] {
        all.problems.extend(told.problems);
        all.slowest = all.slowest.max(told.slowest);
    }
    // Again, with what was learned.
    let again = output(host).await;
    all.problems.extend(again.problems);
    all.value("status", &host.status());
    all
}

/// What an event shows.
pub(crate) fn event(told: &mut Told, event: &ssh_pool::Event) {
    told.value("an event", event);
    told.text("an event", &shown(&event.kind));
}

fn shown(value: &impl Display) -> String {
    value.to_string()
}
