//! The stall clock by itself.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn reading(connecting: u64, backing_off: u64) -> StallTotals {
    StallTotals {
        connecting: ms(connecting),
        backing_off: ms(backing_off),
    }
}

#[test]
fn each_stall_counts_from_when_it_began_to_when_it_ended() {
    let start = Instant::now();
    let mut stall_clock = StallClock::default();
    for (at, state) in [
        (0, Some(StallKind::Connecting)),
        (40, Some(StallKind::BackingOff)),
        (140, Some(StallKind::Connecting)),
        (150, None),
        (900, Some(StallKind::Connecting)),
        (903, None),
    ] {
        stall_clock.enter(state, start + ms(at));
    }
    assert_eq!(stall_clock.read(start + ms(5000)), reading(53, 100));
}

#[test]
fn a_reading_in_the_middle_has_what_has_passed_by_then() {
    let start = Instant::now();
    let mut stall_clock = StallClock::default();
    stall_clock.enter(Some(StallKind::Connecting), start);
    assert_eq!(stall_clock.read(start + ms(7)), reading(7, 0));
    // Said again, it goes on.
    stall_clock.enter(Some(StallKind::Connecting), start + ms(10));
    let early = stall_clock.read(start + ms(12));
    assert_eq!(early, reading(12, 0));
    stall_clock.enter(Some(StallKind::BackingOff), start + ms(20));
    let late = stall_clock.read(start + ms(25));
    assert_eq!(late.since(early), reading(8, 5));
}
