//! Connections that are lost under git, and git that is lost under its connection.

use std::time::Duration;

use ssh_pool::git::{Child, Error};
use ssh_pool::{CommandState, HostKeyPolicy, Phase, Target, Timeouts};
use ssh_pool_tests::{Cut, Proxy, Sshd, Step, eventually_async, procs};

use crate::{Place, SOON, builder, known, plain, succeeds, with_shim};

/// A command on the server that waits for ever, and that nobody else runs.
const WAITS: &str = "sleep 567";

fn waits(sshd: &Sshd) -> bool {
    let processes = sshd.session_processes();
    processes.iter().any(|(_, line)| line == WAITS)
}

/// git that waits for a server which does not answer.
async fn waiting(place: &Place) -> Child {
    place.repos.create("app", 1);
    let mut command = place.command();
    let pack = format!("--upload-pack={WAITS}; git-upload-pack");
    command.args(["ls-remote", &pack, &place.url("app")]);
    let child = command.spawn().unwrap();
    let begun = eventually_async(SOON, || waits(&place.sshd)).await;
    assert!(begun, "{:?}", place.sshd.session_processes());
    child
}

async fn nothing_is_left(place: &Place) {
    let gone = eventually_async(SOON, || !waits(&place.sshd)).await;
    assert!(gone, "{:?}", place.sshd.session_processes());
    let idle = eventually_async(SOON, || {
        let status = &place.pool.status().hosts[0];
        status.isolated_busy == 0 && status.running == 0
    });
    assert!(idle.await, "{:?}", place.pool.status());
}

/// The shim that this git has started.
fn shim_of(git: u32) -> Option<u32> {
    let is_shim = |pid: &u32| {
        procs::command_line(*pid).is_some_and(|line| line.contains("/././ssh-pool-test-shim "))
    };
    procs::descendants(&[git]).into_iter().find(is_shim)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_in_a_clone_ends_git_and_the_next_clone_works() {
    let place = Place::new();
    place.repos.create("app", 5_000);
    let proxy = Proxy::to(place.sshd.addr());
    let target: Target = format!("{}@{}", place.sshd.user(), proxy.addr())
        .parse()
        .unwrap();
    let target =
        target.host_key_policy(HostKeyPolicy::pinned(place.sshd.host_public_key("ed25519")));
    let git = with_shim(&place.pool).allow(target.clone()).unwrap();
    let url = place.repos.url(&target.to_string(), "app");
    let gone = || {
        proxy.reset();
        let hosts = place.pool.status().hosts;
        hosts.iter().all(|host| host.isolated == 0)
    };
    for cut in [Cut::Reset, Cut::Fin] {
        let into = place.dir.path().join(format!("{cut:?}"));
        proxy.script([Step::from_server(100_000, cut)]);
        // The script is for connections that are still to come.
        assert!(eventually_async(SOON, gone).await);
        let mut command = plain(&git);
        command.args(["clone", &url]).arg(&into);
        let output = tokio::time::timeout(SOON, command.output()).await;
        let output = output.expect("git hangs").unwrap();
        assert_eq!(output.status.code(), Some(128), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("the connection was lost"), "{told}");
        let [Error::Ssh(error)] = &output.troubles[..] else {
            panic!("{:?}", output.troubles)
        };
        assert_eq!(error.phase(), Phase::Running, "{error}");
        assert_eq!(error.command_state(), CommandState::Unknown);
        assert!(!into.exists(), "git has cleaned up after itself");

        proxy.script([]);
        assert!(eventually_async(SOON, gone).await);
        let mut again = plain(&git);
        again.args(["clone", &url]).arg(&into);
        succeeds(again).await;
        assert!(into.join("file-9").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_command_along() {
    let place = Place::new();
    let mut git = waiting(&place).await;
    let id = git.id().unwrap();
    procs::kill(shim_of(id).expect("a shim"));
    let status = tokio::time::timeout(SOON, git.wait()).await;
    assert_eq!(status.expect("git hangs").unwrap().code(), Some(128));
    nothing_is_left(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_that_is_dropped_ends_here_and_there() {
    let place = Place::new();
    let git = waiting(&place).await;
    let id = git.id().unwrap();
    drop(git);
    let gone = eventually_async(SOON, || procs::command_line(id).is_none()).await;
    assert!(gone, "{:?}", procs::command_line(id));
    nothing_is_left(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_future_ends_git_too() {
    let place = Place::new();
    place.repos.create("app", 1);
    let mut command = place.command();
    let pack = format!("--upload-pack={WAITS}; git-upload-pack");
    command.args(["ls-remote", &pack, &place.url("app")]);
    let running = command.output();
    tokio::select! {
        output = running => panic!("{output:?}"),
        begun = eventually_async(SOON, || waits(&place.sshd)) => assert!(begun),
    }
    nothing_is_left(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pool_ends_git() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd))
        .timeouts(Timeouts::default().drain(Duration::from_millis(100)))
        .build()
        .unwrap();
    let mut place = Place::on(sshd);
    place.git = with_shim(&pool).allow(place.sshd.target()).unwrap();
    place.pool = pool;
    let mut git = waiting(&place).await;
    place.pool.close().await;
    let status = tokio::time::timeout(SOON, git.wait()).await;
    assert_eq!(status.expect("git hangs").unwrap().code(), Some(128));
    let [Error::Ssh(error)] = &git.troubles()[..] else {
        panic!("no trouble")
    };
    assert_eq!(error.command_state(), CommandState::Unknown, "{error}");
    // A new one is told at once.
    let mut late = place.command();
    late.args(["ls-remote", &place.url("app")]);
    let output = late.output().await.unwrap();
    let [Error::Ssh(error)] = &output.troubles[..] else {
        panic!("{:?}", output.troubles)
    };
    assert_eq!(error.phase(), Phase::Closed, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_that_reads_no_more_ends_its_command() {
    let place = Place::new();
    place.repos.create("app", 1);
    let mut command = place.command();
    // No packet begins with a y: git leaves at once, and this would go on for ever.
    command.args(["ls-remote", "--upload-pack=yes", &place.url("app")]);
    let output = tokio::time::timeout(SOON, command.output()).await;
    let output = output.expect("git hangs").unwrap();
    assert_eq!(output.status.code(), Some(128), "{output:?}");
    let writes = || {
        let processes = place.sshd.session_processes();
        processes.iter().any(|(_, line)| line.starts_with("yes"))
    };
    let gone = eventually_async(SOON, || !writes()).await;
    assert!(gone, "{:?}", place.sshd.session_processes());
    nothing_is_left(&place).await;
}
