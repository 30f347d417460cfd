//! Children whose connections go away: their state is unknown, whoever waits for what.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ssh_pool::{Child, ChildStdin, ChildStdout, CommandState, Error, Stdio};
use ssh_pool_tests::eventually_async;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Place, SOON, assert_lost, leaves_nothing, stands_still};

/// sshd takes so much for a command that reads nothing (2 MiB), and a little more.
const WINDOW: usize = 2 << 20;

/// Something that waits for a child when its connection goes.
enum Waits {
    /// Reads its output.
    Reader(ChildStdout),
    /// Writes more input than it takes.
    Writer(ChildStdin),
    /// Only for its end.
    Nobody,
}

/// Waits on, and then for the child's end. `waiting` counts those who have come to wait.
async fn see_it_lost(mut child: Child, waits: Waits, waiting: Arc<AtomicUsize>) {
    match waits {
        Waits::Reader(mut stdout) => {
            stdout.read_exact(&mut [0; 3]).await.unwrap();
            waiting.fetch_add(1, Ordering::SeqCst);
            // Again and again: it does not turn into a clean end.
            for _ in 0..2 {
                assert_lost(&stdout.read(&mut [0; 3]).await.unwrap_err());
            }
        }
        Waits::Writer(mut stdin) => {
            let block = vec![0; 64 << 10];
            let mut written = 0;
            let broken = loop {
                match stdin.write(&block).await {
                    Ok(count) if written < WINDOW && written + count >= WINDOW => {
                        waiting.fetch_add(1, Ordering::SeqCst);
                        written += count;
                    }
                    Ok(count) => written += count,
                    Err(error) => break error,
                }
            };
            assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe, "{broken:?}");
            let broken = stdin.write(&block).await.unwrap_err();
            assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe, "{broken:?}");
        }
        Waits::Nobody => {
            waiting.fetch_add(1, Ordering::SeqCst);
        }
    }
    for _ in 0..2 {
        let error = child.wait().await.unwrap_err();
        assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
        assert_eq!(error.command_state(), CommandState::Unknown, "{error:?}");
    }
}

/// Twenty children, ten of them on one connection and ten on one each; then `lose` takes every
/// connection away.
async fn twenty_children(place: &Place, lose: impl FnOnce()) {
    let waiting = Arc::new(AtomicUsize::new(0));
    let mut children = JoinSet::new();
    for number in 0..20 {
        let mut command = place.host.shell("echo on; exec sleep 4811");
        command.stdin(Stdio::piped());
        if number < 10 {
            command.shared();
        }
        let mut child = command.spawn().await.unwrap();
        let waits = match number % 3 {
            0 => Waits::Reader(child.stdout.take().unwrap()),
            1 => Waits::Writer(child.stdin.take().unwrap()),
            _ => Waits::Nobody,
        };
        children.spawn(see_it_lost(child, waits, waiting.clone()));
    }
    let all = || waiting.load(Ordering::SeqCst) == 20;
    assert!(eventually_async(SOON, all).await, "{waiting:?}");
    let status = place.host.status();
    let running = (status.connections, status.running, status.isolated_busy);
    assert_eq!(running, (1, 10, 10), "{status:?}");
    lose();
    let ends = async {
        while let Some(end) = children.join_next().await {
            end.unwrap();
        }
    };
    timeout(SOON, ends).await.unwrap();
}

#[test]
fn children_whose_connections_are_killed_end_with_an_unknown_state() {
    leaves_nothing(async |place| {
        twenty_children(place, || place.sshd.kill_connections()).await;
    });
}

#[test]
fn children_whose_connections_are_reset_end_with_an_unknown_state() {
    leaves_nothing(async |place| {
        twenty_children(place, || place.proxy.reset()).await;
    });
}

#[test]
fn children_behind_a_network_that_is_silent_end_with_an_unknown_state() {
    leaves_nothing(async |place| {
        twenty_children(place, || place.proxy.freeze()).await;
        place.proxy.thaw();
    });
}

/// A child whose output is not read, so that its connection does not listen.
async fn unread(place: &Place) -> Child {
    let folder = place.sshd.dir();
    let anybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder, anybody).unwrap();
    let ledger = folder.join("ledger");
    let line = format!(
        "while :; do head -c 65536 /dev/zero; echo >>{}; done",
        ledger.display()
    );
    let child = place.host.shell(line).spawn().await.unwrap();
    let lines = || std::fs::metadata(&ledger).map_or(0, |file| file.len() as usize);
    // A megabyte, of a window of two.
    stands_still(16, lines).await;
    child
}

#[test]
fn a_child_that_nobody_reads_is_told_too() {
    leaves_nothing(async |place| {
        let mut child = unread(place).await;
        place.sshd.kill_connections();
        let error = timeout(SOON, child.wait()).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
        assert_eq!(error.command_state(), CommandState::Unknown, "{error:?}");
    });
}

/// Who does not listen does not hear that nothing is said. It can still be ended.
#[test]
fn a_child_that_nobody_reads_can_be_ended_on_a_silent_network() {
    leaves_nothing(async |place| {
        let mut child = unread(place).await;
        place.proxy.freeze();
        let error = timeout(SOON, child.kill()).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::NotKilled { .. }), "{error:?}");
        let error = timeout(SOON, child.wait()).await.unwrap().unwrap_err();
        assert_eq!(error.command_state(), CommandState::Unknown, "{error:?}");
        drop(child);
        place.proxy.thaw();
    });
}
