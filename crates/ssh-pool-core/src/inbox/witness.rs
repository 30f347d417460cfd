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
