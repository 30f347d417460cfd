//! Stories of a host, told from outside.

use std::time::Duration;

use crate::hub::slots::Rules;
use crate::hub::slots::stories::{self, World};

/// So many kinds of steps there are.
pub const STEPS: u8 = stories::STEPS;

/// How a story begins.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    /// Connections, at most.
    pub connections: u32,
    /// Sessions on each, as far as the pool knows.
    pub sessions: u32,
    /// Sessions on each, as the server has it.
    pub server_limit: u32,
    /// Dials at once.
    pub handshakes: u32,
    /// How long to wait before another connection is dialled.
    pub patience: Duration,
    /// After which a learned limit creeps back up.
    pub recovery: Duration,
    /// How old a connection may become.
    pub lifetime: Duration,
    /// After which a connection that was replaced holds up no other.
    pub drain: Duration,
    /// The server frees a session only with the next round trip.
    pub late_release: bool,
    /// Every free connection has a channel ready; then `sessions` is 1.
    pub ready_each: bool,
}

/// Tells a story, and looks after each of its steps whether the books are true, and at the end
/// whether everybody is served and what is old goes. A step is a kind, below [`STEPS`], and a choice.
///
/// # Panics
///
/// If not.
pub fn tell(beginning: Beginning, steps: impl IntoIterator<Item = (u8, usize)>) {
    let rules = Rules {
        connections: beginning.connections,
        sessions: match beginning.ready_each {
            true => 1,
            false => beginning.sessions,
        },
        streams: 512,
        held_connections: 0,
        urgent_connections: 0,
        handshakes: beginning.handshakes,
        patience: beginning.patience,
        idle: Duration::from_secs(300),
        recovery: beginning.recovery,
        drain: beginning.drain,
        check: Duration::from_secs(2),
        ready_each: beginning.ready_each,
    };
    let Beginning {
        server_limit,
        late_release,
        lifetime,
        ..
    } = beginning;
    let mut world = World::new(rules, server_limit, late_release, lifetime);
    for (what, pick) in steps {
        world.step(what, pick);
    }
    world.everybody_is_served_in_the_end();
    world.everything_old_goes_in_the_end();
}
