//! Cancelled commands end on the server: whatever they ignore, whoever runs them, whichever server.

use std::time::Duration;

use ssh_pool::{Error, Host, HostKeyPolicy, Identity, Limits, Pool, Pty, Stdio, Timeouts};
use ssh_pool_tests::{
    Dropbear, Release, Sshd, TempDir, TestUser, eventually_async, moment, moment_passes, procs,
};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use crate::SOON;

const GRACE: Duration = Duration::from_millis(500);
/// How many are cancelled on each server, and how many of them at once.
const CANCELS: usize = 200;
const AT_ONCE: usize = 10;

/// Commands with ways of their own to stay alive. `N` is a number that no other process has.
const STUBBORN: [&str; 7] = [
    "sleep N",
    "exec sleep N",
    "trap '' HUP TERM; sleep N; sleep N",
    "trap '' HUP TERM INT QUIT PIPE; while :; do sleep N; done",
    "sleep N & sleep N",
    "sh -c 'trap \"\" HUP TERM; sleep N & wait; sleep N' | cat",
    "while :; do : N; done",
];

struct Place {
    name: &'static str,
    target: String,
    known_hosts: std::path::PathBuf,
    key: std::path::PathBuf,
    sessions: Box<dyn Fn() -> Vec<(u32, String)> + Send + Sync>,
}

fn sshd(name: &'static str, release: Release, user: TestUser) -> Place {
    let sshd = Sshd::builder().release(release).user(user).start();
    Place {
        name,
        target: sshd.target(),
        known_hosts: sshd.known_hosts(),
        key: sshd.client_key().to_owned(),
        sessions: Box::new(move || sshd.session_processes()),
    }
}

fn dropbear() -> Place {
    let dropbear = Dropbear::start();
    Place {
        name: "dropbear",
        target: dropbear.target(),
        known_hosts: dropbear.known_hosts(),
        key: dropbear.client_key().to_owned(),
        sessions: Box::new(move || dropbear.session_processes()),
    }
}

impl Place {
    fn pool(&self, grace: Duration) -> (Pool, Host) {
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(&self.known_hosts))
            .identity(Identity::key_file(&self.key))
            .timeouts(Timeouts::default().kill_grace(grace))
            .limits(Limits::default().isolated_per_host(4))
            .build()
            .unwrap();
        let host = pool.host(self.target.as_str()).unwrap();
        (pool, host)
    }

    /// The processes of commands with this number.
    fn left(&self, number: &str) -> Vec<(u32, String)> {
        let mut left = (self.sessions)();
        left.retain(|(pid, line)| line.contains(number) && procs::is_alive(*pid));
        left
    }
}

/// One cancelled command: dropped at a random moment, killed, or out of time.
async fn cancel(host: &Host, number: usize) -> Result<(), Error> {
    let line = STUBBORN[number % STUBBORN.len()].replace('N', &format!("3{number:03}"));
    const LATE: Duration = Duration::from_millis(200);
    match number % 4 {
        0 => {
            drop(tokio::time::timeout(moment(LATE), host.shell(line).output()).await);
        }
        1 => {
            let mut command = host.shell(line);
            let error = command.timeout(moment(LATE)).output().await.unwrap_err();
            assert!(error.is_timeout(), "{error:?}");
        }
        2 => {
            let mut child = host.shell(line).shared().spawn().await?;
            moment_passes(LATE).await;
            child.kill().await?;
            assert!(child.wait().await.is_ok(), "it has ended, and says how");
        }
        _ => {
            let child = host.shell(line).stdin(Stdio::piped()).spawn().await?;
            moment_passes(LATE).await;
            drop(child);
        }
    }
    Ok(())
}

async fn storm(place: &Place) {
    let (pool, host) = place.pool(GRACE);
    let mut all = JoinSet::new();
    for number in 0..CANCELS {
        let host = host.clone();
        all.spawn(async move { cancel(&host, number).await });
        if all.len() >= AT_ONCE {
            all.join_next().await.unwrap().unwrap().unwrap();
        }
    }
    while let Some(done) = all.join_next().await {
        done.unwrap().unwrap();
    }
    // A hang guard: nothing here asserts how quick the machine is.
    let gone = eventually_async(SOON, || place.left(" 3").is_empty()).await;
    assert!(gone, "{}: {:?}", place.name, place.left(" 3"));
    let free = || {
        let status = host.status();
        status.running + status.isolated_busy + status.opening == 0
    };
    let settled = eventually_async(SOON, free).await;
    assert!(settled, "{}: {:?}", place.name, host.status());
    for _ in 0..20 {
        assert!(host.command("true").status().await.unwrap().success());
    }
    println!("{}: {:?}", place.name, host.status());
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_is_left_by_commands_cancelled_as_a_plain_user_on_the_installed_sshd() {
    storm(&sshd("9.2, plain", Release::Installed, TestUser::plain())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_is_left_by_commands_cancelled_as_root_on_the_installed_sshd() {
    let root = TestUser::root_or_current();
    storm(&sshd("9.2, root", Release::Installed, root)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_is_left_by_commands_cancelled_as_a_plain_user_on_openssh_10() {
    storm(&sshd("10.0, plain", Release::Trixie, TestUser::plain())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_is_left_by_commands_cancelled_as_root_on_openssh_10() {
    let root = TestUser::root_or_current();
    storm(&sshd("10.0, root", Release::Trixie, root)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_is_left_by_commands_cancelled_on_dropbear() {
    storm(&dropbear()).await;
}

/// Whether it is there, once it has had time to be.
async fn starts(place: &Place, number: &str) {
    let there = eventually_async(SOON, || !place.left(number).is_empty()).await;
    assert!(there, "{number}: {:?}", (place.sessions)());
}

async fn stops(place: &Place, number: &str) {
    let gone = eventually_async(SOON, || place.left(number).is_empty()).await;
    assert!(gone, "{number}: {:?}", place.left(number));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_heeds_sigterm_is_given_the_grace_to_tidy_up() {
    for user in [TestUser::plain(), TestUser::root_or_current()] {
        let place = sshd("grace", Release::Installed, user);
        let (_pool, host) = place.pool(SOON);
        let line =
            "trap 'sleep 0.5; echo tidied; exit 9' TERM; echo on; while :; do sleep 0.1; done";
        let mut child = host.shell(line).spawn().await.unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 3]).await.unwrap();
        child.signal("SIGTERM").await.unwrap();
        let mut said = String::new();
        stdout.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "tidied\n");
        assert_eq!(child.wait().await.unwrap().code(), Some(9));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_command_lives_on() {
    let place = sshd("detached", Release::Installed, TestUser::plain());
    let (_pool, host) = place.pool(GRACE);
    let child = host.shell("sleep 4711").detach().spawn().await.unwrap();
    drop(child);
    let running = tokio::spawn(host.shell("sleep 4712").detach().output());
    starts(&place, "4712").await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // Long enough to start, on a busy machine too.
    let late = Duration::from_secs(5);
    let error = host
        .shell("sleep 4713")
        .detach()
        .timeout(late)
        .output()
        .await;
    let error = error.unwrap_err();
    assert!(error.is_timeout() && !error.is_killed(), "{error:?}");
    // Longer than grace and a second, and as a proof that others do end meanwhile.
    let mut other = host.shell("trap '' TERM; sleep 4714; sleep 4714");
    let mut child = other.spawn().await.unwrap();
    starts(&place, "4714").await;
    child.kill().await.unwrap();
    stops(&place, "4714").await;
    for number in ["4711", "4712", "4713"] {
        assert!(!place.left(number).is_empty(), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_command_is_not_signalled_and_its_channel_is_closed() {
    let server = Sshd::builder()
        .user(TestUser::plain())
        .option("ForceCommand trap '' TERM; sleep 4721")
        .start();
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(server.known_hosts()))
        .identity(Identity::key_file(server.client_key()))
        .timeouts(Timeouts::default().kill_grace(GRACE))
        .build()
        .unwrap();
    let host = pool.host(server.target()).unwrap();
    let mut child = host.command("anything").spawn().await.unwrap();
    let error = child.kill().await.unwrap_err();
    assert!(matches!(error, Error::NotKilled { .. }), "{error:?}");
    let error = child.wait().await.unwrap_err();
    assert!(
        matches!(error, Error::ClosedWithoutStatus { .. }),
        "{error:?}"
    );
    let error = host.command("x").timeout(GRACE).output().await.unwrap_err();
    assert!(error.is_timeout() && !error.is_killed(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_left_the_group_lives_on() {
    for user in [TestUser::plain(), TestUser::root_or_current()] {
        let place = sshd("daemon", Release::Installed, user);
        let (_pool, host) = place.pool(GRACE);
        let line = "setsid sleep 4731 >/dev/null 2>&1 </dev/null & sleep 4732";
        let mut child = host.shell(line).spawn().await.unwrap();
        let is_daemon = |(_, line): &(u32, String)| line == "sleep 4731";
        let daemon = || (place.sessions)().iter().any(is_daemon);
        assert!(eventually_async(SOON, daemon).await);
        child.kill().await.unwrap();
        stops(&place, "sleep 4732").await;
        assert!(daemon(), "{:?}", (place.sessions)());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_is_cut_off_runs_nothing_of_its_last_line() {
    for user in [TestUser::plain(), TestUser::root_or_current()] {
        let place = sshd("script", Release::Installed, user);
        let dir = TempDir::new();
        let file = dir.path().join("ran").display().to_string();
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .unwrap();
        let (_pool, host) = place.pool(Duration::ZERO);
        // Longer than the window, so that dropping it cuts it off in the middle of a line.
        let script = format!("touch {file}\n: {}", "x".repeat(8 << 20));
        for _ in 0..5 {
            let running = host.script(script.clone()).output();
            let moment = moment(Duration::from_millis(60));
            drop(tokio::time::timeout(moment, running).await);
        }
        let idle = || host.status().running == 0;
        assert!(eventually_async(SOON, idle).await, "{:?}", host.status());
        assert!(!std::path::Path::new(&file).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_is_seen_in_no_stream() {
    let root = TestUser::root_or_current();
    for place in [sshd("9.2, root", Release::Installed, root), dropbear()] {
        let (_pool, host) = place.pool(GRACE);
        for _ in 0..3 {
            let line = "printf out; printf err >&2; exit 3";
            let output = host.shell(line).output().await.unwrap();
            assert_eq!(
                (output.stdout, output.stderr),
                (b"out".to_vec(), b"err".to_vec())
            );
            assert_eq!(output.status.code(), Some(3));
            let child = host.shell(line).spawn().await.unwrap();
            let output = child.wait_with_output().await.unwrap();
            assert_eq!(
                (output.stdout, output.stderr),
                (b"out".to_vec(), b"err".to_vec())
            );
            let output = host.shell("printf out").pty(Pty::default()).output().await;
            assert_eq!(output.unwrap().stdout, b"out", "{}", place.name);
        }
        // It is there, though: what the remote sees is documented.
        let output = host.shell("echo $SSH_POOL_MARK").output().await.unwrap();
        assert!(output.stdout.len() > 32, "{}: {output:?}", place.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_whose_shell_has_ended_is_not_taken_for_a_cancelled_one() {
    let place = sshd("neighbour", Release::Installed, TestUser::plain());
    let (_pool, host) = place.pool(GRACE);
    let dir = TempDir::new();
    let gate = dir.path().join("gate");
    let open = gate.display();
    // Its shell has ended, and what it left behind still writes.
    let line = format!("(until test -e {open}; do sleep 0.02; done; echo late) & echo early");
    let mut neighbour = host.shell(line).shared().spawn().await.unwrap();
    let mut stdout = neighbour.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 6]).await.unwrap();

    // Its shell ends by the signal, and the rest ignores it: that cannot be told apart.
    let line = "sh -c 'trap \"\" TERM; sleep 4751; sleep 4751' | cat";
    let mut stubborn = host.shell(line).shared().spawn().await.unwrap();
    starts(&place, "sleep 4751").await;
    let error = stubborn.kill().await;
    assert!(
        matches!(error, Ok(()) | Err(Error::NotKilled { .. })),
        "{error:?}"
    );
    std::fs::write(&gate, "").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "late\n");
    assert!(neighbour.wait().await.unwrap().success());
}
