//! What is known about one host's keys before it is dialled, and the decision on the key it shows.

use std::io;
#[cfg(feature = "internals")]
use std::path::Path;

use russh::keys::{Algorithm, HashAlg, PublicKey};

use self::host_lines::HostLines;
use self::pin::HostKeyPin;
use crate::error::HostKeyProblem;
use crate::host_key::{HostKeyPolicy, Trust};

mod decision;
mod format;
mod host_lines;
mod pin;

pub(crate) use decision::{HostKeyDecision, fingerprint};
pub(crate) use pin::check_pin;

/// Why a host's keys could not be looked up or stored.
#[derive(Debug)]
pub(crate) enum Untrusted {
    Key(HostKeyProblem),
    /// There was no descriptor for a file: what it says may be known at another time.
    Descriptors(io::Error),
}

impl From<HostKeyProblem> for Untrusted {
    fn from(problem: HostKeyProblem) -> Self {
        Self::Key(problem)
    }
}

/// The host keys that a policy trusts for one host.
///
/// Loaded from disk before the connection is dialled: the key is judged inside the transport's
/// session loop, which must not wait for a disk.
#[derive(Debug)]
pub(crate) struct TrustStore {
    known: Known,
}

#[derive(Debug)]
enum Known {
    Listed(HostLines),
    Pinned(HostKeyPin),
    Anything,
}

impl TrustStore {
    /// Reads what `policy` says about `host`.
    ///
    /// ssh itself treats a file that it cannot read as absent. Here it is an error: it may hold
    /// the line that revokes the key.
    pub(crate) async fn load(
        policy: &HostKeyPolicy,
        host: &str,
        port: u16,
    ) -> Result<Self, Untrusted> {
        let known = match policy.trust() {
            Trust::Files(files) => {
                let lines = HostLines::new(host, port, files.clone());
                Known::Listed(read_in_background(lines).await?)
            }
            Trust::AcceptNew { files, store } => {
                let mut lines = HostLines::new(host, port, files.clone());
                if let Some(path) = store {
                    lines = lines.accepting_new(path);
                }
                Known::Listed(read_in_background(lines).await?)
            }
            Trust::Pinned(text) => Known::Pinned(HostKeyPin::parse_or_nothing(text)),
            Trust::Anything => Known::Anything,
        };
        Ok(Self { known })
    }

    /// Whether a key that is new may be stored.
    pub(crate) fn may_store(&self) -> bool {
        matches!(&self.known, Known::Listed(lines) if lines.accepts_new())
    }

    /// The algorithms of the keys known for this host, to be proposed first, as ssh does: of a
    /// server's several keys, the one that is known is then the one it shows.
    pub(crate) fn known_algorithms(&self) -> Vec<Algorithm> {
        let keys = match &self.known {
            Known::Listed(lines) => lines.first_keys().collect(),
            _ => self.keys(),
        };
        let mut algorithms = Vec::new();
        for algorithm in (keys.into_iter()).flat_map(|key| signature_algorithms(key.algorithm())) {
            if !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        algorithms
    }

    /// The keys known for this host.
    fn keys(&self) -> Vec<&PublicKey> {
        match &self.known {
            Known::Listed(lines) => lines.trusted_keys().collect(),
            Known::Pinned(pin) => pin.key().into_iter().collect(),
            Known::Anything => Vec::new(),
        }
    }

    /// Why nothing that this host signs can be checked, if each of its known keys is too long.
    pub(crate) fn uncheckable(&self) -> Option<HostKeyProblem> {
        let problems: Option<Vec<_>> = (self.keys().into_iter())
            .map(decision::unfit_length)
            .collect();
        problems?.pop()
    }

    /// The decision on `key`. Touches nothing.
    pub(crate) fn decide(&self, key: &PublicKey) -> HostKeyDecision {
        if let Some(problem) = decision::unfit_length(key) {
            return HostKeyDecision::Refused(problem);
        }
        match &self.known {
            Known::Listed(lines) => lines.decide(key),
            Known::Pinned(pin) => pin.decide(key),
            Known::Anything => HostKeyDecision::Trusted,
        }
    }

    /// Stores a key that was judged [`HostKeyDecision::TrustedNew`].
    ///
    /// The file is read again under a lock: if this key has been stored meanwhile, there is nothing
    /// to do; if it is another key, this one is refused.
    pub(crate) async fn remember(&self, key: &PublicKey) -> Result<(), Untrusted> {
        let Known::Listed(lines) = &self.known else {
            return Ok(());
        };
        let lost = lines.not_stored(key, &"the task that writes it was stopped");
        let (lines, key) = (lines.blank(), key.clone());
        tokio::task::spawn_blocking(move || lines.store(&key))
            .await
            .unwrap_or(Err(lost.into()))
    }
}

/// The signature algorithms that show a key of this type (RFC 8332 for RSA).
fn signature_algorithms(key: Algorithm) -> Vec<Algorithm> {
    match key {
        Algorithm::Rsa { .. } => [Some(HashAlg::Sha512), Some(HashAlg::Sha256), None]
            .map(|hash| Algorithm::Rsa { hash })
            .to_vec(),
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => vec![key],
        // Nothing that we could verify: asking for it would only fail the key exchange.
        _ => Vec::new(),
    }
}

async fn read_in_background(mut lines: HostLines) -> Result<HostLines, Untrusted> {
    let lost = lines.unread(&"the task that reads it was stopped");
    tokio::task::spawn_blocking(move || lines.read().map(|()| lines))
        .await
        .unwrap_or(Err(lost.into()))
}

/// The decision on a public key line under one known_hosts file with this text; `None` if it is no
/// such line.
#[cfg(feature = "internals")]
pub(crate) fn host_key_decision(
    text: &[u8],
    host: &str,
    port: u16,
    key: &str,
) -> Option<HostKeyDecision> {
    let key = format::parse_key(key)?;
    let mut lines = HostLines::new(host, port, Vec::new());
    lines.add(text, Path::new("known_hosts"));
    Some(lines.decide(&key))
}

/// The decision on a public key line where new keys are taken. A new one has been stored in the
/// file.
#[cfg(feature = "internals")]
pub(crate) fn remember(path: &Path, host: &str, port: u16, key: &str) -> Option<HostKeyDecision> {
    let key = format::parse_key(key)?;
    let mut lines = HostLines::new(host, port, vec![path.to_owned()]).accepting_new(path);
    let judged = lines.read().map(|()| lines.decide(&key));
    let stored = judged.and_then(|decision| match decision {
        HostKeyDecision::TrustedNew => lines.blank().store(&key).map(|()| decision),
        judged => Ok(judged),
    });
    Some(stored.unwrap_or_else(|untrusted| {
        HostKeyDecision::Refused(match untrusted {
            Untrusted::Key(problem) => problem,
            Untrusted::Descriptors(error) => lines.unread(&error),
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    const A: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const B: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAfYBtFkbMAJ/JTI6qn40eb0AJgBg/KuTOoj9umLquuCbkJdZCt33UVJvhmKg1qBrzfvz1uXiMiZsZKTUkrnicI=";
    const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCp/ZJmEY9eJpaetqxkMrVrelTAvgnMj4LNLhK3bOB7bdSOctDnQN4YHfneD1txLBDKynCRvjV2zGN0jfUhOEIOkWyv+vdhFELhLviZkcDLNt6TF2ZQy0ita20y4SqSkdTx8g5DdHEdR1bJyQ3nEKy3Ut0m9JwQtNKZY8/XUmLtpAEQjJJESzyeQs3jhaxzfNKv/zbZrQc1TomPUgHSVkZ9ufVa9ND1DvSA3xUjtSsIk5u5Mqdfbjd0O4RUAMBYpsP6eH+zrTvkyMi+pRPJ2LUokBDwoC/4F6CFXTjqAAc16BoXcGGFlajMIyNLMgfYI3RCUHRTyXwqMQnfq7/+Vucl";

    /// A folder that goes away with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("ssh-pool-trust-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, text: &str) -> PathBuf {
            let path = self.0.join("known_hosts");
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    async fn load(policy: &HostKeyPolicy, port: u16) -> TrustStore {
        TrustStore::load(policy, "web-1", port).await.unwrap()
    }

    /// The decision on key `A` of web-1 under known_hosts and under accept_new.
    async fn verdicts(text: &str, port: u16) -> (HostKeyDecision, HostKeyDecision) {
        let folder = Folder::new();
        let path = folder.file(text);
        let strict = load(&HostKeyPolicy::known_hosts_file(&path), port).await;
        let new = load(&HostKeyPolicy::accept_new_file(&path), port).await;
        (strict.decide(&key(A)), new.decide(&key(A)))
    }

    fn is_unknown(decision: &HostKeyDecision) -> bool {
        matches!(
            decision,
            HostKeyDecision::Refused(HostKeyProblem::Unknown { .. })
        )
    }

    fn is_changed(decision: &HostKeyDecision) -> bool {
        matches!(
            decision,
            HostKeyDecision::Refused(HostKeyProblem::Changed { .. })
        )
    }

    fn is_revoked(decision: &HostKeyDecision) -> bool {
        matches!(
            decision,
            HostKeyDecision::Refused(HostKeyProblem::Revoked { .. })
        )
    }

    #[tokio::test]
    async fn a_listed_key_is_trusted_even_beside_others() {
        for text in [
            format!("web-1 {A}"),
            format!("web-1 {B}\nweb-1 {ECDSA}\nweb-1 {A}\n"),
        ] {
            assert_eq!(
                verdicts(&text, 22).await,
                (HostKeyDecision::Trusted, HostKeyDecision::Trusted)
            );
        }
    }

    #[tokio::test]
    async fn another_key_of_any_type_means_changed() {
        for text in [format!("web-1 {B}"), format!("web-1 {RSA}")] {
            let (strict, new) = verdicts(&text, 22).await;
            assert!(
                is_changed(&strict) && is_changed(&new),
                "{strict:?} {new:?}"
            );
        }
        let (strict, _) = verdicts(&format!("#\nweb-1 {B}"), 22).await;
        let HostKeyDecision::Refused(problem) = strict else {
            panic!("{strict:?}")
        };
        let text = problem.to_string();
        let theirs = key(A).fingerprint(HashAlg::Sha256).to_string();
        let ours = key(B).fingerprint(HashAlg::Sha256).to_string();
        assert!(text.contains(&theirs) && text.contains(&ours), "{text}");
        assert!(text.contains("known_hosts:2"), "{text}");
    }

    #[tokio::test]
    async fn an_unlisted_host_is_unknown_or_new() {
        for text in [
            String::new(),
            format!("web-2 {A}"),
            format!("@cert-authority * {A}"),
            format!("@revoked web-1 {B}"),
            format!("[web-1]:2222 {A}"),
        ] {
            let (strict, new) = verdicts(&text, 22).await;
            assert!(is_unknown(&strict), "{text}: {strict:?}");
            assert_eq!(new, HostKeyDecision::TrustedNew, "{text}");
        }
    }

    #[tokio::test]
    async fn a_revoked_key_is_refused_wherever_it_is_listed() {
        for (text, port) in [
            (format!("web-1 {A}\n@revoked web-1 {A}"), 22),
            (format!("@revoked * {A}\n[web-1]:2222 {A}"), 2222),
            (format!("@revoked web-1 {A}"), 2222),
        ] {
            let (strict, new) = verdicts(&text, port).await;
            assert!(
                is_revoked(&strict) && is_revoked(&new),
                "{text}: {strict:?} {new:?}"
            );
        }
    }

    #[tokio::test]
    async fn another_port_falls_back_to_the_line_without_port() {
        let (strict, new) = verdicts(&format!("web-1 {A}"), 2222).await;
        assert_eq!(
            (strict, new),
            (HostKeyDecision::Trusted, HostKeyDecision::Trusted)
        );
        let (strict, new) = verdicts(&format!("web-1 {B}"), 2222).await;
        assert!(is_unknown(&strict), "{strict:?}");
        assert_eq!(new, HostKeyDecision::TrustedNew);
        let (strict, new) = verdicts(&format!("web-1 {A}\n[web-1]:2222 {B}"), 2222).await;
        assert!(is_changed(&strict) && is_changed(&new));
    }

    #[tokio::test]
    async fn the_known_types_are_asked_for_first() {
        let rsa = [Some(HashAlg::Sha512), Some(HashAlg::Sha256), None]
            .map(|hash| Algorithm::Rsa { hash });
        let folder = Folder::new();
        let text = format!(
            "web-1 {RSA}\nweb-1 {ECDSA}\nweb-1 {A}\nweb-1 {B}\n@revoked web-1 {ECDSA}\n@revoked * {B}\n"
        );
        let policy = HostKeyPolicy::known_hosts_file(folder.file(&text));
        let mut all = rsa.to_vec();
        all.push(Algorithm::Ed25519);
        assert_eq!(load(&policy, 22).await.known_algorithms(), all);
        assert_eq!(load(&policy, 2222).await.known_algorithms(), all);
        assert_eq!(
            load(&HostKeyPolicy::pinned(RSA), 22)
                .await
                .known_algorithms(),
            rsa
        );
        let any = HostKeyPolicy::dangerous_accept_any();
        assert!(load(&any, 22).await.known_algorithms().is_empty());
    }

    #[tokio::test]
    async fn a_pin_trusts_its_key_and_no_other() {
        let fingerprint = key(A).fingerprint(HashAlg::Sha256).to_string();
        for pin in [
            A,
            &format!("{A} comment"),
            &fingerprint,
            &format!(" {fingerprint}\n"),
        ] {
            let store = load(&HostKeyPolicy::pinned(pin), 22).await;
            assert_eq!(store.decide(&key(A)), HostKeyDecision::Trusted, "{pin}");
            assert!(is_changed(&store.decide(&key(B))), "{pin}");
        }
        let store = load(&HostKeyPolicy::pinned("nonsense"), 22).await;
        assert!(is_changed(&store.decide(&key(A))));
        let store = load(&HostKeyPolicy::dangerous_accept_any(), 22).await;
        assert_eq!(store.decide(&key(A)), HostKeyDecision::Trusted);
    }

    #[tokio::test]
    async fn a_missing_file_lists_nothing_and_an_unreadable_one_is_an_error() {
        let folder = Folder::new();
        let file = folder.file("");
        for missing in [
            folder.0.join("none"),
            folder.0.join("no/such"),
            file.join("below"),
        ] {
            let store = load(&HostKeyPolicy::known_hosts_file(&missing), 22).await;
            let HostKeyDecision::Refused(problem) = store.decide(&key(A)) else {
                panic!("{missing:?}")
            };
            let text = problem.to_string();
            let looked = format!(
                "looked in {}, which does not exist); verify",
                missing.display()
            );
            assert!(text.contains(&looked), "{text}");
        }
        let store = load(&HostKeyPolicy::known_hosts_file(&file), 22).await;
        let shown = format!("{:?}", store.decide(&key(A)));
        assert!(
            is_unknown(&store.decide(&key(A))) && !shown.contains("which"),
            "{shown}"
        );
        // A folder opens and does not read, also for root.
        let policy = HostKeyPolicy::known_hosts_file(&folder.0);
        let problem = TrustStore::load(&policy, "web-1", 22).await.unwrap_err();
        assert!(
            matches!(problem, Untrusted::Key(HostKeyProblem::Unreadable { .. })),
            "{problem:?}"
        );
    }

    #[tokio::test]
    async fn a_new_key_is_stored_once_and_privately() {
        let folder = Folder::new();
        let path = folder.0.join("new/folder/known_hosts");
        let policy = HostKeyPolicy::accept_new_file(&path);
        let store = load(&policy, 2222).await;
        let shown = key(&format!("{A} a comment"));
        assert_eq!(store.decide(&shown), HostKeyDecision::TrustedNew);
        store.remember(&shown).await.unwrap();
        store.remember(&shown).await.unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("[web-1]:2222 {A}\n")
        );
        assert_eq!(
            load(&policy, 2222).await.decide(&shown),
            HostKeyDecision::Trusted
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode =
                |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
    }

    #[tokio::test]
    async fn a_key_stored_meanwhile_decides() {
        let folder = Folder::new();
        let path = folder.file("");
        let store = load(&HostKeyPolicy::accept_new_file(&path), 22).await;
        std::fs::write(&path, format!("web-1 {B}\n")).unwrap();
        let problem = store.remember(&key(A)).await.unwrap_err();
        assert!(
            matches!(problem, Untrusted::Key(HostKeyProblem::Changed { .. })),
            "{problem:?}"
        );
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("web-1 {B}\n")
        );
    }

    #[tokio::test]
    async fn of_many_keys_stored_at_once_one_wins() {
        let folder = Folder::new();
        let policy = HostKeyPolicy::accept_new_file(folder.file(""));
        let (one, two) = (load(&policy, 22).await, load(&policy, 22).await);
        let (a, b) = (key(A), key(B));
        let (first, second) = tokio::join!(one.remember(&a), two.remember(&b));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    }

    #[tokio::test]
    async fn an_unfinished_last_line_is_finished_first() {
        let folder = Folder::new();
        let path = folder.file(&format!("web-2 {B}"));
        let store = load(&HostKeyPolicy::accept_new_file(&path), 22).await;
        store.remember(&key(A)).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("web-2 {B}\nweb-1 {A}\n"));
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_not_accepted() {
        let folder = Folder::new();
        let below_a_file = folder.file("").join("known_hosts");
        let store = load(&HostKeyPolicy::accept_new_file(below_a_file), 22).await;
        let problem = store.remember(&key(A)).await.unwrap_err();
        assert!(
            matches!(problem, Untrusted::Key(HostKeyProblem::NotStored { .. })),
            "{problem:?}"
        );
        let policy = HostKeyPolicy::accept_new_file(folder.0.join("other"));
        let store = TrustStore::load(&policy, "*", 22).await.unwrap();
        let problem = store.remember(&key(A)).await.unwrap_err();
        assert!(
            matches!(problem, Untrusted::Key(HostKeyProblem::NotStored { .. })),
            "{problem:?}"
        );
        assert!(!folder.0.join("other").exists());
    }
}
