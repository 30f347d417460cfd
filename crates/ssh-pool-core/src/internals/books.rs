//! The books of one host by themselves, with a server that does at once what they ask for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::hub::slots::{Action, ConnectionId, Hand, Rules, Slots, Ticket};

/// The books of one host. Each method is a story that ends where it began, so that it can be told
/// again and again.
pub struct Books {
    slots: Slots<()>,
    now: Instant,
    connections: u64,
    /// Those who wait, oldest first.
    queue: VecDeque<Ticket>,
    /// Counts the turns, for a fair choice among the connections.
    turn: u64,
    /// How many of the next opens the server refuses.
    refuse: u32,
}

impl Books {
    /// So many connections with so many sessions on each, all of them leased, and so many waiters
    /// behind them.
    #[must_use]
    pub fn busy(connections: u32, sessions: u32, waiters: u32) -> Self {
        let mut books = Self {
            slots: Slots::new(Rules {
                connections,
                sessions,
                streams: 0,
                held_connections: 0,
                urgent_connections: 0,
                handshakes: connections,
                patience: Duration::ZERO,
                idle: Duration::MAX,
                recovery: Duration::MAX,
                drain: Duration::ZERO,
                check: Duration::MAX,
                ready_each: false,
            }),
            now: Instant::now(),
            connections: 0,
            queue: VecDeque::new(),
            turn: 0,
            refuse: 0,
        };
        for _ in 0..connections.saturating_mul(sessions).saturating_add(waiters) {
            books.wait();
        }
        books
    }

    /// One connection with one spare, and nobody who waits.
    #[must_use]
    pub fn idle() -> Self {
        let mut books = Self::busy(1, 10, 0);
        for _ in 0..10 {
            let on = books.next();
            books.slots.closed(on, true, books.now);
        }
        // Opens a channel for itself and another in advance; both lie idle then.
        books.wait();
        books.give_back();
        books
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.slots.waiting()
    }

    /// How many sessions are in use.
    #[must_use]
    pub fn leased(&self) -> u32 {
        self.slots.views().map(|view| view.leased).sum()
    }

    /// How many lie idle.
    #[must_use]
    pub fn spares(&self) -> u32 {
        self.slots.views().map(|view| view.ready).sum()
    }

    /// A spare is taken, and comes back unused.
    pub fn claim_and_return(&mut self) {
        let on = self.next();
        if self.slots.claim(on, || self.now) {
            self.settle();
            self.give_back();
        }
    }

    /// A spare is taken and used up; the slot cools, and the next spare is opened.
    pub fn claim_and_close(&mut self) {
        let on = self.next();
        if self.slots.claim(on, || self.now) {
            self.settle();
            self.slots.closed(on, true, self.now);
            self.settle();
        }
    }

    /// A command ends while others wait: its slot cools, a round trip frees it, a channel is opened
    /// and goes to the oldest waiter. Another waiter comes.
    pub fn next_turn(&mut self) {
        let on = self.next();
        self.slots.closed(on, true, self.now);
        self.settle();
        self.wait();
    }

    /// The same, and the server refuses the channel once: a pause, and another try.
    pub fn refused_turn(&mut self) {
        self.refuse = 1;
        self.next_turn();
    }

    /// Nothing has happened, and the books look for something to do.
    pub fn look(&mut self) {
        self.slots.wake_waiters(self.now);
        self.settle();
    }

    /// The waiter in the middle of the queue gives up, and another one comes.
    pub fn give_up(&mut self) {
        if let Some(ticket) = self.queue.remove(self.queue.len() / 2) {
            self.slots.abandon(ticket);
            self.wait();
        }
    }

    fn next(&mut self) -> ConnectionId {
        self.turn += 1;
        ConnectionId(1 + self.turn % self.connections)
    }

    fn wait(&mut self) {
        let ticket = self.slots.wait((), self.now);
        self.queue.push_back(ticket);
        self.settle();
    }

    fn give_back(&mut self) {
        let on = self.next();
        let hand = self.slots.returned(on, true, self.now);
        self.handed(&hand);
        self.settle();
    }

    fn handed(&mut self, hand: &Hand<()>) {
        if matches!(hand, Hand::To(())) {
            self.queue.pop_front();
        }
    }

    /// Does what the books ask for, until they ask for nothing.
    fn settle(&mut self) {
        loop {
            let actions = self.slots.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.carry_out(action);
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Dial => {
                self.connections += 1;
                let id = ConnectionId(self.connections);
                let retire_at = self.now + Duration::from_secs(1 << 32);
                self.slots.dialled(id, self.now, retire_at);
            }
            Action::Open { on, mark, .. } if self.refuse > 0 => {
                self.refuse -= 1;
                self.slots.refused(on, mark, self.now);
            }
            Action::Open { on, mark, .. } => {
                let hand = self.slots.opened(on, mark, self.now);
                self.handed(&hand);
            }
            Action::Ping { on, mark } => self.slots.pinged(on, mark, self.now),
            Action::WakeAt(at) => {
                self.now = at;
                self.slots.wake(at);
            }
            Action::Reclaim => {
                let spares = self.slots.views().find(|view| view.ready > 0);
                if let Some(view) = spares {
                    let hand = self.slots.returned(view.id, false, self.now);
                    self.handed(&hand);
                }
            }
            // No story here ends a connection.
            Action::Sweep
            | Action::Widen
            | Action::Suspect(_)
            | Action::Disconnect(_)
            | Action::Report(_) => {}
        }
    }
}
