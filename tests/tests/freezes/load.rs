//! The same on a connection whose queue is full of uploads.

use std::sync::Arc;
use std::time::Duration;

use ssh_pool::{Child, CommandState, Stdio};
use ssh_pool_tests::{Rate, Side, Sshd, eventually_async};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::work::{Work, is_expected, timeouts};
use crate::{GRACE, SOON, Site, ends, patient_sshd};

/// One session of the connection is left for what comes next.
const UPLOADS: usize = 9;
/// Bytes a second, upwards.
const RATE: usize = 3 << 20;
/// Cells of the grid at once: each has its uploads.
const AT_ONCE: usize = 6;

/// Uploads without an end. Dropped, they are cancelled.
struct Uploads {
    children: Vec<Child>,
    _inputs: JoinSet<()>,
}

async fn upload(site: &Site) -> Uploads {
    site.host.warm().await.expect("warm");
    let mut command = site.host.shell("cat >/dev/null");
    command.shared().stdin(Stdio::piped());
    let mut children = Vec::new();
    for _ in 0..UPLOADS {
        children.push(command.spawn().await.expect("started"));
    }
    // What comes next need not open a channel behind the uploads: its request is what waits.
    let spare = || site.host.status().spare > 0;
    assert!(
        eventually_async(SOON, spare).await,
        "{:?}",
        site.host.status()
    );
    site.proxy.throttle(Rate {
        from_client: Some(RATE),
        from_server: None,
    });
    let mut inputs = JoinSet::new();
    for child in &mut children {
        let mut stdin = child.stdin.take().expect("piped");
        inputs.spawn(async move {
            // It ends with the upload.
            tokio::io::copy(&mut tokio::io::repeat(0), &mut stdin)
                .await
                .ok();
        });
    }
    Uploads {
        children,
        _inputs: inputs,
    }
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

async fn freeze(site: &Site, uploads: &Uploads, freeze: Freeze) {
    match freeze {
        Freeze::Both => site.proxy.freeze(),
        Freeze::From(side) => site.proxy.freeze_from(side),
    }
    if let Freeze::From(Side::Server) = freeze {
        return; // what is sent gets through
    }
    // Until the queue of the connection is full: the uploads alone wait for their windows.
    let child = uploads.children.first().expect("an upload");
    let second = Duration::from_secs(1);
    while tokio::time::timeout(second, child.resize(80, 25))
        .await
        .is_ok()
    {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_behind_uploads_ends_by_its_deadline_when_the_network_freezes() {
    let sshd = Sshd::start();
    for how in FREEZES {
        let site = Site::new(&sshd, ssh_pool::Timeouts::default());
        let uploads = upload(&site).await;
        freeze(&site, &uploads, how).await;
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
                freeze(&site, &uploads, how).await;
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
