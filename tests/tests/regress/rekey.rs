//! rekey: keys are changed in the middle of everything, and nobody notices.

use std::time::Duration;

use ssh_pool::{Host, Limits, Pool, Stdio, Timeouts};
use ssh_pool_tests::{Release, Sshd, SshdBuilder, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::data::{Folder, assert_same, noise};
use crate::echo::{Echo, ask};
use crate::gate::Gate;
use crate::way::{SPAWNED, WITH_OUTPUT, Way};
use crate::{SOON, builder, known, on};

const LENGTH: usize = 50_000_000;

fn rekeying(limit: &str) -> SshdBuilder {
    Sshd::builder()
        .option(format!("RekeyLimit {limit}"))
        .option("LogLevel DEBUG1")
}

/// How often keys came into use, over all connections, the first ones included.
fn keys(sshd: &Sshd) -> usize {
    sshd.log().matches("SSH2_MSG_NEWKEYS received").count()
}

/// Since the server was started, keys were changed that often at least, on top of each
/// connection's first.
#[track_caller]
fn assert_changed(sshd: &Sshd, pool: &Pool, times: usize) {
    let first = usize::try_from(pool.status().hosts[0].dials).unwrap();
    let changed = keys(sshd) - first;
    assert!(changed >= times, "{changed} of {times}");
}

async fn down(host: &Host, way: Way, file: &str, bytes: &[u8]) {
    let output = way.output(host.command("cat").arg(file)).await.unwrap();
    assert!(output.status.success(), "{way:?}");
    assert_same(&output.stdout, bytes, way);
}

async fn up(host: &Host, way: Way, folder: &Folder, bytes: &[u8]) {
    let mut command = host.shell(format!("cat >{}", folder.file("up")));
    let output = way.output(command.stdin(bytes)).await.unwrap();
    assert!(output.status.success(), "{way:?}");
    assert_same(&folder.read("up"), bytes, way);
}

/// Fifty megabytes each way, with keys changed dozens of times in each.
async fn transfers_survive(sshd: &Sshd, pool: &Pool, host: &Host) {
    let folder = Folder::new();
    let bytes = noise(1, LENGTH);
    let file = folder.put("down", &bytes);
    for way in [Way::Output, Way::Isolated] {
        let before = keys(sshd);
        down(host, way, &file, &bytes).await;
        let between = keys(sshd);
        assert!(between - before >= 20, "{} times", between - before);
        up(host, way, &folder, &bytes).await;
        let after = keys(sshd);
        assert!(after - between >= 20, "{} times", after - between);
    }
    assert_changed(sshd, pool, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_transfers_survive_dozens_of_new_keys_by_bytes() {
    for release in [Release::Installed, Release::Trixie] {
        let (sshd, pool, host) = on(rekeying("1M").release(release).start());
        transfers_survive(&sshd, &pool, &host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_in_both_directions_at_once_survive_new_keys() {
    let (sshd, pool, host) = on(rekeying("256K").start());
    let echo = Echo::tcp().await;
    let bytes = noise(2, 5_000_000);
    for way in WITH_OUTPUT {
        let output = way.output(host.command("cat").stdin(&bytes)).await.unwrap();
        assert_same(&output.stdout, &bytes, way);
    }
    for shared in [false, true] {
        let connect = host.connect_tcp("127.0.0.1", echo.port());
        let stream = if shared { connect.shared() } else { connect }
            .await
            .unwrap();
        assert_same(&ask(stream, &bytes).await.unwrap(), &bytes, shared);
    }
    assert_changed(&sshd, &pool, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cipher_and_key_exchange_can_change_keys() {
    let bytes = noise(3, 1_500_000);
    let folder = Folder::new();
    let file = folder.put("down", &bytes);
    for line in [
        "Ciphers aes256-gcm@openssh.com",
        "Ciphers aes128-gcm@openssh.com",
        "Ciphers chacha20-poly1305@openssh.com",
        "Ciphers aes256-ctr",
        "Ciphers aes128-ctr",
        "KexAlgorithms curve25519-sha256",
        "KexAlgorithms diffie-hellman-group14-sha256",
    ] {
        let (sshd, pool, host) = on(rekeying("256K").option(line).start());
        for way in SPAWNED {
            down(&host, way, &file, &bytes).await;
            up(&host, way, &folder, &bytes).await;
        }
        assert_changed(&sshd, &pool, 10);
    }
}

/// Thirty commands at once, five times over, with keys changed dozens of times between them: how
/// often depends on how much goes out while one change is under way.
async fn many_commands_survive(sshd: &Sshd, pool: &Pool, host: &Host) {
    let bytes = noise(4, 300_000);
    for _ in 0..5 {
        let all = (0..30).map(|_| host.command("cat").stdin(&bytes).output());
        let work = futures_util::future::join_all(all);
        for output in timeout(SOON * 2, work).await.unwrap() {
            let output = output.unwrap();
            assert!(output.status.success());
            assert_same(&output.stdout, &bytes, "beside others");
        }
    }
    assert_changed(sshd, pool, 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_beside_each_other_survive_new_keys() {
    let (sshd, pool, host) = on(rekeying("64K").start());
    many_commands_survive(&sshd, &pool, &host).await;
}

/// A command that runs while keys are changed three times still takes input and gives output.
async fn lives_through_new_keys(sshd: &Sshd, host: &Host, way: Way) {
    let gate = Gate::new();
    let line = format!("while {}; do echo .; sleep 0.05; done; cat", gate.is_shut());
    let mut command = way.shell(host, line);
    let mut child = command.stdin(Stdio::piped()).spawn().await.unwrap();
    let before = keys(sshd);
    let changed = || keys(sshd) >= before + 3;
    assert!(eventually_async(SOON, changed).await, "{}", sshd.log());
    gate.open();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"after").await.unwrap();
    drop(stdin);
    let output = timeout(SOON, child.wait_with_output()).await.unwrap();
    let output = output.unwrap();
    assert!(output.stdout.ends_with(b".\nafter"), "{way:?}");
    assert!(output.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_live_through_new_keys_by_time() {
    for release in [Release::Installed, Release::Trixie] {
        let (sshd, _pool, host) = on(rekeying("default 1").release(release).start());
        for way in SPAWNED {
            lives_through_new_keys(&sshd, &host, way).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_waits_while_new_keys_are_due_loses_nothing() {
    let (sshd, _pool, host) = on(rekeying("default 1").start());
    let folder = Folder::new();
    let bytes = noise(5, 30_000_000);
    let file = folder.put("down", &bytes);
    let mut child = host.command("cat").arg(file).spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = vec![0; 1_000];
    stdout.read_exact(&mut seen).await.unwrap();
    let sent = || sshd.log().matches("SSH2_MSG_KEXINIT sent").count();
    let before = sent();
    // It wants new keys, which we do not even hear of while nobody reads.
    assert!(
        eventually_async(SOON, || sent() > before).await,
        "{}",
        sshd.log()
    );
    timeout(SOON, stdout.read_to_end(&mut seen))
        .await
        .unwrap()
        .unwrap();
    assert_same(&seen, &bytes, "after a pause");
    assert!(
        timeout(SOON, child.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
}

/// A pool that changes keys by itself, on a server that does not.
fn on_our_own(release: Release, limits: Limits, timeouts: Timeouts) -> (Sshd, Pool, Host) {
    let sshd = Sshd::builder().release(release).option("LogLevel DEBUG1");
    let sshd = sshd.start();
    let pool = builder(&sshd, known(&sshd))
        .limits(limits)
        .timeouts(timeouts);
    let pool = pool.build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    (sshd, pool, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn this_side_changes_keys_by_bytes_in_mid_transfer() {
    let limits = Limits::default().rekey_bytes(1 << 20);
    let (sshd, pool, host) = on_our_own(Release::Installed, limits, Timeouts::default());
    transfers_survive(&sshd, &pool, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_beside_each_other_survive_new_keys_of_this_side() {
    for release in [Release::Installed, Release::Trixie] {
        let limits = Limits::default().rekey_bytes(64 << 10);
        let (sshd, pool, host) = on_our_own(release, limits, Timeouts::default());
        many_commands_survive(&sshd, &pool, &host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn this_side_changes_keys_by_time_while_a_command_runs() {
    let timeouts = Timeouts::default().rekey(Duration::from_millis(300));
    let (sshd, _pool, host) = on_our_own(Release::Installed, Limits::default(), timeouts);
    for way in SPAWNED {
        lives_through_new_keys(&sshd, &host, way).await;
    }
}
