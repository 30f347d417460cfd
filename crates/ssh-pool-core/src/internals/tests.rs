use super::*;

type Scenario = fn(&mut StateDriver);

fn connections(sessions: u32) -> Limits {
    Limits::default()
        .connections_per_host(1)
        .sessions_per_connection(sessions)
}

#[tokio::test]
async fn a_session_that_comes_back_unused_is_idle() {
    let pool = pool(connections(3)).expect("valid");
    let host = pool.host("tester@test:22").expect("valid");
    for _ in 0..100 {
        drop(checkout(&host).await.expect("a session"));
        tokio::task::yield_now().await;
    }
    let status = host.status();
    assert_eq!((status.running, status.waiting), (0, 0), "{status:?}");
    // One that was opened for the first, and one in advance while that one was out.
    assert!((1..=2).contains(&status.spare), "{status:?}");
}

#[tokio::test]
async fn a_session_that_was_used_up_makes_room_for_the_next() {
    let pool = pool(connections(2)).expect("valid");
    let host = pool.host("tester@test:22").expect("valid");
    for _ in 0..100 {
        checkout(&host).await.expect("a session").use_up();
    }
    assert_eq!(host.status().running, 0);
}

#[tokio::test]
async fn a_command_over_the_instant_server_ends_as_it_should() {
    let pool = pool(Limits::default()).expect("valid");
    let host = pool.host("tester@test:22").expect("valid");
    for _ in 0..100 {
        let output = host.command("true").output().await.expect("it ran");
        assert!(output.status.success());
        assert_eq!(output.stdout, b"done\n");
    }
    pool.close().await;
}

#[test]
fn scenarios_of_the_state_end_where_they_began() {
    for waiters in [1, 10, 1_000] {
        let mut driver = StateDriver::busy(4, 10, waiters);
        let scenarios: [(&str, Scenario); 4] = [
            ("next turn", StateDriver::next_turn),
            ("refused turn", StateDriver::refused_turn),
            ("look", StateDriver::reschedule),
            ("give up", StateDriver::cancel_waiter),
        ];
        for (name, scenario) in scenarios {
            for told in 0..50 {
                scenario(&mut driver);
                let counts = (driver.waiting(), driver.in_use());
                let waiting = usize::try_from(waiters).expect("few");
                assert_eq!(counts, (waiting, 40), "{name}, told {told} times before");
            }
        }
    }
    let mut driver = StateDriver::idle();
    let idle_channels = driver.idle_channels();
    assert!(idle_channels > 0);
    for scenario in [StateDriver::claim_and_return, StateDriver::claim_and_close] {
        for _ in 0..50 {
            scenario(&mut driver);
            assert!(
                driver.idle_channels() > 0,
                "there is an idle channel for the next scenario"
            );
            assert_eq!((driver.waiting(), driver.in_use()), (0, 0));
        }
    }
}
