//! Sessions that streams hold. Their end is up to the caller, so no other caller waits for it.

use std::time::{Duration, Instant};

use super::{Effect, GroupConfig, HostState};

/// The oldest waiter waits so long for a stream to end before a connection takes the place of those
/// that streams fill: most end soon, and a login costs more than a short wait.
const STREAM_WAIT: Duration = Duration::from_secs(1);

impl<W> HostState<W> {
    /// A session in use is a stream's: another one may take its place in the count of connections.
    pub(crate) fn begin_hold(&mut self, now: Instant) {
        self.held += 1;
        self.effects.push(Effect::RaiseCapacity);
        self.schedule(now);
    }

    /// That stream has ended.
    pub(crate) fn end_hold(&mut self, now: Instant) {
        self.held = self.held.saturating_sub(1);
        self.schedule(now);
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// A caller that holds streams waits from now on.
    pub(crate) fn begin_urgent(&mut self, now: Instant) {
        self.urgent += 1;
        self.effects.push(Effect::RaiseCapacity);
        self.schedule(now);
    }

    pub(crate) fn end_urgent(&mut self) {
        self.urgent = self.urgent.saturating_sub(1);
    }

    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent > 0
    }

    /// Connections that take new commands, at most: those whose sessions are all held by streams do
    /// not count, up to a limit that is higher for those who hold some.
    pub(super) fn connections_at_most(&self) -> u32 {
        self.at_most(self.is_urgent())
    }

    /// The same for now: who holds nothing waits a moment for a stream to end.
    pub(super) fn connections_now(&self, now: Instant) -> u32 {
        let waited = self.stream_wait_until().is_some_and(|due| now >= due);
        match self.is_urgent() || waited {
            true => self.connections_at_most(),
            false => self.config.connections,
        }
    }

    /// When the oldest waiter has waited long enough for that.
    pub(super) fn stream_wait_until(&self) -> Option<Instant> {
        (self.waiters.front()).map(|oldest| oldest.since + STREAM_WAIT)
    }

    fn at_most(&self, urgent: bool) -> u32 {
        let GroupConfig {
            connections,
            held_connections,
            urgent_connections,
            ..
        } = self.config;
        let beyond = match urgent {
            true => held_connections.saturating_add(urgent_connections),
            false => held_connections,
        };
        let held = self.held / self.learned.max(1);
        connections.saturating_add(held.min(beyond))
    }

    /// How many streams are open, if they are why no other caller is served: there is no connection
    /// that has a session for others, and none may be dialled, for one who holds streams or not.
    pub(crate) fn filled_by_streams(&self, urgent: bool) -> Option<u32> {
        let alive = self.connections.values().filter(|c| !c.retiring);
        let in_use: u32 = alive.map(|c| c.in_use.max(u32::from(c.streams > 0))).sum();
        // One to a connection: each is a stream.
        let open = match self.config.idle_each {
            true => in_use,
            false => self.held,
        };
        let places = (self.live()).saturating_mul(self.learned.max(1));
        let filled = open > 0 && self.live() >= self.at_most(urgent) && open >= places;
        filled.then_some(open)
    }
}
