//! Deadlines: those that were kept, those that were missed, and what is said of them.

use super::*;

/// A server whose commands run for so long.
fn runs_for(seconds: u64) -> Server {
    Server::new(Script {
        runtime: Duration::from_secs(seconds),
        ..Script::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ended_in_time_has_ended_in_time_however_late_it_is_asked() {
    let server = runs_for(1);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let spawn = || host.command("true").timeout(Duration::from_secs(5)).spawn();
    let mut child = spawn().await.expect("started");
    sleep(Duration::from_secs(10)).await;
    let status = child.wait().await.expect("in time");
    assert!(status.success(), "{status}");
    let child = spawn().await.expect("started");
    sleep(Duration::from_secs(10)).await;
    let output = child.wait_with_output().await.expect("in time");
    assert_eq!(output.stdout, b"done");
}

#[tokio::test(start_paused = true)]
async fn a_child_is_late_if_its_deadline_has_ended_it_and_not_if_its_caller_has() {
    let server = runs_for(60);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let deadline = Duration::from_secs(5);
    let spawn = || host.command("true").timeout(deadline).spawn();
    let mut late = spawn().await.expect("started");
    let mut killed = spawn().await.expect("started");
    killed.kill().await.expect("it heeds signals");
    sleep(deadline * 2).await;
    let error = late.wait().await.expect_err("its time was up");
    assert!(error.is_timeout() && error.is_killed(), "{error:?}");
    assert_eq!(server.seen().running, 0, "nobody had to ask for that");
    let status = killed.wait().await.expect("it ended before its time was up");
    assert_eq!(status.signal(), Some("TERM"));
}
