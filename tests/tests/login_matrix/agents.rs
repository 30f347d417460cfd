//! What `$SSH_AUTH_SOCK` names.

use std::path::PathBuf;

use ssh_pool_tests::{Agent, Habit, KeyFormat, OddAgent, TempDir, generate};

use crate::keys::Stock;

pub(crate) struct AgentKind {
    pub(crate) name: &'static str,
    /// Tried with every server, and the sets of keys that are common, too.
    pub(crate) is_common: bool,
}

/// All of them, which serve all rows.
pub(crate) struct Agents {
    odd: OddAgent,
    right: Agent,
    wrong: Agent,
    nine: Agent,
    nine_and_right: Agent,
    locked: Agent,
    certified: Agent,
    dead: PathBuf,
}

impl Agents {
    pub(crate) fn start(stock: &Stock) -> Self {
        let agent = |names: &[&str]| {
            let agent = Agent::start();
            names.iter().for_each(|name| agent.add(&stock.path(name)));
            agent
        };
        let (dir, nine, nine_and_right) = (TempDir::new(), Agent::start(), Agent::start());
        for number in 0..9 {
            let name = format!("other_{number}");
            let key = generate(dir.path(), &name, "ed25519", None, KeyFormat::OpenSsh);
            nine.add(key.private());
            nine_and_right.add(key.private());
        }
        nine_and_right.add(&stock.path("right_ed25519"));
        let locked = agent(&["right_ed25519"]);
        locked.lock();
        let gone = Agent::start();
        let dead = gone.socket();
        drop(gone);
        let right = agent(&["right_ed25519"]);
        Self {
            odd: OddAgent::start(&right, Habit::UnknownTypes),
            right,
            wrong: agent(&["wrong_ed25519"]),
            nine,
            nine_and_right,
            locked,
            certified: agent(&["certified"]),
            dead,
        }
    }

    pub(crate) fn all(&self) -> Vec<(AgentKind, Option<PathBuf>)> {
        let common = |name| AgentKind {
            name,
            is_common: true,
        };
        let other = |name| AgentKind {
            name,
            is_common: false,
        };
        vec![
            (common("none"), None),
            (common("holds the right one"), Some(self.right.socket())),
            (other("holds a wrong one"), Some(self.wrong.socket())),
            (common("holds nine others"), Some(self.nine.socket())),
            (
                other("holds nine others and it"),
                Some(self.nine_and_right.socket()),
            ),
            (other("holds unknown types and it"), Some(self.odd.socket())),
            (other("is locked"), Some(self.locked.socket())),
            (other("holds a certificate"), Some(self.certified.socket())),
            (other("is dead"), Some(self.dead.clone())),
        ]
    }
}
