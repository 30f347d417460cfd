//! Scenarios of a host, given from outside.

use std::time::Duration;

use crate::group::host_state::GroupConfig;
use crate::group::host_state::model_tests::{self, HostModel};

/// The number of kinds of steps.
pub const STEPS: u8 = model_tests::STEPS;

/// How a scenario begins.
#[derive(Debug, Clone, Copy)]
pub struct ScenarioConfig {
    /// Connections, at most.
    pub connections: u32,
    /// Sessions on each, as far as the pool knows.
    pub sessions: u32,
    /// Sessions on each, as the server has it.
    pub server_limit: u32,
    /// Dials at once.
    pub handshakes: u32,
    /// How long to wait before another connection is dialled.
    pub expand_after: Duration,
    /// After which a learned limit rises again.
    pub recovery: Duration,
    /// How old a connection may become.
    pub lifetime: Duration,
    /// After which a connection that was replaced holds up no other.
    pub drain: Duration,
    /// The server frees a session only with the next round trip.
    pub late_release: bool,
    /// Every free connection has a channel ready; then `sessions` is 1.
    pub idle_each: bool,
}

/// Runs a scenario. Checks after each step that the state is consistent, and at the end that every
/// waiter is served and old connections are replaced. A step is a kind, below [`STEPS`], and a choice.
///
/// # Panics
///
/// If a check fails.
pub fn run_scenario(scenario: ScenarioConfig, steps: impl IntoIterator<Item = (u8, usize)>) {
    let config = GroupConfig {
        connections: scenario.connections,
        sessions: match scenario.idle_each {
            true => 1,
            false => scenario.sessions,
        },
        streams: 512,
        held_connections: 0,
        urgent_connections: 0,
        handshakes: scenario.handshakes,
        expand_after: scenario.expand_after,
        idle: Duration::from_secs(300),
        recovery: scenario.recovery,
        drain: scenario.drain,
        check: Duration::from_secs(2),
        idle_each: scenario.idle_each,
    };
    let ScenarioConfig {
        server_limit,
        late_release,
        lifetime,
        ..
    } = scenario;
    let mut model = HostModel::new(config, server_limit, late_release, lifetime);
    for (what, pick) in steps {
        model.step(what, pick);
    }
    model.every_waiter_is_served_in_the_end();
    model.everything_old_goes_in_the_end();
}
