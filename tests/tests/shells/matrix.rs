//! The matrix: everything that the pool puts around a command line, under every login shell.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use ssh_pool::{Phase, Stdio};
use ssh_pool_tests::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{Place, SOON, Server, Shell};

/// Cells at once, of all tests.
static CELLS: Semaphore = Semaphore::const_new(4);

fn every_byte() -> OsString {
    OsString::from_vec((1..=u8::MAX).collect())
}

/// What looks harmless to no shell.
const WEIRD: &str = "it's $HOME !x !! `id` \\ \\\\ \\n \" %s \u{e4} *~ a\nb";

/// What a command says, on a place where nothing else says anything.
async fn says(place: &Place, command: &mut ssh_pool::Command) -> Vec<u8> {
    let output = command.output().await;
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", place.name));
    assert!(output.status.success(), "{}: {output:?}", place.name);
    assert!(output.stderr.is_empty(), "{}: {output:?}", place.name);
    output.stdout
}

async fn arguments_and_surroundings(place: &Place) {
    let (name, host) = (&place.name, &place.host);
    for argument in [every_byte(), WEIRD.into(), OsString::new(), "-n".into()] {
        let mut command = host.command("printf");
        let said = says(place, command.arg("%s").arg(&argument)).await;
        assert_eq!(OsString::from_vec(said), argument, "{name}");
    }
    for value in [every_byte(), WEIRD.into()] {
        let mut command = host.command("printenv");
        let mut said = says(place, command.arg("VALUE").env("VALUE", &value)).await;
        assert_eq!(said.pop(), Some(b'\n'), "{name}");
        assert_eq!(OsString::from_vec(said), value, "{name}");
    }
    let dir = TempDir::new();
    let folder = fs::canonicalize(dir.path()).unwrap().join(WEIRD);
    fs::create_dir(&folder).unwrap();
    let said = says(place, host.shell("pwd").current_dir(&folder)).await;
    assert_eq!(
        said,
        [folder.as_os_str().as_encoded_bytes(), b"\n"].concat(),
        "{name}"
    );
    let missing = host.command("true").current_dir("/missing").status().await;
    assert!(!missing.unwrap().success(), "{name}");
}

async fn shell_lines_and_scripts(place: &Place) {
    let (name, host) = (&place.name, &place.host);
    let mut line = host.shell("a='x y'; for i in 1 2; do echo \"$i $a\"; done; echo e >&2; exit 7");
    let output = line.output().await.unwrap();
    assert_eq!(output.status.code(), Some(7), "{name}: {output:?}");
    assert_eq!(output.stdout, b"1 x y\n2 x y\n", "{name}");
    assert_eq!(output.stderr, b"e\n", "{name}");
    let mut script = host.script("printf '%s|' \"$@\"\nfalse\necho not reached");
    let output = script.args(["it's", "a\nb"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
    assert_eq!(output.stdout, b"it's|a\nb|", "{name}");
    let input: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    let said = says(place, host.command("cat").stdin(input.clone())).await;
    assert!(said == input, "{name}: {} bytes", said.len());
}

/// A time-out ends what runs. On a busy machine the first ones may be over before it runs.
async fn timeout_ends_it(place: &Place) {
    let mut command = place.host.command("/bin/sleep");
    command.arg("4711");
    for seconds in [1, 2, 4, 8, 16, 32] {
        let error = command
            .timeout(Duration::from_secs(seconds))
            .output()
            .await
            .unwrap_err();
        assert!(error.is_timeout(), "{}: {error}", place.name);
        if error.phase() == Phase::Running {
            assert!(error.is_killed(), "{}: {error}", place.name);
            return;
        }
    }
    panic!("{}: it never ran", place.name);
}

async fn ends(place: &Place) {
    let (name, host) = (&place.name, &place.host);
    let killed = host.shell("kill -9 $$").status().await.unwrap();
    assert_eq!(killed.signal(), Some("KILL"), "{name}");
    // Where a script of the pool's own delivers signals, its connection is there from here on.
    let line = "trap 'echo usr1' USR1; echo on; while :; do sleep 0.1; done";
    let mut child = host.shell(line).spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut said = [0; 3];
    stdout.read_exact(&mut said).await.unwrap();
    // The future of a signal is not Send.
    let runtime = tokio::runtime::Handle::current();
    let signalled = tokio::task::spawn_blocking(move || {
        runtime.block_on(child.signal("USR1")).unwrap();
        child
    });
    let mut child = signalled.await.unwrap();
    // zsh repeats what it said before, from the child that it forks.
    let mut said = Vec::new();
    while !said.ends_with(b"usr1\n") {
        let count = stdout.read_buf(&mut said).await.unwrap();
        assert!(count > 0, "{name}: {said:?}");
    }
    child
        .kill()
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    timeout_ends_it(place).await;
    place.until_runs("/bin/sleep 4711", false).await;

    let mut child = host
        .shell("/bin/sleep 4712 & /bin/sleep 4713")
        .spawn()
        .await
        .unwrap();
    for line in ["/bin/sleep 4712", "/bin/sleep 4713"] {
        place.until_runs(line, true).await;
    }
    child
        .kill()
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    for line in ["/bin/sleep 4712", "/bin/sleep 4713"] {
        place.until_runs(line, false).await;
    }
    assert!(!child.wait().await.unwrap().success(), "{name}");
}

async fn streams(place: &Place) {
    let (name, host) = (&place.name, &place.host);
    let mut child = host
        .command("cat")
        .stdin(Stdio::piped())
        .spawn()
        .await
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut echo = [0; 5];
    stdin.write_all(b"hello").await.unwrap();
    stdout.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello", "{name}");
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "{name}: {rest:?}");
    assert!(child.wait().await.unwrap().success(), "{name}");
}

/// The same as the stock client, with `sh -c` around the line.
async fn as_ssh(place: &Place) {
    let line = "echo out; echo err >&2; printf \"%s|\" \"$HOME\"; exit 9";
    let mut ssh = place.ssh();
    ssh.arg(format!("sh -c '{line}'"));
    let stock = tokio::task::spawn_blocking(move || ssh.output().unwrap())
        .await
        .unwrap();
    let ours = place.host.shell(line).output().await.unwrap();
    assert_eq!(ours.status.code(), stock.status.code(), "{}", place.name);
    assert_eq!(ours.stdout, stock.stdout, "{}", place.name);
    assert_eq!(ours.stderr, stock.stderr, "{}", place.name);
}

async fn cell(server: Server, shell: Shell, root: bool) {
    let place = tokio::task::spawn_blocking(move || Place::new(server, shell, root));
    let place = place.await.unwrap();
    let dir = TempDir::new();
    // The first command of the first connection.
    let file = dir.path().join("touched");
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let status = place.host.command("touch").arg(&file).status().await;
    assert!(status.unwrap().success() && file.exists(), "{}", place.name);
    arguments_and_surroundings(&place).await;
    shell_lines_and_scripts(&place).await;
    streams(&place).await;
    ends(&place).await;
    as_ssh(&place).await;
    // None of this has cost a connection.
    let status = place.host.status();
    assert_eq!(status.failed_dials, 0, "{}: {status:?}", place.name);
    place.pool.close().await;
}

async fn cells(of: impl Iterator<Item = (Server, Shell, bool)>) {
    let mut running = JoinSet::new();
    let mut done = 0;
    for (server, shell, root) in of {
        running.spawn(async move {
            let _permit = CELLS.acquire().await.unwrap();
            // A hang guard.
            let cell = tokio::time::timeout(6 * SOON, cell(server, shell, root));
            assert!(
                cell.await.is_ok(),
                "{server:?} {shell:?} root: {root}: hangs"
            );
        });
    }
    while let Some(cell) = running.join_next().await {
        cell.unwrap();
        done += 1;
    }
    println!("{done} cells");
}

fn all(posix: bool) -> impl Iterator<Item = (Server, Shell, bool)> {
    let shells = Shell::RUNNING.into_iter();
    shells
        .filter(move |shell| shell.is_posix() == posix)
        .flat_map(|shell| {
            let servers = Server::ALL.into_iter();
            servers.flat_map(move |server| [true, false].map(|root| (server, shell, root)))
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_under_fish_tcsh_and_csh_run_as_under_sh() {
    cells(all(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_under_every_posix_shell_run_as_under_sh() {
    cells(all(true)).await;
}
