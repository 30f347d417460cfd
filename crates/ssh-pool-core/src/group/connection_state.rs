//! The session slots of one connection, as far as they can be known from this end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::host_state::ConnectionId;
use crate::event::Retirement;

/// First pause after a refused open; it doubles with every further refusal, five times at most.
const REFUSAL_PAUSE: Duration = Duration::from_millis(10);
/// A connection that granted sessions once and now refuses this often in a row, with none open,
/// is given up.
const BROKEN_AFTER: u32 = 6;

/// How many CLOSEs we had sent on a connection when a request was sent. A reply to that request proves
/// that the server has handled all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CloseSeq(u64);

/// What a refused open teaches.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenRefusal {
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
pub(crate) struct SessionCounts {
    pub(crate) id: ConnectionId,
    pub(crate) retiring: bool,
    pub(crate) opening: u32,
    pub(crate) idle: u32,
    pub(crate) in_use: u32,
    pub(crate) releasing: u32,
    pub(crate) streams: u32,
    /// The server owes an answer to an open or a ping.
    pub(crate) unanswered: bool,
    pub(crate) since: Instant,
}

#[derive(Debug)]
pub(super) struct ConnectionState {
    /// Takes no new channels; is disconnected as soon as nothing is in use.
    pub(super) retiring: bool,
    /// Since when.
    pub(super) retired_at: Instant,
    /// Why it is to be replaced.
    pub(super) expired: Option<Retirement>,
    /// The disconnect is on its way.
    pub(super) leaving: bool,
    pub(super) opening: u32,
    pub(super) idle: u32,
    pub(super) in_use: u32,
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
    pub(super) paused_until: Option<Instant>,
    /// Since when what was asked for here goes without any answer.
    pub(super) unanswered: Option<Instant>,
    /// The same, whatever else has been heard meanwhile.
    pub(super) pending_since: Option<Instant>,
    /// Stamps of slots whose CLOSE went out and whose release is not proven yet.
    releasing: VecDeque<u64>,
    /// Counts our CLOSEs.
    closes: u64,
    pinging: bool,
    /// Whether the server ever granted a session here.
    ever_granted: bool,
    /// Provisional limit after a first refusal, until one retry has settled it.
    ceiling: Option<u32>,
    /// The retry is under way.
    probing: bool,
    /// Pauses after refusals since the last granted open.
    refusals: u32,
    /// Those of them that came while nothing was held.
    idle_refusals: u32,
}

impl ConnectionState {
    pub(super) fn new(retiring: bool, now: Instant, retire_at: Instant) -> Self {
        Self {
            retiring,
            retired_at: now,
            expired: None,
            leaving: false,
            opening: 0,
            idle: 0,
            in_use: 0,
            streams: 0,
            closed_here: 0,
            lost: 0,
            used: false,
            since: now,
            idle_since: now,
            retire_at,
            paused_until: None,
            unanswered: None,
            pending_since: None,
            releasing: VecDeque::new(),
            closes: 0,
            pinging: false,
            ever_granted: false,
            ceiling: None,
            probing: false,
            refusals: 0,
            idle_refusals: 0,
        }
    }

    /// Slots that the server may be holding, late releases included.
    fn held(&self) -> u32 {
        self.idle + self.in_use + self.releasing() + self.lost
    }

    /// Slots that a round trip will show to be free.
    pub(super) fn releasing(&self) -> u32 {
        u32::try_from(self.releasing.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn occupied(&self) -> u32 {
        self.held() + self.opening
    }

    /// The server has granted no session here, and none is on its way.
    pub(super) fn is_untried(&self) -> bool {
        !self.ever_granted && self.opening == 0
    }

    /// How many channels may be opened now.
    pub(super) fn free_sessions(&self, learned: u32, now: Instant) -> u32 {
        if self.retiring || self.paused_until.is_some_and(|until| now < until) {
            return 0;
        }
        // One above the provisional ceiling: the retry that confirms or lifts it.
        let limit = self
            .ceiling
            .map_or(learned, |ceiling| learned.min(ceiling + 1));
        limit.saturating_sub(self.occupied())
    }

    pub(super) fn begin_open(&mut self, now: Instant) -> CloseSeq {
        if self
            .ceiling
            .is_some_and(|ceiling| self.occupied() >= ceiling)
        {
            self.probing = true;
        }
        self.opening += 1;
        self.expect_reply(now);
        CloseSeq(self.closes)
    }

    pub(super) fn granted(&mut self, close_seq: CloseSeq, now: Instant) {
        self.opening = self.opening.saturating_sub(1);
        self.answered(now);
        self.confirm_released(close_seq);
        self.ever_granted = true;
        self.refusals = 0;
        self.idle_refusals = 0;
        self.paused_until = None;
        if self.ceiling.is_some_and(|ceiling| self.held() >= ceiling) {
            // One more than the ceiling was granted: a false alarm.
            self.ceiling = None;
            self.probing = false;
        }
    }

    pub(super) fn refused(
        &mut self,
        close_seq: CloseSeq,
        learned: u32,
        now: Instant,
    ) -> OpenRefusal {
        self.opening = self.opening.saturating_sub(1);
        self.answered(now);
        // Replies come in order, so every open before this one has been answered: the server
        // holds no more than this.
        let held = self.held();
        self.confirm_released(close_seq);
        // A burst of opens that is refused together is one refusal.
        let another = self.paused_until.is_none_or(|until| now >= until);
        if another {
            self.refusals += 1;
            self.idle_refusals += u32::from(held == 0);
            self.paused_until = Some(now + REFUSAL_PAUSE * (1 << (self.refusals.min(6) - 1)));
        }

        if held == 0 {
            return match (self.opening, self.ever_granted) {
                (0, false) => OpenRefusal::NoSessions,
                (0, true) if self.idle_refusals >= BROKEN_AFTER => OpenRefusal::Broken,
                _ => OpenRefusal::Retry,
            };
        }
        match self.ceiling {
            // Refused at the limit we know: the server was late with a release.
            _ if held >= learned => OpenRefusal::Retry,
            None => {
                self.ceiling = Some(held);
                OpenRefusal::Retry
            }
            Some(ceiling) if self.probing => {
                self.ceiling = None;
                self.probing = false;
                OpenRefusal::Limit(ceiling.min(learned))
            }
            Some(_) => OpenRefusal::Retry,
        }
    }

    /// Why it is to be replaced, while it is in service.
    pub(super) fn expired_for(&self) -> Option<Retirement> {
        self.expired.filter(|_| !self.retiring)
    }

    /// Something that ran here has ended.
    pub(super) fn set_idle(&mut self, now: Instant) {
        self.used = true;
        self.idle_since = now;
    }

    /// Nothing needs this connection.
    pub(super) fn is_unused(&self) -> bool {
        self.in_use == 0 && self.streams == 0
    }

    /// A channel is no longer in use, or no longer idle.
    pub(super) fn release(&mut self, in_use: bool) {
        let count = if in_use {
            &mut self.in_use
        } else {
            &mut self.idle
        };
        *count = count.saturating_sub(1);
    }

    /// The peer's CLOSE has been answered; the slot is free once that is proven.
    pub(super) fn begin_release(&mut self) {
        self.closes += 1;
        self.releasing.push_back(self.closes);
    }

    /// Starts a round trip if slots are being released and none is under way.
    pub(super) fn begin_ping(&mut self, now: Instant) -> Option<CloseSeq> {
        if self.retiring || self.pinging || self.releasing.is_empty() {
            return None;
        }
        self.pinging = true;
        self.expect_reply(now);
        Some(CloseSeq(self.closes))
    }

    pub(super) fn end_ping(&mut self, close_seq: CloseSeq, now: Instant) {
        self.pinging = false;
        self.answered(now);
        self.confirm_released(close_seq);
    }

    fn expect_reply(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
        self.pending_since.get_or_insert(now);
    }

    /// An answer has come: the time of the others begins anew.
    fn answered(&mut self, now: Instant) {
        let others = self.opening > 0 || self.pinging;
        self.unanswered = others.then_some(now);
        self.pending_since = self.unanswered;
    }

    fn confirm_released(&mut self, close_seq: CloseSeq) {
        while self
            .releasing
            .front()
            .is_some_and(|stamp| *stamp <= close_seq.0)
        {
            self.releasing.pop_front();
        }
    }

    pub(super) fn counts(&self, id: ConnectionId) -> SessionCounts {
        SessionCounts {
            id,
            retiring: self.retiring,
            opening: self.opening,
            idle: self.idle,
            in_use: self.in_use,
            streams: self.streams,
            releasing: self.releasing() + self.lost,
            unanswered: self.unanswered.is_some(),
            since: self.since,
        }
    }
}
