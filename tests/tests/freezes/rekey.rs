//! A change of keys that the server begins and that never ends.

use std::time::Duration;

use ssh_pool::{Child, Stdio};
use ssh_pool_tests::{Release, Side, Sshd, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{GRACE, SOON, Site, ends};

/// One way: between what the server logs and what it hears in reply there is a while.
const SLOW: Duration = Duration::from_millis(500);

fn begun(sshd: &Sshd) -> usize {
    sshd.log().matches("SSH2_MSG_KEXINIT sent").count()
}

fn ended(sshd: &Sshd) -> usize {
    sshd.log().matches("SSH2_MSG_NEWKEYS received").count()
}

/// The server has asked for new keys on the connection that this host shares, and hears nothing any
/// more. The connection takes nothing any more either; it has a child.
async fn rekeying(sshd: &Sshd) -> (Site, Child) {
    let site = Site::new(sshd, ssh_pool::Timeouts::default());
    site.host.command("true").output().await.expect("served");
    let before = begun(sshd);
    let mut command = site
        .host
        .shell("read _; head -c 300000 /dev/zero; sleep 600");
    let command = command.shared().stdin(Stdio::piped());
    let mut child = command.spawn().await.expect("started");
    let (mut stdin, mut stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
    // What comes next need not open a channel first.
    assert!(eventually_async(SOON, || site.host.status().spare > 0).await);
    site.proxy.delay(SLOW);
    let go = stdin.as_mut().expect("piped").write_all(b"\n").await;
    go.expect("it reads");
    tokio::spawn(async move {
        let _stdin = stdin;
        let mut bytes = vec![0; 1 << 16];
        while let Ok(1..) = stdout.read(&mut bytes).await {}
    });
    assert!(eventually_async(SOON, || begun(sshd) > before).await);
    site.proxy.freeze_from(Side::Client);
    assert!(
        begun(sshd) > ended(sshd),
        "the change of keys was over too soon"
    );
    // Until the queue of the connection is full.
    let second = Duration::from_secs(1);
    while tokio::time::timeout(second, child.resize(80, 25))
        .await
        .is_ok()
    {}
    (site, child)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_by_its_deadline_when_a_change_of_keys_does_not() {
    let deadline = Duration::from_secs(3);
    for release in [Release::Installed, Release::Trixie] {
        let sshd = Sshd::builder()
            .release(release)
            .option("RekeyLimit 256K")
            .option("LogLevel DEBUG1")
            .start();
        let (site, _child) = rekeying(&sshd).await;
        let story = format!("{release:?}");
        let most = deadline + Duration::from_secs(2) + GRACE;
        let mut command = site.host.command("true");
        let output = ends(&story, most, command.timeout(deadline).output()).await;
        let error = output.expect_err("no keys");
        assert!(error.is_timeout(), "{error:?}");
        let mut spawned = site.host.command("true");
        spawned.shared().timeout(deadline);
        let spawned = ends(&story, most, spawned.spawn()).await;
        let error = spawned.expect_err("no keys");
        assert!(error.is_timeout(), "{error:?}");
    }
}
