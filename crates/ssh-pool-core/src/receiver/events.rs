//! What happens on a channel and is reported as an event.

use std::time::Duration;

use super::{ChannelEnd, ChannelReceiver};
use crate::event::{EventKind, EventScope};

impl ChannelReceiver {
    /// From now on events of this channel are reported.
    pub(crate) fn watch(&self, event_scope: EventScope) {
        self.state().event_scope = Some(event_scope);
    }

    /// Tells of something that is not seen from in here.
    pub(crate) fn report(&self, kind: EventKind) {
        let event_scope = self.state().event_scope.clone();
        if let Some(event_scope) = event_scope {
            event_scope.report(kind);
        }
    }

    /// We have closed the channel over a command that may go on. Only the first who says so tells.
    pub(crate) fn leak(&self, after: Duration) {
        let first = {
            let mut state = self.state();
            let here = matches!(state.end, Some(ChannelEnd::ClosedHere { .. }));
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
            let receiver = ChannelReceiver::default();
            receiver.watch(EventScope {
                reporter: reporter.clone(),
                target: "t".into(),
                connection: ConnectionRef {
                    number: 7,
                    peer_addr: None,
                },
            });
            receiver.leak(Duration::ZERO);
            assert!(events.try_next().is_none(), "it goes on");
            if lost {
                receiver.end(ChannelEnd::Lost(Cause::new("reset")));
            } else {
                receiver.end_here();
            }
            receiver.leak(Duration::ZERO);
            receiver.leak(Duration::ZERO);
            let reported: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
            assert_eq!(reported.len(), usize::from(!lost), "{reported:?}");
            assert!(reported.iter().all(|event| event.connection == Some(7)));
        }
    }
}
