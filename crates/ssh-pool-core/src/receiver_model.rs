//! The receiver under loom: every interleaving of the session loop, the pool and the command.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;

use super::*;

/// Counts what happens to it, outside the model's own scheduling.
#[derive(Default)]
struct Counts {
    hooks: AtomicUsize,
    drops: AtomicUsize,
}

struct Owner(Arc<Counts>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::SeqCst);
    }
}

fn check(scenario: impl Fn(Arc<ChannelReceiver>, Arc<Counts>) + Send + Sync + 'static) {
    loom::model(move || scenario(Arc::default(), Arc::default()));
}

#[test]
fn the_owner_is_released_exactly_once_however_begin_and_end_meet() {
    check(|receiver, counts| {
        let ending = {
            let receiver = receiver.clone();
            thread::spawn(move || receiver.end(ChannelEnd::Closed))
        };
        if let Err(owner) = receiver.begin(Sink::Collect(1), Sink::Discard, Owner(counts.clone())) {
            drop(owner);
        }
        ending.join().expect("no panic");
        assert_eq!(counts.drops.load(Ordering::SeqCst), 1);
        assert!(receiver.is_spent());
    });
}

#[test]
fn the_hook_runs_exactly_once_however_it_meets_the_end() {
    check(|receiver, counts| {
        let ends: Vec<_> = [ChannelEnd::Closed, ChannelEnd::ClosedHere { settled: true }]
            .map(|end| {
                let receiver = receiver.clone();
                thread::spawn(move || receiver.end(end))
            })
            .into();
        let seen = counts.clone();
        receiver.on_end(move |_| {
            seen.hooks.fetch_add(1, Ordering::SeqCst);
        });
        for end in ends {
            end.join().expect("no panic");
        }
        assert_eq!(counts.hooks.load(Ordering::SeqCst), 1);
    });
}

/// Both ends of a channel that has been begun: `gone` is what its command does, while the channel
/// brings a few bytes and ends.
fn check_gone(gone: impl Fn(&ChannelReceiver) + Send + Sync + Copy + 'static, kept: bool) {
    check(move |receiver, counts| {
        let began = receiver
            .begin(Sink::Collect(8), Sink::Discard, Owner(counts.clone()))
            .is_ok();
        assert!(began);
        let ending = {
            let receiver = receiver.clone();
            thread::spawn(move || {
                receiver.data(Stream::Stdout, b"1234");
                receiver.end(ChannelEnd::Closed);
            })
        };
        gone(&receiver);
        ending.join().expect("no panic");
        assert_eq!(counts.drops.load(Ordering::SeqCst), 1);
        assert!(receiver.has_ended());
        assert!(kept || receiver.rest(Stream::Stdout).is_empty());
    });
}

#[test]
fn a_stream_that_is_forgotten_while_its_channel_ends_leaves_nothing() {
    check_gone(|receiver| receiver.forget(Stream::Stdout), false);
}

#[test]
fn a_command_that_is_reset_while_its_channel_ends_releases_its_owner_once() {
    // What comes after that is kept for the channel's next command, up to a limit.
    check_gone(ChannelReceiver::reset, true);
}

#[test]
fn a_command_that_is_cancelled_while_its_channel_ends_keeps_what_had_come() {
    check_gone(ChannelReceiver::cancel, true);
}
