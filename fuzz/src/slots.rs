//! The state of a host stays consistent in every scenario, and every waiter is served in the end.

use std::time::Duration;

use ssh_pool_core::internals::{STEPS, ScenarioConfig, run_scenario};

/// More only takes longer.
const LONGEST: usize = 1_000;

pub fn check(data: &[u8]) {
    let Some((
        [
            connections,
            sessions,
            server_limit,
            handshakes,
            expand_after,
            recovery,
            lifetime,
            drain,
            flags,
        ],
        story,
    )) = data.split_first_chunk()
    else {
        return;
    };
    let within = |byte: &u8, from: u32, to: u32| from + u32::from(*byte) % (to - from + 1);
    let scenario = ScenarioConfig {
        connections: within(connections, 1, 4),
        sessions: within(sessions, 1, 12),
        server_limit: within(server_limit, 1, 12),
        handshakes: within(handshakes, 1, 4),
        expand_after: Duration::from_millis(25 * u64::from(*expand_after)),
        recovery: Duration::from_secs(1 + u64::from(*recovery)),
        lifetime: Duration::from_secs(within(lifetime, 1, 60).into()),
        drain: Duration::from_secs(within(drain, 0, 20).into()),
        late_release: flags & 1 == 1,
        idle_each: flags & 2 == 2,
    };
    let steps = story.chunks_exact(2).take(LONGEST);
    run_scenario(
        scenario,
        steps.map(|step| (step[0] % STEPS, usize::from(step[1]))),
    );
}
