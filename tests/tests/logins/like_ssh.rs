//! `Identity::like_ssh` beside ssh itself, with the same home and the same agent.

use std::path::Path;
use std::process::Command;

use ssh_pool_tests::{
    Agent, Home, KeyFormat, KeyPair, Sshd, TempDir, generate, sign_user_certificate,
};

use crate::new_key;

/// More than any of these has.
const MANY: &str = "40";

/// A home that knows the server, and the programs that log in from there.
struct Place<'a> {
    home: Home,
    sshd: &'a Sshd,
    agent: Option<&'a Agent>,
}

impl<'a> Place<'a> {
    fn new(sshd: &'a Sshd, agent: Option<&'a Agent>) -> Self {
        let home = Home::new();
        std::fs::copy(sshd.known_hosts(), home.ssh().join("known_hosts")).unwrap();
        Self { home, sshd, agent }
    }

    fn key(&self, name: &str, kind: &str) -> KeyPair {
        generate(&self.home.ssh(), name, kind, None, KeyFormat::OpenSsh)
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.home.command(program);
        if let Some(agent) = self.agent {
            command.env("SSH_AUTH_SOCK", agent.socket());
        }
        command
    }

    /// Whether ssh gets in, and what it says that it offers: fingerprints, and whether with a certificate.
    fn ssh(&self) -> (bool, Vec<(String, bool)>) {
        let mut ssh = self.command("ssh");
        ssh.args(["-v", "-F", "none", "-o", "BatchMode=yes", "-p"]);
        ssh.arg(self.sshd.addr().port().to_string());
        ssh.arg(format!("{}@127.0.0.1", self.sshd.user()))
            .arg("true");
        let output = ssh.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let offers = said.lines().filter_map(|line| {
            let offer = line.strip_prefix("debug1: Offering public key: ")?;
            let print = offer.split(' ').find(|word| word.starts_with("SHA256:"))?;
            Some((print.to_owned(), offer.contains("-CERT ")))
        });
        (output.status.success(), offers.collect())
    }

    /// The same of the library. What it has offered is known only where it does not get in.
    fn pool(&self) -> (bool, Vec<(String, bool)>) {
        let mut login = self.command(env!("CARGO_BIN_EXE_ssh-pool-test-login"));
        let output = login
            .args(["login", MANY, &self.sshd.target()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let offers = said.trim_end().split('\t').skip(1).filter_map(|offer| {
            let print = offer.split(' ').find(|word| word.starts_with("SHA256:"))?;
            Some((print.to_owned(), offer.contains("(certificate ")))
        });
        assert!(
            said.starts_with("in") || said.starts_with("out: refused"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        (said.starts_with("in"), offers.collect())
    }

    fn assert_offers_are_the_same(&self, count: usize) {
        let (ssh, pool) = (self.ssh(), self.pool());
        assert_eq!(pool, ssh);
        assert_eq!(ssh.1.len(), count, "{ssh:?}");
        assert!(!ssh.0, "so that everything is offered");
    }
}

fn patient_server() -> Sshd {
    Sshd::builder()
        .option(format!("MaxAuthTries {MANY}"))
        .start()
}

#[test]
fn default_files_are_offered_in_the_order_of_ssh() {
    let sshd = patient_server();
    let place = Place::new(&sshd, None);
    for (name, kind) in [
        ("id_ed25519", "ed25519"),
        ("id_rsa", "rsa"),
        ("id_ecdsa", "ecdsa"),
    ] {
        place.key(name, kind);
    }
    place.key("id_other", "ed25519");
    place.assert_offers_are_the_same(3);
}

#[test]
fn certificates_beside_keys_are_offered_as_ssh_does() {
    let (sshd, ca) = (patient_server(), new_key());
    let place = Place::new(&sshd, None);
    for (name, kind) in [
        ("id_ed25519", "ed25519"),
        ("id_rsa", "rsa"),
        ("id_ecdsa", "ecdsa"),
    ] {
        let _ = sign_user_certificate(&ca.1, &place.key(name, kind), &["me"]);
    }
    // Without a certificate.
    std::fs::remove_file(place.home.ssh().join("id_ecdsa-cert.pub")).unwrap();
    // Without its public half.
    std::fs::remove_file(place.home.ssh().join("id_rsa.pub")).unwrap();
    place.assert_offers_are_the_same(5);
}

#[test]
fn keys_of_the_agent_that_are_in_files_come_first_then_its_others_then_the_files() {
    let (sshd, ca, agent) = (patient_server(), new_key(), Agent::start());
    let place = Place::new(&sshd, Some(&agent));
    let others: Vec<(TempDir, KeyPair)> = (0..3).map(|_| new_key()).collect();
    let rsa = place.key("id_rsa", "rsa");
    let ecdsa = place.key("id_ecdsa", "ecdsa");
    let ed25519 = place.key("id_ed25519", "ed25519");
    agent.add(others[0].1.private());
    agent.add(ed25519.private());
    agent.add(others[1].1.private());
    // With its certificate, which lies beside it from now on.
    let _ = sign_user_certificate(&ca.1, &rsa, &["me"]);
    agent.add(rsa.private());
    agent.add(others[2].1.private());
    // A certificate that the agent has not, for a key that it has, and for one that it has not.
    let _ = sign_user_certificate(&ca.1, &ed25519, &["me"]);
    let _ = sign_user_certificate(&ca.1, &ecdsa, &["me"]);
    // The agent's alone: only its public half is here.
    std::fs::remove_file(ed25519.private()).unwrap();
    place.assert_offers_are_the_same(9);
}

#[test]
fn a_key_in_a_format_without_its_public_half_is_offered_in_its_place() {
    let (sshd, agent) = (patient_server(), Agent::start());
    let place = Place::new(&sshd, Some(&agent));
    let folder = place.home.ssh();
    let rsa = generate(&folder, "id_rsa", "rsa", None, KeyFormat::Pem);
    place.key("id_ed25519", "ed25519");
    agent.add(new_key().1.private());
    // ssh names it by its file then.
    std::fs::remove_file(rsa.public()).unwrap();
    let (_, pool) = place.pool();
    let (_, ssh) = place.ssh();
    assert_eq!((ssh.len(), pool.len()), (2, 3), "{ssh:?} {pool:?}");
    assert_eq!([&pool[0], &pool[2]], [&ssh[0], &ssh[1]]);
}

#[test]
fn the_right_one_of_nine_keys_is_found_by_the_file_that_it_is_in() {
    let (sshd, agent) = (
        Sshd::builder().option("MaxAuthTries 6").start(),
        Agent::start(),
    );
    let place = Place::new(&sshd, Some(&agent));
    for _ in 0..8 {
        agent.add(new_key().1.private());
    }
    let right = place.key("id_ed25519", "ed25519");
    agent.add(right.private());
    sshd.authorize(&right.public_line());
    assert!(place.ssh().0 && place.pool().0);
    std::fs::remove_file(right.private()).unwrap();
    assert!(place.ssh().0 && place.pool().0, "its public half is enough");
    std::fs::remove_file(right.public()).unwrap();
    assert!(!place.ssh().0 && !place.pool().0);
    assert_eq!(sshd.accepted(), 4, "{}", sshd.log());
}

#[test]
fn a_target_without_a_user_means_the_one_that_ssh_means() {
    let home = Home::new();
    for variables in [
        &[][..],
        &[("USER", "other"), ("LOGNAME", "other")],
        &[("USER", "")],
    ] {
        let run = |command: &mut Command| {
            command.env_remove("USER").env_remove("LOGNAME");
            command.envs(variables.iter().copied());
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        };
        let ssh = run(home.command("ssh").args(["-F", "none", "-G", "web-1"]));
        let ssh = ssh
            .lines()
            .find_map(|line| line.strip_prefix("user "))
            .unwrap();
        let pool = run(home
            .command(env!("CARGO_BIN_EXE_ssh-pool-test-login"))
            .args(["user", "web-1"]));
        assert_eq!(pool.trim(), ssh, "{variables:?}");
    }
}

#[test]
fn without_a_local_user_a_wrong_target_is_still_told_what_is_wrong_with_it() {
    // As in many containers: the user data base does not have this account, and no variable names it.
    let home = Home::without_account();
    for (target, reason) in [
        ("web-1", "write user@host"),
        ("", "the host name is empty"),
        ("web-1:70000", "the port must be a number"),
        ("web 1", "white space"),
    ] {
        let mut command = home.command(env!("CARGO_BIN_EXE_ssh-pool-test-login"));
        command.args(["user", target]);
        for variable in ["USER", "LOGNAME", "USERNAME"] {
            command.env_remove(variable);
        }
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(said.contains(reason), "{target}: {said}");
    }
}
