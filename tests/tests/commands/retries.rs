//! Commands that may run twice: a restart of the server is nobody's error. And what it is for the
//! others.

use std::collections::HashMap;
use std::sync::Arc;

use ssh_pool::{CommandState, Error, Host, Output};
use ssh_pool_tests::{Release, Sshd, eventually_async};
use tokio::task::{JoinHandle, JoinSet};

use crate::{Gate, Ledger, SOON, builder, known, on, server};

const COMMANDS: usize = 2_000;
const AT_ONCE: usize = 50;
/// sshd goes and comes back when so many commands have been answered.
const RESTARTS: [usize; 2] = [500, 1_200];
/// These wait for the first restart, so that it finds some at work.
const HELD: usize = 8;
/// What stock limits allow: four connections of ten sessions.
const SESSIONS: usize = 40;

/// A storm on a server that is restarted in it: how each command came back, and how often it ran.
struct Storm {
    results: Vec<Result<Output, Error>>,
    ran: Vec<usize>,
}

/// Every command adds its number to a ledger.
async fn storm(release: Release, idempotent: bool) -> Storm {
    let sshd = Arc::new(Sshd::builder().release(release).start());
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let (ledger, gate) = (Ledger::new(), Gate::new());
    let run = |number: usize| {
        let mut line = ledger.enter(&number.to_string());
        if number < HELD {
            line = format!("{line}; {}", gate.pass());
        }
        let mut command = host.shell(line);
        if idempotent {
            command.idempotent();
        }
        let output = command.output();
        async move { (number, output.await) }
    };
    let mut results = HashMap::new();
    let mut commands = JoinSet::new();
    let (mut restarts, mut restart) = (0, None::<JoinHandle<()>>);
    for number in 0..COMMANDS {
        if number == HELD {
            ledger.has(HELD).await;
        }
        if commands.len() == AT_ONCE {
            results.extend([commands.join_next().await.unwrap().unwrap()]);
        }
        if RESTARTS.get(restarts) == Some(&results.len()) {
            if let Some(earlier) = restart.take() {
                earlier.await.unwrap();
            }
            restarts += 1;
            let (sshd, gate) = (sshd.clone(), gate.clone());
            restart = Some(tokio::task::spawn_blocking(move || {
                sshd.stop();
                sshd.kill_connections();
                sshd.restart();
                gate.open();
            }));
        }
        commands.spawn(run(number));
    }
    results.extend(commands.join_all().await);
    assert_eq!(restarts, RESTARTS.len());
    restart.take().unwrap().await.unwrap();
    pool.close().await;
    // Lost ones may still be about to make their entry.
    let over = eventually_async(SOON, || sshd.session_processes().is_empty()).await;
    assert!(over, "{:?}", sshd.session_processes());
    let mut ran = vec![0; COMMANDS];
    for line in ledger.lines() {
        ran[line.parse::<usize>().unwrap()] += 1;
    }
    let result = |number| results.remove(&number).unwrap();
    Storm {
        results: (0..COMMANDS).map(result).collect(),
        ran,
    }
}

async fn nothing_fails(release: Release) {
    let Storm { results, ran } = storm(release, true).await;
    let mut again = 0;
    for (number, (result, ran)) in results.into_iter().zip(ran).enumerate() {
        let output = result.unwrap_or_else(|error| panic!("{number}: {error:?}"));
        assert!(output.status.success(), "{number}: {output:?}");
        let attempts = output.attempts as usize;
        assert!((1..=3).contains(&attempts), "{number}: {output:?}");
        assert!((1..=attempts).contains(&ran), "{number}: {ran}, {output:?}");
        assert!(number >= HELD || attempts > 1, "{number}: {output:?}");
        again += usize::from(attempts > 1);
    }
    assert!(again <= RESTARTS.len() * SESSIONS, "only what ran: {again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_in_a_storm_of_idempotent_commands_fails_none_of_them() {
    nothing_fails(Release::Installed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_10_restarted_in_a_storm_of_idempotent_commands_fails_none_of_them_either() {
    nothing_fails(Release::Trixie).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_other_commands_those_in_flight_are_in_doubt_and_nothing_runs_twice() {
    let Storm { results, ran } = storm(Release::Installed, false).await;
    let mut in_doubt = 0;
    for (number, (result, ran)) in results.into_iter().zip(ran).enumerate() {
        match result {
            Ok(output) => {
                assert!(output.status.success(), "{number}: {output:?}");
                assert_eq!((output.attempts, ran), (1, 1), "{number}");
            }
            Err(error) => {
                // What never started never fails because of the pool.
                assert_eq!(error.command_state(), CommandState::Unknown, "{error:?}");
                assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
                assert_eq!(error.attempts(), 1);
                assert!(ran <= 1, "{number} ran {ran} times");
                in_doubt += 1;
            }
        }
    }
    let in_flight = HELD..=RESTARTS.len() * SESSIONS;
    assert!(in_flight.contains(&in_doubt), "{in_doubt}");
}

/// Runs it, and cuts its connection when it has read its input and written something.
async fn lost_once(sshd: &Sshd, host: &Host, input: Vec<u8>) -> Output {
    let (ledger, gate) = (Ledger::new(), Gate::new());
    let line = format!("wc -c; {}; {}", ledger.enter("read"), gate.pass());
    let running = host.shell(line).stdin(input).idempotent().output();
    let running = tokio::spawn(running);
    ledger.has(1).await;
    sshd.kill_connections();
    gate.open();
    let output = running.await.unwrap().unwrap();
    assert_eq!(ledger.lines().len(), 2);
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_reads_all_of_its_input_and_only_the_last_ones_output_is_kept() {
    let (sshd, _pool, host) = server();
    let output = lost_once(&sshd, &host, vec![b'x'; 5_000_000]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "5000000");
    assert_eq!(output.attempts, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_ends_by_a_rule_of_its_own_is_not_run_again() {
    let sshd = Sshd::builder().option("ChannelTimeout session:command=1s");
    let (_sshd, _pool, host) = on(sshd.start());
    let ledger = Ledger::new();
    let line = format!("{}; sleep 30", ledger.enter("once"));
    let error = host.shell(line).idempotent().output().await.unwrap_err();
    assert!(
        matches!(error, Error::ClosedWithoutStatus { .. }),
        "{error:?}"
    );
    assert_eq!(ledger.lines(), ["once"]);
}
