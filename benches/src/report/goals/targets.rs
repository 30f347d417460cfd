//! Our goals: which figure, beside whose, and its limit.

use super::Limit;
use crate::report::names::{contender, metric, scenario, setting};

/// Which figure, and of what.
#[derive(Clone, Copy)]
pub(super) struct Of {
    pub(super) scenario: &'static str,
    /// `None` where the scenario has only one.
    pub(super) setting: Option<&'static str>,
    pub(super) metric: &'static str,
}

pub(super) struct Target {
    pub(super) number: u8,
    pub(super) of: Of,
    pub(super) against: Against,
    pub(super) limit: Limit,
}

#[derive(Clone, Copy)]
pub(super) enum Against {
    /// Our figure by itself.
    Nothing,
    /// By the figure of the first of these that has one.
    Contender(&'static [&'static str]),
    /// By another metric of another contender.
    Other(&'static str, &'static str),
}

const fn of(scenario: &'static str, setting: &'static str, metric: &'static str) -> Of {
    Of {
        scenario,
        setting: Some(setting),
        metric,
    }
}

const fn cost(metric: &'static str) -> Of {
    Of {
        scenario: scenario::COST,
        setting: None,
        metric,
    }
}

const fn goal(number: u8, of: Of, against: Against, limit: Limit) -> Target {
    Target {
        number,
        of,
        against,
        limit,
    }
}

const MUX: Against = Against::Contender(&[contender::SSH_MUX]);
const NATIVE: Against = Against::Contender(&[contender::OPENSSH_NATIVE]);
const RUSSH: Against = Against::Contender(&[contender::RUSSH]);
/// The stock client: with or without a master does not matter to it here.
const SSH: Against = Against::Contender(&[contender::SSH, contender::SSH_MUX]);
const NEW_SSH: Against = Against::Contender(&[contender::SSH]);

const WARM_0: Of = of(scenario::WARM, setting::DELAY_0, metric::P50);
const WARM_40: Of = of(scenario::WARM, setting::DELAY_40, metric::P50);
const WARM_100: Of = of(scenario::WARM, setting::DELAY_100, metric::P50);

const fn burst(setting: &'static str, metric: &'static str) -> Of {
    of(scenario::BURST, setting, metric)
}

const fn bulk(setting: &'static str) -> Of {
    of(scenario::BULK, setting, metric::RATE)
}

const fn scale(metric: &'static str) -> Of {
    of(scenario::SCALE, setting::THOUSAND_HOSTS, metric)
}

const fn cold(setting: &'static str) -> Of {
    of(scenario::COLD, setting, metric::TIME)
}

/// Goal 6 is for the benches of criterion, and goal 8 for the example `incident_replay`.
pub(super) const TARGETS: &[Target] = &[
    goal(1, WARM_0, MUX, Limit::AtMost(0.25)),
    goal(1, WARM_0, NATIVE, Limit::AtMost(0.78)),
    goal(1, WARM_0, RUSSH, Limit::AtMost(0.85)),
    goal(1, WARM_40, MUX, Limit::AtMost(0.55)),
    goal(1, WARM_40, NATIVE, Limit::AtMost(0.55)),
    goal(1, WARM_40, RUSSH, Limit::AtMost(0.55)),
    goal(1, WARM_100, MUX, Limit::AtMost(0.55)),
    goal(1, WARM_100, NATIVE, Limit::AtMost(0.55)),
    goal(1, WARM_100, RUSSH, Limit::AtMost(0.55)),
    goal(
        2,
        burst(setting::COLD, metric::FAILURES),
        Against::Nothing,
        Limit::AtMost(0.0),
    ),
    goal(
        2,
        burst(setting::WARM, metric::FAILURES),
        Against::Nothing,
        Limit::AtMost(0.0),
    ),
    goal(
        2,
        burst(setting::COLD, metric::LOGINS),
        Against::Nothing,
        Limit::AtMost(4.0),
    ),
    goal(
        2,
        burst(setting::WARM, metric::LOGINS),
        Against::Nothing,
        Limit::AtMost(4.0),
    ),
    goal(
        2,
        burst(setting::COLD, metric::TIME),
        MUX,
        Limit::AtMost(0.5),
    ),
    goal(
        2,
        burst(setting::WARM, metric::TIME),
        MUX,
        Limit::AtMost(0.5),
    ),
    goal(3, cost(metric::CPU), MUX, Limit::AtMost(0.08)),
    goal(
        3,
        cost(metric::IDLE_CONNECTION),
        Against::Nothing,
        Limit::AtMost(110.0),
    ),
    goal(
        3,
        cost(metric::IDLE_CONNECTION),
        Against::Other(contender::SSH_MUX, metric::MASTER),
        Limit::AtMost(0.03),
    ),
    goal(4, bulk(setting::DOWN_DEFAULT), SSH, Limit::AtLeast(1.5)),
    goal(4, bulk(setting::UP_DEFAULT), SSH, Limit::AtLeast(1.5)),
    goal(4, bulk(setting::DOWN_SAME), SSH, Limit::AtLeast(1.0)),
    goal(4, bulk(setting::UP_SAME), SSH, Limit::AtLeast(1.0)),
    goal(5, cold(setting::DELAY_0), NEW_SSH, Limit::AtMost(0.25)),
    goal(5, cold(setting::DELAY_40), NEW_SSH, Limit::AtMost(0.9)),
    goal(
        7,
        scale(metric::MEMORY),
        Against::Nothing,
        Limit::AtMost(130.0),
    ),
    goal(
        7,
        scale(metric::IDLE_CPU),
        Against::Nothing,
        Limit::AtMost(1.0),
    ),
];
