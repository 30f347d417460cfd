//! The state of one host by itself, with a server that does at once what it asks for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::group::host_state::{ConnectionId, Effect, GroupConfig, Handoff, HostState, WaiterId};

/// The state of one host. Each method is a scenario that ends where it began, so that it can be
/// run again and again.
pub struct StateDriver {
    state: HostState<()>,
    now: Instant,
    connections: u64,
    /// Those who wait, oldest first.
    queue: VecDeque<WaiterId>,
    /// Counts the turns, for a fair choice among the connections.
    turn: u64,
    /// How many of the next opens the server refuses.
    refuse: u32,
}

impl StateDriver {
    /// `connections` with `sessions` on each, all of them in use, and `waiters` behind them.
    #[must_use]
    pub fn busy(connections: u32, sessions: u32, waiters: u32) -> Self {
        let mut driver = Self {
            state: HostState::new(GroupConfig {
                connections,
                sessions,
                streams: 0,
                held_connections: 0,
                urgent_connections: 0,
                handshakes: connections,
                expand_after: Duration::ZERO,
                idle: Duration::MAX,
                recovery: Duration::MAX,
                drain: Duration::ZERO,
                check: Duration::MAX,
                idle_each: false,
            }),
            now: Instant::now(),
            connections: 0,
            queue: VecDeque::new(),
            turn: 0,
            refuse: 0,
        };
        for _ in 0..connections.saturating_mul(sessions).saturating_add(waiters) {
            driver.wait();
        }
        driver
    }

    /// One connection with one idle channel, and no waiters.
    #[must_use]
    pub fn idle() -> Self {
        let mut driver = Self::busy(1, 10, 0);
        for _ in 0..10 {
            let on = driver.next();
            driver.state.closed(on, true, driver.now);
        }
        // Opens a channel for itself and another in advance; both lie idle then.
        driver.wait();
        driver.give_back();
        driver
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.waiting()
    }

    /// How many sessions are in use.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.state
            .session_counts()
            .map(|counts| counts.in_use)
            .sum()
    }

    /// How many lie idle.
    #[must_use]
    pub fn idle_channels(&self) -> u32 {
        self.state.session_counts().map(|counts| counts.idle).sum()
    }

    /// An idle channel is taken, and comes back unused.
    pub fn claim_and_return(&mut self) {
        let on = self.next();
        if self.state.claim(on, || self.now) {
            self.settle();
            self.give_back();
        }
    }

    /// An idle channel is taken and used up; the slot is being released, and the next idle channel
    /// is opened.
    pub fn claim_and_close(&mut self) {
        let on = self.next();
        if self.state.claim(on, || self.now) {
            self.settle();
            self.state.closed(on, true, self.now);
            self.settle();
        }
    }

    /// A command ends while others wait: its slot is being released, a round trip frees it, a
    /// channel is opened and goes to the oldest waiter. Another waiter comes.
    pub fn next_turn(&mut self) {
        let on = self.next();
        self.state.closed(on, true, self.now);
        self.settle();
        self.wait();
    }

    /// The same, and the server refuses the channel once: a pause, and another try.
    pub fn refused_turn(&mut self) {
        self.refuse = 1;
        self.next_turn();
    }

    /// Nothing has happened, and the state looks for something to do.
    pub fn reschedule(&mut self) {
        self.state.wake_waiters(self.now);
        self.settle();
    }

    /// The waiter in the middle of the queue gives up, and another one comes.
    pub fn cancel_waiter(&mut self) {
        if let Some(waiter_id) = self.queue.remove(self.queue.len() / 2) {
            self.state.abandon(waiter_id);
            self.wait();
        }
    }

    fn next(&mut self) -> ConnectionId {
        self.turn += 1;
        ConnectionId(1 + self.turn % self.connections)
    }

    fn wait(&mut self) {
        let waiter_id = self.state.wait((), self.now);
        self.queue.push_back(waiter_id);
        self.settle();
    }

    fn give_back(&mut self) {
        let on = self.next();
        let handoff = self.state.returned(on, true, self.now);
        self.handed(&handoff);
        self.settle();
    }

    fn handed(&mut self, handoff: &Handoff<()>) {
        if matches!(handoff, Handoff::To(())) {
            self.queue.pop_front();
        }
    }

    /// Does what the state asks for, until it asks for nothing.
    fn settle(&mut self) {
        loop {
            let effects = self.state.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Connect => {
                self.connections += 1;
                let id = ConnectionId(self.connections);
                let retire_at = self.now + Duration::from_secs(1 << 32);
                self.state.connected(id, self.now, retire_at);
            }
            Effect::Open { on, close_seq, .. } if self.refuse > 0 => {
                self.refuse -= 1;
                self.state.refused(on, close_seq, self.now);
            }
            Effect::Open { on, close_seq, .. } => {
                let handoff = self.state.opened(on, close_seq, self.now);
                self.handed(&handoff);
            }
            Effect::Ping { on, close_seq } => self.state.pinged(on, close_seq, self.now),
            Effect::WakeAt(at) => {
                self.now = at;
                self.state.wake(at);
            }
            Effect::ServeFromIdle => {
                let idle_channels = self.state.session_counts().find(|counts| counts.idle > 0);
                if let Some(counts) = idle_channels {
                    let handoff = self.state.returned(counts.id, false, self.now);
                    self.handed(&handoff);
                }
            }
            // No scenario here ends a connection.
            Effect::DropStaleIdle
            | Effect::RaiseCapacity
            | Effect::CheckLiveness(_)
            | Effect::Disconnect(_)
            | Effect::Report(_) => {}
        }
    }
}
