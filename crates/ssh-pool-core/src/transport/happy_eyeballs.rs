//! TCP connections to a name that has several addresses: Happy Eyeballs (RFC 8305).
//!
//! The addresses are tried 250 ms apart, the families in turn, until one accepts; an attempt that
//! fails starts the next one at once. All attempts are part of one future: dropping it closes every
//! socket.
//!
//! The connections of one host go to one address, so an [`AddressChoice`] has the last word: it may
//! allow a single address, and it may send a dial that has connected elsewhere to that one.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::AddressChoice;
use crate::error::{no_descriptors, words_of};

/// The connection attempt delay that RFC 8305, section 5 recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses that one dial tries: each is a socket for as long as it does not answer.
const MOST_ADDRESSES: usize = 8;

/// Connects to one of the addresses that a name has resolved to. `None`: none of them accepts, and
/// `attempts` has the reasons.
pub(super) async fn connect<T, F>(
    resolved: &[SocketAddr],
    choice: &dyn AddressChoice,
    attempts: &Attempts,
    open: impl Fn(SocketAddr) -> F,
) -> Option<(SocketAddr, T)>
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        let (address, socket) = race(resolved, choice, attempts, &open).await?;
        match choice.claim(address, resolved) {
            Ok(()) => return Some((address, socket)),
            Err(other) => {
                tracing::debug!(%address, %other, "another dial has settled on an address");
                attempts.forget(address);
            }
        }
    }
}

async fn race<T, F>(
    resolved: &[SocketAddr],
    choice: &dyn AddressChoice,
    attempts: &Attempts,
    open: impl Fn(SocketAddr) -> F,
) -> Option<(SocketAddr, T)>
where
    F: Future<Output = io::Result<T>>,
{
    let mut left = in_order(resolved, choice.preferred());
    let mut tried = Vec::new();
    let mut trying = FuturesUnordered::new();
    loop {
        let next = match choice.required(resolved) {
            Some(only) => Some(only).filter(|only| !tried.contains(only)),
            None => left.pop_front(),
        };
        if let Some(address) = next {
            left.retain(|other| *other != address);
            tried.push(address);
            attempts.begin(address);
            let opened = open(address);
            trying.push(async move { (address, opened.await) });
        }
        let delay = match left.is_empty() {
            true => Duration::MAX,
            false => ATTEMPT_DELAY,
        };
        let Ok(ended) = tokio::time::timeout(delay, trying.next()).await else {
            continue;
        };
        let (address, result) = ended?;
        match result {
            Ok(socket) => return Some((address, socket)),
            Err(error) => {
                if no_descriptors(&error) {
                    // The next address would lack one, too.
                    left.clear();
                } else {
                    choice.unreachable(address);
                }
                attempts.fail(address, error);
            }
        }
    }
}

/// The addresses to try: `first` if it is among them, then the families in turn, beginning with the
/// one that the resolver prefers (RFC 8305, section 4).
fn in_order(resolved: &[SocketAddr], first: Option<SocketAddr>) -> VecDeque<SocketAddr> {
    let six = resolved.first().is_some_and(SocketAddr::is_ipv6);
    let (mut preferred, mut other): (VecDeque<_>, VecDeque<_>) =
        (resolved.iter().copied()).partition(|address| address.is_ipv6() == six);
    let mut order = VecDeque::new();
    while !preferred.is_empty() || !other.is_empty() {
        for address in [preferred.pop_front(), other.pop_front()]
            .into_iter()
            .flatten()
        {
            if !order.contains(&address) {
                order.push_back(address);
            }
        }
    }
    if let Some(first) = first.filter(|first| order.contains(first)) {
        order.retain(|address| *address != first);
        order.push_front(first);
    }
    order.truncate(MOST_ADDRESSES);
    order
}

/// What has become of the addresses that a dial has tried.
#[derive(Default)]
pub(super) struct Attempts(Mutex<Vec<Attempt>>);

struct Attempt {
    address: SocketAddr,
    /// `None`: it has not answered.
    failure: Option<io::Error>,
}

impl Attempts {
    fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, address: SocketAddr) {
        self.forget(address);
        let failure = None;
        self.attempts().push(Attempt { address, failure });
    }

    fn fail(&self, address: SocketAddr, error: io::Error) {
        let mut attempts = self.attempts();
        if let Some(attempt) = attempts.iter_mut().find(|one| one.address == address) {
            attempt.failure = Some(error);
        }
    }

    fn forget(&self, address: SocketAddr) {
        self.attempts().retain(|one| one.address != address);
    }

    /// The addresses that have not answered.
    pub(super) fn unanswered(&self) -> Vec<SocketAddr> {
        let attempts = self.attempts();
        let unanswered = attempts.iter().filter(|one| one.failure.is_none());
        unanswered.map(|one| one.address).collect()
    }

    /// The reasons, for an error. `None`: no address was tried.
    pub(super) fn take(&self) -> Option<Unreachable> {
        let attempts = std::mem::take(&mut *self.attempts());
        (!attempts.is_empty()).then_some(Unreachable(attempts))
    }
}

/// Why none of a name's addresses could be connected to.
pub(super) struct Unreachable(Vec<Attempt>);

impl Unreachable {
    /// Whether the attempt at an address has failed like this.
    pub(super) fn any(&self, failed: impl Fn(&io::Error) -> bool) -> bool {
        self.failures().any(failed)
    }

    fn failures(&self) -> impl DoubleEndedIterator<Item = &io::Error> {
        self.0.iter().filter_map(|attempt| attempt.failure.as_ref())
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, attempt) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{}: ", attempt.address)?;
            match &attempt.failure {
                Some(error) => f.write_str(&words_of(error))?,
                None => f.write_str("no answer")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Unreachable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // A shortage of descriptors is the one failure that is not the peer's.
        let shortage = self.failures().find(|error| no_descriptors(*error));
        let failure = shortage.or_else(|| self.failures().next_back())?;
        Some(failure)
    }
}

#[cfg(test)]
mod tests;
