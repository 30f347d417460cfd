//! Commands that end otherwise than by themselves.

use std::time::Duration;

use ssh_pool::{CommandState, Error, Phase};
use ssh_pool_tests::Ledger;

use crate::{Server, Setting};

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_server_closes_without_a_status_is_no_success() {
    let impatient = Setting::new().option("ChannelTimeout session:command=1s");
    impatient
        .on_each(async |place| {
            let ledger = Ledger::new();
            let line = format!("{}; sleep 30", ledger.enter("once"));
            let mut command = place.host.shell(line);
            let running = command.timeout(Duration::from_secs(20)).output();
            let error = running.await.unwrap_err();
            let typed = matches!(error, Error::ClosedWithoutStatus { .. });
            assert!(typed, "{error:?}");
            assert_eq!(error.command_state(), CommandState::Unknown);
            assert_eq!(error.phase(), Phase::Running);
            assert_eq!(ledger.lines(), ["once"]);
            place.serves().await;
            assert_eq!(place.dials(), (1, 0));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ended_by_a_signal_says_which() {
    let killed = Setting::new().dropbear();
    killed
        .on_each(async |place| {
            let host = &place.host;
            let output = host.shell("kill -9 $$").output().await.unwrap();
            assert_eq!(output.status.signal(), Some("KILL"));
            assert_eq!(output.status.to_string(), "signal: KILL");
            // All that RFC 4254, section 6.10, has a name for; what dropbear knows are fewer.
            let names = match &place.server {
                Server::Sshd(_) => &ALL[..],
                Server::Dropbear(_) => &ALL[..2],
            };
            for name in names {
                let line = format!("ulimit -c 0; echo seen; kill -{name} $$; echo not seen");
                let output = host.shell(&line).output().await.unwrap();
                assert_eq!(output.status.signal(), Some(*name), "{output:?}");
                assert_eq!(output.status.code(), None);
                assert!(!output.status.success());
                assert_eq!(output.stdout, b"seen\n");
                let status = host.shell(&line).status().await.unwrap();
                assert_eq!(status, output.status);
            }
        })
        .await;
}

const ALL: [&str; 13] = [
    "KILL", "TERM", "ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "PIPE", "QUIT", "SEGV", "USR1",
    "USR2",
];
