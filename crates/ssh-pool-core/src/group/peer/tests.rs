use super::*;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 22))
}

const A: u8 = 1;
const B: u8 = 2;

/// A host whose last connection went to A.
fn at_a(now: Instant) -> AddressPin {
    let mut pin = AddressPin::default();
    assert_eq!(pin.set(address(A), now), None, "the first is no change");
    pin
}

fn required(pin: &AddressPin, resolved: &[u8], now: Instant, in_service: InService) -> Option<u8> {
    let resolved: Vec<_> = resolved.iter().map(|n| address(*n)).collect();
    let required = pin.required(&resolved, now, |_| in_service)?;
    [A, B].into_iter().find(|n| address(*n) == required)
}

#[test]
fn an_address_binds_while_connections_to_it_are_in_service() {
    let now = Instant::now();
    let pin = at_a(now);
    let both = |in_service| required(&pin, &[B, A], now, in_service);
    assert_eq!(both(InService::Commands), Some(A));
    assert_eq!(both(InService::Occupied), Some(A));
    assert_eq!(both(InService::Nothing), None);
}

#[test]
fn an_address_that_has_left_the_name_binds_for_a_minute_after_a_change_alone() {
    let now = Instant::now();
    let mut pin = at_a(now);
    let gone = |pin: &AddressPin, at| required(pin, &[B], at, InService::Commands);
    assert_eq!(
        gone(&pin, now),
        None,
        "the first change is followed at once"
    );
    pin.set(address(B), now);
    assert_eq!(pin.set(address(A), now), Some(address(B)));
    assert_eq!(gone(&pin, now + STAY / 2), Some(A));
    assert_eq!(gone(&pin, now + STAY), None);
}

#[test]
fn a_dial_that_has_connected_binds_the_others_until_the_last_of_them_has_ended() {
    let now = Instant::now();
    let mut pin = at_a(now);
    pin.claim(address(B));
    pin.claim(address(B));
    for in_service in [InService::Nothing, InService::Commands] {
        assert_eq!(required(&pin, &[A, B], now, in_service), Some(B));
    }
    pin.release();
    assert_eq!(required(&pin, &[A], now, InService::Commands), Some(B));
    pin.release();
    assert_eq!(required(&pin, &[A], now, InService::Commands), Some(A));
}

#[test]
fn an_address_that_cannot_be_reached_does_not_bind_for_the_sake_of_busy_streams() {
    let now = Instant::now();
    let mut pin = at_a(now);
    let asked = |pin: &AddressPin, in_service| required(pin, &[A, B], now, in_service);
    pin.unreachable(address(A));
    pin.unreachable(address(B));
    assert_eq!(asked(&pin, InService::Occupied), Some(A), "one failure");
    pin.unreachable(address(A));
    assert_eq!(asked(&pin, InService::Occupied), None);
    assert_eq!(asked(&pin, InService::Commands), Some(A));
    pin.claim(address(A));
    pin.release();
    assert_eq!(asked(&pin, InService::Occupied), Some(A), "it is back");
}
