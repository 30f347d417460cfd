//! Servers that let us in, and then end each connection; and those that do not let anybody in.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{DialError, ScriptedLink, Server};
use crate::error::{Cause, Error};

/// What makes the server end a connection, every time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    Never,
    /// So long after its login, whatever is on it.
    After(Duration),
    /// The first open, which is not answered.
    AtOpen,
    /// The first open, which is granted.
    AfterOpen,
    /// The first command, which has started.
    AtExec,
    /// Nobody is let in: it says that there are too many.
    Throttles,
    /// Nobody is let in: it resets connections in the key exchange.
    Resets,
    /// Nobody is let in: it speaks another protocol.
    Garbage,
}

/// An attempt to log in, or the connection that came of it.
pub(super) struct Up(Server);

impl Drop for Up {
    fn drop(&mut self) {
        self.0.state().up.push((Instant::now(), -1));
    }
}

impl Ending {
    pub(super) fn after_login(self, link: &Arc<ScriptedLink>) {
        if let Ending::After(time) = self {
            let link = Arc::downgrade(link);
            tokio::spawn(async move {
                sleep(time).await;
                if let Some(link) = link.upgrade() {
                    link.die("ended by the server");
                }
            });
        }
    }
}

impl ScriptedLink {
    /// Ends the connection if this is what ends it.
    pub(super) fn ends_at(&self, moment: Ending) -> bool {
        let ends = self.server.state().ending == moment;
        if ends {
            self.die("ended by the server");
        }
        ends
    }
}

impl Server {
    /// From now on connections end like this.
    pub(crate) fn end_each(&self, ending: Ending) {
        self.state().ending = ending;
    }

    /// When each attempt to log in began (1) and its connection ended (-1), in order.
    pub(crate) fn up(&self) -> Vec<(Instant, i32)> {
        self.state().up.clone()
    }

    pub(super) fn begin_login(&self) -> Up {
        self.state().up.push((Instant::now(), 1));
        Up(self.clone())
    }

    pub(super) fn ends_at_exec(&self, link: u32) -> bool {
        let links = {
            let state = self.state();
            match state.ending {
                Ending::AtExec => state.links.clone(),
                _ => return false,
            }
        };
        let mut links = links.iter().filter_map(std::sync::Weak::upgrade);
        if let Some(link) = links.find(|other| other.id == link) {
            link.die("ended by the server");
        }
        true
    }

    /// How the next dial ends, if it fails.
    pub(super) fn next_failure(&self, name: &Arc<str>) -> Option<DialError> {
        let mut state = self.state();
        let (target, source) = (name.into(), Cause::new("closed"));
        let (error, passing) = match state.ending {
            Ending::Throttles => {
                let message = "Exceeded MaxStartups".into();
                let error = Error::Throttled {
                    target,
                    message,
                    source,
                };
                (error, true)
            }
            Ending::Resets => {
                let lost = true;
                let error = Error::KeyExchange {
                    target,
                    lost,
                    source,
                };
                (error, true)
            }
            Ending::Garbage => {
                let received = "220 ready".into();
                let error = Error::NotSsh {
                    target,
                    received,
                    source,
                };
                (error, false)
            }
            _ => return state.failures.pop_front(),
        };
        Some(DialError { error, passing })
    }
}
