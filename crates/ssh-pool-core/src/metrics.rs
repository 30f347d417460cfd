//! What happens, in numbers, for the recorder that the program has installed: the feature
//! `metrics`, over the crate of that name.
//!
//! Counters go with the events, histograms with the end of a command, gauges with the maintenance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};

use crate::error::{CommandState, Error};
use crate::event::{EventKind, Retirement};
use crate::group::{self, ConnectionGroup};
use crate::host_pools::HostPools;
use crate::status::HostStatus;
use crate::waited::Waited;

const DIALS: &str = "ssh_pool_dials_total";
const FAILED_DIALS: &str = "ssh_pool_failed_dials_total";
const REFUSED_SESSIONS: &str = "ssh_pool_refused_sessions_total";
const RETIRED: &str = "ssh_pool_retired_connections_total";
const DIED: &str = "ssh_pool_died_connections_total";
const OVERRUNS: &str = "ssh_pool_overruns_total";
const LEAKS: &str = "ssh_pool_leaks_total";
const RERUNS: &str = "ssh_pool_reruns_total";
const BREAKERS: &str = "ssh_pool_opened_breakers_total";
const FULL: &str = "ssh_pool_full_queues_total";
const COMMANDS: &str = "ssh_pool_commands_total";
const COMMAND: &str = "ssh_pool_command_seconds";
const WAIT: &str = "ssh_pool_wait_seconds";

/// The gauges of a host, and what each shows.
const GAUGES: [(&str, &str, Show); 4] = [
    (
        "ssh_pool_connections",
        "Connections that take new commands.",
        |status| f64::from(status.connections) + f64::from(status.isolated),
    ),
    (
        "ssh_pool_running",
        "Sessions in use, and isolated connections in use.",
        |status| f64::from(status.running) + f64::from(status.isolated_busy),
    ),
    (
        "ssh_pool_waiting",
        "Commands that wait for a session.",
        |status| many(status.waiting) + many(status.isolated_waiting),
    ),
    (
        "ssh_pool_spare",
        "Opened sessions that wait for a command.",
        |status| f64::from(status.spare),
    ),
];

type Show = fn(&HostStatus) -> f64;

/// A count as a float. No queue is longer than fits.
fn many(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

/// Says what the numbers mean. Once for each pool: a recorder has to be there before.
pub(crate) fn describe() {
    for (name, text) in [
        (DIALS, "Connections made and authenticated."),
        (
            FAILED_DIALS,
            "Connections that could not be made, by phase.",
        ),
        (
            REFUSED_SESSIONS,
            "Sessions that servers refused. The queue absorbed them.",
        ),
        (
            RETIRED,
            "Connections that take no new commands any more, by reason.",
        ),
        (DIED, "Connections that ended by themselves."),
        (
            OVERRUNS,
            "Commands and streams cut off for more output than may be kept.",
        ),
        (
            LEAKS,
            "Cancelled commands of which the server has not said that they ended.",
        ),
        (RERUNS, "Attempts of idempotent commands after the first."),
        (BREAKERS, "How often hosts began to fail fast."),
        (FULL, "How often the queue of the pool became full."),
        (
            COMMANDS,
            "Commands that have ended, by result: ok, not_started, unknown, dropped.",
        ),
    ] {
        describe_counter!(name, Unit::Count, text);
    }
    describe_histogram!(
        COMMAND,
        Unit::Seconds,
        "From the call to the end of the command."
    );
    describe_histogram!(
        WAIT,
        Unit::Seconds,
        "From the call to a channel, by part: queue, dial, back_off, channel."
    );
    for (name, text, _) in GAUGES {
        describe_gauge!(name, Unit::Count, text);
    }
}

/// Something has happened.
pub(crate) fn count(host: &Arc<str>, kind: &EventKind) {
    let host = host.clone();
    match kind {
        EventKind::Dialled { .. } => counter!(DIALS, "host" => host).increment(1),
        EventKind::DialFailed { error, .. } => {
            let phase = error.phase().to_string().replace(' ', "_");
            counter!(FAILED_DIALS, "host" => host, "phase" => phase).increment(1);
        }
        EventKind::SessionRefused { .. } => {
            counter!(REFUSED_SESSIONS, "host" => host).increment(1);
        }
        EventKind::Retired { reason } => {
            counter!(RETIRED, "host" => host, "reason" => word(*reason)).increment(1);
        }
        EventKind::Died { .. } => counter!(DIED, "host" => host).increment(1),
        EventKind::Overrun { .. } => counter!(OVERRUNS, "host" => host).increment(1),
        EventKind::Leaked { .. } => counter!(LEAKS, "host" => host).increment(1),
        EventKind::Rerun { .. } => counter!(RERUNS, "host" => host).increment(1),
        EventKind::BreakerOpened { .. } => counter!(BREAKERS, "host" => host).increment(1),
        EventKind::QueueFull { .. } => counter!(FULL, "host" => host).increment(1),
        _ => {}
    }
}

fn word(reason: Retirement) -> &'static str {
    match reason {
        Retirement::Idle => "idle",
        Retirement::Lifetime => "lifetime",
        Retirement::Evicted => "evicted",
        Retirement::AddressChanged => "address_changed",
        Retirement::PoolClosed => "pool_closed",
        Retirement::Worn => "worn",
        Retirement::Refused => "refused",
        Retirement::Unresponsive => "unresponsive",
        Retirement::MadeRoom => "made_room",
    }
}

/// A command, from the call to its end. Dropped before that, it counts as dropped.
pub(crate) struct CommandTimer {
    host: Arc<str>,
    began: Instant,
    over: bool,
}

impl CommandTimer {
    /// Helper commands are not counted: no caller has asked for them.
    pub(crate) fn begin(pools: &HostPools, group: &Arc<ConnectionGroup>) -> Self {
        Self {
            host: group.name().clone(),
            began: group::now(),
            over: pools.is_for_control(group),
        }
    }

    /// It has ended, if it had not before.
    pub(crate) fn end<T>(&mut self, result: &Result<T, Error>, waited: &Waited) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.count(match result.as_ref().map_err(Error::command_state) {
            Ok(_) => "ok",
            Err(CommandState::NotStarted) => "not_started",
            Err(CommandState::Unknown) => "unknown",
        });
        let took = group::now().saturating_duration_since(self.began);
        histogram!(COMMAND, "host" => self.host.clone()).record(took);
        for (part, time) in waited.parts() {
            histogram!(WAIT, "host" => self.host.clone(), "part" => part).record(time);
        }
    }

    fn count(&self, result: &'static str) {
        counter!(COMMANDS, "host" => self.host.clone(), "result" => result).increment(1);
    }
}

impl Drop for CommandTimer {
    fn drop(&mut self) {
        if !self.over {
            self.count("dropped");
        }
    }
}

/// The gauges of the hosts of a pool. Dropped, they show nothing.
#[derive(Default)]
pub(crate) struct Gauges {
    shown: BTreeMap<String, [f64; GAUGES.len()]>,
}

impl Gauges {
    /// Shows how it is now. Identities that use the same account are one host here.
    pub(crate) fn show(&mut self, hosts: &[Arc<HostPools>]) {
        let mut gone = std::mem::take(&mut self.shown);
        for pools in hosts {
            let status = HostStatus::of(pools);
            gone.remove(&status.target);
            let values = self.shown.entry(status.target.clone()).or_default();
            for (value, (_, _, show)) in values.iter_mut().zip(GAUGES) {
                *value += show(&status);
            }
        }
        for host in gone.into_keys() {
            set(&host, [0.0; GAUGES.len()]);
        }
        for (host, values) in &self.shown {
            set(host, *values);
        }
    }
}

fn set(host: &str, values: [f64; GAUGES.len()]) {
    for (value, (name, _, _)) in values.into_iter().zip(GAUGES) {
        gauge!(name, "host" => host.to_owned()).set(value);
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        self.show(&[]);
    }
}
