//! How many connections a pool may have at once, and how room is made for another one: also where
//! this process or this machine has no file descriptors left.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::slots::ConnectionId;
use super::{Books, Hub, now, size};
use crate::error::{Cause, Error};
use crate::transport::Kept;

/// The connections of one pool: all hosts and lanes together.
pub(crate) struct Room {
    limit: u32,
    free: Arc<Semaphore>,
    /// Dials that wait for another connection to end.
    held_up: AtomicUsize,
    /// Connections that should end for want of file descriptors.
    asked: AtomicUsize,
    /// Hosts whose last dial had no file descriptor.
    short: AtomicUsize,
    /// Connections that have closed since, each with its file descriptor.
    closed: AtomicUsize,
    /// Room is wanted, or may now be had.
    news: Notify,
}

/// A dial that waits for room.
struct HeldUp<'a>(&'a Hub);

/// A host whose last dial had no file descriptor: it pauses before the next one.
pub(super) struct Short {
    since: Instant,
    room: Arc<Room>,
}

impl Short {
    pub(super) fn new(room: &Arc<Room>, since: Instant) -> Self {
        room.short.fetch_add(1, Ordering::Relaxed);
        Self {
            since,
            room: room.clone(),
        }
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        self.room.short.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for one connection; `None` is one more than the limit.
pub(super) struct Claim(Option<OwnedSemaphorePermit>);

/// A dial's share of the pool's connections, until its socket has been closed.
struct Share {
    permit: Option<OwnedSemaphorePermit>,
    room: Arc<Room>,
    connected: Arc<AtomicBool>,
}

impl Drop for Share {
    fn drop(&mut self) {
        drop(self.permit.take());
        // Of a dial that has failed there may have been none: hosts that are short of them would
        // wake each other without end.
        if self.connected.load(Ordering::Relaxed) {
            self.room.descriptor_closed();
        }
    }
}

/// Tells a share that there is a connection now.
pub(super) struct Connected(Arc<AtomicBool>);

impl Connected {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Room {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit,
            free: Arc::new(Semaphore::new(size(limit))),
            held_up: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            short: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            news: Notify::new(),
        }
    }

    /// Connections there are, and dials that may go on.
    pub(crate) fn used(&self) -> usize {
        size(self.limit).saturating_sub(self.free.available_permits())
    }

    /// Somebody waits for a connection of somebody else to end.
    pub(super) fn is_wanted(&self) -> bool {
        self.held_up.load(Ordering::Relaxed) > 0 || self.asked.load(Ordering::Relaxed) > 0
    }

    fn descriptor_closed(&self) {
        if self.short.load(Ordering::Relaxed) > 0 {
            self.closed.fetch_add(1, Ordering::Relaxed);
            self.news.notify_one();
        }
    }

    /// File descriptors have run out: connections that nobody uses may go.
    pub(super) fn ask(&self, connections: usize) {
        self.asked.fetch_max(connections, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// A connection has become idle while room is wanted.
    pub(super) fn look(&self) {
        self.news.notify_one();
    }

    /// Waits until [`make_room`] may have something to do. Cancel safe.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// How many connections should end for want of file descriptors.
    fn take_asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl<'a> HeldUp<'a> {
    fn new(hub: &'a Hub) -> Self {
        hub.books().held_up += 1;
        let room = hub.budget.room();
        room.held_up.fetch_add(1, Ordering::Relaxed);
        room.news.notify_one();
        Self(hub)
    }
}

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        self.0.books().held_up -= 1;
        let room = self.0.budget.room();
        room.held_up.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hub {
    /// Room in the pool for the connection that is to be dialled. `None`: there is none now.
    pub(super) fn room_at_once(&self) -> Option<Claim> {
        if let Ok(permit) = self.budget.room().free.clone().try_acquire_owned() {
            return Some(Claim(Some(permit)));
        }
        if self.budget.is_for_errands() {
            // One more: the room may be that of the command which it is to end.
            return Some(Claim(None));
        }
        (self.budget.is_for_groups() || self.is_urgent()).then(|| self.one_more())
    }

    /// What the connection keeps of it, for as long as it has a socket.
    pub(super) fn share(&self, claim: Claim) -> (Kept, Connected) {
        let connected = Arc::<AtomicBool>::default();
        let share = Share {
            permit: claim.0,
            room: self.budget.room().clone(),
            connected: connected.clone(),
        };
        (Box::new(share), Connected(connected))
    }

    /// Room as soon as there is some: fair among all dials of the pool. `None`: there was none, and
    /// then nobody who needed it any more.
    pub(super) async fn room(&self) -> Option<Claim> {
        let room = self.budget.room();
        let _held_up = HeldUp::new(self);
        let mut free = pin!(room.free.clone().acquire_owned());
        loop {
            let mut changed = pin!(self.dials.changed());
            // Before the question, so that no change between it and the wait is missed.
            changed.as_mut().enable();
            self.books().slots.begin_dial()?;
            if self.is_urgent() {
                return Some(self.one_more());
            }
            tokio::select! {
                // The semaphore is never closed.
                permit = &mut free => return Some(Claim(permit.ok())),
                () = changed => {}
            }
            // Somebody may want it again for whom no room was made.
            room.look();
        }
    }

    /// A connection beyond the limit: what fills it may be the streams of those who need this one.
    /// An idle connection makes room afterwards, if there is any.
    fn one_more(&self) -> Claim {
        self.budget.room().ask(1);
        Claim(None)
    }

    /// What a deadline says that passed while a dial waited for something else than its host.
    pub(super) fn held_up(&self, books: &Books) -> Option<Cause> {
        if books.held_up > 0 {
            return Some(Cause::new(format!(
                "the pool has {} connections, as many as Limits::connections allows, and none of \
                 them is idle",
                self.budget.room().limit
            )));
        }
        let failed = || self.dials.last_error().map(Cause::new);
        let in_debt = || {
            Cause::new(
                "logins to this address have failed, and this one may fail too: it waits, because \
                 sshd turns an address away that has too many of them (PerSourcePenalties)",
            )
        };
        if self.dials.is_delayed() {
            return Some(Cause::new(self.login_budget_spent()));
        }
        (self.dials.is_in_debt()).then(|| failed().unwrap_or_else(in_debt))
    }

    /// What a deadline says that passed while there were no file descriptors for a dial.
    pub(super) fn without_descriptors(&self, books: &Books) -> Option<Error> {
        let error = self.dials.last_error()?;
        let waits = books.short.is_some() || books.slots.live() == 0;
        (waits && matches!(error, Error::Descriptors { .. })).then_some(error)
    }

    fn login_budget_spent(&self) -> String {
        let last = self.dials.last_error();
        let last = last.map_or_else(String::new, |error| format!("; the last one: {error}"));
        format!(
            "it waits for the login budget of this address: too many connections to it have ended \
             soon after their login (Limits::login_burst){last}"
        )
    }

    fn retire_idle(self: &Arc<Self>, id: ConnectionId) {
        self.transition(|books, now| books.slots.make_room(id, now));
    }
}

/// Retires the connections that have been idle for longest, as many as are wanted: those that are
/// on their way out are room already. A dial that nobody needs any more ends instead. For each
/// descriptor that has been closed, the host that has been short of one for longest dials again.
pub(crate) fn make_room<'a>(room: &Room, hubs: impl Iterator<Item = &'a Arc<Hub>>) {
    let (asked, closed) = (room.take_asked(), room.closed.swap(0, Ordering::Relaxed));
    if asked == 0 && closed == 0 && !room.is_wanted() {
        return;
    }
    let (mut held_up, mut leaving) = (0, 0);
    let (mut idle, mut short) = (Vec::new(), Vec::new());
    let now = now();
    for hub in hubs {
        let mut books = hub.books();
        leaving += books.slots.leaving();
        idle.extend(books.slots.idle().map(|(since, id)| (since, hub, id)));
        if !books.slots.wants_dial() {
            books.short = None;
        }
        if let Some(Short { since, .. }) = books.short {
            short.push((since, books.slots.pauses(now), hub));
        }
        if books.slots.wants_dial() {
            held_up += size(books.held_up);
        } else if books.held_up > 0 {
            drop(books);
            hub.dials.wake();
        }
    }
    let asked = if short.is_empty() { 0 } else { asked };
    let wanted = held_up.max(asked).saturating_sub(leaving);
    // Those that become idle go then.
    let missing = asked.min(wanted.saturating_sub(idle.len()));
    room.asked.fetch_max(missing, Ordering::Relaxed);
    idle.sort_by_key(|(since, ..)| *since);
    for (_, hub, id) in idle.into_iter().take(wanted) {
        hub.retire_idle(id);
    }
    short.retain(|(_, pauses, _)| *pauses);
    short.sort_by_key(|(since, ..)| *since);
    for (.., hub) in short.into_iter().take(closed) {
        hub.transition(|books, now| books.slots.end_pause(now));
    }
}
