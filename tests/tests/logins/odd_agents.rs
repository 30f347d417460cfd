//! Agents that are slow, silent, or hold what is not known.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ssh_pool::{Error, HostKeyPolicy, Identity, Phase, Pool, Target, Timeouts};
use ssh_pool_tests::{Agent, Habit, KeyPair, OddAgent, Sshd, TempDir};
use tokio::task::JoinSet;

use crate::{builder, host_for, known, last_login_was_with, login, new_key};

/// One server that is so many hosts to a pool, which know it by its key.
pub(crate) fn many_hosts(count: usize) -> (Sshd, Vec<Target>) {
    let port = ssh_pool_tests::free_address().port();
    let server = Sshd::builder().option("MaxStartups 200");
    let sshd = server.listen((Ipv4Addr::UNSPECIFIED, port).into()).start();
    let known_hosts = std::fs::read_to_string(sshd.known_hosts()).unwrap();
    let (_, key) = known_hosts.trim().split_once(' ').unwrap();
    let target = |number| {
        let host = format!("127.0.0.{number}");
        let target = Target::new(sshd.user(), host, port).unwrap();
        target.host_key_policy(HostKeyPolicy::pinned(key))
    };
    let targets = (2..count + 2).map(target).collect();
    (sshd, targets)
}

/// How long an agent may take in the tests of silent ones.
const LIMIT: Duration = Duration::from_secs(1);

/// An agent with one key, with a habit.
pub(crate) struct Odd {
    // Before the agent that it stands for.
    agent: OddAgent,
    _real: Agent,
    pub(crate) key: (TempDir, KeyPair),
}

pub(crate) fn odd(habit: Habit) -> Odd {
    let (real, key) = (Agent::start(), new_key());
    real.add(key.1.private());
    Odd {
        agent: OddAgent::start(&real, habit),
        _real: real,
        key,
    }
}

impl Odd {
    pub(crate) fn identity(&self) -> Identity {
        Identity::agent_at(self.agent.socket())
    }
}

fn pool_with(sshd: &Sshd, timeouts: Timeouts) -> Pool {
    builder(sshd, known(sshd))
        .timeouts(timeouts)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_unknown_types_in_an_agent_are_left_out_and_the_others_log_in() {
    let sshd = Sshd::start();
    let odd = odd(Habit::UnknownTypes);
    sshd.authorize(&odd.key.1.public_line());
    login(&sshd, odd.identity()).await.unwrap();
    last_login_was_with(&sshd, &odd.key.1.fingerprint());
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_owner_needs_twelve_seconds_to_approve_logs_in() {
    let sshd = Sshd::start();
    let slow = odd(Habit::SignsAfter(Duration::from_secs(12)));
    sshd.authorize(&slow.key.1.public_line());
    // With the time limits that everybody has.
    login(&sshd, slow.identity()).await.unwrap();
    last_login_was_with(&sshd, &slow.key.1.fingerprint());
    assert_eq!(sshd.connections(), 1, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_hosts_log_in_with_an_agent_that_signs_one_after_the_other() {
    const HOSTS: usize = 40;
    let (sshd, targets) = many_hosts(HOSTS);
    let odd = odd(Habit::SignsAfter(Duration::from_millis(300)));
    sshd.authorize(&odd.key.1.public_line());
    let pool = pool_with(&sshd, Timeouts::default().agent(Duration::from_secs(3)));
    let mut logins = JoinSet::new();
    for target in targets {
        let host = pool.host(target.identity(odd.identity())).unwrap();
        logins.spawn(async move { host.command("true").output().await });
    }
    let began = Instant::now();
    let results = logins.join_all().await;
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}: {failed:#?}", failed.len());
    // Longer than a connection may take without an agent, and an agent for one answer.
    assert!(began.elapsed() > Duration::from_secs(11));
    assert_eq!(sshd.accepted(), HOSTS);
    assert_eq!(odd.agent.signatures(), HOSTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_answer_does_not_keep_the_next_identity_from_it() {
    let sshd = Sshd::start();
    for habit in [
        Habit::NeverLists,
        Habit::NeverSigns,
        Habit::HangsUp,
        Habit::RefusesToSign,
    ] {
        let odd = odd(habit);
        sshd.authorize(&odd.key.1.public_line());
        let timeouts = Timeouts::default().agent(LIMIT);
        let pool = pool_with(&sshd, timeouts);
        let both = [odd.identity(), Identity::key_file(sshd.client_key())];
        let host = host_for(&pool, &sshd, Identity::several(both));
        let status = host.command("true").status().await;
        status.unwrap_or_else(|error| panic!("{habit:?}: {error:?}"));
        last_login_was_with(&sshd, &fingerprint_of_client(&sshd));
    }
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}

fn fingerprint_of_client(sshd: &Sshd) -> String {
    let mut public = sshd.client_key().as_os_str().to_owned();
    public.push(".pub");
    ssh_pool_tests::fingerprint(public.as_ref())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_an_agent_that_does_not_answer_blames_the_agent() {
    let sshd = Sshd::start();
    for (habit, reason) in [
        (Habit::NeverLists, "did not answer within 1s"),
        (Habit::NeverSigns, "did not answer within 1s"),
        (Habit::HangsUp, "the agent does not answer"),
        (Habit::RefusesToSign, "the agent refused"),
    ] {
        let odd = odd(habit);
        sshd.authorize(&odd.key.1.public_line());
        let pool = pool_with(&sshd, Timeouts::default().agent(LIMIT));
        let host = host_for(&pool, &sshd, odd.identity());
        let error = host.command("true").output().await.unwrap_err();
        let Error::Identity { identity, .. } = &error else {
            panic!("{habit:?}: {error:?}")
        };
        let socket = odd.agent.socket().display().to_string();
        assert!(identity.contains(&socket), "{habit:?}: {identity}");
        assert_eq!(error.phase(), Phase::Auth);
        let text = whole(&error);
        assert!(text.contains(reason), "{habit:?}: {text}");
        for other in ["network", "resolver", "server is slow", "authorized keys"] {
            assert!(!text.contains(other), "{habit:?}: {text}");
        }
    }
}

/// An error with its causes.
pub(crate) fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_wait_behind_a_silent_agent_do_not_each_wait_for_it() {
    let (sshd, targets) = many_hosts(8);
    let odd = odd(Habit::NeverLists);
    let limit = Duration::from_secs(3);
    let pool = pool_with(&sshd, Timeouts::default().agent(limit));
    let both = Identity::several([odd.identity(), Identity::key_file(sshd.client_key())]);
    let mut logins = JoinSet::new();
    for target in targets {
        let host = pool.host(target.identity(both.clone())).unwrap();
        logins.spawn(async move { host.command("true").output().await });
    }
    let began = Instant::now();
    let results = logins.join_all().await;
    assert!(results.iter().all(Result::is_ok), "{results:#?}");
    // One after the other they would take eight times as long as the limit.
    assert!(began.elapsed() < 7 * limit, "{:?}", began.elapsed());
}
