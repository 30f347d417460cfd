//! The session slots of one connection, as far as they can be known from this end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::slots::ConnectionId;
use crate::event::Retirement;

/// First pause after a refused open; it doubles with every further refusal, five times at most.
const HOLD: Duration = Duration::from_millis(10);
/// A connection that granted sessions once and now refuses this often in a row, with none open,
/// is given up.
const BROKEN_AFTER: u32 = 6;

/// A point in a connection's logical time. A reply to a request that was sent at a mark proves
/// that the server has handled every CLOSE we sent before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

/// What a refused open teaches.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lesson {
    /// Nothing yet: try again in a moment.
    Retry,
    /// The server's limit of sessions a connection.
    Limit(u32),
    /// This connection gives no sessions any more.
    Broken,
    /// The server gives no session at all.
    NoSessions,
}

/// One connection as the status shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) id: ConnectionId,
    pub(crate) retiring: bool,
    pub(crate) opening: u32,
    pub(crate) ready: u32,
    pub(crate) leased: u32,
    pub(crate) cooling: u32,
    pub(crate) streams: u32,
    /// It owes an answer.
    pub(crate) unanswered: bool,
    pub(crate) since: Instant,
}

#[derive(Debug)]
pub(super) struct Sessions {
    /// Takes no new channels; is disconnected as soon as nothing is leased.
    pub(super) retiring: bool,
    /// Since when.
    pub(super) retired_at: Instant,
    /// Why it is to be replaced.
    pub(super) due: Option<Retirement>,
    /// The goodbye is on its way.
    pub(super) leaving: bool,
    pub(super) opening: u32,
    pub(super) ready: u32,
    pub(super) leased: u32,
    /// Streams and forwards, which are no sessions to the server.
    pub(super) streams: u32,
    /// Channels that we closed first, for each of which the transport keeps an entry.
    pub(super) closed_here: u32,
    /// Slots of such channels that the server may keep for as long as this connection lives.
    pub(super) lost: u32,
    /// Something has run here.
    pub(super) used: bool,
    /// When it was made.
    since: Instant,
    pub(super) idle_since: Instant,
    pub(super) retire_at: Instant,
    /// No open before this time: a refusal was just seen.
    pub(super) hold: Option<Instant>,
    /// Since when what was asked for here goes without any answer.
    pub(super) unanswered: Option<Instant>,
    /// The same, whatever else has been heard meanwhile.
    pub(super) owing: Option<Instant>,
    /// Stamps of slots whose CLOSE went out and whose release is not proven yet.
    cooling: VecDeque<u64>,
    /// Ticks with every CLOSE.
    clock: u64,
    pinging: bool,
    /// Whether the server ever granted a session here.
    proven: bool,
    /// Provisional limit after a first refusal, until one retry has settled it.
    ceiling: Option<u32>,
    /// The retry is under way.
    probing: bool,
    /// Pauses after refusals since the last granted open.
    refusals: u32,
    /// Those of them that came while nothing was held.
    barren: u32,
}

impl Sessions {
    pub(super) fn new(retiring: bool, now: Instant, retire_at: Instant) -> Self {
        Self {
            retiring,
            retired_at: now,
            due: None,
            leaving: false,
            opening: 0,
            ready: 0,
            leased: 0,
            streams: 0,
            closed_here: 0,
            lost: 0,
            used: false,
            since: now,
            idle_since: now,
            retire_at,
            hold: None,
            unanswered: None,
            owing: None,
            cooling: VecDeque::new(),
            clock: 0,
            pinging: false,
            proven: false,
            ceiling: None,
            probing: false,
            refusals: 0,
            barren: 0,
        }
    }

    /// Slots that the server may be holding, late releases included.
    fn held(&self) -> u32 {
        self.ready + self.leased + self.cooling() + self.lost
    }

    /// Slots that a round trip will show to be free.
    pub(super) fn cooling(&self) -> u32 {
        u32::try_from(self.cooling.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn occupied(&self) -> u32 {
        self.held() + self.opening
    }

    /// The server has granted no session here, and none is on its way.
    pub(super) fn is_untried(&self) -> bool {
        !self.proven && self.opening == 0
    }

    /// How many channels may be opened now.
    pub(super) fn room(&self, learned: u32, now: Instant) -> u32 {
        if self.retiring || self.hold.is_some_and(|until| now < until) {
            return 0;
        }
        // One above the provisional ceiling: the retry that confirms or lifts it.
        let limit = self
            .ceiling
            .map_or(learned, |ceiling| learned.min(ceiling + 1));
        limit.saturating_sub(self.occupied())
    }

    pub(super) fn begin_open(&mut self, now: Instant) -> Mark {
        if self
            .ceiling
            .is_some_and(|ceiling| self.occupied() >= ceiling)
        {
            self.probing = true;
        }
        self.opening += 1;
        self.owe(now);
        Mark(self.clock)
    }

    pub(super) fn granted(&mut self, mark: Mark, now: Instant) {
        self.opening = self.opening.saturating_sub(1);
        self.answered(now);
        self.prove(mark);
        self.proven = true;
        self.refusals = 0;
        self.barren = 0;
        self.hold = None;
        if self.ceiling.is_some_and(|ceiling| self.held() >= ceiling) {
            // One more than the ceiling was granted: a false alarm.
            self.ceiling = None;
            self.probing = false;
        }
    }

    pub(super) fn refused(&mut self, mark: Mark, learned: u32, now: Instant) -> Lesson {
        self.opening = self.opening.saturating_sub(1);
        self.answered(now);
        // Replies come in order, so every open before this one has been answered: the server
        // holds no more than this.
        let held = self.held();
        self.prove(mark);
        // A burst of opens that is refused together is one refusal.
        let another = self.hold.is_none_or(|until| now >= until);
        if another {
            self.refusals += 1;
            self.barren += u32::from(held == 0);
            self.hold = Some(now + HOLD * (1 << (self.refusals.min(6) - 1)));
        }

        if held == 0 {
            return match (self.opening, self.proven) {
                (0, false) => Lesson::NoSessions,
                (0, true) if self.barren >= BROKEN_AFTER => Lesson::Broken,
                _ => Lesson::Retry,
            };
        }
        match self.ceiling {
            // Refused at the limit we know: the server was late with a release.
            _ if held >= learned => Lesson::Retry,
            None => {
                self.ceiling = Some(held);
                Lesson::Retry
            }
            Some(ceiling) if self.probing => {
                self.ceiling = None;
                self.probing = false;
                Lesson::Limit(ceiling.min(learned))
            }
            Some(_) => Lesson::Retry,
        }
    }

    /// Why it is to be replaced, while it is in service.
    pub(super) fn due_for(&self) -> Option<Retirement> {
        self.due.filter(|_| !self.retiring)
    }

    /// Something that ran here has ended.
    pub(super) fn rest(&mut self, now: Instant) {
        self.used = true;
        self.idle_since = now;
    }

    /// Nothing needs this connection.
    pub(super) fn is_unused(&self) -> bool {
        self.leased == 0 && self.streams == 0
    }

    /// A channel is no longer in use, or no longer a spare.
    pub(super) fn release(&mut self, leased: bool) {
        let count = if leased {
            &mut self.leased
        } else {
            &mut self.ready
        };
        *count = count.saturating_sub(1);
    }

    /// The peer's CLOSE has been answered; the slot is free once that is proven.
    pub(super) fn cool(&mut self) {
        self.clock += 1;
        self.cooling.push_back(self.clock);
    }

    /// A round trip is worth making: slots cool, and nobody is measuring.
    pub(super) fn begin_ping(&mut self, now: Instant) -> Option<Mark> {
        if self.retiring || self.pinging || self.cooling.is_empty() {
            return None;
        }
        self.pinging = true;
        self.owe(now);
        Some(Mark(self.clock))
    }

    pub(super) fn end_ping(&mut self, mark: Mark, now: Instant) {
        self.pinging = false;
        self.answered(now);
        self.prove(mark);
    }

    fn owe(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
        self.owing.get_or_insert(now);
    }

    /// An answer has come; the others have so long from now.
    fn answered(&mut self, now: Instant) {
        let others = self.opening > 0 || self.pinging;
        self.unanswered = others.then_some(now);
        self.owing = self.unanswered;
    }

    fn prove(&mut self, mark: Mark) {
        while self.cooling.front().is_some_and(|stamp| *stamp <= mark.0) {
            self.cooling.pop_front();
        }
    }

    pub(super) fn view(&self, id: ConnectionId) -> View {
        View {
            id,
            retiring: self.retiring,
            opening: self.opening,
            ready: self.ready,
            leased: self.leased,
            streams: self.streams,
            cooling: self.cooling() + self.lost,
            unanswered: self.unanswered.is_some(),
            since: self.since,
        }
    }
}
