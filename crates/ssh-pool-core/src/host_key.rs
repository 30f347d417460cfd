//! Which server keys to trust: the caller's visible choice.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::{home, local_user};

/// Whose host key is good enough to send a password or a command to.
///
/// There is no default: a pool is built with one of these, so that the choice stands in the
/// source. Connections are shared only under equal policies.
///
/// Host keys are plain keys. Host certificates are not negotiated, so `@cert-authority` lines
/// trust nothing here.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{HostKeyPolicy, Pool, Target};
///
/// # async fn example() -> Result<(), ssh_pool::Error> {
/// let pool = Pool::builder(HostKeyPolicy::known_hosts()).build()?; // as ssh does
///
/// // One machine whose key came with its order.
/// let key = HostKeyPolicy::pinned("SHA256:ldyiXa1JQakitNU5tErauu8DvWQ1dZ7aXu+rm7KQuog");
/// let host = pool.host(Target::new("root", "web-9", 22)?.host_key_policy(key))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostKeyPolicy {
    trust: Trust,
}

/// What a policy trusts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// What these known_hosts files list, in order.
    Files(Vec<PathBuf>),
    /// What these files list, and the first key of a host that none of them lists, which is stored in
    /// this file. `None`: this account has no home.
    AcceptNew {
        files: Vec<PathBuf>,
        store: Option<PathBuf>,
    },
    /// One public key line or SHA-256 fingerprint.
    Pinned(String),
    /// Every key.
    Anything,
}

impl HostKeyPolicy {
    /// The files that ssh reads: `~/.ssh/known_hosts` and `known_hosts2`, then
    /// `/etc/ssh/ssh_known_hosts` and `ssh_known_hosts2` (ssh_config's `UserKnownHostsFile` and
    /// `GlobalKnownHostsFile` defaults), under `StrictHostKeyChecking yes`: a key that none of them
    /// lists for the host is refused.
    ///
    /// Hashed names, wildcards, negation, `[host]:port` and `@revoked` mean what they mean to ssh.
    /// A file that does not exist lists nothing; one that exists and cannot be read is an error,
    /// because it may revoke keys. `~` is the home that the user data base has, as for ssh.
    #[must_use]
    pub fn known_hosts() -> Self {
        Self {
            trust: Trust::Files(default_files(local_user::home().as_deref())),
        }
    }

    /// This known_hosts file and no other, otherwise like [`known_hosts`](Self::known_hosts). `~` and
    /// `~user` at its beginning are expanded, as in ssh_config's `UserKnownHostsFile`; a home that
    /// is not known is reported by `PoolBuilder::build` and `Pool::host`.
    #[must_use]
    pub fn known_hosts_file(path: impl Into<PathBuf>) -> Self {
        Self {
            trust: Trust::Files(vec![home::expand(path)]),
        }
    }

    /// This key and no other: a public key line as in a `.pub` file (`ssh-ed25519 AAAA… comment`),
    /// or a fingerprint as `ssh-keygen -l` prints it (`SHA256:…`).
    ///
    /// Prefer the line: it also says which of its keys to ask the server for. With a fingerprint
    /// the server answers with the key of its first algorithm that both sides support, which must
    /// be the pinned one.
    ///
    /// What is neither is reported by `PoolBuilder::build`.
    #[must_use]
    pub fn pinned(key: impl Into<String>) -> Self {
        Self {
            trust: Trust::Pinned(key.into()),
        }
    }

    /// Trust on first use, like ssh's `StrictHostKeyChecking accept-new`: all of the files of
    /// [`known_hosts`](Self::known_hosts) are read, and the key of a host that none of them lists is
    /// accepted and appended to `~/.ssh/known_hosts`. A changed or revoked key is refused.
    ///
    /// The first connection to each host is open to impersonation. The file is created with mode
    /// 0600 and its missing parent folders with 0700; a key that cannot be stored is not accepted.
    #[must_use]
    pub fn accept_new() -> Self {
        let home = local_user::home();
        Self {
            trust: Trust::AcceptNew {
                files: default_files(home.as_deref()),
                store: home.map(|home| home.join(".ssh/known_hosts")),
            },
        }
    }

    /// [`accept_new`](Self::accept_new) with this known_hosts file and no other: it is read, and new
    /// keys are appended to it. `~` is expanded as for
    /// [`known_hosts_file`](Self::known_hosts_file).
    #[must_use]
    pub fn accept_new_file(path: impl Into<PathBuf>) -> Self {
        let path = home::expand(path);
        Self {
            trust: Trust::AcceptNew {
                files: vec![path.clone()],
                store: Some(path),
            },
        }
    }

    /// Every key, unseen. An attacker between client and server sees passwords and commands, and can
    /// answer in the server's name: for throw-away machines on private networks.
    #[must_use]
    pub fn dangerous_accept_any() -> Self {
        Self {
            trust: Trust::Anything,
        }
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Checks what can be checked without a file or a server.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        match &self.trust {
            Trust::Pinned(text) => {
                crate::transport::check_pin(text).map_err(|reason| Error::InvalidInput {
                    what: "pinned host key",
                    reason,
                })
            }
            Trust::Files(files) => files.iter().try_for_each(|file| home::check(file)),
            Trust::AcceptNew { store: None, .. } => Err(Error::InvalidInput {
                what: "host key policy",
                reason: "new host keys are stored in ~/.ssh/known_hosts, and this account has no \
                         home; use HostKeyPolicy::accept_new_file"
                    .into(),
            }),
            Trust::AcceptNew { files, .. } => files.iter().try_for_each(|file| home::check(file)),
            Trust::Anything => Ok(()),
        }
    }
}

/// The files that ssh reads, in its order.
fn default_files(home: Option<&Path>) -> Vec<PathBuf> {
    let user = home.map(|home| home.join(".ssh"));
    let system = if cfg!(windows) {
        std::env::var_os("ProgramData").map(|data| Path::new(&data).join("ssh"))
    } else {
        Some(PathBuf::from("/etc/ssh"))
    };
    let in_user = ["known_hosts", "known_hosts2"];
    let in_system = ["ssh_known_hosts", "ssh_known_hosts2"];
    let user = user
        .iter()
        .flat_map(|folder| in_user.map(|name| folder.join(name)));
    let system = system
        .iter()
        .flat_map(|folder| in_system.map(|name| folder.join(name)));
    user.chain(system).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn known_hosts_reads_the_files_that_ssh_reads() {
        let policy = HostKeyPolicy::known_hosts();
        let Trust::Files(files) = policy.trust() else {
            panic!("{policy:?}")
        };
        let names: Vec<_> = files.iter().filter_map(|path| path.file_name()).collect();
        if cfg!(unix) && std::env::home_dir().is_some() {
            assert_eq!(
                names,
                [
                    "known_hosts",
                    "known_hosts2",
                    "ssh_known_hosts",
                    "ssh_known_hosts2"
                ]
            );
            assert_eq!(files[2], Path::new("/etc/ssh/ssh_known_hosts"));
        }
        assert!(policy.validate().is_ok());
    }

    #[test]
    fn new_keys_are_looked_up_in_all_files_and_stored_in_the_first() {
        let policy = HostKeyPolicy::accept_new();
        let strict = HostKeyPolicy::known_hosts();
        let (Trust::AcceptNew { files, store }, Trust::Files(all)) =
            (policy.trust(), strict.trust())
        else {
            panic!("{policy:?} {strict:?}")
        };
        assert_eq!(files, all);
        assert_eq!(
            store.as_ref(),
            local_user::home().is_some().then(|| &files[0])
        );
    }

    #[test]
    fn a_path_below_a_home_is_the_same_policy_however_it_is_written() {
        let home = local_user::home().expect("this account has a home");
        for policy in [
            HostKeyPolicy::known_hosts_file,
            HostKeyPolicy::accept_new_file,
        ] {
            assert_eq!(policy("~/x".into()), policy(home.join("x")));
            let nowhere: PathBuf = "~nobody-of-that-name/x".into();
            let error = policy(nowhere).validate().unwrap_err();
            assert!(
                matches!(error, Error::InvalidInput { what: "path", .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_pin_is_a_public_key_or_a_sha256_fingerprint() {
        let fingerprint = "SHA256:ldyiXa1JQakitNU5tErauu8DvWQ1dZ7aXu+rm7KQuog";
        for good in [
            KEY,
            &format!("{KEY} a comment"),
            &format!("  {KEY}\n"),
            fingerprint,
        ] {
            assert!(HostKeyPolicy::pinned(good).validate().is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "web-1",
            "SHA256:",
            "SHA256:short",
            "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ",
        ] {
            let error = HostKeyPolicy::pinned(bad).validate().unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::InvalidInput {
                        what: "pinned host key",
                        ..
                    }
                ),
                "{bad}"
            );
        }
    }

    #[test]
    fn policies_are_compared_by_content() {
        assert_eq!(
            HostKeyPolicy::pinned(KEY),
            HostKeyPolicy::pinned(KEY.to_owned())
        );
        assert_ne!(
            HostKeyPolicy::accept_new_file("/a"),
            HostKeyPolicy::known_hosts_file("/a")
        );
        assert_ne!(
            HostKeyPolicy::accept_new_file("/a"),
            HostKeyPolicy::accept_new_file("/b")
        );
    }
}
