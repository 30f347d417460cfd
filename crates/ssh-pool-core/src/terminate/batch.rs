//! Signals for several commands in one script.
//!
//! A server that serves one session at a time runs one script after the other. Of many commands that
//! are ended at once, the last would wait for the scripts of all others.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::helper_command::{self, ProcessTag};
use super::{REACH, SignalResult};
use crate::host_pools::HostPools;

/// The most signals in one script: it has to come back in time.
const MOST: usize = 32;
/// Bytes of a line for the functions of a script, and for one call of them.
const FUNCTIONS: usize = 1_400;
const CALL: usize = 70;

/// What became of a signal, and where its script has run. `None`: it has not, as far as is known.
type Ran = Option<(SignalResult, Option<SocketAddr>)>;

/// What is to be signalled on one host.
#[derive(Default)]
pub(crate) struct Batch {
    /// Of the script that runs.
    turn: tokio::sync::Mutex<()>,
    waiting: Mutex<Vec<PendingSignal>>,
}

struct PendingSignal {
    process_tag: ProcessTag,
    signal: String,
    tell: oneshot::Sender<Ran>,
}

impl Batch {
    fn waiting(&self) -> MutexGuard<'_, Vec<PendingSignal>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that have waited for longest, and go into one script.
    fn take(&self, longest_line: usize) -> Vec<PendingSignal> {
        let mut waiting = self.waiting();
        waiting.retain(|entry| !entry.tell.is_closed());
        let functions = waiting.first().map(|entry| entry.process_tag.functions());
        let mut room = (longest_line.saturating_sub(FUNCTIONS) / CALL).clamp(1, MOST);
        let (batch, rest) = waiting.drain(..).partition(|entry| {
            let fits = Some(entry.process_tag.functions()) == functions && room > 0;
            room -= usize::from(fits);
            fits
        });
        *waiting = rest;
        batch
    }
}

/// Signals a tagged command by a script on a connection of its own, with the others that wait for one.
pub(super) async fn signal(
    pools: &Arc<HostPools>,
    longest_line: usize,
    process_tag: &ProcessTag,
    signal: &str,
) -> Ran {
    let (tell, ran) = oneshot::channel();
    pools.batch().waiting().push(PendingSignal {
        process_tag: process_tag.clone(),
        signal: signal.to_owned(),
        tell,
    });
    let pools = pools.clone();
    // In a task of its own: the caller may be dropped while other callers wait for the same script.
    pools.shared().runtime().clone().spawn(async move {
        let _turn = pools.batch().turn.lock().await;
        let batch = pools.batch().take(longest_line);
        if batch.is_empty() {
            return; // sent in an earlier script
        }
        let signals = batch
            .iter()
            .map(|entry| (&entry.process_tag, &*entry.signal));
        let script = helper_command::script(signals);
        let ran =
            tokio::time::timeout(REACH, helper_command::on_control_connection(&pools, script))
                .await;
        let Ok(Some((code, said, at))) = ran else {
            // Without an answer, untagged processes may be left.
            batch
                .iter()
                .for_each(|entry| entry.process_tag.set_untagged());
            return;
        };
        let mut codes = said.lines().filter_map(|line| line.parse().ok());
        for entry in batch {
            let sent = entry.process_tag.meaning(codes.next().or(code));
            // The caller may have been dropped.
            entry.tell.send(Some((sent, at))).ok();
        }
    });
    ran.await.ok().flatten()
}
