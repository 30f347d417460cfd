//! What a login was at when the time of its caller was up: the error names that, and nothing else.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ssh_pool::{CommandState, Error, HostKeyPolicy, Identity, Phase, Pool, PoolBuilder, Timeouts};
use ssh_pool_tests::raw::{Fields, Payload, RawServer, number};
use ssh_pool_tests::{Habit, Sshd, TempDir};

use crate::encrypted::{PASSPHRASE, encrypt};
use crate::odd_agents::odd;
use crate::{builder, known, new_key};

/// Less than any of these takes, and longer than what comes before it.
const TIME: Duration = Duration::from_secs(2);

/// A command whose time passes before it can be sent blames this phase, and says what to do.
async fn assert_blames(pool: PoolBuilder, target: &str, phase: Phase, advice: &str) {
    let timeouts = Timeouts::default().acquire(TIME);
    let pool = pool.timeouts(timeouts).build().unwrap();
    let host = pool.host(target).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    says(&error, phase, advice);
    pool.close().await;
}

fn says(error: &Error, phase: Phase, advice: &str) {
    // Not after the 30 s of another limit.
    let in_time = matches!(error, Error::Timeout { after, .. } if *after == TIME);
    assert!(in_time, "{error:?}");
    let found = (error.phase(), error.command_state());
    assert_eq!(found, (phase, CommandState::NotStarted), "{error}");
    let text = error.to_string();
    assert!(text.contains(advice), "{text}");
    for other in ["network", "resolver", "firewalls", "is up"] {
        assert!(!text.contains(other), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_takes_too_long_is_blamed() {
    let sshd = Sshd::start();
    for habit in [Habit::NeverLists, Habit::NeverSigns] {
        let odd = odd(habit);
        sshd.authorize(&odd.key.1.public_line());
        let pool = builder(&sshd, known(&sshd)).identity(odd.identity());
        assert_blames(pool, &sshd.target(), Phase::Agent, "unlock the agent").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_takes_too_long_to_decrypt_is_blamed_and_logs_in_afterwards() {
    let sshd = Sshd::start();
    let (_dir, key) = new_key();
    sshd.authorize(&key.public_line());
    encrypt(&key, PASSPHRASE, 800);
    let identity = Identity::key_file_with_passphrase(key.private(), PASSPHRASE);
    // It takes longer than a connection may, too.
    let timeouts = Timeouts::default().acquire(TIME).connect(TIME);
    let pool = builder(&sshd, known(&sshd)).timeouts(timeouts);
    let pool = pool.identity(identity).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let mut late = 0;
    while let Err(error) = host.command("true").output().await {
        // The call during which the key is ready may come as far as the login.
        if late == 0 || error.phase() == Phase::Decryption {
            says(&error, Phase::Decryption, "decrypting the key takes long");
        }
        late += 1;
    }
    assert!(late > 0, "it was decrypted within {TIME:?}");
    assert_eq!(sshd.connections(), 1, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_too_long_to_read_is_blamed() {
    let (sshd, dir) = (Sshd::start(), TempDir::new());
    // As on a network disk that does not answer: nobody writes to it.
    let file = dir.path().join("known_hosts");
    let made = Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    let pool = builder(&sshd, HostKeyPolicy::known_hosts_file(&file));
    let advice = "check the disk that holds the keys and known_hosts";
    assert_blames(pool, &sshd.target(), Phase::Files, advice).await;
    // The thread that opens it goes on.
    let both = fs::OpenOptions::new().read(true).write(true).open(&file);
    drop(both.unwrap());
    assert_eq!(sshd.connections(), 0, "{}", sshd.log());
}

/// A server that accepts a password as a part of the login, and then says no more.
fn undecided() -> RawServer {
    RawServer::start(Arc::new(|mut peer| {
        Box::pin(async move {
            peer.handshake().await?;
            loop {
                let message = peer.receive().await?;
                let mut fields = Fields::of(&message);
                let failure = |methods, partial| {
                    let failure = Payload::new(number::USERAUTH_FAILURE);
                    failure.string(methods).byte(partial)
                };
                match message.first() {
                    Some(&number::SERVICE_REQUEST) => {
                        let accept = Payload::new(number::SERVICE_ACCEPT);
                        peer.send(accept.string(fields.string())).await?;
                    }
                    Some(&number::USERAUTH_REQUEST) => {
                        let (_user, _service) = (fields.string(), fields.string());
                        match fields.string() {
                            b"none" => peer.send(failure("password", 0)).await?,
                            b"password" => peer.send(failure("keyboard-interactive", 1)).await?,
                            _ => {}
                        }
                    }
                    _ => {}
                }
            }
        })
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_decide_after_a_partial_success_is_blamed() {
    let server = undecided();
    let settings = || {
        let policy = HostKeyPolicy::known_hosts_file(server.known_hosts());
        Pool::builder(policy).identity(Identity::password("x"))
    };
    let advice = "the server is slow to decide";
    assert_blames(settings(), &server.target(), Phase::Auth, advice).await;
    // The same of the time that a dial has.
    let timeouts = Timeouts::default().connect(TIME);
    let pool = settings().timeouts(timeouts).build().unwrap();
    let host = pool.host(server.target()).unwrap();
    says(
        &host.command("true").output().await.unwrap_err(),
        Phase::Auth,
        advice,
    );
}
