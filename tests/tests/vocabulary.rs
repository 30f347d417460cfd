//! The names that outside programs compile against, each used once, the way it is meant to be.
//! Nothing here dials: that it compiles is the test.

#![allow(
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::future::IntoFuture;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use ssh_pool::{
    Address, Algorithms, Cause, Challenge, ChannelStream, Child, ChildStderr, ChildStdin,
    ChildStdout, Command, CommandState, Connect, ConnectionStatus, Error, Event, Events,
    ExitStatus, Forward, Host, HostKeyPolicy, HostKeyProblem, HostStatus, Identity, Limits, Output,
    PartialOutput, Phase, Pool, PoolBuilder, PoolStatus, Stdio, Stream, StreamGroup, Target,
    Timeouts, Waited,
};

fn policies(path: &Path) -> [HostKeyPolicy; 6] {
    [
        HostKeyPolicy::known_hosts(),
        HostKeyPolicy::known_hosts_file(path),
        HostKeyPolicy::pinned("SHA256:ldyiXa1JQakitNU5tErauu8DvWQ1dZ7aXu+rm7KQuog"),
        HostKeyPolicy::accept_new(),
        HostKeyPolicy::accept_new_file(path),
        HostKeyPolicy::dangerous_accept_any(),
    ]
}

fn identities(path: &Path, text: String) -> Identity {
    Identity::several([
        Identity::agent(),
        Identity::agent_key("SHA256:ldyiXa1JQakitNU5tErauu8DvWQ1dZ7aXu+rm7KQuog"),
        Identity::agent().with_certificate(path),
        Identity::like_ssh(),
        Identity::key_file(path),
        Identity::key_file_with_passphrase(path, "passphrase"),
        Identity::key_pem(text),
        Identity::password("password"),
        Identity::certificate(path, path),
        Identity::prompt(|challenge: &Challenge| {
            let _: Vec<(&str, bool)> = (challenge.prompts.iter())
                .map(|prompt| (&*prompt.text, prompt.echo))
                .collect();
            None
        }),
        Identity::none(),
    ])
}

fn targets() -> Result<[Target; 4], Error> {
    Ok([
        "deploy@web-1:22".parse()?,
        "ssh://deploy@web-1:22".try_into()?,
        String::from("deploy@web-1").try_into()?,
        Target::new("deploy", "web-1", 22)?
            .identity(Identity::agent())
            .host_key_policy(HostKeyPolicy::known_hosts())
            .algorithms(Algorithms::default().kex("+diffie-hellman-group14-sha1")),
    ])
}

fn built(policy: HostKeyPolicy) -> Result<Pool, Error> {
    let builder: PoolBuilder = Pool::builder(policy);
    builder
        .identity(Identity::agent())
        .algorithms(Algorithms::default())
        .limits(Limits::default().connections_per_host(2))
        .timeouts(Timeouts::default().connect(Duration::from_secs(5)))
        .build()
}

async fn used(pool: Pool) -> Result<(), Error> {
    let host: Host = pool.host("deploy@web-1:22")?;
    let same = host.clone();
    pool.host(String::from("deploy@web-1:22"))?;
    pool.host(Target::new("deploy", "web-1", 22)?)?;

    let out: Output = host.command("docker").args(["ps", "-q"]).output().await?;
    let (stdout, stderr): (Vec<u8>, Vec<u8>) = (out.stdout, out.stderr);
    let _: u32 = out.attempts;
    let Waited {
        queue,
        dial,
        back_off,
        channel,
        ..
    } = out.waited;
    assert_eq!(out.waited.total(), queue + dial + back_off + channel);
    let status: ExitStatus = out.status;
    let (_, _, _): (bool, Option<i32>, Option<&str>) =
        (status.success(), status.code(), status.signal());
    drop((stdout, stderr));

    let status: ExitStatus = same.shell("uptime | tail -1").status().await?;
    println!("{status}");
    host.script("set -u\ncd /srv\n").arg("one").output().await?;
    host.warm().await?;
    let _: Host = host.in_group(&StreamGroup::new());
    host.evict();
    let _: HostStatus = host.status();
    let _: PoolStatus = pool.status();
    pool.close().await;
    Ok(())
}

/// Built in one statement, or kept and added to, as with `std::process::Command`.
async fn commands(host: Host) -> Result<(), Error> {
    let mut command: Command = host.command("git");
    command
        .arg("-C")
        .arg(OsString::from("/srv/app"))
        .arg(Path::new("relative"))
        .args(vec![String::from("log"), String::from("-1")])
        .args(["--format=%H"].map(OsStr::new))
        .raw_arg("2>&1")
        .env("GIT_PAGER", "cat")
        .current_dir("/srv")
        .stdin("text")
        .stdin(b"bytes")
        .stdin(vec![0_u8; 3])
        .stdin(Stdio::null())
        .timeout(Duration::from_secs(60))
        .idempotent();
    // The same command twice: running it does not use it up.
    command.output().await?;
    command.status().await?;
    Ok(())
}

/// Many at once, on one host and on several.
async fn at_once(hosts: Vec<Host>) -> Vec<Result<Output, Error>> {
    let on_one = (0..10).map(|_| hosts[0].command("x").output());
    join_all(on_one).await;
    join_all(hosts.iter().map(|host| host.command("x").output())).await
}

/// Futures own what they need, so that they can be spawned.
fn futures_are_free(pool: &Pool, host: &Host) {
    fn free<T: Send + 'static>(_: T) {}
    free(host.command("x").output());
    free(host.command("x").status());
    let wait = host.wait_until_ready(Duration::from_secs(300));
    free(wait.clone().into_future());
    free(wait.for_host_key().into_future());
    free(host.shell("x").output());
    free(pool.close());
    free(used(pool.clone()));
    free(commands(host.clone()));
    free(at_once(vec![host.clone()]));
}

/// So that they can be kept in a structure that threads share, and used from any of them.
fn shared_between_threads<T: Send + Sync + 'static>() {}

#[test]
fn what_runs_can_be_shared_between_threads() {
    shared_between_threads::<Child>();
    shared_between_threads::<ChildStdin>();
    shared_between_threads::<ChildStdout>();
    shared_between_threads::<ChildStderr>();
    shared_between_threads::<Connect>();
    shared_between_threads::<ChannelStream>();
    shared_between_threads::<ssh_pool::ConnectionHandle>();
    shared_between_threads::<Forward>();
    shared_between_threads::<Event>();
    shared_between_threads::<Events>();
    shared_between_threads::<StreamGroup>();
    shared_between_threads::<ssh_pool::sftp::Sftp>();
    shared_between_threads::<ssh_pool::git::Git>();
    shared_between_threads::<ssh_pool::docker::Docker>();
    shared_between_threads::<ssh_pool::docker::Stream>();
    let _ = futures_can_be_sent;
}

/// Whatever waits can be part of a task.
fn futures_can_be_sent(host: &Host, mut child: Child, other: Child, events: &mut Events) {
    fn sent<T: Send>(_: T) {}
    sent(child.signal("HUP"));
    sent(child.resize(80, 24));
    sent(child.kill());
    sent(child.wait());
    sent(other.wait_with_output());
    sent(host.command("x").spawn());
    sent(host.warm());
    sent(host.connect_tcp("localhost", 80).into_future());
    sent(host.forward_local(("", 0), ("localhost", 80)));
    sent(host.forward_remote(("", 0), Address::from(Path::new("/run/x"))));
    sent(events.next());
}

fn failed(error: &Error) -> String {
    let phase: Phase = error.phase();
    let again = match error.command_state() {
        CommandState::NotStarted => error.is_transient() || error.is_timeout(),
        CommandState::Unknown => false,
    };
    let source = error.source().map(ToString::to_string);
    let kind = match error {
        Error::HostKey {
            reason: HostKeyProblem::Changed { .. },
            ..
        } => "changed",
        Error::AuthRejected { .. } => "login",
        Error::OutputLimit {
            stream: Stream::Stdout,
            ..
        } => "too much",
        Error::Repeated {
            attempts, source, ..
        } => {
            let (_, _): (&u32, &Error) = (attempts, source);
            "again and again"
        }
        Error::Connect { source, .. } => {
            let _: &Cause = source;
            "connect"
        }
        _ => "other",
    };
    let attempts: u32 = error.attempts();
    let (_, _): (Option<&str>, Waited) = (error.target(), error.waited());
    let _: Option<&PartialOutput> = error.partial_output();
    format!("{error} ({phase}, {again}, {attempts}, {source:?}, {kind})")
}

/// `?` in programs that use `Box<dyn Error>` or an error type of their own.
fn converted(text: &str) -> Result<Target, Box<dyn StdError + Send + Sync>> {
    Ok(text.parse::<Target>()?)
}

fn shareable<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}

#[test]
fn everything_can_be_cloned_shared_and_shown() {
    shareable::<Pool>();
    shareable::<PoolBuilder>();
    shareable::<PoolStatus>();
    shareable::<Target>();
    shareable::<Host>();
    shareable::<HostStatus>();
    shareable::<ConnectionStatus>();
    shareable::<HostKeyPolicy>();
    shareable::<Identity>();
    shareable::<Algorithms>();
    shareable::<Challenge>();
    shareable::<Limits>();
    shareable::<Timeouts>();
    shareable::<Command>();
    shareable::<Stdio>();
    shareable::<Output>();
    shareable::<ExitStatus>();
    shareable::<Error>();
    shareable::<Cause>();
    shareable::<HostKeyProblem>();
}

#[tokio::test]
async fn the_words_of_the_contract_compile_and_dial_nothing() {
    let nowhere = Path::new("/nonexistent");
    assert_eq!(targets().unwrap().len(), 4);
    let pem = identities(nowhere, "not a key".into());
    for policy in policies(nowhere) {
        let error = Pool::builder(policy.clone()).identity(pem.clone()).build();
        let told = failed(&error.unwrap_err());
        assert!(told.contains("identity"), "{told}");

        let pool = built(policy).unwrap();
        let host = pool.host("deploy@web-1:22").unwrap();
        futures_are_free(&pool, &host);
        assert_eq!(host.status().dials + host.status().failed_dials, 0);
        assert_eq!(pool.status().hosts.len(), 1);
        pool.close().await;
        let error = host.command("x").output().await.unwrap_err();
        assert_eq!(error.phase(), Phase::Closed, "{error}");
    }
    assert!(
        converted("deploy@a b")
            .unwrap_err()
            .to_string()
            .contains("white space")
    );
}
