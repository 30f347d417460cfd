//! Forwards whose connections go away.

use futures_util::FutureExt;
use ssh_pool::{Address, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::servers::Servers;
use crate::{SOON, leaves_nothing};

/// A stream through a forward, on which a letter has gone and come back.
async fn through(address: &Address) -> TcpStream {
    let port = address.port().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"k").await.unwrap();
    let mut back = [0];
    timeout(SOON, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    stream
}

/// However the end is put: nobody is kept waiting.
async fn ends(mut stream: TcpStream) {
    let end = timeout(SOON, stream.read(&mut [0])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[test]
fn a_remote_forward_says_that_it_is_lost_and_a_local_one_connects_anew() {
    leaves_nothing(async |place| {
        let servers = Servers::start(place.sshd.dir()).await;
        let port = servers.tcp.port();
        let here = ("127.0.0.1", 0);
        let remote = place.host.forward_remote(here, ("127.0.0.1", port));
        let remote = remote.await.unwrap();
        let local = place.host.forward_local(here, ("127.0.0.1", port));
        let local = local.await.unwrap();
        let streams = [
            through(remote.address()).await,
            through(local.address()).await,
        ];
        assert!(remote.lost().now_or_never().is_none());

        place.sshd.kill_connections();
        let error = timeout(SOON, remote.lost()).await.unwrap();
        assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
        for stream in streams {
            ends(stream).await;
        }
        let again = timeout(SOON, remote.lost()).await.unwrap();
        assert!(matches!(again, Error::ConnectionLost { .. }), "{again:?}");
        assert!(local.lost().now_or_never().is_none());
        drop(through(local.address()).await);
        drop((remote, local));
        servers.stop().await;
    });
}
