//! What `Child::kill` and a time-out say, and that nothing keeps them from ending a command, on
//! dropbear: it signals the login shell alone, so the pool ends commands by scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ssh_pool::{Child, Error, Host, HostKeyPolicy, Identity, Limits, Pool, Timeouts};
use ssh_pool_tests::{BlackHole, Dropbear, TempDir, TestUser, eventually_async, procs};
use tokio::task::JoinSet;

use crate::SOON;

const GRACE: Duration = Duration::from_millis(500);
/// Long enough for a command to start, usually; nothing depends on it.
const LATE: Duration = Duration::from_secs(1);

fn pool(dropbear: &Dropbear, limits: Limits) -> (Pool, Host) {
    // Longer than a kill may take.
    let timeouts = Timeouts::default().kill_grace(GRACE).connect(3 * SOON);
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(dropbear.known_hosts()))
        .identity(Identity::key_file(dropbear.client_key()))
        .timeouts(timeouts)
        .limits(limits)
        .build()
        .unwrap();
    let host = pool.host(dropbear.target()).unwrap();
    (pool, host)
}

/// What a `sleep` that nobody else has is called. Whoever is left of it in the end is killed.
struct Sleep(String);

impl Sleep {
    fn new() -> Self {
        Self(format!("sleep 600.{:06}", fastrand::u32(..1_000_000)))
    }

    fn left(&self) -> Vec<u32> {
        procs::with_command_line(&self.0)
    }

    async fn starts(&self, times: usize) {
        let is_it = |pid: &u32| procs::command_line(*pid).as_ref() == Some(&self.0);
        let runs = || self.left().into_iter().filter(is_it).count() >= times;
        assert!(eventually_async(SOON, runs).await, "{}", self.0);
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.left().into_iter().for_each(procs::kill);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_ended_while_dials_of_dead_hosts_take_all_handshakes_of_the_pool() {
    let dropbear = Dropbear::start();
    let dead = BlackHole::new();
    let (pool, host) = pool(&dropbear, Limits::default().handshakes(2));
    let sleep = Sleep::new();
    let mut child = host
        .shell(format!("{0}; {0}", sleep.0))
        .spawn()
        .await
        .unwrap();
    sleep.starts(1).await;
    let dials: Vec<_> = ["127.0.0.1", "localhost"]
        .map(|name| {
            pool.host(format!("{name}:{}", dead.addr().port()).as_str())
                .unwrap()
        })
        .map(|host| tokio::spawn(async move { host.command("true").output().await }))
        .into();
    let dialling = || {
        let hosts = pool.status().hosts;
        hosts.iter().map(|host| host.dialling).sum::<u32>() == 2
    };
    assert!(
        eventually_async(SOON, dialling).await,
        "{:?}",
        pool.status()
    );
    child.kill().await.unwrap();
    assert_eq!(sleep.left(), []);
    for dial in dials {
        dial.abort();
    }
}

/// A dropbear whose account has a login shell that does this before it runs anything, a script of the
/// pool's too. `DIR` is a folder that it may write to.
fn slow(first: &str) -> (TempDir, Dropbear) {
    let dir = TempDir::new();
    let shell = dir.path().join("shell");
    let first = first.replace("DIR", &dir.path().display().to_string());
    fs::write(&shell, format!("#!/bin/sh\n{first}\nexec /bin/sh \"$@\"\n")).unwrap();
    for path in [dir.path(), &shell] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let dropbear = Dropbear::builder().login_shell(TestUser::plain(), shell);
    (dir, dropbear.start())
}

/// What `kill` says: `true` if the command has ended with all of its processes.
async fn killed(child: &mut Child) -> bool {
    match child.kill().await {
        Ok(()) => true,
        Err(Error::NotKilled { .. }) => false,
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_clears_the_environment_is_killed_only_if_its_processes_are_gone() {
    let dropbear = Dropbear::start();
    let (_pool, host) = pool(&dropbear, Limits::default());
    let lines = [
        ("env -i SLEEP; true", true),
        ("env -i sh -c 'SLEEP & SLEEP; :'; true", true),
        // Ignores the signal; has lost its parent; has taken the place of the login shell.
        (r#"env -i sh -c "trap '' TERM; SLEEP; SLEEP"; true"#, false),
        ("(env -i SLEEP &); sleep 60; true", false),
        ("exec env -i SLEEP", false),
    ];
    for (line, ends) in lines {
        let sleep = Sleep::new();
        let mut child = host
            .shell(line.replace("SLEEP", &sleep.0))
            .spawn()
            .await
            .unwrap();
        sleep.starts(1).await;
        assert_eq!(killed(&mut child).await, ends, "{line}");
        assert_eq!(sleep.left().is_empty(), ends, "{line}");
        // Whoever asks again is told the same.
        assert_eq!(killed(&mut child).await, ends, "{line}");

        let sleep = Sleep::new();
        let mut command = host.shell(line.replace("SLEEP", &sleep.0));
        let mut child = command.timeout(LATE).spawn().await.unwrap();
        let error = child.wait().await.unwrap_err();
        assert!(error.is_timeout(), "{line}: {error:?}");
        let gone = sleep.left().is_empty();
        assert!(gone || !error.is_killed(), "{line}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_leaves_no_room_for_a_mark_is_not_said_to_be_killed() {
    let dropbear = Dropbear::start();
    let (_pool, host) = pool(&dropbear, Limits::default());
    let sleep = Sleep::new();
    let line = format!("{}; true; : {}", sleep.0, "x".repeat(8_940));
    let mut child = host.shell(&line).spawn().await.unwrap();
    sleep.starts(1).await;
    assert!(!killed(&mut child).await);
    assert_ne!(sleep.left(), [], "otherwise this shows nothing");
    let mut command = host.shell(&line);
    let error = command.timeout(LATE).output().await.unwrap_err();
    assert!(error.is_timeout() && !error.is_killed(), "{error:?}");
    // Of one that has ended by itself nothing is left to be ended.
    let line = format!(": {}", "x".repeat(8_950));
    let mut child = host.shell(&line).spawn().await.unwrap();
    assert!(child.wait().await.unwrap().success());
    assert!(killed(&mut child).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_are_killed_at_once_do_not_wait_for_one_script_after_the_other() {
    const AT_ONCE: usize = 30;
    let (_dir, dropbear) = slow("sleep 0.3");
    let limits = Limits::default().isolated_per_host(AT_ONCE.try_into().unwrap());
    let (_pool, host) = pool(&dropbear, limits);
    let sleep = Sleep::new();
    let line = format!("trap '' TERM; {0}; {0}", sleep.0);
    let mut spawns = JoinSet::new();
    for _ in 0..AT_ONCE {
        let mut command = host.shell(&line);
        spawns.spawn(async move { command.spawn().await.unwrap() });
    }
    let children = spawns.join_all().await;
    sleep.starts(AT_ONCE).await;
    let mut kills = JoinSet::new();
    for mut child in children {
        kills.spawn(async move { killed(&mut child).await });
    }
    let killed = kills.join_all().await;
    assert_eq!(sleep.left(), []);
    assert_eq!(killed, [true; AT_ONCE]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_ended_together_where_no_output_is_kept_any_more() {
    const FULL: usize = 64 << 10;
    const AT_ONCE: usize = 5;
    let (_dir, dropbear) = slow("sleep 0.3");
    let limits = Limits::default().buffered_bytes(FULL);
    let (pool, host) = pool(&dropbear, limits);
    let sleep = Sleep::new();
    let fills = host.shell(format!("head -c {FULL} /dev/zero; {}", sleep.0));
    let fills = tokio::spawn({ fills }.output());
    let is_full = || pool.status().buffered_bytes >= FULL;
    assert!(eventually_async(SOON, is_full).await, "{:?}", pool.status());
    let mut children = Vec::new();
    for _ in 0..AT_ONCE {
        children.push(host.shell(&sleep.0).spawn().await.unwrap());
    }
    sleep.starts(1 + AT_ONCE).await;
    let mut kills = JoinSet::new();
    for mut child in children {
        kills.spawn(async move { killed(&mut child).await });
    }
    let killed = kills.join_all().await;
    assert!(is_full() && !fills.is_finished());
    assert_eq!(killed, [true; AT_ONCE]);
    fills.abort();
    assert!(eventually_async(SOON, || sleep.left().is_empty()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_sigterm_did_not_reach_in_time_is_sent_sigkill() {
    // Longer than a signal may take to get there, once.
    let (dir, dropbear) = slow("mv DIR/slow DIR/was 2>/dev/null && sleep 6");
    let (_pool, host) = pool(&dropbear, Limits::default());
    let sleep = Sleep::new();
    let line = format!("trap '' TERM; {0}; {0}", sleep.0);
    let mut child = host.shell(line).spawn().await.unwrap();
    sleep.starts(1).await;
    fs::write(dir.path().join("slow"), "").unwrap();
    killed(&mut child).await;
    assert!(!dir.path().join("slow").exists(), "the script was slow");
    assert_eq!(sleep.left(), []);
}
