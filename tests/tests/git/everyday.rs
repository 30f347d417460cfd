//! What people do with git.

use std::fs;
use std::process::Stdio;

use futures_util::future::join_all;
use ssh_pool::Limits;
use ssh_pool::git::Error;
use ssh_pool_tests::{OBJECTS_PER_COMMIT, block_on, stock_git};
use tokio::io::AsyncReadExt;

use crate::{Place, succeeds};

#[tokio::test(flavor = "multi_thread")]
async fn clone_fetch_and_push_go_over_one_connection() {
    let place = Place::new();
    let repo = place.repos.create("app", 100);
    let clone = place.clone("app", &[]).await;
    let count = |dir: &std::path::Path| {
        let mut command = stock_git();
        command.args(["-c", "safe.directory=*", "-C"]).arg(dir);
        let output = command
            .args(["rev-list", "--objects", "--all", "--count"])
            .output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim()
            .parse::<usize>()
            .unwrap()
    };
    assert_eq!(count(&clone), 100 * OBJECTS_PER_COMMIT);
    assert_eq!(count(&repo), count(&clone));

    place.repos.grow("app", 20);
    let mut fetch = place.inside("app");
    fetch.arg("fetch");
    succeeds(fetch).await;
    assert_eq!(count(&clone), 120 * OBJECTS_PER_COMMIT);

    fs::write(clone.join("new"), "new\n").unwrap();
    for arguments in [
        &["merge", "--quiet", "origin/main"][..],
        &["add", "new"],
        &["commit", "--quiet", "-m", "New"],
        &["push", "origin", "HEAD:main", "HEAD:refs/heads/more"],
    ] {
        let mut command = place.inside("app");
        command.args(arguments);
        succeeds(command).await;
    }
    assert_eq!(place.repos.git("app", &["show", "more:new"]), "new\n");
    assert_eq!(place.sshd.accepted(), 1, "{}", place.sshd.log());
    assert_eq!(place.pool.status().hosts[0].dials, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn version_2_of_the_protocol_is_spoken_where_the_server_takes_the_variable() {
    for (option, lines) in [("AcceptEnv GIT_PROTOCOL", 1), ("AcceptEnv OTHER", 0)] {
        let sshd = ssh_pool_tests::Sshd::builder().option(option).start();
        let place = Place::on(sshd);
        place.repos.create("app", 1);
        let mut command = place.command();
        command
            .env("GIT_TRACE_PACKET", "1")
            .args(["ls-remote", &place.url("app")]);
        let output = command.output().await.unwrap();
        let trace = String::from_utf8(output.stderr).unwrap();
        assert_eq!(trace.matches("< version 2").count(), lines, "{trace}");
        assert!(output.status.success(), "{trace}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_are_cloned_in_parallel() {
    let place = Place::new();
    let modules = ["sub-1", "sub-2", "sub-3", "sub-4"];
    for module in modules {
        place.repos.create(module, 10);
    }
    place.repos.create_with_modules("nested", &["sub-4"]);
    place
        .repos
        .create_with_modules("super", &["sub-1", "sub-2", "sub-3", "nested"]);
    let options = ["--recurse-submodules", "--jobs=4"];
    let clone = place.clone("super", &options).await;
    for module in ["sub-1", "sub-2", "sub-3", "nested/sub-4"] {
        assert!(clone.join(module).join("file-9").exists(), "{module}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_clone_fetches_the_rest_when_it_is_needed() {
    let place = Place::new();
    place.repos.create("app", 50);
    place
        .clone("app", &["--filter=blob:none", "--no-checkout"])
        .await;
    let missing = |place: &Place| {
        let mut command = place.inside("app");
        command.args(["rev-list", "--objects", "--missing=print", "--all"]);
        async {
            succeeds(command)
                .await
                .lines()
                .filter(|line| line.starts_with('?'))
                .count()
        }
    };
    assert_eq!(missing(&place).await, 50);
    let mut show = place.inside("app");
    show.args(["show", "HEAD:file-9"]);
    assert!(succeeds(show).await.starts_with("commit 49 of app\n"));
    assert_eq!(missing(&place).await, 49);
    let mut checkout = place.inside("app");
    checkout.args(["checkout", "--quiet", "main"]);
    succeeds(checkout).await;
    assert_eq!(missing(&place).await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_comes_whole() {
    let place = Place::new();
    place.repos.create("app", 10);
    let mut command = place.command();
    command.args([
        "archive",
        "--format=tar",
        "--remote",
        &place.url("app"),
        "main",
    ]);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let local = place.repos.git("app", &["archive", "--format=tar", "main"]);
    assert_eq!(output.stdout, local.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn gits_own_words_reach_the_user() {
    let place = Place::new();
    let mut command = place.command();
    command
        .args(["clone", &place.url("nowhere")])
        .arg(place.dir.path().join("x"));
    let output = command.output().await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(128), "{told}");
    assert!(
        told.contains("nowhere.git' does not appear to be a git repository"),
        "{told}"
    );
    // The command ran and said so itself: nothing is wrong with the connection.
    assert!(output.troubles.is_empty(), "{:?}", output.troubles);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_all_come_back() {
    let limits = Limits::default().isolated_per_host(16);
    let place = Place::limited(ssh_pool_tests::Sshd::start(), limits);
    place.repos.create("app", 5);
    let expected = place.repos.git("app", &["rev-parse", "main"]);
    let url = place.url("app");
    let asked = join_all((0..50).map(|_| {
        let mut command = place.command();
        command.args(["ls-remote", &url, "main"]);
        succeeds(command)
    }));
    for answer in asked.await {
        assert!(answer.starts_with(expected.trim()), "{answer}");
    }
    let status = &place.pool.status().hosts[0];
    assert!(status.dials <= 16, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_has_streams_of_its_own() {
    let place = Place::new();
    place.repos.create("app", 3);
    let mut command = place.command();
    command.args(["ls-remote", &place.url("app")]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert!(child.wait().await.unwrap().success());
    assert!(text.ends_with("\trefs/heads/main\n"), "{text}");
    assert!(child.troubles().is_empty());
}

#[test]
fn a_git_that_one_runtime_has_started_ends_in_another_or_in_none() {
    let current_thread = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let place = Place::new();
    place.repos.create("app", 1);
    let ls_remote = || {
        let mut command = place.command();
        command.arg("ls-remote").arg(place.url("app"));
        command.stdout(Stdio::piped());
        command
    };
    let first = current_thread();
    let spawned = [(); 3].map(|()| first.block_on(async { ls_remote().spawn() }).unwrap());
    let [one, two, three] = spawned.map(ssh_pool::git::Child::wait_with_output);
    let mut outputs = vec![current_thread().block_on(one)];
    drop(first);
    outputs.push(current_thread().block_on(two));
    outputs.push(block_on(three));
    outputs.push(block_on(ls_remote().output()));
    for output in outputs {
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(
            output.stdout.ends_with(b"\trefs/heads/main\n"),
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_to_be() {
    let place = Place::new();
    let mut command = place.command();
    let error = command.env("PATH", "/nonexistent").spawn().unwrap_err();
    assert!(matches!(error, Error::Start { .. }), "{error:?}");
    assert!(error.to_string().contains("cannot run git"), "{error}");
}

/// git-annex with `GIT_ANNEX_USE_GIT_SSH=1`: options after the host, and `-n` for a command that is
/// to leave standard input alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_ssh_that_is_called_with_options_after_the_host_takes_them() {
    let place = Place::new();
    let input = place.dir.path().join("input");
    fs::write(&input, "left alone\n").unwrap();
    let call = format!(
        "!{{ eval \"$GIT_SSH_COMMAND\" -n {}@127.0.0.1 -p {} \"'cat; echo done'\"; cat; }} < '{}'",
        place.sshd.user(),
        place.sshd.port(),
        input.display()
    );
    let mut command = place.command();
    command.args(["-c", &format!("alias.annex={call}"), "annex"]);
    assert_eq!(succeeds(command).await, "done\nleft alone\n");
}
