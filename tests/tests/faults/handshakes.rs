//! Connections that are lost before anybody has logged in.

use std::time::{Duration, Instant};

use ssh_pool::{CommandState, Timeouts};
use ssh_pool_tests::{Cut, Step};

use crate::{SOON, Server, Setting};

/// From nothing to the middle of the key exchange, of a server with one small host key.
const PLACES: [fn(Cut) -> Step; 7] = [
    |cut| Step::from_server(0, cut),
    // The server has begun to say who it is, has said it, has said what it can do.
    |cut| Step::from_server(10, cut),
    |cut| Step::from_server(45, cut),
    |cut| Step::from_server(600, cut),
    // We have said who we are; what we can do.
    |cut| Step::from_client(10, cut),
    |cut| Step::from_client(700, cut),
    // The key exchange is all but over. dropbear says less, and has let us in by then.
    |cut| Step::from_server(1_300, cut),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_anywhere_in_its_handshake_is_dialled_again() {
    let lost = Setting::new().dropbear().counted();
    lost.on_each(async |place| {
        let mut rounds = 0;
        let places = match &place.server {
            Server::Sshd(_) => &PLACES[..],
            Server::Dropbear(_) => &PLACES[..6],
        };
        for cut in [Cut::Reset, Cut::Fin] {
            for (number, step) in places.iter().enumerate() {
                place.proxy.script_next(1, [step(cut)]);
                let ended = place.host.command("true").output().await;
                let said = ended.unwrap_or_else(|error| panic!("{cut:?} {number}: {error:?}"));
                assert!(said.status.success());
                rounds += 1;
                assert_eq!(place.dials(), (rounds, rounds), "{cut:?} {number}");
                place.host.evict();
                place.is_disconnected().await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_lost_for_ever_end_with_the_callers_deadline() {
    // For several handshakes, on a busy machine too, and for fewer than the eight of which callers
    // are told without a deadline.
    let deadline = Duration::from_secs(5);
    let timeouts = Timeouts::default().acquire(deadline);
    let lost = Setting::new().timeouts(timeouts).counted();
    lost.on_each(async |place| {
        place.proxy.script([Step::from_server(600, Cut::Reset)]);
        let started = Instant::now();
        let error = place.host.command("true").output().await.unwrap_err();
        assert!(started.elapsed() >= deadline && started.elapsed() < SOON);
        assert!(error.is_timeout() && error.is_transient(), "{error}");
        assert_eq!(error.command_state(), CommandState::NotStarted);
        let lost = "the connection was lost during the key exchange";
        assert!(error.to_string().contains(lost), "{error}");
        let tries = place.proxy.connections();
        assert!((2..8).contains(&tries), "with pauses: {tries}");

        place.proxy.script([]);
        place.recovers().await;
    })
    .await;
}
