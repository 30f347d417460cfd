//! A program that logs in like ssh, for tests in which its home, its agent and its user are not those of
//! the tests.
//!
//! `ssh-pool-test-login user TARGET`: says which user that target means, or what is wrong with it.
//!
//! `ssh-pool-test-login login ATTEMPTS TARGET…`: logs in to each of them, with its `known_hosts` file,
//! `Identity::like_ssh` and, if that is set, the password in `$PASSWORD`. Says `in` or `out: ERROR`
//! for each, in their order, with a tab before each identity that was offered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test support: what goes wrong must fail the test"
)]

use ssh_pool::{Error, HostKeyPolicy, Identity, Limits, Pool, Target};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("user") => match Target::try_from(arguments.next().expect("a target")) {
            Ok(target) => println!("{}", target.user()),
            Err(error) => println!("{error}"),
        },
        Some("login") => {
            let attempts = arguments.next().expect("a number").parse().unwrap();
            log_in(attempts, arguments.collect()).await;
        }
        other => eprintln!("not known: {other:?}"),
    }
}

async fn log_in(attempts: usize, targets: Vec<String>) {
    let password = std::env::var("PASSWORD").ok().map(Identity::password);
    let identities = [Identity::like_ssh()].into_iter().chain(password);
    let pool = Pool::builder(HostKeyPolicy::known_hosts())
        .identity(Identity::several(identities))
        .limits(Limits::default().auth_attempts(attempts))
        .build()
        .expect("valid settings");
    let mut logins = Vec::new();
    for target in targets {
        let host = pool.host(target).expect("a target");
        logins.push(tokio::spawn(
            async move { host.command("true").output().await },
        ));
    }
    for login in logins {
        match login.await.expect("no panic") {
            Ok(output) => println!(
                "{}",
                if output.status.success() {
                    "in"
                } else {
                    "failed"
                }
            ),
            Err(Error::AuthRejected { tried, .. }) => {
                println!("out: refused\t{}", tried.join("\t"))
            }
            Err(error) => println!("out: {error}"),
        }
    }
}
