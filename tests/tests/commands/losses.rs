//! Commands whose end is not known: the error says so, and nothing is run again.

use std::collections::HashMap;

use ssh_pool::{CommandState, Error, Phase};

use crate::{Ledger, dials, server};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_under_a_command_is_replaced_and_the_command_is_not_run_again() {
    let (sshd, pool, host) = server();
    let ledger = Ledger::new();
    let line = format!("{}; sleep 30", ledger.enter("once"));
    let running = tokio::spawn(host.shell(line).output());
    ledger.has(1).await;
    sshd.kill_connections();
    let error = running.await.unwrap().unwrap_err();
    let Error::ConnectionLost { phase, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*phase, Phase::Running);
    assert_eq!(error.command_state(), CommandState::Unknown);
    assert!(error.is_transient() && !error.is_timeout());

    let next = host.shell(ledger.enter("next")).status().await.unwrap();
    assert!(next.success());
    assert_eq!(dials(&pool), 2);
    assert_eq!(ledger.lines(), ["once", "next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_commands_on_dying_connections_none_runs_twice_and_none_is_lost_in_silence() {
    let (sshd, _pool, host) = server();
    let ledger = Ledger::new();
    let commands: Vec<_> = (0..300)
        .map(|number| {
            // Long enough for each massacre to find some at work.
            let line = format!("{}; sleep 0.05", ledger.enter(&number.to_string()));
            (number, tokio::spawn(host.shell(line).output()))
        })
        .collect();
    for threshold in [30, 100, 170] {
        ledger.has(threshold).await;
        sshd.kill_connections();
    }
    let (mut finished, mut unknown) = (0, 0);
    let mut wanted = HashMap::new();
    for (number, command) in commands {
        match command.await.unwrap() {
            Ok(output) => {
                assert!(output.status.success(), "{output:?}");
                finished += 1;
                wanted.insert(number.to_string(), 1);
            }
            // A command that never started never fails because of the pool.
            Err(error) => {
                assert_eq!(error.command_state(), CommandState::Unknown, "{error:?}");
                assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
                unknown += 1;
            }
        }
    }
    let mut ran: HashMap<String, usize> = HashMap::new();
    for line in ledger.lines() {
        *ran.entry(line).or_default() += 1;
    }
    assert!(ran.values().all(|times| *times == 1), "{ran:?}");
    for number in wanted.keys() {
        assert_eq!(ran.get(number), wanted.get(number), "{number}");
    }
    assert!(finished > 0 && unknown > 0, "{finished} {unknown}");
}
