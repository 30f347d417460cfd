//! The channels of a connection under loom: however a channel is opened and ended, its receiver
//! ends.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::transport::CloseSignal;

/// russh hands out channel numbers only with channels; this is the first one.
fn first_channel() -> ChannelId {
    use russh::keys::ssh_encoding::Decode;
    ChannelId::decode(&mut [0u8, 0, 0, 0].as_slice()).expect("four bytes are a number")
}

#[test]
fn a_channel_that_closes_while_it_is_being_claimed_is_seen_closed() {
    loom::model(|| {
        let channels = Arc::new(ChannelTable::default());
        let id = first_channel();
        let session = {
            let channels = channels.clone();
            thread::spawn(move || {
                channels.confirmed(id);
                channels.end(id, ChannelEnd::Closed);
            })
        };
        let receiver = channels.claim(id);
        session.join().expect("no panic");
        assert!(receiver.has_ended());
        assert!(channels.of_data(id).is_none(), "no entry stays behind");
    });
}

#[test]
fn a_connection_that_ends_ends_every_channel_claimed_before_or_after() {
    loom::model(|| {
        let channels = Arc::new(ChannelTable::default());
        let id = first_channel();
        let session = {
            let channels = channels.clone();
            thread::spawn(move || {
                channels.confirmed(id);
                channels.end_all(Cause::new("gone"));
            })
        };
        let receiver = channels.claim(id);
        session.join().expect("no panic");
        assert!(receiver.has_ended());
        assert!(channels.of_data(id).is_none(), "no entry stays behind");
    });
}

#[test]
fn the_end_of_a_connection_is_told_exactly_once() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    loom::model(|| {
        let close_signal = Arc::new(CloseSignal::default());
        let told = Arc::new(AtomicUsize::new(0));
        let ending = {
            let close_signal = close_signal.clone();
            thread::spawn(move || close_signal.end(Cause::new("gone")))
        };
        let count = told.clone();
        close_signal.on_end(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        ending.join().expect("no panic");
        assert_eq!(told.load(Ordering::SeqCst), 1);
    });
}
