//! The channels of a connection under loom: whoever opens a channel, and whatever ends it, its
//! inbox ends.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::transport::Lifeline;

/// russh hands out channel numbers only with channels; this is the first one.
fn first_channel() -> ChannelId {
    use russh::keys::ssh_encoding::Decode;
    ChannelId::decode(&mut [0u8, 0, 0, 0].as_slice()).expect("four bytes are a number")
}

#[test]
fn a_channel_that_closes_while_it_is_being_claimed_is_seen_closed() {
    loom::model(|| {
        let channels = Arc::new(Channels::default());
        let id = first_channel();
        let session = {
            let channels = channels.clone();
            thread::spawn(move || {
                channels.confirmed(id);
                channels.end(id, End::Closed);
            })
        };
        let inbox = channels.claim(id);
        session.join().expect("no panic");
        assert!(inbox.has_ended());
        assert!(channels.of_data(id).is_none(), "no entry stays behind");
    });
}

#[test]
fn a_connection_that_ends_ends_every_channel_claimed_before_or_after() {
    loom::model(|| {
        let channels = Arc::new(Channels::default());
        let id = first_channel();
        let session = {
            let channels = channels.clone();
            thread::spawn(move || {
                channels.confirmed(id);
                channels.end_all(Cause::new("gone"));
            })
        };
        let inbox = channels.claim(id);
        session.join().expect("no panic");
        assert!(inbox.has_ended());
        assert!(channels.of_data(id).is_none(), "no entry stays behind");
    });
}

#[test]
fn the_end_of_a_connection_is_told_exactly_once() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    loom::model(|| {
        let lifeline = Arc::new(Lifeline::default());
        let told = Arc::new(AtomicUsize::new(0));
        let ending = {
            let lifeline = lifeline.clone();
            thread::spawn(move || lifeline.end(Cause::new("gone")))
        };
        let count = told.clone();
        lifeline.on_end(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        ending.join().expect("no panic");
        assert_eq!(told.load(Ordering::SeqCst), 1);
    });
}
