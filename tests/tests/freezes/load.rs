//! The same on a connection whose queue is full of uploads.

use std::sync::Arc;
use std::time::Duration;

use ssh_pool::CommandState;
use ssh_pool_tests::{Rate, Side, Sshd, eventually_async};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::work::{Work, is_expected, timeouts};
use crate::{GRACE, SOON, Site, ends, patient_sshd};

const UPLOADS: usize = 9;
/// More than goes out before the network freezes.
const SIZE: usize = 60 << 20;
/// Bytes a second, upwards.
const RATE: usize = 3 << 20;
/// Cells of the grid at once: each has its uploads.
const AT_ONCE: usize = 6;
/// Before a call, in which more of the uploads comes to wait.
const FROZEN: Duration = Duration::from_millis(50);

/// Dropped, the uploads are cancelled.
async fn upload(site: &Site) -> JoinSet<()> {
    site.host.warm().await.expect("warm");
    site.proxy.throttle(Rate {
        from_client: Some(RATE),
        from_server: None,
    });
    let mut command = site.host.shell("cat >/dev/null");
    command.stdin(vec![0; SIZE]);
    let mut uploads = JoinSet::new();
    for _ in 0..UPLOADS {
        let upload = command.output();
        uploads.spawn(async move { drop(upload.await) });
    }
    let running = || site.host.status().running as usize == UPLOADS;
    assert!(
        eventually_async(SOON, running).await,
        "{:?}",
        site.host.status()
    );
    uploads
}

#[derive(Debug, Clone, Copy)]
enum Freeze {
    Both,
    From(Side),
}

const FREEZES: [Freeze; 3] = [
    Freeze::Both,
    Freeze::From(Side::Client),
    Freeze::From(Side::Server),
];

async fn freeze(site: &Site, freeze: Freeze) {
    match freeze {
        Freeze::Both => site.proxy.freeze(),
        Freeze::From(side) => site.proxy.freeze_from(side),
    }
    tokio::time::sleep(FROZEN).await; // this is what happens to it
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_behind_uploads_ends_by_its_deadline_when_the_network_freezes() {
    let sshd = Sshd::start();
    for how in FREEZES {
        let site = Site::new(&sshd, ssh_pool::Timeouts::default());
        let uploads = upload(&site).await;
        freeze(&site, how).await;
        let deadline = Duration::from_secs(3);
        let mut command = site.host.command("true");
        let story = format!("{how:?}");
        let most = deadline + Duration::from_secs(2) + GRACE;
        let output = ends(&story, most, command.timeout(deadline).output()).await;
        let error = output.expect_err("frozen");
        assert!(error.is_timeout(), "{story}: {error:?}");
        if error.phase() < ssh_pool::Phase::Exec {
            let state = error.command_state();
            assert_eq!(state, CommandState::NotStarted, "{story}: {error:?}");
        }
        drop(uploads);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_beside_uploads_ends_in_time_when_the_network_freezes() {
    let sshd = Arc::new(patient_sshd());
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut cells = JoinSet::new();
    for work in Work::ALL {
        for how in FREEZES {
            let permit = room.clone().acquire_owned().await.unwrap();
            let sshd = sshd.clone();
            cells.spawn(async move {
                let _permit = permit;
                let site = Site::new(&sshd, timeouts());
                let uploads = upload(&site).await;
                freeze(&site, how).await;
                let story = format!("{work:?}, {how:?}");
                let done = ends(&story, work.most(), work.run(&site.pool, &site.host)).await;
                if let Err(error) = done {
                    assert!(is_expected(&error), "{story}: {error:?}");
                }
                drop(uploads);
            });
        }
    }
    while let Some(cell) = cells.join_next().await {
        cell.unwrap();
    }
}
