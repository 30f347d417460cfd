//! A stream that has been opened for somebody who does not look.

use std::fs;
use std::future::IntoFuture;
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use ssh_pool_tests::{Sshd, TempDir, eventually_async};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::Notify;

use crate::{SOON, on};

/// Says when a future wants to be polled again.
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_closed_if_it_is_dropped_before_anybody_has_seen_it() {
    let (_sshd, _pool, host) = on(Sshd::start());
    let dir = TempDir::new();
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    host.warm().await.unwrap();
    let woken = Arc::new(Woken(Notify::new()));
    let waker = Waker::from(woken.clone());
    let accepted = {
        let mut opening = pin!(host.connect_unix(&path).shared().into_future());
        // On a connection that is there, one look gets it on its way.
        let polled = opening.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        // The next thing that it would hear is that it has been opened.
        let opened = async { tokio::join!(listener.accept(), woken.0.notified()).0 };
        tokio::time::timeout(SOON, opened).await.unwrap()
    };
    let (mut accepted, _) = accepted.unwrap();
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(SOON, accepted.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "it is open and nobody has it");
    let free = || host.status().streams == 0;
    assert!(eventually_async(SOON, free).await, "{:?}", host.status());
}
