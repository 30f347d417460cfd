//! One round: many commands at once, and a fault among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ssh_pool_tests::eventually_async;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::fault::Fault;
use crate::ledger::Id;
use crate::side::{Answer, Asked, Left, Side};

/// How long the network stays frozen: longer than both sides take to give a connection up.
const FROZEN: Duration = Duration::from_secs(4);
/// Nobody waits longer than this many limits for one command, whatever is tried again.
const PATIENCE: u32 = 6;

/// What is to happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) round: usize,
    pub(crate) fault: Fault,
    pub(crate) at_once: usize,
    /// The fault strikes when this many commands are under way, or half of them have begun.
    pub(crate) under_way: usize,
    pub(crate) limit: Duration,
}

/// What has happened on one side.
pub(crate) struct Round {
    pub(crate) plan: Plan,
    pub(crate) asked: Vec<(Id, Asked, Duration)>,
    pub(crate) logins: usize,
    pub(crate) left: Left,
    /// How many commands were under way when the fault struck; `None` when all were answered before
    /// it could.
    pub(crate) struck: Option<usize>,
    pub(crate) took: Duration,
}

impl Round {
    pub(crate) fn done(&self) -> usize {
        let done = |(_, asked, _): &&(Id, Asked, Duration)| asked.answer == Answer::Done;
        self.asked.iter().filter(done).count()
    }
}

pub(crate) async fn run(side: &Arc<Side>, plan: Plan) -> anyhow::Result<Round> {
    if plan.fault == Fault::Cold {
        side.chill().await;
    }
    let logins = side.test_host().sshd.accepted();
    let began = Instant::now();
    let mut commands = JoinSet::new();
    for number in 0..plan.at_once {
        let id = Id {
            round: plan.round,
            number,
        };
        let side = side.clone();
        commands.spawn(async move {
            let began = Instant::now();
            let answered = timeout(plan.limit * PATIENCE, side.ask(id)).await;
            let asked = answered.unwrap_or_else(|_| Asked {
                hung: true,
                ..Asked::default()
            });
            (id, asked, began.elapsed())
        });
    }
    let answered = AtomicBool::new(false);
    let answers = async {
        let mut asked = Vec::new();
        while let Some(command) = commands.join_next().await {
            asked.push(command?);
        }
        answered.store(true, Ordering::Relaxed);
        anyhow::Ok((asked, began.elapsed()))
    };
    let (answers, struck) = tokio::join!(answers, strike(side, plan, &answered));
    let (asked, took) = answers?;
    side.mend(plan.fault);
    Ok(Round {
        plan,
        asked,
        logins: side.test_host().sshd.accepted() - logins,
        left: side.left().await,
        struck,
        took,
    })
}

/// Waits for commands to be under way, and breaks something.
async fn strike(side: &Side, plan: Plan, answered: &AtomicBool) -> Option<usize> {
    if !plan.fault.strikes() {
        return Some(0);
    }
    let ledger = &side.test_host().ledger;
    let longest = plan.limit * PATIENCE * 2;
    let mut now = 0;
    let mut reached = || {
        let (begun, under_way) = ledger.progress(plan.round);
        now = under_way;
        under_way >= plan.under_way || begun * 2 >= plan.at_once && under_way > 0
    };
    eventually_async(longest, || reached() || answered.load(Ordering::Relaxed)).await;
    if answered.load(Ordering::Relaxed) {
        return None;
    }
    side.strike(plan.fault);
    if plan.fault == Fault::Frozen {
        sleep(FROZEN).await;
        side.test_host().proxy.thaw();
    }
    Some(now)
}
