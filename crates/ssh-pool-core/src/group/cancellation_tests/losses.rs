//! Requests under which connections end before they are sent.

use futures_util::TryFutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::CommandState;
use crate::transport::scripted::Fatal;

type Call = fn(&Host) -> BoxFuture<'static, Result<(), Error>>;

fn server(fatal: Fatal) -> Server {
    Server::new(Script {
        fatal: Some(fatal),
        ..Script::default()
    })
}

/// A request for a variable goes before the command.
fn with_variable(host: &Host) -> crate::Command {
    let mut command = host.command("true");
    command.env("NAME", "value");
    command
}

const COMMANDS: [(&str, Call); 3] = [
    ("output", |host| {
        with_variable(host).output().map_ok(drop).boxed()
    }),
    ("spawn", |host| {
        with_variable(host).spawn().map_ok(drop).boxed()
    }),
    ("idempotent", |host| {
        (with_variable(host).idempotent().output())
            .map_ok(drop)
            .boxed()
    }),
];

const STREAMS: [(&str, Call); 2] = [
    ("isolated", |host| {
        let stream = host.connect_tcp("db", 5432);
        stream.into_future().map_ok(drop).boxed()
    }),
    ("shared", |host| {
        let stream = host.connect_tcp("db", 5432).shared();
        stream.into_future().map_ok(drop).boxed()
    }),
];

fn assert_not_carried_on(error: &Error, case: &str) {
    let Error::ConnectionLost { phase, .. } = error else {
        panic!("{case}: {error:?}")
    };
    assert_eq!(*phase, Phase::Channel, "{case}");
    assert_eq!(error.command_state(), CommandState::NotStarted, "{case}");
    assert_eq!(error.attempts(), 1, "{case}");
    let text = error.to_string();
    assert!(text.contains("it is the second"), "{case}: {text}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ends_two_connections_before_it_is_sent_is_not_carried_to_a_third() {
    let cases = COMMANDS.map(|call| (Fatal::Variable, call));
    let streams = STREAMS.map(|call| (Fatal::Stream, call));
    for (fatal, (name, call)) in cases.into_iter().chain(streams) {
        for warm in [false, true] {
            let case = format!("{name}, warm: {warm}");
            let server = server(fatal);
            let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
            if warm {
                host.warm().await.expect("warm");
            }
            let error = call(&host).await.expect_err(&case);
            assert_not_carried_on(&error, &case);
            // A stream of its own, or a child, has no use for what is warm.
            let dials = server.seen().dials;
            assert!(
                (2..=2 + u32::from(warm)).contains(&dials),
                "{case}: {dials}"
            );
            assert_eq!(server.seen().requested, 0, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_each_connection_after_it_has_granted_a_session_is_given_up() {
    let server = server(Fatal::Session);
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    let error = with_variable(&host).output().await.expect_err("dies");
    assert_not_carried_on(&error, "granted");
    assert!(server.seen().dials <= 3, "{:?}", server.seen());
}

#[tokio::test(start_paused = true)]
async fn idle_connections_that_had_ended_before_the_request_came_are_not_held_against_it() {
    let server = Server::new(Script {
        runtime: Duration::from_secs(1),
        answers_variables: true,
        ..Script::default()
    });
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    let mut children = Vec::new();
    for _ in 0..4 {
        children.push(host.command("true").spawn().await.expect("started"));
    }
    for mut child in children {
        child.wait().await.expect("served");
    }
    settle().await;
    assert_eq!(server.held(), 4, "one ready channel on each connection");
    server.reset_when_used();
    let child = with_variable(&host).spawn().await;
    drop(child.expect("started on a fifth"));
    // Nothing else was dialled while one of the four was left.
    assert_eq!(server.seen().dials, 5, "{:?}", server.seen());
    assert_eq!(server.seen().connections, 1, "{:?}", server.seen());
}
