//! The network under a connection, and the queue into it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// The network under a connection.
#[derive(Clone)]
pub(super) struct ScriptedLine {
    hop: Duration,
    pub(super) forgotten: watch::Sender<bool>,
    pub(super) stalled: watch::Sender<bool>,
    /// The peer does not know the connection any more, and says so to whatever comes.
    pub(super) reset: Arc<AtomicBool>,
    pub(super) ignores_opens: watch::Sender<bool>,
    heard: Arc<Mutex<Instant>>,
}

impl ScriptedLine {
    pub(super) fn new(hop: Duration) -> Self {
        Self {
            hop,
            forgotten: watch::Sender::new(false),
            stalled: watch::Sender::new(false),
            reset: Arc::default(),
            ignores_opens: watch::Sender::new(false),
            heard: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Waits until the connection takes what is sent.
    pub(super) async fn taken(&self) {
        let takes = |stalled: &bool| !stalled;
        self.stalled.subscribe().wait_for(takes).await.ok();
    }

    /// Waits until opens are answered.
    pub(super) async fn opens(&self) {
        let answered = |ignores: &bool| !ignores;
        self.ignores_opens.subscribe().wait_for(answered).await.ok();
    }

    /// One way through it.
    pub(super) async fn pass(&self) {
        sleep(self.hop).await;
        let passes = |forgotten: &bool| !forgotten;
        // The sender is here, so this waits and does not fail.
        self.forgotten.subscribe().wait_for(passes).await.ok();
    }

    pub(super) fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether whatever is sent ends the connection.
    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    /// There and back.
    pub(super) async fn answer(&self) {
        self.pass().await;
        self.pass().await;
        self.hear();
    }

    pub(super) fn quiet_for(&self) -> Duration {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.elapsed()
    }
}
