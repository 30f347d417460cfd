//! What happens on a channel and is told to whoever watches the pool.

use std::time::Duration;

use super::{End, Inbox};
use crate::event::{EventKind, Witness};

impl Inbox {
    /// From now on what happens here is told.
    pub(crate) fn watch(&self, witness: Witness) {
        self.state().witness = Some(witness);
    }

    /// Tells of something that is not seen from in here.
    pub(crate) fn report(&self, kind: EventKind) {
        let witness = self.state().witness.clone();
        if let Some(witness) = witness {
            witness.report(kind);
        }
    }

    /// We have closed the channel over a command that may go on. Only the first who says so tells.
    pub(crate) fn leak(&self, after: Duration) {
        let first = {
            let mut state = self.state();
            let here = matches!(state.end, Some(End::ClosedHere { .. }));
            here && !std::mem::replace(&mut state.leaked, true)
        };
        if first {
            self.report(EventKind::Leaked { after });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Cause;
    use crate::event::{ConnectionRef, Reporter};

    #[test]
    fn a_leak_is_told_once_and_only_where_we_have_closed_the_channel() {
        let reporter = Arc::new(Reporter::default());
        let mut events = reporter.listen();
        for lost in [false, true] {
            let inbox = Inbox::default();
            inbox.watch(Witness {
                reporter: reporter.clone(),
                target: "t".into(),
                connection: ConnectionRef {
                    number: 7,
                    peer_addr: None,
                },
            });
            inbox.leak(Duration::ZERO);
            assert!(events.try_next().is_none(), "it goes on");
            if lost {
                inbox.end(End::Lost(Cause::new("reset")));
            } else {
                inbox.end_here();
            }
            inbox.leak(Duration::ZERO);
            inbox.leak(Duration::ZERO);
            let told: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
            assert_eq!(told.len(), usize::from(!lost), "{told:?}");
            assert!(told.iter().all(|event| event.connection == Some(7)));
        }
    }
}
