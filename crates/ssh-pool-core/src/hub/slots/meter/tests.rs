//! The meter by itself.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn reading(dialling: u64, backing_off: u64) -> Reading {
    Reading {
        dialling: ms(dialling),
        backing_off: ms(backing_off),
    }
}

#[test]
fn each_standstill_counts_from_when_it_began_to_when_it_ended() {
    let start = Instant::now();
    let mut meter = Meter::default();
    for (at, state) in [
        (0, Some(Standstill::Dialling)),
        (40, Some(Standstill::BackingOff)),
        (140, Some(Standstill::Dialling)),
        (150, None),
        (900, Some(Standstill::Dialling)),
        (903, None),
    ] {
        meter.enter(state, start + ms(at));
    }
    assert_eq!(meter.read(start + ms(5000)), reading(53, 100));
}

#[test]
fn a_reading_in_the_middle_has_what_has_passed_by_then() {
    let start = Instant::now();
    let mut meter = Meter::default();
    meter.enter(Some(Standstill::Dialling), start);
    assert_eq!(meter.read(start + ms(7)), reading(7, 0));
    // Said again, it goes on.
    meter.enter(Some(Standstill::Dialling), start + ms(10));
    let early = meter.read(start + ms(12));
    assert_eq!(early, reading(12, 0));
    meter.enter(Some(Standstill::BackingOff), start + ms(20));
    let late = meter.read(start + ms(25));
    assert_eq!(late.since(early), reading(8, 5));
}
