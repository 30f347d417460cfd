//! Keys that were encrypted: each is decrypted once for a pool, on a thread of its own.
//!
//! To derive a key from a passphrase is made to take long: a second and more for keys that were
//! written with many rounds. Dials that need the same key wait for the same thread, and later ones
//! find the result. So does a passphrase that was wrong: for the same text it is wrong for ever. A
//! file that has changed is another text.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::keys::PrivateKey;
use tokio::sync::watch;

use super::format;
use super::problem::Problem;
use crate::secret::Secret;

/// How many results are kept. A program with more identities decrypts the oldest once more.
const MOST: usize = 64;

/// The longest that a dial waits for a key. The thread goes on, and the next dial finds its result.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// What came of it, once that is known.
type DecryptionResult = Option<Result<Arc<PrivateKey>, Arc<Problem>>>;

/// The results of one pool. They are wiped when it is dropped.
#[derive(Debug, Default)]
pub(super) struct DecryptedKeys(Mutex<VecDeque<DecryptedEntry>>);

#[derive(Debug)]
struct DecryptedEntry {
    text: Secret,
    passphrase: Secret,
    outcome: watch::Receiver<DecryptionResult>,
}

impl DecryptedKeys {
    /// The key that `text` holds, decrypted with `passphrase`.
    pub(super) async fn key(
        &self,
        text: Secret,
        passphrase: Secret,
    ) -> Result<Arc<PrivateKey>, Problem> {
        let mut outcome = self.outcome(text, passphrase)?;
        let known = outcome.wait_for(Option::is_some);
        let known = tokio::time::timeout(LIMIT, known).await;
        let known = known.map_err(|_| Problem::SlowDecryption(LIMIT))?;
        match known.as_deref() {
            Ok(Some(Ok(key))) => Ok(key.clone()),
            Ok(Some(Err(problem))) => Err(Problem::Remembered(problem.clone())),
            Ok(None) | Err(_) => Err(Problem::Stopped),
        }
    }

    /// The result of a thread that has been started for this, or is started now.
    fn outcome(
        &self,
        text: Secret,
        passphrase: Secret,
    ) -> Result<watch::Receiver<DecryptionResult>, Problem> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = |entry: &DecryptedEntry| {
            entry.outcome.borrow().is_none() && entry.outcome.has_changed().is_err()
        };
        entries.retain(|entry| !stopped(entry));
        let same = |entry: &&DecryptedEntry| entry.text == text && entry.passphrase == passphrase;
        if let Some(entry) = entries.iter().find(same) {
            return Ok(entry.outcome.clone());
        }
        let (result, outcome) = watch::channel(None);
        std::thread::Builder::new()
            .name("ssh-pool-key".into())
            .spawn({
                let (text, passphrase) = (text.clone(), passphrase.clone());
                move || {
                    let key = format::decode(text.expose(), Some(passphrase.expose()));
                    result.send_replace(Some(key.map(Arc::new).map_err(Arc::new)));
                }
            })
            .map_err(Problem::NoThread)?;
        if entries.len() >= MOST {
            entries.pop_front();
        }
        entries.push_back(DecryptedEntry {
            text,
            passphrase,
            outcome: outcome.clone(),
        });
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::Algorithm;
    use russh::keys::key::safe_rng;
    use russh::keys::ssh_key::LineEnding;

    fn sealed() -> Secret {
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
        let sealed = key.encrypt(&mut safe_rng(), "right").unwrap();
        Secret::new(sealed.to_openssh(LineEnding::LF).unwrap().as_str())
    }

    #[tokio::test]
    async fn a_key_is_decrypted_once_and_wiped_with_the_pool() {
        let (keys, text) = (DecryptedKeys::default(), sealed());
        let key = || keys.key(text.clone(), Secret::new("right"));
        let (first, second) = tokio::join!(key(), key());
        let (first, second, third) = (first.unwrap(), second.unwrap(), key().await.unwrap());
        assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first, &third));
        let kept = Arc::downgrade(&first);
        drop((first, second, third));
        assert!(kept.upgrade().is_some());
        drop(keys);
        // The thread that has decrypted it may be about to let go of it.
        let wiped = async {
            while kept.upgrade().is_some() {
                tokio::task::yield_now().await;
            }
        };
        let wiped = tokio::time::timeout(std::time::Duration::from_secs(60), wiped).await;
        wiped.expect("nothing else holds the key");
    }

    #[tokio::test]
    async fn a_wrong_passphrase_is_remembered_for_its_text_alone() {
        let (keys, text) = (DecryptedKeys::default(), sealed());
        let problem = |text: &Secret| keys.key(text.clone(), Secret::new("wrong"));
        for _ in 0..2 {
            let shown = problem(&text).await.unwrap_err().to_string();
            assert!(shown.starts_with("the passphrase is wrong; "), "{shown}");
        }
        assert_eq!(keys.0.lock().unwrap().len(), 1);
        keys.key(text, Secret::new("right")).await.unwrap();
        problem(&sealed()).await.unwrap_err();
        assert_eq!(keys.0.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn no_more_results_are_kept_than_stated() {
        let keys = DecryptedKeys::default();
        for number in 0..MOST + 3 {
            let text = Secret::new(format!("no key {number}"));
            keys.key(text, Secret::new("words")).await.unwrap_err();
        }
        assert_eq!(keys.0.lock().unwrap().len(), MOST);
    }
}
