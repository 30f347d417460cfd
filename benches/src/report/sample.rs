//! Reports made by hand, for tests.

use super::names::{contender, metric, scenario, setting, unit};
use super::{Note, Report, Series};

pub(super) fn series(
    scenario: &str,
    setting: &str,
    contender: &str,
    metric: &str,
    unit: &str,
    rounds: &[f64],
) -> Series {
    Series {
        scenario: scenario.to_owned(),
        setting: setting.to_owned(),
        contender: contender.to_owned(),
        metric: metric.to_owned(),
        unit: unit.to_owned(),
        rounds: rounds.iter().copied().map(Some).collect(),
    }
}

/// One with all scenarios, in which ours is some times better than each of the others.
pub(super) fn report() -> Report {
    let delays = [
        (setting::DELAY_0, 0.0),
        (setting::DELAY_10, 10.0),
        (setting::DELAY_40, 40.0),
        (setting::DELAY_100, 100.0),
    ];
    let others = [
        (contender::SSH_MUX, 4.6, 2.0),
        (contender::OPENSSH_PROCESS, 5.1, 2.0),
        (contender::OPENSSH_NATIVE, 1.5, 2.0),
        (contender::ASYNC_SSH2, 1.4, 2.0),
        (contender::RUSSH, 1.3, 2.0),
        (contender::SSH, 92.0, 9.0),
    ];
    let mut all = vec![];
    for (who, own, trips) in std::iter::once((contender::SSH_POOL, 1.1, 1.0)).chain(others) {
        for (setting, delay) in delays {
            for (metric, more) in [(metric::P50, 1.0), (metric::P90, 1.2), (metric::P99, 1.9)] {
                let value = own * more + delay * trips;
                let rounds = [value, value * 1.5, value * 1.1];
                all.push(series(
                    scenario::WARM,
                    setting,
                    who,
                    metric,
                    unit::MS,
                    &rounds,
                ));
            }
            let time = own.mul_add(2.0, 18.0) + delay * (trips + 4.0);
            all.push(series(
                scenario::COLD,
                setting,
                who,
                metric::TIME,
                unit::MS,
                &[time],
            ));
        }
        for setting in [setting::COLD, setting::WARM] {
            let failed = if who == contender::SSH_POOL {
                0.0
            } else {
                own.round()
            };
            let burst =
                |metric, unit, value| series(scenario::BURST, setting, who, metric, unit, &[value]);
            all.push(burst(metric::TIME, unit::MS, own * 150.0));
            all.push(burst(metric::FAILURES, unit::NONE, failed));
            all.push(burst(metric::LOGINS, unit::NONE, 3.0));
        }
        let cost = |metric, unit, value| {
            series(
                scenario::COST,
                "1,000 commands",
                who,
                metric,
                unit,
                &[value],
            )
        };
        all.push(cost(metric::CPU, unit::S, own * own * 0.25));
        all.push(cost(metric::PEAK_MEMORY, unit::MIB, own * 9.0));
        if who == contender::SSH_MUX {
            all.push(cost(metric::MASTER, unit::KIB, 5_200.0));
        } else if who != contender::SSH {
            all.push(cost(metric::IDLE_CONNECTION, unit::KIB, 87.0 + own));
        }
        for setting in [
            setting::DOWN_DEFAULT,
            setting::UP_DEFAULT,
            setting::DOWN_SAME,
            setting::UP_SAME,
        ] {
            let rate = 640.0 / own.sqrt();
            all.push(series(
                scenario::BULK,
                setting,
                who,
                metric::RATE,
                unit::RATE,
                &[rate],
            ));
        }
    }
    // Something that failed in every round.
    for series in &mut all {
        if series.contender == contender::ASYNC_SSH2 && series.setting == setting::UP_DEFAULT {
            series.rounds = vec![None];
        }
    }
    for (metric, unit, value) in [
        (metric::MEMORY, unit::MIB, 101.0),
        (metric::IDLE_CPU, unit::PERCENT, 1.4),
    ] {
        let who = contender::SSH_POOL;
        all.push(series(
            scenario::SCALE,
            setting::THOUSAND_HOSTS,
            who,
            metric,
            unit,
            &[value],
        ));
    }
    Report {
        command: "cargo run --release -p ssh-pool-benches --bin compare".to_owned(),
        machine: vec![
            ("Linux".to_owned(), "6.1".to_owned()),
            ("processors".to_owned(), "2".to_owned()),
        ],
        series: all,
        notes: vec![Note {
            scenario: scenario::BURST.to_owned(),
            setting: setting::COLD.to_owned(),
            contender: contender::SSH_MUX.to_owned(),
            text: "mux_client_request_session: <refused> | by *peer*".to_owned(),
            times: 12,
        }],
    }
}
