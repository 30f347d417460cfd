//! The freeze grid: one cell for each thing that is done, each packet of it, and each direction.

use std::sync::Arc;

use ssh_pool_tests::{Fault, Side, Sshd, Step};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::recorder::{Boundary, Recorder};
use crate::work::{Work, is_expected, timeouts};
use crate::{SOON, Site, ends, patient_sshd, pool};

/// Cells at once: most of them wait for a deadline.
const AT_ONCE: usize = 40;
/// Set to anything, the grid has a cell for every byte that a client or a server sends.
const EVERY_BYTE: &str = "SSH_POOL_TEST_EVERY_BYTE";

/// What passes no more.
const FREEZES: [Fault; 3] = [
    Fault::Freeze,
    Fault::FreezeFrom(Side::Client),
    Fault::FreezeFrom(Side::Server),
];

/// Where its packets end on a connection of its own that nothing befalls.
async fn boundaries(sshd: &Sshd, work: Work) -> Vec<Boundary> {
    let recorder = Recorder::to(sshd.addr()).await;
    let patient = timeouts().connect(SOON).acquire(SOON);
    let (pool, host) = pool(sshd, &recorder.addr.to_string(), patient);
    let done = work.run(&pool, &host).await;
    // A machine that is busy may be late for the deadline of a command.
    assert!(done.is_ok() || work != Work::Warm, "{work:?}: {done:?}");
    drop(host);
    pool.close().await;
    recorder.boundaries()
}

/// All byte counts up to the last of these.
fn every_byte(boundaries: &[Boundary]) -> Vec<Boundary> {
    let of = |wanted| {
        let counts = boundaries.iter().filter(move |(side, _)| *side == wanted);
        let last = counts.map(|(_, count)| *count).max().unwrap_or_default();
        (1..=last).map(move |count| (wanted, count))
    };
    of(Side::Client).chain(of(Side::Server)).collect()
}

async fn cell(sshd: &Sshd, work: Work, (side, bytes): Boundary, freeze: Fault) {
    let site = Site::new(sshd, timeouts());
    site.proxy.script(match side {
        Side::Client => [Step::from_client(bytes, freeze)],
        Side::Server => [Step::from_server(bytes, freeze)],
    });
    let story = format!("{work:?}, {freeze:?} after {bytes} bytes from the {side:?}");
    let done = ends(&story, work.most(), work.run(&site.pool, &site.host)).await;
    if let Err(error) = done {
        assert!(is_expected(&error), "{story}: {error:?}");
    }
}

/// About 500 cells; `SSH_POOL_TEST_EVERY_BYTE=1` makes them some 100,000.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_ends_in_time_wherever_the_network_freezes() {
    let sshd = Arc::new(patient_sshd());
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut cells = JoinSet::new();
    for work in Work::ALL {
        let mut positions = boundaries(&sshd, work).await;
        assert!(positions.len() > 10, "{work:?}: {positions:?}");
        if std::env::var_os(EVERY_BYTE).is_some() {
            positions = every_byte(&positions);
        }
        println!("{work:?}: {}", positions.len());
        for at in positions {
            for freeze in FREEZES {
                let permit = room.clone().acquire_owned().await.unwrap();
                let sshd = sshd.clone();
                cells.spawn(async move {
                    cell(&sshd, work, at, freeze).await;
                    drop(permit);
                });
            }
        }
    }
    let mut count = 0;
    while let Some(cell) = cells.join_next().await {
        cell.unwrap();
        count += 1;
    }
    println!("{count} cells");
}
