//! This program, started by itself: one line of JSON in, one line of JSON out.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Starts it with these arguments and pipes to both sides.
pub(crate) fn start(arguments: &[&str]) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("find this program")?;
    Command::new(&program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", program.display()))
}

/// Starts it, gives it a question, and waits for its answer and its end.
pub(crate) fn ask<Q: Serialize, A: DeserializeOwned>(
    arguments: &[&str],
    question: &Q,
) -> anyhow::Result<A> {
    let mut child = start(arguments)?;
    let mut input = child.stdin.take().context("stdin is a pipe")?;
    let line = serde_json::to_string(question)?;
    input.write_all(line.as_bytes())?;
    drop(input);
    let answer = answer(child.stdout.take().context("stdout is a pipe")?);
    let status = child.wait()?;
    ensure!(status.success(), "{arguments:?} ended with {status}");
    answer
}

/// The next line, read as JSON.
pub(crate) fn answer<A: DeserializeOwned>(output: ChildStdout) -> anyhow::Result<A> {
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("not an answer: {line:?}"))
}

/// What a child says to its parent.
pub(crate) fn say(answer: &impl Serialize) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    serde_json::to_writer(&mut output, answer)?;
    output.write_all(b"\n")?;
    output.flush()?;
    Ok(())
}

/// Raises the limit of open descriptors as far as it goes, and sees to it that so many are allowed.
pub(crate) fn want_descriptors(count: u64) -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    ensure!(
        most >= count,
        "{most} open files are allowed, {count} are needed: raise it with `ulimit -Hn`, as root"
    );
    Ok(())
}
