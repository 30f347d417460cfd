//! What became of the commands, by what their callers were told and what the server wrote down.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;
use std::time::Duration;

use serde::Serialize;
use ssh_pool_examples::Timings;

use crate::fault::Fault;
use crate::ledger::Id;
use crate::side::{Answer, Asked, Left};
use crate::storm::Round;

/// Counts of commands, unless it says otherwise.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Count {
    pub(crate) rounds: usize,
    pub(crate) asked: usize,
    /// They ran at the moment when a fault struck.
    pub(crate) under_way: usize,
    /// Exit code 0, its own output, and it began once.
    pub(crate) succeeded: usize,
    pub(crate) failed: usize,
    /// Failed, and never began. Of ssh-pool those that it calls `NotStarted`; OpenSSH does not say,
    /// so there the ledger does.
    pub(crate) never_started: usize,
    /// Failed, and ssh-pool says `Unknown`: it was on its way, or ran, when its connection was lost.
    pub(crate) in_doubt: usize,
    /// … and the ledger says that it had not begun.
    pub(crate) in_doubt_not_begun: usize,
    /// Failed, and the error says whether it may have run.
    pub(crate) told: usize,
    /// Failed, though it had begun.
    pub(crate) answer_lost: usize,
    /// A process or a call had to be ended because its time was over.
    pub(crate) hung: usize,
    pub(crate) ran_twice: usize,
    /// Of those, the ones whose caller was told of success.
    pub(crate) ran_twice_in_silence: usize,
    /// What a caller was told is not what the ledger says.
    pub(crate) contradictions: usize,
    /// Tries after the first one.
    pub(crate) retries: usize,
    /// Control sockets that nobody answers, after a round and not before it.
    pub(crate) stale_sockets: usize,
    /// Connections and background processes that serve nobody, after a round and not before it.
    pub(crate) left_behind: usize,
    /// On the server.
    pub(crate) logins: usize,
    /// Beyond one for each round that begins without a connection or loses it.
    pub(crate) extra_logins: usize,
    /// Lines of ssh itself in the standard error of commands.
    pub(crate) noise: usize,
    /// Rounds whose fault came too late.
    pub(crate) not_struck: usize,
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    #[serde(skip)]
    timings: Timings,
}

impl Count {
    fn of(round: &Round, starts: &HashMap<String, usize>) -> Self {
        let mut count = Self {
            rounds: 1,
            logins: round.logins,
            extra_logins: round.logins.saturating_sub(round.plan.fault.logins()),
            under_way: round.struck.unwrap_or_default(),
            not_struck: usize::from(round.struck.is_none()),
            seconds: round.took.as_secs_f64(),
            ..Self::default()
        };
        for (id, asked, took) in &round.asked {
            let ran = starts.get(&id.to_string()).copied().unwrap_or_default();
            count.add(*id, asked, ran, *took);
        }
        count
    }

    fn add(&mut self, id: Id, asked: &Asked, ran: usize, took: Duration) {
        self.asked += 1;
        self.timings.push(took);
        self.hung += usize::from(asked.hung);
        self.retries += asked.retries;
        self.noise += asked.noise;
        self.ran_twice += usize::from(ran > 1);
        let done = asked.answer == Answer::Done;
        self.succeeded += usize::from(done && ran == 1);
        self.ran_twice_in_silence += usize::from(done && ran > 1);
        let begun = ran > 0;
        let contradiction = match &asked.answer {
            Answer::Done => !begun,
            Answer::Wrong => true,
            Answer::NotStarted(_) => {
                self.never_started += 1;
                self.told += 1;
                begun
            }
            Answer::Unknown(_) => {
                self.in_doubt += 1;
                self.told += 1;
                self.in_doubt_not_begun += usize::from(!begun);
                false
            }
            Answer::Failed(_) | Answer::Nothing => {
                self.never_started += usize::from(!begun);
                false
            }
        };
        if !done {
            self.failed += 1;
            self.answer_lost += usize::from(begun);
        }
        if contradiction {
            self.contradictions += 1;
            eprintln!(
                "{id} began {ran} times, and its caller was told {:?}",
                asked.answer
            );
        }
    }

    /// What ssh-pool promises to be zero, and is not.
    pub(crate) fn broken(&self) -> Vec<String> {
        let promised = [
            ("failed without having started", self.never_started),
            ("ran twice", self.ran_twice),
            ("hung past the limit", self.hung),
            ("stale sockets", self.stale_sockets),
            ("connections left behind", self.left_behind),
            ("contradicted by the ledger", self.contradictions),
        ];
        (promised.into_iter())
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect()
    }

    fn summarise(&mut self) {
        self.p50_ms = self.timings.quantile_ms(0.5);
        self.p99_ms = self.timings.quantile_ms(0.99);
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.asked += other.asked;
        self.under_way += other.under_way;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.never_started += other.never_started;
        self.in_doubt += other.in_doubt;
        self.in_doubt_not_begun += other.in_doubt_not_begun;
        self.told += other.told;
        self.answer_lost += other.answer_lost;
        self.hung += other.hung;
        self.ran_twice += other.ran_twice;
        self.ran_twice_in_silence += other.ran_twice_in_silence;
        self.contradictions += other.contradictions;
        self.retries += other.retries;
        self.stale_sockets += other.stale_sockets;
        self.left_behind += other.left_behind;
        self.logins += other.logins;
        self.extra_logins += other.extra_logins;
        self.noise += other.noise;
        self.not_struck += other.not_struck;
        self.seconds += other.seconds;
        self.timings.extend(other.timings);
    }
}

/// Everything about one side.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Tally {
    pub(crate) side: &'static str,
    pub(crate) faults: BTreeMap<Fault, Count>,
    /// What callers were told, and how often.
    pub(crate) errors: BTreeMap<Fault, BTreeMap<String, usize>>,
    pub(crate) total: Count,
}

impl Tally {
    /// Of all rounds, when the ledger is complete; `left` is what did not end at the end.
    pub(crate) fn of(
        side: &'static str,
        rounds: &[Round],
        starts: &HashMap<String, usize>,
        left: Left,
    ) -> Self {
        let mut faults = BTreeMap::<Fault, Count>::new();
        let mut errors = BTreeMap::<Fault, BTreeMap<String, usize>>::new();
        let mut total = Count::default();
        let mut before = Left::default();
        for round in rounds {
            let errors = errors.entry(round.plan.fault).or_default();
            for (_, asked, _) in &round.asked {
                if let Some(text) = asked.answer.error() {
                    *errors.entry(text.to_owned()).or_default() += 1;
                }
            }
            let mut count = Count::of(round, starts);
            let fresh = round.left.since(before);
            before = round.left;
            (count.stale_sockets, count.left_behind) = (fresh.stale, fresh.behind);
            *faults.entry(round.plan.fault).or_default() += count.clone();
            total += count;
        }
        let fresh = left.since(before);
        total.stale_sockets += fresh.stale;
        total.left_behind += fresh.behind;
        faults.values_mut().for_each(Count::summarise);
        total.summarise();
        Self {
            side,
            faults,
            errors,
            total,
        }
    }
}
