//! What befalls one connection through the fault proxy, step by step.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::relay::{Cut, Link};

/// How many bytes a second a line carries, for each direction. `None` is as many as there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// From server to client.
    pub from_server: Option<usize>,
    /// From client to server.
    pub from_client: Option<usize>,
}

impl Rate {
    /// So many bytes a second in each direction.
    #[must_use]
    pub fn both(bytes: usize) -> Self {
        Self {
            from_server: Some(bytes),
            from_client: Some(bytes),
        }
    }

    pub(crate) fn of(self, from: Side) -> Option<usize> {
        match from {
            Side::Server => self.from_server,
            Side::Client => self.from_client,
        }
    }
}

/// Something that is done to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Delays every later byte by that time, in each direction, in the place of the proxy's own
    /// delay.
    Delay(Duration),
    /// Carries so many bytes a second, in the place of the proxy's own rate.
    Throttle(Rate),
    /// Passes nothing on, until it thaws.
    Freeze,
    /// Passes nothing on that this side sends, until it thaws.
    FreezeFrom(Side),
    /// Passes on what has waited, and what comes.
    Thaw,
    /// [`Proxy::freeze`](crate::Proxy::freeze), for this connection and all the others: to go on
    /// when the test says so.
    FreezeAll,
    /// Ends it, or forgets it.
    Cut(Cut),
}

impl From<Cut> for Fault {
    fn from(cut: Cut) -> Self {
        Self::Cut(cut)
    }
}

/// When the next step of a script is due, and what is done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    when: When,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Passed(Side, usize),
    After(Duration),
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server.
    Server,
    /// The client.
    Client,
}

/// Which directions pass nothing on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frozen {
    from_server: bool,
    from_client: bool,
}

impl Frozen {
    pub(crate) const BOTH: Self = Self {
        from_server: true,
        from_client: true,
    };

    pub(crate) fn from(self, side: Side) -> bool {
        match side {
            Side::Server => self.from_server,
            Side::Client => self.from_client,
        }
    }

    pub(crate) fn add(&mut self, side: Side) {
        match side {
            Side::Server => self.from_server = true,
            Side::Client => self.from_client = true,
        }
    }
}

impl Step {
    /// As soon as the server has sent so many bytes in all, and they have been passed on. Not one
    /// more goes that way before.
    #[must_use]
    pub fn from_server(bytes: usize, fault: impl Into<Fault>) -> Self {
        Self::new(When::Passed(Side::Server, bytes), fault)
    }

    /// As soon as the client has sent so many bytes in all, and they have been passed on. Not one
    /// more goes that way before.
    #[must_use]
    pub fn from_client(bytes: usize, fault: impl Into<Fault>) -> Self {
        Self::new(When::Passed(Side::Client, bytes), fault)
    }

    /// So long after the step before it; the first one, after the connection was passed on.
    #[must_use]
    pub fn after(time: Duration, fault: impl Into<Fault>) -> Self {
        Self::new(When::After(time), fault)
    }

    fn new(when: When, fault: impl Into<Fault>) -> Self {
        let fault = fault.into();
        Self { when, fault }
    }
}

/// One connection on its way through its script.
#[derive(Debug)]
pub(crate) struct Course(watch::Sender<State>);

#[derive(Debug)]
struct State {
    script: Arc<[Step]>,
    link: watch::Sender<Link>,
    done: usize,
    /// When the last step was done.
    since: Instant,
    from_server: usize,
    from_client: usize,
    /// When something was passed on last.
    active: Instant,
    delay: Option<Duration>,
    rate: Option<Rate>,
    frozen: Frozen,
    cut: Option<Cut>,
}

impl State {
    fn count(&mut self, from: Side) -> &mut usize {
        match from {
            Side::Server => &mut self.from_server,
            Side::Client => &mut self.from_client,
        }
    }

    fn next(&self) -> Option<Step> {
        let ended = self.cut.is_some();
        self.script.get(self.done).copied().filter(|_| !ended)
    }

    /// Does all steps that are due.
    fn advance(&mut self) {
        while let Some(step) = self.next() {
            let due = match step.when {
                When::Passed(from, bytes) => *self.count(from) >= bytes,
                When::After(time) => Instant::now() >= self.since + time,
            };
            if !due {
                return;
            }
            self.done += 1;
            self.since = Instant::now();
            match step.fault {
                Fault::Delay(delay) => self.delay = Some(delay),
                Fault::Throttle(rate) => self.rate = Some(rate),
                Fault::Freeze => self.frozen = Frozen::BOTH,
                Fault::FreezeFrom(side) => self.frozen.add(side),
                Fault::Thaw => self.frozen = Frozen::default(),
                Fault::FreezeAll => self.link.send_modify(|link| link.frozen = Frozen::BOTH),
                Fault::Cut(cut) => self.cut = Some(cut),
            }
        }
    }
}

impl Course {
    pub(crate) fn new(script: Arc<[Step]>, link: watch::Sender<Link>) -> Self {
        let now = Instant::now();
        let mut state = State {
            script,
            link,
            done: 0,
            since: now,
            from_server: 0,
            from_client: 0,
            active: now,
            delay: None,
            rate: None,
            frozen: Frozen::default(),
            cut: None,
        };
        state.advance();
        Self(watch::Sender::new(state))
    }

    pub(crate) fn delay(&self, link: &watch::Receiver<Link>) -> Duration {
        let own = self.0.borrow().delay;
        own.unwrap_or_else(|| link.borrow().delay)
    }

    pub(crate) fn rate(&self, link: &watch::Receiver<Link>) -> Rate {
        let own = self.0.borrow().rate;
        own.unwrap_or_else(|| link.borrow().rate)
    }

    /// Waits until something may pass; says how many bytes may, before the next step is due.
    pub(crate) async fn room(&self, from: Side, link: &mut watch::Receiver<Link>) -> usize {
        let mut own = self.0.subscribe();
        loop {
            // Both senders outlive the connection.
            let _ = link.wait_for(|link| !link.frozen.from(from)).await;
            let free = |state: &State| !state.frozen.from(from) && state.cut.is_none();
            let _ = own.wait_for(free).await;
            if link.borrow().frozen.from(from) {
                continue;
            }
            let mut room = usize::MAX;
            self.0.send_if_modified(|state| {
                if let Some(When::Passed(of, bytes)) = state.next().map(|step| step.when)
                    && of == from
                {
                    // Never none: a step that is due has been done.
                    room = bytes.saturating_sub(*state.count(from)).max(1);
                }
                false
            });
            return room;
        }
    }

    /// That many bytes have been passed on.
    pub(crate) fn passed(&self, from: Side, bytes: usize) {
        self.0.send_modify(|state| {
            *state.count(from) += bytes;
            state.active = Instant::now();
            state.advance();
        });
    }

    /// Does what is due by time; returns when the script ends the connection.
    pub(crate) async fn run(&self) -> Cut {
        let mut changes = self.0.subscribe();
        loop {
            let (cut, next) = {
                let state = changes.borrow_and_update();
                let due = match state.next().map(|step| step.when) {
                    Some(When::After(time)) => Some(state.since + time),
                    _ => None,
                };
                (state.cut, due)
            };
            if let Some(cut) = cut {
                return cut;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = until(next) => self.0.send_modify(State::advance),
            }
        }
    }

    /// Returns when nothing has passed for as long as the proxy remembers a connection.
    pub(crate) async fn forgotten(&self, mut link: watch::Receiver<Link>) {
        let mut changes = self.0.subscribe();
        loop {
            let memory = link.borrow_and_update().memory;
            let active = changes.borrow_and_update().active;
            tokio::select! {
                _ = link.changed() => {}
                _ = changes.changed() => {}
                () = until(memory.map(|memory| active + memory)) => return,
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
