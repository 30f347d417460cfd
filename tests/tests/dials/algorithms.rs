//! Algorithms: servers that have few, beside the stock client with the same lists.

use std::process::Stdio;

use ssh_pool::{Algorithms, Error, Identity, Pool, Target};
use ssh_pool_tests::{Sshd, SshdBuilder, TempDir};

use crate::support::{builder, known};

/// Logs in with these algorithms.
async fn login(sshd: &Sshd, algorithms: Algorithms) -> Result<(), Error> {
    let pool = builder(sshd, known(sshd)).algorithms(algorithms).build()?;
    let host = pool.host(sshd.target())?;
    let output = host
        .command("head")
        .args(["-c", "300000", "/dev/zero"])
        .output()
        .await;
    pool.close().await;
    output.map(|output| assert_eq!(output.stdout, vec![0; 300_000]))
}

/// Whether the stock client gets in with this option.
fn ssh_gets_in(sshd: &Sshd, option: &str) -> bool {
    let client = sshd.ssh();
    let mut command = std::process::Command::new(client.get_program());
    command.args(["-o", option]).args(client.get_args());
    let status = command
        .arg("true")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

fn only(options: &[&str]) -> SshdBuilder {
    let start = Sshd::builder().host_keys(&["ed25519", "rsa"]);
    options
        .iter()
        .fold(start, |server, option| server.option(*option))
}

fn set() -> Algorithms {
    Algorithms::default()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_with_one_algorithm_are_reached_where_ssh_reaches_them() {
    let ctr = "Ciphers aes128-ctr";
    // What the server has; whether a stock pool, and a stock ssh, get in; what else is needed.
    let rows = [
        (vec!["KexAlgorithms ecdh-sha2-nistp256"], true, "", set()),
        (vec!["KexAlgorithms ecdh-sha2-nistp521"], true, "", set()),
        (vec!["MACs hmac-sha1", ctr], true, "", set()),
        (vec!["MACs hmac-sha1-etm@openssh.com", ctr], true, "", set()),
        (
            vec!["KexAlgorithms diffie-hellman-group14-sha1"],
            false,
            "KexAlgorithms=+diffie-hellman-group14-sha1",
            set().kex("+diffie-hellman-group14-sha1"),
        ),
        (
            vec!["Ciphers aes256-cbc"],
            false,
            "Ciphers=+aes256-cbc",
            set().ciphers("+aes256-cbc"),
        ),
        (
            vec!["HostKeyAlgorithms ssh-rsa"],
            false,
            "HostKeyAlgorithms=+ssh-rsa",
            set().host_key("+ssh-rsa"),
        ),
    ];
    for (options, stock, ssh_option, algorithms) in rows {
        let sshd = only(&options).start();
        let result = login(&sshd, set()).await;
        assert_eq!(result.is_ok(), stock, "{options:?}: {result:?}");
        assert_eq!(
            ssh_gets_in(&sshd, "Compression=no"),
            stock,
            "ssh: {options:?}"
        );
        if let Err(error) = result {
            assert!(
                matches!(error, Error::KeyExchange { lost: false, .. }),
                "{error:?}"
            );
            let why = error.to_string();
            assert!(
                why.contains("algorithm in common: the server has "),
                "{why}"
            );
            assert!(why.contains("Algorithms::"), "{why}");
            assert!(ssh_gets_in(&sshd, ssh_option), "ssh: {ssh_option}");
            login(&sshd, algorithms).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_used_where_it_is_asked_for() {
    // Then it logs what was agreed upon.
    let sshd = Sshd::builder().option("LogLevel DEBUG1").start();
    let compressed = || sshd.log().matches("compression: zlib@openssh.com").count();
    login(&sshd, set()).await.unwrap();
    assert_eq!(compressed(), 0, "{}", sshd.log());
    for (number, list) in ["zlib@openssh.com", "^zlib@openssh.com"]
        .into_iter()
        .enumerate()
    {
        login(&sshd, set().compression(list)).await.unwrap();
        // In both directions.
        assert_eq!(compressed(), 2 * (number + 1), "{}", sshd.log());
    }
    // sshd has not had it since 7.4.
    let error = login(&sshd, set().compression("zlib")).await.unwrap_err();
    assert!(
        matches!(error, Error::KeyExchange { lost: false, .. }),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_key_signs_with_sha1_only_where_that_is_asked_for() {
    let sshd = only(&["PubkeyAcceptedAlgorithms ssh-rsa"]).start();
    let dir = TempDir::new();
    let format = ssh_pool_tests::KeyFormat::OpenSsh;
    let key = ssh_pool_tests::generate(dir.path(), "key", "rsa", None, format);
    sshd.authorize(&key.public_line());
    let stock = Pool::builder(known(&sshd)).identity(Identity::key_file(key.private()));
    for (algorithms, expected) in [(set(), false), (set().public_key("ssh-rsa"), true)] {
        let pool = stock.clone().algorithms(algorithms).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        let result = host.command("true").status().await;
        assert_eq!(result.is_ok(), expected, "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_kind_that_is_not_wanted_is_not_offered() {
    let sshd = Sshd::start();
    let error = login(&sshd, set().public_key("rsa-*,ecdsa-*"))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("not offered: Algorithms::public_key has no such kind"),
        "{text}"
    );
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_with_other_algorithms_share_no_connection() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let target: Target = sshd.target().parse().unwrap();
    for algorithms in [
        set(),
        set().ciphers("aes128-ctr"),
        set().ciphers("aes128-ctr"),
    ] {
        let host = pool.host(target.clone().algorithms(algorithms)).unwrap();
        assert!(host.command("true").status().await.unwrap().success());
    }
    assert_eq!(sshd.connections(), 2);
}

#[tokio::test]
async fn a_list_with_an_empty_name_or_white_space_is_refused_by_its_place() {
    let policy = ssh_pool::HostKeyPolicy::dangerous_accept_any();
    let pool = Pool::builder(policy).build().unwrap();
    let target: Target = "me@web-1".parse().unwrap();
    // Whether ssh takes it, too; and what is wrong with it.
    for (list, ssh_takes, wrong) in [
        (
            "aes128-ctr,",
            true,
            "name 2 in Algorithms::ciphers, \"aes128-ctr,\", is empty",
        ),
        (",aes128-ctr", true, "name 1"),
        ("aes128-ctr,,aes256-ctr", true, "name 2"),
        (
            " aes128-ctr",
            true,
            "has white space in it, \" aes128-ctr\"",
        ),
        (
            "aes128-ctr, aes256-ctr",
            false,
            "has white space in it, \" aes256-ctr\"",
        ),
        ("-aes128-ctr, aes256-ctr", false, "name 2"),
        ("+", false, "is empty"),
        ("^", false, "is empty"),
        ("", false, "is empty"),
    ] {
        let mut ssh = std::process::Command::new("ssh");
        let option = format!("Ciphers={list}");
        let ssh = ssh
            .args(["-G", "-F", "none", "-o", &option, "web-1"])
            .output();
        assert_eq!(ssh.unwrap().status.success(), ssh_takes, "{list:?}");
        let asked = target.clone().algorithms(set().ciphers(list));
        let error = pool.host(asked).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        assert!(error.to_string().contains(wrong), "{list:?}: {error}");
    }
    pool.host(target.algorithms(set().ciphers("-"))).unwrap();
}

#[tokio::test]
async fn an_unknown_algorithm_is_refused_with_those_that_are_known() {
    let policy = ssh_pool::HostKeyPolicy::dangerous_accept_any();
    let pool = Pool::builder(policy).build().unwrap();
    let target: Target = "me@web-1".parse().unwrap();
    let refused = |algorithms| match pool.host(target.clone().algorithms(algorithms)) {
        Err(Error::InvalidInput { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let reason = refused(set().ciphers("+3des-cbc"));
    assert!(
        reason.contains("\"3des-cbc\", which is not known here; known are aes"),
        "{reason}"
    );
    assert!(refused(set().kex("none")).contains("known are mlkem768x25519-sha256,"));
    assert!(refused(set().macs("-*")).contains("leaves none"));
}
