//! The state by itself, one scenario at a time. Random ones are in `model_tests.rs`.

use super::*;

pub(super) const A: ConnectionId = ConnectionId(1);
pub(super) const B: ConnectionId = ConnectionId(2);
pub(super) const C: ConnectionId = ConnectionId(3);

pub(super) fn config(connections: u32, sessions: u32) -> GroupConfig {
    GroupConfig {
        connections,
        held_connections: 0,
        urgent_connections: 0,
        sessions,
        streams: 512,
        handshakes: 4,
        expand_after: Duration::from_millis(250),
        idle: Duration::from_secs(300),
        recovery: Duration::from_secs(300),
        drain: Duration::from_secs(30),
        check: Duration::from_secs(2),
        idle_each: false,
    }
}

pub(super) fn opens(effects: &[Effect]) -> Vec<(ConnectionId, CloseSeq)> {
    let open = |effect: &Effect| match effect {
        Effect::Open { on, close_seq, .. } => Some((*on, *close_seq)),
        _ => None,
    };
    effects.iter().filter_map(open).collect()
}

pub(super) fn dials(effects: &[Effect]) -> usize {
    effects
        .iter()
        .filter(|effect| **effect == Effect::Connect)
        .count()
}

/// A host with one live connection and `waiters` people in the queue.
pub(super) fn connected(config: GroupConfig, waiters: u32, now: Instant) -> HostState<u32> {
    let mut state = HostState::new(config);
    for who in 0..waiters {
        state.wait(who, now);
    }
    state.connected(A, now, now + Duration::from_secs(3600));
    state
}

/// Answers every pending open the way a server with this limit does. Returns who was served.
pub(super) fn answer_opens(
    state: &mut HostState<u32>,
    server_limit: u32,
    now: Instant,
) -> (Vec<u32>, u32) {
    let (mut served, mut refused) = (Vec::new(), 0);
    loop {
        let pending = opens(&state.take_effects());
        if pending.is_empty() {
            return (served, refused);
        }
        for (id, close_seq) in pending {
            let counts = state
                .session_counts()
                .find(|counts| counts.id == id)
                .expect("connection");
            if counts.idle + counts.in_use < server_limit {
                if let Handoff::To(who) = state.opened(id, close_seq, now) {
                    served.push(who);
                }
            } else {
                refused += 1;
                assert_eq!(state.refused(id, close_seq, now), RefusalOutcome::Absorbed);
            }
        }
    }
}

#[test]
fn thirty_waiters_on_a_cold_host_dial_once() {
    let now = Instant::now();
    let mut state = HostState::new(config(4, 10));
    for who in 0..30 {
        state.wait(who, now);
    }
    assert_eq!(dials(&state.take_effects()), 1);
    state.connected(A, now, now + Duration::from_secs(3600));
    let effects = state.take_effects();
    assert_eq!(opens(&effects).len(), 10);
    assert_eq!(dials(&effects), 0, "patience comes before another dial");
}

#[test]
fn patience_runs_out_and_as_many_connections_as_needed_are_dialled() {
    let now = Instant::now();
    let mut state = connected(config(4, 10), 35, now);
    let effects = state.take_effects();
    let due = now + Duration::from_millis(250);
    assert!(effects.contains(&Effect::WakeAt(due)), "{effects:?}");
    state.wake(due);
    assert_eq!(dials(&state.take_effects()), 3);
}

#[test]
fn waiters_are_served_in_order_and_abandoned_ones_are_skipped() {
    let now = Instant::now();
    let mut state = HostState::new(config(1, 10));
    let tickets: Vec<_> = (0..6).map(|who| state.wait(who, now)).collect();
    state.abandon(tickets[0]);
    state.abandon(tickets[3]);
    state.connected(A, now, now + Duration::from_secs(3600));
    assert_eq!(answer_opens(&mut state, 10, now).0, [1, 2, 4, 5]);
}

#[test]
fn an_open_whose_waiter_has_gone_is_idle() {
    let now = Instant::now();
    let mut state = HostState::new(config(1, 10));
    let waiter_id = state.wait(0, now);
    state.connected(A, now, now + Duration::from_secs(3600));
    let (id, close_seq) = opens(&state.take_effects())[0];
    state.abandon(waiter_id);
    assert_eq!(state.opened(id, close_seq, now), Handoff::Idle);
    assert!(state.claim(A, || now));
}

#[test]
fn an_idle_channel_that_is_taken_is_followed_by_the_next_and_two_by_none() {
    let now = Instant::now();
    let mut state = connected(config(1, 10), 1, now);
    answer_opens(&mut state, 10, now);
    assert!(state.claim(A, || now));
    let (id, close_seq) = opens(&state.take_effects())[0];
    assert_eq!(state.opened(id, close_seq, now), Handoff::Idle);
    assert_eq!(state.returned(A, true, now), Handoff::Idle);
    let no_time = || unreachable!("another spare is there: nothing follows");
    assert!(state.claim(A, no_time));
    assert_eq!(state.take_effects(), []);
}

#[test]
fn a_waiter_beside_an_idle_channel_gets_it() {
    let now = Instant::now();
    let mut state = connected(config(1, 2), 1, now);
    answer_opens(&mut state, 2, now);
    assert_eq!(
        state.session_counts().next().map(|counts| counts.idle),
        Some(1),
        "a spare beside the command"
    );
    // It was becoming idle when a caller looked for an idle channel.
    state.wait(7, now);
    assert!(state.take_effects().contains(&Effect::ServeFromIdle));
    assert_eq!(state.returned(A, false, now), Handoff::To(7));
}

#[test]
fn a_slot_is_releasing_until_a_round_trip_proves_it_free() {
    let now = Instant::now();
    let mut state = connected(config(1, 1), 2, now);
    assert_eq!(answer_opens(&mut state, 1, now).0, [0]);
    state.closed(A, true, now);
    let effects = state.take_effects();
    assert!(
        opens(&effects).is_empty(),
        "CLOSE and OPEN in one segment: {effects:?}"
    );
    let Some(Effect::Ping { on, close_seq }) = effects
        .into_iter()
        .find(|a| matches!(a, Effect::Ping { .. }))
    else {
        panic!("no round trip is made");
    };
    state.pinged(on, close_seq, now);
    assert_eq!(answer_opens(&mut state, 1, now).0, [1]);
}

#[test]
fn a_round_trip_proves_only_what_was_closed_before_it_began() {
    let now = Instant::now();
    let mut state = connected(config(1, 2), 4, now);
    assert_eq!(answer_opens(&mut state, 2, now).0, [0, 1]);
    state.closed(A, true, now);
    let ping = state
        .take_effects()
        .into_iter()
        .find_map(|effect| match effect {
            Effect::Ping { close_seq, .. } => Some(close_seq),
            _ => None,
        });
    state.closed(A, true, now);
    state.pinged(A, ping.expect("a round trip"), now);
    let effects = state.take_effects();
    assert_eq!(opens(&effects).len(), 1, "{effects:?}");
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Ping { .. }))
    );
}

#[test]
fn the_servers_limit_is_learned_after_one_retry() {
    let start = Instant::now();
    let mut state = connected(config(1, 10), 10, start);
    let (served, refused) = answer_opens(&mut state, 2, start);
    assert_eq!((served.len(), refused), (2, 8));
    assert_eq!(
        state.learned(),
        10,
        "a burst of refusals is one observation"
    );
    let later = start + Duration::from_secs(1);
    state.wake(later);
    assert_eq!(answer_opens(&mut state, 2, later), (vec![], 1), "the retry");
    assert_eq!(state.learned(), 2);
    state.wake(later + Duration::from_secs(1));
    assert_eq!(opens(&state.take_effects()), [], "no caller asks again");
}

#[test]
fn a_false_alarm_does_not_sink_the_limit() {
    let start = Instant::now();
    let mut state = connected(config(1, 10), 10, start);
    let (served, _) = answer_opens(&mut state, 2, start);
    assert_eq!(served.len(), 2);
    let later = start + Duration::from_secs(1);
    state.wake(later);
    let (served, refused) = answer_opens(&mut state, 10, later);
    assert_eq!((served.len(), refused), (8, 0));
    assert_eq!(state.learned(), 10);
}

#[test]
fn a_late_release_at_the_known_limit_teaches_nothing() {
    let start = Instant::now();
    let mut state = connected(config(1, 2), 3, start);
    answer_opens(&mut state, 2, start);
    state.closed(A, true, start);
    let effects = state.take_effects();
    let close_seq = effects.iter().find_map(|effect| match effect {
        Effect::Ping { close_seq, .. } => Some(*close_seq),
        _ => None,
    });
    state.pinged(A, close_seq.expect("a round trip"), start);
    let (id, close_seq) = opens(&state.take_effects())[0];
    // The slot that the server is late with is not among those we count.
    assert_eq!(
        state.refused(id, close_seq, start),
        RefusalOutcome::Absorbed
    );
    assert_eq!(state.learned(), 2);
    let later = start + Duration::from_secs(1);
    state.wake(later);
    assert_eq!(answer_opens(&mut state, 2, later).0, [2]);
    assert_eq!(state.learned(), 2);
}

#[test]
fn a_burst_of_refusals_does_not_count_against_the_connection_later() {
    let start = Instant::now();
    let mut state = connected(config(1, 10), 12, start);
    assert_eq!(
        answer_opens(&mut state, 1, start).1,
        9,
        "a burst of refusals"
    );
    let later = start + Duration::from_secs(1);
    state.closed(A, true, later);
    let ping = state
        .take_effects()
        .into_iter()
        .find_map(|effect| match effect {
            Effect::Ping { close_seq, .. } => Some(close_seq),
            _ => None,
        });
    state.pinged(A, ping.expect("a round trip"), later);
    // The server is late all the same: one refusal with nothing held.
    let (id, close_seq) = opens(&state.take_effects())[0];
    assert_eq!(
        state.refused(id, close_seq, later),
        RefusalOutcome::Absorbed
    );
    assert_eq!(
        state.live(),
        1,
        "that is no reason to give the connection up"
    );
}

#[test]
fn the_learned_limit_creeps_back_up() {
    let start = Instant::now();
    let mut state = connected(config(1, 10), 10, start);
    answer_opens(&mut state, 2, start);
    let mut now = start + Duration::from_secs(1);
    state.wake(now);
    answer_opens(&mut state, 2, now);
    assert_eq!(state.learned(), 2);
    for expected in 3..=10 {
        now += Duration::from_secs(300);
        state.tick(now);
        // The server has been reconfigured meanwhile.
        answer_opens(&mut state, 10, now);
        assert_eq!(state.learned(), expected);
    }
}

#[test]
fn a_server_without_sessions_is_a_hard_error_for_all_waiters() {
    let now = Instant::now();
    let mut state = connected(config(4, 10), 3, now);
    let pending = opens(&state.take_effects());
    let mut told = Vec::new();
    for (id, close_seq) in pending {
        if let RefusalOutcome::Hard(waiters) = state.refused(id, close_seq, now) {
            told = waiters;
        }
    }
    assert_eq!(told, [0, 1, 2]);
    assert!(state.take_effects().contains(&Effect::Disconnect(A)));
}

#[test]
fn a_dial_that_was_refused_for_what_is_forgotten_by_now_is_made() {
    let now = Instant::now();
    let mut state = HostState::new(config(4, 10));
    state.wait(0, now);
    assert_eq!(dials(&state.take_effects()), 1);
    let until = now + Duration::from_secs(60);
    assert_eq!(state.connect_refused(now, until, true), []);
    assert_eq!(dials(&state.take_effects()), 1);
    assert_eq!(state.connect_refused(now, until, false), [0]);
    assert_eq!(dials(&state.take_effects()), 0);
}

#[test]
fn one_connection_without_sessions_fails_no_waiter_while_another_one_has_some() {
    let now = Instant::now();
    let mut state = connected(config(4, 1), 2, now);
    assert_eq!(answer_opens(&mut state, 1, now).0, [0]);
    let later = now + Duration::from_secs(1);
    state.connected(B, later, later + Duration::from_secs(3600));
    let pending = opens(&state.take_effects());
    let [(B, close_seq)] = pending[..] else {
        panic!("{pending:?}");
    };
    assert_eq!(
        state.refused(B, close_seq, later),
        RefusalOutcome::Hard(Vec::new())
    );
    assert_eq!(state.waiting(), 1);
    state.closed(A, true, later);
    let effects = state.take_effects();
    let ping = effects.iter().find_map(|effect| match effect {
        Effect::Ping { on: A, close_seq } => Some(*close_seq),
        _ => None,
    });
    state.pinged(A, ping.expect("its slot is being released"), later);
    assert_eq!(opens(&state.take_effects()).len(), 1, "it goes on");
}

#[test]
fn where_a_connection_is_one_channel_each_gets_the_next_one_ready() {
    let now = Instant::now();
    let config = GroupConfig {
        idle_each: true,
        ..config(4, 1)
    };
    let mut state = connected(config, 1, now);
    let (served, _) = answer_opens(&mut state, 1, now);
    assert_eq!(served, [0]);
    state.closed(A, true, now);
    // First it has to be seen that the server has let go of the last one.
    let effects = state.take_effects();
    let [Effect::Ping { on: A, close_seq }] = effects[..] else {
        panic!("{effects:?}");
    };
    state.pinged(A, close_seq, now);
    let opens = opens(&state.take_effects());
    let [(A, close_seq)] = opens[..] else {
        panic!("{opens:?}");
    };
    assert_eq!(state.opened(A, close_seq, now), Handoff::Idle);
    assert!(state.take_effects().is_empty(), "one is enough");
    assert!(state.claim(A, || now));
    // It does not keep its connection from growing idle.
    state.returned(A, true, now);
    state.tick(now + Duration::from_secs(301));
    let effects = state.take_effects();
    assert!(effects.contains(&Effect::Disconnect(A)), "{effects:?}");
}

#[test]
fn no_idle_channel_where_the_server_allows_a_single_session() {
    let start = Instant::now();
    let mut state = connected(config(1, 10), 1, start);
    let (served, refused) = answer_opens(&mut state, 1, start);
    assert_eq!(
        (served.len(), refused),
        (1, 1),
        "the first spare is refused"
    );
    let mut now = start;
    let mut refusals = 0;
    for _ in 0..20 {
        now += Duration::from_secs(1);
        state.closed(A, true, now);
        state.wait(7, now);
        for effect in state.take_effects() {
            if let Effect::Ping { on, close_seq } = effect {
                state.pinged(on, close_seq, now);
            } else if let Effect::Open { on, close_seq, .. } = effect {
                state.opened(on, close_seq, now);
            }
        }
        refusals += answer_opens(&mut state, 1, now).1;
    }
    assert_eq!(state.learned(), 1);
    assert!(refusals <= 1, "{refusals} refusals");
}

#[test]
fn no_idle_channel_where_the_server_closes_unused_sessions() {
    let now = Instant::now();
    let mut state = connected(config(1, 10), 1, now);
    answer_opens(&mut state, 10, now);
    let mut deaths = 0;
    while state.session_counts().any(|counts| counts.idle > 0) {
        state.closed(A, false, now);
        deaths += 1;
        answer_opens(&mut state, 10, now);
    }
    assert_eq!(deaths, 3);
}

#[test]
fn a_failed_connect_fails_waiters_without_another_connection() {
    let now = Instant::now();
    let mut state = HostState::new(config(4, 10));
    state.wait(1, now);
    state.wait(2, now);
    assert_eq!(
        state.connect_failed(now, now + Duration::from_secs(1), false),
        [1, 2]
    );
    state.wait(3, now);
    let effects = state.take_effects();
    assert_eq!(dials(&effects), 1, "only the first one: {effects:?}");
    assert!(effects.contains(&Effect::WakeAt(now + Duration::from_secs(1))));
}

#[test]
fn a_failed_connect_beside_a_live_connection_fails_no_waiter() {
    let now = Instant::now();
    let mut state = connected(config(4, 1), 3, now);
    answer_opens(&mut state, 1, now);
    state.wake(now + Duration::from_secs(1));
    assert!(dials(&state.take_effects()) > 0);
    let later = now + Duration::from_secs(9);
    assert!(state.connect_failed(now, later, false).is_empty());
    assert_eq!(state.waiting(), 2);
}

#[test]
fn idle_and_old_connections_leave_and_busy_ones_finish_first() {
    let now = Instant::now();
    let mut state = connected(config(4, 10), 1, now);
    answer_opens(&mut state, 10, now);
    state.connected(B, now, now + Duration::from_secs(3600));
    answer_opens(&mut state, 10, now);
    state.tick(now + Duration::from_secs(301));
    assert!(
        state.take_effects().contains(&Effect::Disconnect(B)),
        "idle"
    );
    state.tick(now + Duration::from_secs(3601));
    let effects = state.take_effects();
    assert!(
        !effects.contains(&Effect::Disconnect(A)),
        "a command runs: {effects:?}"
    );
    state.connected(C, now, now + Duration::from_secs(7200));
    state.closed(A, true, now + Duration::from_secs(3700));
    assert!(
        state.take_effects().contains(&Effect::Disconnect(A)),
        "drained"
    );
}

#[test]
fn a_closed_pool_removes_all_waiters() {
    let now = Instant::now();
    let mut state = connected(config(1, 1), 3, now);
    answer_opens(&mut state, 1, now);
    assert_eq!(state.close(now), [1, 2]);
    assert_eq!(state.live(), 0);
    state.connected(B, now, now + Duration::from_secs(3600));
    assert!(
        state.take_effects().contains(&Effect::Disconnect(B)),
        "a late dial"
    );
}

#[test]
fn a_waiter_can_leave_a_long_queue_from_any_position() {
    const LONG: u32 = 10_000;
    let now = Instant::now();
    let mut state = HostState::new(config(1, 1));
    let mut tickets: Vec<_> = (0..LONG).map(|who| (who, state.wait(who, now))).collect();
    // One in ten stays.
    let (stay, mut leave): (Vec<_>, Vec<_>) = tickets.drain(..).partition(|(who, _)| who % 10 == 0);
    let mut rest = leave.split_off(leave.len() / 3);
    let mut back = rest.split_off(rest.len() / 2);
    back.reverse();
    fastrand::shuffle(&mut rest);
    for (who, waiter_id) in leave.into_iter().chain(back).chain(rest) {
        let before = state.waiting();
        state.abandon(waiter_id);
        assert_eq!(state.waiting() + 1, before, "{who}");
    }
    let left = state.dismiss();
    assert!(left.iter().eq(stay.iter().map(|(who, _)| who)), "in order");
}

#[test]
fn tickets_say_who_is_next_and_not_when_they_come() {
    let now = Instant::now();
    let mut state = HostState::new(config(1, 1));
    let tickets: Vec<_> = (0..3).map(|_| state.next_waiter_id()).collect();
    state.wait(3, now);
    for who in [1, 0, 2] {
        state.wait_in_turn(tickets[who as usize], who, now);
    }
    state.abandon(tickets[1]);
    assert_eq!(state.dismiss(), [0, 2, 3]);
}

#[test]
fn the_meter_runs_while_there_is_nothing_to_wait_for_but_a_connection() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let until = |state: &HostState<u32>, ms| {
        let StallTotals {
            connecting,
            backing_off,
        } = state.stall_totals(at(ms));
        (connecting.as_millis(), backing_off.as_millis())
    };
    let mut state = HostState::new(config(1, 1));
    assert_eq!(until(&state, 0), (0, 0));
    state.wait(0, at(100));
    assert_eq!(until(&state, 110), (10, 0));
    state.connect_failed(at(130), at(230), true);
    state.wait(1, at(150));
    assert_eq!(until(&state, 150), (30, 20));
    state.wake(at(230));
    state.connected(A, at(250), at(1_000_000));
    assert_eq!(until(&state, 300), (50, 100));
    // One is served, and the other waits for it.
    assert_eq!(answer_opens(&mut state, 1, at(300)).0, [0]);
    assert_eq!(until(&state, 9000), (50, 100));
    state.died(A, at(9000));
    assert_eq!(until(&state, 9007), (57, 100));
    state.connected(B, at(9010), at(1_000_000));
    assert_eq!(until(&state, 9999), (60, 100));
}
