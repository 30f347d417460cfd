//! A change of keys that the server begins and that never ends.

use std::time::Duration;

use ssh_pool_tests::{Release, Side, Sshd, eventually_async};
use tokio::io::AsyncReadExt;

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
/// more.
async fn rekeying(sshd: &Sshd) -> Site {
    let site = Site::new(sshd, ssh_pool::Timeouts::default());
    site.host.command("true").output().await.expect("served");
    let before = begun(sshd);
    site.proxy.delay(SLOW);
    let mut command = site.host.shell("head -c 300000 /dev/zero; sleep 600");
    let mut child = command.shared().spawn().await.expect("started");
    let mut stdout = child.stdout.take().expect("piped");
    tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(1..) = stdout.read(&mut bytes).await {}
        drop(child);
    });
    assert!(eventually_async(SOON, || begun(sshd) > before).await);
    site.proxy.freeze_from(Side::Client);
    assert!(
        begun(sshd) > ended(sshd),
        "the change of keys was over too soon"
    );
    site
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
        let site = rekeying(&sshd).await;
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
