//! Keys that an ssh-agent holds.

use ssh_pool::{Error, Identity, Limits};
use ssh_pool_tests::{Agent, KeyFormat, KeyPair, Sshd, TempDir, generate, sign_user_certificate};

use crate::odd_agents::whole;
use crate::{
    RELEASES, builder, host_for, known, last_login_was_with, login, logins, new_key, offered, pool,
};

/// An agent with that many keys that nobody lets in.
fn agent_with(count: usize) -> (Agent, Vec<(TempDir, KeyPair)>) {
    let agent = Agent::start();
    let keys: Vec<_> = (0..count).map(|_| new_key()).collect();
    for (_, key) in &keys {
        agent.add(key.private());
    }
    (agent, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_key_logs_in() {
    let sshd = Sshd::start();
    let (agent, keys) = agent_with(1);
    sshd.authorize(&keys[0].1.public_line());
    login(&sshd, Identity::agent_at(agent.socket()))
        .await
        .unwrap();
    last_login_was_with(&sshd, &keys[0].1.fingerprint());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_an_agent_logs_in() {
    let (ca, key) = (new_key(), new_key());
    let trusted = format!("TrustedUserCAKeys {}", ca.1.public().display());
    let sshd = Sshd::builder().option(trusted).start();
    let _ = sign_user_certificate(&ca.1, &key.1, &[sshd.user()]);
    let agent = Agent::start();
    agent.add(key.1.private());
    login(&sshd, Identity::agent_at(agent.socket()))
        .await
        .unwrap();
    let last = logins(&sshd).pop().unwrap();
    assert!(last.contains("ED25519-CERT "), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_agents_many_keys_no_more_are_offered_than_the_server_counts() {
    for release in RELEASES {
        let sshd = Sshd::builder().release(release).option("MaxAuthTries 6");
        let sshd = sshd.start();
        let (agent, keys) = agent_with(8);
        let pool = pool(&sshd);
        let host = host_for(&pool, &sshd, Identity::agent_at(agent.socket()));
        let error = host.command("true").output().await.unwrap_err();

        let tried = offered(&error);
        let (last, names) = tried.split_last().unwrap();
        assert_eq!(names.len(), 5, "{tried:?}");
        for (name, (_, key)) in names.iter().zip(&keys) {
            assert!(name.contains(&key.fingerprint()), "{tried:?}");
        }
        assert!(last.contains("3 more not offered"), "{tried:?}");
        let text = error.to_string();
        assert!(names.iter().all(|name| text.contains(name)), "{text}");

        // Nobody tries again while the cool-down lasts, whatever for.
        for _ in 0..10 {
            offered(&host.command("true").output().await.unwrap_err());
            offered(&host.command("true").spawn().await.unwrap_err());
        }
        let log = sshd.log();
        assert_eq!(sshd.connections(), 1, "{log}");
        assert_eq!(sshd.auth_failures(), 1, "{log}");
        assert_eq!(sshd.refused_credentials(), 5, "{log}");
        assert!(!log.contains("Too many authentication failures"), "{log}");
        sshd.assert_not_banned();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_key_among_many_is_found_within_the_limit_and_not_past_it() {
    let sshd = Sshd::start();
    let (agent, keys) = agent_with(8);
    sshd.authorize(&keys[4].1.public_line());
    let identity = Identity::agent_at(agent.socket());
    login(&sshd, identity.clone()).await.unwrap();
    last_login_was_with(&sshd, &keys[4].1.fingerprint());

    let limits = Limits::default().auth_attempts(4);
    let pool = builder(&sshd, known(&sshd)).limits(limits).build().unwrap();
    let host = host_for(&pool, &sshd, identity);
    let error = host.command("true").output().await.unwrap_err();
    assert_eq!(offered(&error).len(), 5, "{error}");
    assert_eq!(sshd.refused_credentials(), 8, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_agent_has_nothing_to_offer_and_does_not_keep_others_from_it() {
    let sshd = Sshd::start();
    let agent = Agent::start();
    let identity = Identity::agent_at(agent.socket());
    let error = login(&sshd, identity.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    assert!(whole(&error).contains("empty"), "{error:?}");
    let both = Identity::several([identity, Identity::key_file(sshd.client_key())]);
    login(&sshd, both).await.unwrap();
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_an_agent_is_chosen_by_its_public_half() {
    let sshd = Sshd::builder().option("MaxAuthTries 2").start();
    let (agent, keys) = agent_with(9);
    let chosen = &keys[7].1;
    sshd.authorize(&chosen.public_line());
    for public in [chosen.public_line(), chosen.fingerprint()] {
        login(&sshd, Identity::agent_key_at(agent.socket(), public))
            .await
            .unwrap();
        last_login_was_with(&sshd, &chosen.fingerprint());
    }
    // None but the chosen one.
    let other = Identity::agent_key_at(agent.socket(), keys[0].1.public_line());
    let error = login(&sshd, other).await.unwrap_err();
    assert_eq!(offered(&error).len(), 1, "{error}");
    assert_eq!(sshd.refused_credentials(), 1, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_key_that_the_agent_does_not_hold_is_an_error_that_names_it() {
    let sshd = Sshd::start();
    let (agent, _keys) = agent_with(2);
    let (_dir, absent) = new_key();
    let identity = Identity::agent_key_at(agent.socket(), absent.public_line());
    let error = login(&sshd, identity.clone()).await.unwrap_err();
    let Error::Identity { source, .. } = &error else {
        panic!("{error:?}")
    };
    let text = source.to_string();
    assert!(text.contains(&absent.fingerprint()), "{text}");
    assert!(text.contains("does not hold"), "{text}");
    // It is shown as soon as it is there.
    agent.add(absent.private());
    sshd.authorize(&absent.public_line());
    login(&sshd, identity.clone()).await.unwrap();
    agent.lock();
    let error = login(&sshd, identity).await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_a_file_logs_in_with_a_key_that_an_agent_holds() {
    let (ca, other) = (new_key(), new_key());
    let trusted = format!("TrustedUserCAKeys {}", ca.1.public().display());
    let sshd = Sshd::builder().option(trusted).start();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let dir = TempDir::new();
        let key = generate(dir.path(), "key", kind, None, KeyFormat::OpenSsh);
        let agent = Agent::start();
        // Before there is a certificate beside it, which would be added as well.
        agent.add(other.1.private());
        agent.add(key.private());
        let certificate = sign_user_certificate(&ca.1, &key, &[sshd.user()]);
        for identity in [
            Identity::agent_at(agent.socket()),
            Identity::agent_key_at(agent.socket(), key.public_line()),
        ] {
            let certified = identity.with_certificate(&certificate);
            let result = login(&sshd, certified).await;
            result.unwrap_or_else(|error| panic!("{kind}: {error:?}"));
            let last = logins(&sshd).pop().unwrap();
            assert!(
                last.contains("-CERT ") && last.contains("ssh-pool-test"),
                "{last}"
            );
        }
        let another = Identity::agent_key_at(agent.socket(), other.1.public_line());
        let error = login(&sshd, another.with_certificate(&certificate)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    }
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}
