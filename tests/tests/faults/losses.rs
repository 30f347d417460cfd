//! Connections that are lost while commands run.

use ssh_pool::{CommandState, Error, Host, Phase};
use ssh_pool_tests::{Ledger, Proxy, eventually_async};

use crate::{SOON, Setting};

/// A command that has begun and will not end by itself.
async fn running(
    host: &Host,
    ledger: &Ledger,
    name: &str,
) -> tokio::task::JoinHandle<Result<ssh_pool::Output, Error>> {
    let before = ledger.lines().len();
    let line = format!("{}; exec sleep 600", ledger.enter(name));
    let running = tokio::spawn(host.shell(line).output());
    ledger.has(before + 1).await;
    running
}

/// The error of a command that was running when its connection was lost.
fn assert_lost(ended: Result<ssh_pool::Output, Error>) {
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
    // The server's word that it has begun may be lost as well.
    assert!(error.phase() >= Phase::Exec, "{error:?}");
    assert_eq!(error.command_state(), CommandState::Unknown);
    assert!(error.is_transient() && !error.is_timeout());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_under_a_command_is_unknown_for_that_one_and_the_next_redials() {
    let cut_off = Setting::new().dropbear();
    cut_off
        .on_each(async |place| {
            let ledger = Ledger::new();
            let cuts: [fn(&Proxy); 2] = [Proxy::reset, Proxy::fin];
            for (cut, before) in cuts.iter().zip([0, 2]) {
                let command = running(&place.host, &ledger, "cut").await;
                assert_eq!(place.dials(), (before + 1, 0));
                cut(&place.proxy);
                assert_lost(command.await.unwrap());
                let evicted = || place.host.status().connections == 0;
                assert!(eventually_async(SOON, evicted).await);
                let status = place.host.shell(ledger.enter("next")).status().await;
                assert!(status.unwrap().success());
                assert_eq!(place.dials(), (before + 2, 0));
                place.host.evict();
                place.is_disconnected().await;
            }
            assert_eq!(ledger.lines(), ["cut", "next", "cut", "next"]);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_sshd_costs_the_command_that_ran_and_no_other() {
    Setting::new()
        .on_each(async |place| {
            let ledger = Ledger::new();
            // The proxy would take connections though nobody listens behind it.
            let host = place.pool.host(place.sshd().target()).unwrap();
            let command = running(&host, &ledger, "before").await;
            place.sshd().stop();
            place.sshd().kill_connections();
            assert_lost(command.await.unwrap());
            let meanwhile: Vec<_> = (0..10)
                .map(|_| tokio::spawn(host.shell(ledger.enter("meanwhile")).status()))
                .collect();
            let tried = || host.status().failed_dials > 0;
            assert!(eventually_async(SOON, tried).await);
            place.sshd().restart();
            for command in meanwhile {
                assert!(command.await.unwrap().unwrap().success());
            }
            let lines = ledger.lines();
            assert_eq!((lines.len(), &*lines[0]), (11, "before"), "{lines:?}");
            assert_eq!(host.status().dials, 2);
        })
        .await;
}
