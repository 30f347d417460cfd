//! What had arrived of the output of a command that failed is in the error.

use ssh_pool::{Error, HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::raw::{Act, At, KeyExchange, RawServer, Trick, number};
use ssh_pool_tests::{KeyFormat, Sshd, TempDir, generate};

use crate::{SECOND, on, server};

/// A server that answers a command with a line, and plays a trick on its end.
async fn tricked(at: At, acts: Vec<Act>) -> Error {
    let dir = TempDir::new();
    let key = generate(dir.path(), "key", "ed25519", None, KeyFormat::OpenSsh);
    let server = RawServer::with_tricks(KeyExchange::default(), vec![Trick::new(at, acts)]);
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(server.known_hosts()))
        .identity(Identity::key_file(key.private()))
        .build()
        .unwrap();
    let host = pool.host(server.target()).unwrap();
    let error = host.command("echo").output().await.unwrap_err();
    let child = host.command("echo").spawn().await.unwrap();
    let other = child.wait_with_output().await.unwrap_err();
    assert_eq!(other.partial_output(), error.partial_output(), "{other:?}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_closed_without_a_status_leaves_its_output() {
    let error = tricked(At::Every(number::CHANNEL_REQUEST), Vec::new()).await;
    assert!(
        matches!(error, Error::ClosedWithoutStatus { .. }),
        "{error:?}"
    );
    let partial = error.partial_output().expect("what it had said");
    assert_eq!(partial.stdout, b"raw\n");
    assert_eq!(partial.status, None);

    let sshd = Sshd::builder().option("ChannelTimeout session:command=1s");
    let (_sshd, _pool, host) = on(sshd.start());
    let mut command = host.shell("echo half; echo warning >&2; sleep 30");
    let error = command.output().await.unwrap_err();
    assert!(
        matches!(error, Error::ClosedWithoutStatus { .. }),
        "{error:?}"
    );
    let partial = error.partial_output().expect("what it had said");
    assert_eq!(partial.stdout, b"half\n");
    assert_eq!(partial.stderr, b"warning\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_dropped_after_the_status_leaves_both() {
    let error = tricked(At::Every(number::CHANNEL_EOF), vec![Act::Close]).await;
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
    let partial = error.partial_output().expect("what it had said");
    assert_eq!(partial.stdout, b"raw\n");
    let status = partial.status.clone().expect("its status");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_runs_out_of_time_leaves_its_output() {
    let (_sshd, _pool, host) = server();
    host.warm().await.unwrap();
    let mut command = host.shell("echo half; sleep 30");
    let error = command.timeout(2 * SECOND).output().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    let partial = error.partial_output().expect("what it had said");
    assert_eq!(partial.stdout, b"half\n");
    let child = command.spawn().await.unwrap();
    let error = child.wait_with_output().await.unwrap_err();
    let partial = error.partial_output().expect("what it had said");
    assert_eq!(partial.stdout, b"half\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_did_not_start_has_none() {
    let (sshd, _pool, host) = server();
    sshd.stop();
    let error = host.command("true").output().await.unwrap_err();
    assert_eq!(error.partial_output(), None);
}
