//! The inbox under loom: every interleaving of the session loop, the pool and the command.

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

struct Tenant(Arc<Counts>);

impl Drop for Tenant {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::SeqCst);
    }
}

fn check(story: impl Fn(Arc<Inbox>, Arc<Counts>) + Send + Sync + 'static) {
    loom::model(move || story(Arc::default(), Arc::default()));
}

#[test]
fn the_tenant_goes_free_exactly_once_however_begin_and_end_meet() {
    check(|inbox, counts| {
        let ending = {
            let inbox = inbox.clone();
            thread::spawn(move || inbox.end(End::Closed))
        };
        if let Err(tenant) = inbox.begin(Sink::Collect(1), Sink::Discard, Tenant(counts.clone())) {
            drop(tenant);
        }
        ending.join().expect("no panic");
        assert_eq!(counts.drops.load(Ordering::SeqCst), 1);
        assert!(inbox.is_spent());
    });
}

#[test]
fn the_hook_runs_exactly_once_however_it_meets_the_end() {
    check(|inbox, counts| {
        let ends: Vec<_> = [End::Closed, End::ClosedHere { settled: true }]
            .map(|end| {
                let inbox = inbox.clone();
                thread::spawn(move || inbox.end(end))
            })
            .into();
        let seen = counts.clone();
        inbox.on_end(move |_| {
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
fn check_gone(gone: impl Fn(&Inbox) + Send + Sync + Copy + 'static, kept: bool) {
    check(move |inbox, counts| {
        let began = inbox
            .begin(Sink::Collect(8), Sink::Discard, Tenant(counts.clone()))
            .is_ok();
        assert!(began);
        let ending = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.data(Stream::Stdout, b"1234");
                inbox.end(End::Closed);
            })
        };
        gone(&inbox);
        ending.join().expect("no panic");
        assert_eq!(counts.drops.load(Ordering::SeqCst), 1);
        assert!(inbox.has_ended());
        assert!(kept || inbox.rest(Stream::Stdout).is_empty());
    });
}

#[test]
fn a_stream_that_is_forgotten_while_its_channel_ends_leaves_nothing() {
    check_gone(|inbox| inbox.forget(Stream::Stdout), false);
}

#[test]
fn a_command_that_is_taken_back_while_its_channel_ends_lets_its_tenant_go_once() {
    // What comes after that is kept for whoever takes the channel next, up to a limit.
    check_gone(Inbox::take_back, true);
}

#[test]
fn a_command_that_is_cancelled_while_its_channel_ends_keeps_what_had_come() {
    check_gone(Inbox::cancel, true);
}
