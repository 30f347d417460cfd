//! ssh's own files, and `~`, in a home of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ssh_pool::{Error, HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::Sshd;

use crate::Verdict::{self, Accepted, Changed, Revoked, Unknown};
use crate::{Strictness, builder, key, known, name, pool_says, problem, ssh_says, stranger};

const POLICY: &str = "SSH_POOL_TEST_HOME_POLICY";
const SERVER: &str = "SSH_POOL_TEST_HOME_SERVER";

/// A home with these files in its `.ssh`.
struct Home(ssh_pool_tests::Home);

impl Home {
    fn new(files: &[(&str, String)]) -> Self {
        let home = Self(ssh_pool_tests::Home::new());
        for (name, text) in files {
            fs::write(home.ssh().join(name), text).unwrap();
        }
        home
    }

    fn path(&self) -> PathBuf {
        self.ssh().parent().unwrap().to_owned()
    }

    fn ssh(&self) -> PathBuf {
        self.0.ssh()
    }

    /// What every file in `.ssh` holds, by name.
    fn files(&self) -> Vec<(String, String)> {
        let Ok(entries) = fs::read_dir(self.ssh()) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    /// What a pool in a process with this home says.
    fn pool_says(&self, sshd: &Sshd, policy: &str) -> Verdict {
        self.pool_with_key(sshd, policy, &sshd.client_key().display().to_string())
    }

    fn pool_with_key(&self, sshd: &Sshd, policy: &str, key: &str) -> Verdict {
        let output = (self.0)
            .command(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "homes::in_another_home"])
            .env(POLICY, policy)
            .env(SERVER, format!("{} {key}", sshd.target()))
            .current_dir(self.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let is = |verdict: &&Verdict| said.contains(&format!("verdict {verdict:?}\n"));
        let verdicts = [Accepted, Unknown, Changed, Revoked];
        *verdicts
            .iter()
            .find(is)
            .unwrap_or_else(|| panic!("{output:?}"))
    }
}

/// The process that is looked at from outside.
#[tokio::test]
async fn in_another_home() {
    let (Ok(policy), Ok(server)) = (std::env::var(POLICY), std::env::var(SERVER)) else {
        return;
    };
    let (target, key) = server.split_once(' ').unwrap();
    let policy = match policy.as_str() {
        "known_hosts" => HostKeyPolicy::known_hosts(),
        "accept_new" => HostKeyPolicy::accept_new(),
        file => match file.strip_prefix("new:") {
            Some(file) => HostKeyPolicy::accept_new_file(file),
            None => HostKeyPolicy::known_hosts_file(file),
        },
    };
    let identity = Identity::key_file(key);
    let pool = Pool::builder(policy).identity(identity).build().unwrap();
    let host = pool.host(target).unwrap();
    let verdict = match host.command("true").status().await {
        Ok(_) => Accepted,
        Err(error) => match problem(&error) {
            ssh_pool::HostKeyProblem::Unknown { .. } => Unknown,
            ssh_pool::HostKeyProblem::Changed { .. } => Changed,
            ssh_pool::HostKeyProblem::Revoked { .. } => Revoked,
            other => panic!("{other}"),
        },
    };
    println!("verdict {verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_are_looked_up_in_all_of_sshs_files_and_stored_in_its_first() {
    let sshd = Sshd::start();
    let right = format!("{} {}\n", name(&sshd), key(&sshd));
    let wrong = format!("{} {}\n", name(&sshd), stranger("ed25519"));
    let revoked = format!("@revoked {right}");
    for (files, wanted) in [
        (vec![], Accepted),
        (vec![("known_hosts", right.clone())], Accepted),
        (vec![("known_hosts2", right.clone())], Accepted),
        (vec![("known_hosts2", wrong.clone())], Changed),
        (vec![("known_hosts", wrong.clone())], Changed),
        (vec![("known_hosts2", revoked.clone())], Revoked),
        (
            vec![("known_hosts", right.clone()), ("known_hosts2", revoked)],
            Revoked,
        ),
    ] {
        let (theirs, ours) = (Home::new(&files), Home::new(&files));
        let both = ["known_hosts", "known_hosts2"].map(|name| theirs.ssh().join(name));
        let both = both.map(|path| path.display().to_string()).join(" ");
        let verdict = ssh_says(&sshd, Path::new(&both), Strictness::AcceptNew);
        assert_eq!(verdict, wanted, "ssh, with {files:?}");
        assert_eq!(ours.pool_says(&sshd, "accept_new"), wanted, "{files:?}");
        assert_eq!(ours.files(), theirs.files(), "{files:?}");
        if files.is_empty() {
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            let file = ours.ssh().join("known_hosts");
            assert_eq!((mode(&ours.ssh()), mode(&file)), (0o700, 0o600));
            // Known from now on.
            assert_eq!(ours.pool_says(&sshd, "known_hosts"), Accepted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tilde_is_the_home_and_no_folder_of_that_name_is_made() {
    let sshd = Sshd::start();
    let home = Home::new(&[]);
    assert_eq!(home.pool_says(&sshd, "~/trusted/hosts"), Unknown);
    assert_eq!(home.pool_says(&sshd, "new:~/trusted/hosts"), Accepted);
    assert_eq!(home.pool_says(&sshd, "~/trusted/hosts"), Accepted);
    let text = fs::read_to_string(home.path().join("trusted/hosts")).unwrap();
    assert!(text.starts_with(&name(&sshd)), "{text}");
    assert!(!home.path().join("~").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_users_home_is_expanded_or_refused() {
    let sshd = Sshd::start();
    let refused = |error: Error| {
        let error = error.to_string();
        assert!(error.contains("no-such-user"), "{error}");
        assert!(error.contains("in full"), "{error}");
    };
    for policy in [
        HostKeyPolicy::known_hosts_file("~no-such-user/hosts"),
        HostKeyPolicy::accept_new_file("~no-such-user/hosts"),
    ] {
        refused(builder(&sshd, policy).build().unwrap_err());
    }
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    for identity in [
        Identity::key_file("~no-such-user/id"),
        Identity::key_file_with_passphrase("~no-such-user/id", "words"),
        Identity::certificate("~no-such-user/id", "/k/id-cert.pub"),
        Identity::certificate("/k/id", "~no-such-user/id-cert.pub"),
        Identity::agent_at("~no-such-user/agent"),
    ] {
        let target: ssh_pool::Target = sshd.target().parse().unwrap();
        refused(pool.host(target.identity(identity)).unwrap_err());
    }
    let file = format!("~{}/no-such-folder/hosts", whoami());
    assert_eq!(
        pool_says(&sshd, HostKeyPolicy::known_hosts_file(file)).await,
        Unknown
    );
}

/// The user who runs the tests.
fn whoami() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tilde_in_the_path_of_a_key_is_the_home() {
    let sshd = Sshd::start();
    let home = Home::new(&[]);
    fs::copy(sshd.client_key(), home.ssh().join("id_test")).unwrap();
    fs::copy(sshd.known_hosts(), home.ssh().join("known_hosts")).unwrap();
    let verdict = home.pool_with_key(&sshd, "known_hosts", "~/.ssh/id_test");
    assert_eq!(verdict, Accepted);
}
