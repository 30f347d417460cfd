//! How many connections a pool may have at once, and how room is made for another one: also where
//! this process or this machine has no file descriptors left.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::host_state::ConnectionId;
use super::{ConnectionGroup, GroupState, now, size};
use crate::error::{Cause, Error};
use crate::transport::SocketGuard;

/// The connections of one pool: all hosts and groups together.
pub(crate) struct ConnectionLimiter {
    limit: u32,
    free: Arc<Semaphore>,
    /// Dials that wait for another connection to end.
    blocked_on_limit: AtomicUsize,
    /// Connections that should end for want of file descriptors.
    requested: AtomicUsize,
    /// Hosts whose last dial had no file descriptor.
    out_of_descriptors: AtomicUsize,
    /// Connections that have closed since, each with its file descriptor.
    closed: AtomicUsize,
    /// Room is wanted, or may now be had.
    changed: Notify,
}

/// A dial that waits for room.
struct BlockedOnLimit<'a>(&'a ConnectionGroup);

/// A host whose last dial had no file descriptor: it pauses before the next one.
pub(super) struct OutOfDescriptors {
    since: Instant,
    limiter: Arc<ConnectionLimiter>,
}

impl OutOfDescriptors {
    pub(super) fn new(limiter: &Arc<ConnectionLimiter>, since: Instant) -> Self {
        limiter.out_of_descriptors.fetch_add(1, Ordering::Relaxed);
        Self {
            since,
            limiter: limiter.clone(),
        }
    }
}

impl Drop for OutOfDescriptors {
    fn drop(&mut self) {
        self.limiter
            .out_of_descriptors
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for one connection; `None` is one more than the limit.
pub(super) struct ConnectionPermit(Option<OwnedSemaphorePermit>);

/// A dial's share of the pool's connections, until its socket has been closed.
struct ConnectionShare {
    permit: Option<OwnedSemaphorePermit>,
    limiter: Arc<ConnectionLimiter>,
    connected: Arc<AtomicBool>,
}

impl Drop for ConnectionShare {
    fn drop(&mut self) {
        drop(self.permit.take());
        // Of a dial that has failed there may have been none: hosts that are short of them would
        // wake each other without end.
        if self.connected.load(Ordering::Relaxed) {
            self.limiter.descriptor_closed();
        }
    }
}

/// Tells a share that there is a connection now.
pub(super) struct ConnectedFlag(Arc<AtomicBool>);

impl ConnectedFlag {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ConnectionLimiter {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit,
            free: Arc::new(Semaphore::new(size(limit))),
            blocked_on_limit: AtomicUsize::new(0),
            requested: AtomicUsize::new(0),
            out_of_descriptors: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// Connections there are, and dials that may go on.
    pub(crate) fn used(&self) -> usize {
        size(self.limit).saturating_sub(self.free.available_permits())
    }

    /// Whether a dial waits for another connection to end.
    pub(super) fn is_wanted(&self) -> bool {
        self.blocked_on_limit.load(Ordering::Relaxed) > 0
            || self.requested.load(Ordering::Relaxed) > 0
    }

    fn descriptor_closed(&self) {
        if self.out_of_descriptors.load(Ordering::Relaxed) > 0 {
            self.closed.fetch_add(1, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// File descriptors have run out: asks for this many unused connections to be closed.
    pub(super) fn request_idle(&self, connections: usize) {
        self.requested.fetch_max(connections, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// A connection has become idle while room is wanted.
    pub(super) fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits until [`make_room`] may have something to do. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How many connections should end for want of file descriptors.
    fn take_asked(&self) -> usize {
        self.requested.swap(0, Ordering::Relaxed)
    }
}

impl<'a> BlockedOnLimit<'a> {
    fn new(group: &'a ConnectionGroup) -> Self {
        group.state().blocked_on_limit += 1;
        let limiter = group.budget.limiter();
        limiter.blocked_on_limit.fetch_add(1, Ordering::Relaxed);
        limiter.changed.notify_one();
        Self(group)
    }
}

impl Drop for BlockedOnLimit<'_> {
    fn drop(&mut self) {
        self.0.state().blocked_on_limit -= 1;
        let limiter = self.0.budget.limiter();
        limiter.blocked_on_limit.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionGroup {
    /// Room in the pool for the connection that is to be dialled. `None`: there is none now.
    pub(super) fn try_connection_permit(&self) -> Option<ConnectionPermit> {
        if let Ok(permit) = self.budget.limiter().free.clone().try_acquire_owned() {
            return Some(ConnectionPermit(Some(permit)));
        }
        if self.budget.is_for_control() {
            // One more: the room may be that of the command which it is to end.
            return Some(ConnectionPermit(None));
        }
        (self.budget.is_for_stream_groups() || self.is_urgent()).then(|| self.one_more())
    }

    /// What the connection keeps of it, for as long as it has a socket.
    pub(super) fn connection_share(
        &self,
        permit: ConnectionPermit,
    ) -> (SocketGuard, ConnectedFlag) {
        let connected = Arc::<AtomicBool>::default();
        let connection_share = ConnectionShare {
            permit: permit.0,
            limiter: self.budget.limiter().clone(),
            connected: connected.clone(),
        };
        (Box::new(connection_share), ConnectedFlag(connected))
    }

    /// Room as soon as there is some: fair among all dials of the pool. `None`: there was none, and
    /// then it was no longer needed.
    pub(super) async fn connection_permit(&self) -> Option<ConnectionPermit> {
        let limiter = self.budget.limiter();
        let _held_up = BlockedOnLimit::new(self);
        let mut free = pin!(limiter.free.clone().acquire_owned());
        loop {
            let mut changed = pin!(self.breaker.changed());
            // Before the question, so that no change between it and the wait is missed.
            changed.as_mut().enable();
            self.state().host.begin_connect()?;
            if self.is_urgent() {
                return Some(self.one_more());
            }
            tokio::select! {
                // The semaphore is never closed.
                permit = &mut free => return Some(ConnectionPermit(permit.ok())),
                () = changed => {}
            }
            // It may be wanted again, and no room was made for it meanwhile.
            limiter.notify();
        }
    }

    /// A connection beyond the limit: what fills it may be the streams of those who need this one.
    /// An idle connection makes room afterwards, if there is any.
    fn one_more(&self) -> ConnectionPermit {
        self.budget.limiter().request_idle(1);
        ConnectionPermit(None)
    }

    /// What a deadline says that passed while a dial waited for something else than its host.
    pub(super) fn blocked_on_limit(&self, state: &GroupState) -> Option<Cause> {
        if state.blocked_on_limit > 0 {
            return Some(Cause::new(format!(
                "the pool has {} connections, as many as Limits::connections allows, and none of \
                 them is idle",
                self.budget.limiter().limit
            )));
        }
        let failed = || self.breaker.last_error().map(Cause::new);
        let awaiting_penalty = || {
            Cause::new(
                "logins to this address have failed, and this one may fail too: it waits, because \
                 sshd turns an address away that has too many of them (PerSourcePenalties)",
            )
        };
        if self.breaker.is_delayed() {
            return Some(Cause::new(self.login_budget_spent()));
        }
        (self.breaker.is_awaiting_penalty()).then(|| failed().unwrap_or_else(awaiting_penalty))
    }

    /// What a deadline says that passed while there were no file descriptors for a dial.
    pub(super) fn without_descriptors(&self, state: &GroupState) -> Option<Error> {
        let error = self.breaker.last_error()?;
        let waits = state.out_of_descriptors.is_some() || state.host.live() == 0;
        (waits && matches!(error, Error::Descriptors { .. })).then_some(error)
    }

    fn login_budget_spent(&self) -> String {
        let last = self.breaker.last_error();
        let last = last.map_or_else(String::new, |error| format!("; the last one: {error}"));
        format!(
            "it waits for the login budget of this address: too many connections to it have ended \
             soon after their login (Limits::login_burst){last}"
        )
    }

    fn retire_idle(self: &Arc<Self>, id: ConnectionId) {
        self.transition(|state, now| state.host.make_room(id, now));
    }
}

/// Retires the connections that have been idle for longest, as many as are wanted: those that are
/// on their way out are room already. A dial that is no longer needed ends instead. For each
/// descriptor that has been closed, the host that has been short of one for longest dials again.
pub(crate) fn make_room<'a>(
    limiter: &ConnectionLimiter,
    groups: impl Iterator<Item = &'a Arc<ConnectionGroup>>,
) {
    let (requested, closed) = (
        limiter.take_asked(),
        limiter.closed.swap(0, Ordering::Relaxed),
    );
    if requested == 0 && closed == 0 && !limiter.is_wanted() {
        return;
    }
    let (mut blocked_on_limit, mut leaving) = (0, 0);
    let (mut idle, mut out_of_descriptors) = (Vec::new(), Vec::new());
    let now = now();
    for group in groups {
        let mut state = group.state();
        leaving += state.host.leaving();
        idle.extend(state.host.idle().map(|(since, id)| (since, group, id)));
        if !state.host.wants_connect() {
            state.out_of_descriptors = None;
        }
        if let Some(OutOfDescriptors { since, .. }) = state.out_of_descriptors {
            out_of_descriptors.push((since, state.host.pauses(now), group));
        }
        if state.host.wants_connect() {
            blocked_on_limit += size(state.blocked_on_limit);
        } else if state.blocked_on_limit > 0 {
            drop(state);
            group.breaker.wake();
        }
    }
    let requested = if out_of_descriptors.is_empty() {
        0
    } else {
        requested
    };
    let wanted = blocked_on_limit.max(requested).saturating_sub(leaving);
    // Those that become idle go then.
    let missing = requested.min(wanted.saturating_sub(idle.len()));
    limiter.requested.fetch_max(missing, Ordering::Relaxed);
    idle.sort_by_key(|(since, ..)| *since);
    for (_, group, id) in idle.into_iter().take(wanted) {
        group.retire_idle(id);
    }
    out_of_descriptors.retain(|(_, pauses, _)| *pauses);
    out_of_descriptors.sort_by_key(|(since, ..)| *since);
    for (.., group) in out_of_descriptors.into_iter().take(closed) {
        group.transition(|state, now| state.host.end_pause(now));
    }
}
