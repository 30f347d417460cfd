//! Streams whose connections go away: an error, and never a clean end.

use std::io;
use std::sync::atomic::Ordering;

use ssh_pool::{ChannelStream, Connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::servers::Servers;
use crate::{Place, SOON, assert_lost, leaves_nothing, stands_still};

/// So much at least comes for whoever reads nothing, of a window of twice that.
const UNREAD: usize = 1 << 20;

/// A stream on which one letter has gone to the server and come back.
async fn open(connect: Connect, letter: &[u8; 1]) -> ChannelStream {
    let mut stream = timeout(SOON, connect).await.unwrap().unwrap();
    stream.write_all(letter).await.unwrap();
    let mut back = [0];
    timeout(SOON, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&back, letter);
    stream
}

async fn reads_nothing_more(stream: &mut ChannelStream) {
    let count = timeout(SOON, stream.read(&mut [0])).await.unwrap().unwrap();
    assert_eq!(count, 0);
}

/// Streams that the peer ends have a clean end; those that `lose` takes the connection from have
/// an error.
async fn streams_are_cut_off(place: &Place, lose: impl FnOnce()) {
    let servers = Servers::start(place.sshd.dir()).await;
    let host = &place.host;
    let tcp = || host.connect_tcp("127.0.0.1", servers.tcp.port());
    let unix = || host.connect_unix(&servers.unix);
    let mut ended = Vec::new();
    let mut cut = JoinSet::new();
    for connect in [tcp(), tcp().shared(), unix(), unix().shared()] {
        let mut stream = open(connect.clone(), b"e").await;
        reads_nothing_more(&mut stream).await;
        ended.push(stream);
        let mut stream = open(connect, b"k").await;
        cut.spawn(async move {
            assert_lost(&stream.read(&mut [0]).await.unwrap_err());
            let broken = stream.write(b"k").await.unwrap_err();
            assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe, "{broken:?}");
            assert_lost(&stream.read(&mut [0]).await.unwrap_err());
        });
    }
    for connect in [host.subsystem("sftp"), host.subsystem("sftp").shared()] {
        let mut stream = connect.await.unwrap();
        cut.spawn(async move {
            assert_lost(&stream.read(&mut [0]).await.unwrap_err());
        });
    }
    // Nobody reads this one, so that its connection does not listen: what has come is good,
    // and then it is an error as well.
    let mut unread = unix().await.unwrap();
    unread.write_all(b"f").await.unwrap();
    stands_still(UNREAD, || servers.flood.load(Ordering::SeqCst)).await;

    lose();
    let cuts = async {
        while let Some(seen) = cut.join_next().await {
            seen.unwrap();
        }
    };
    timeout(SOON, cuts).await.unwrap();
    let mut kept = Vec::new();
    let end = timeout(SOON, unread.read_to_end(&mut kept)).await.unwrap();
    assert_lost(&end.unwrap_err());
    assert!(kept.len() >= UNREAD, "{}", kept.len());
    for stream in &mut ended {
        reads_nothing_more(stream).await;
    }
    drop((ended, unread));
    servers.stop().await;
}

#[test]
fn streams_whose_connections_are_killed_end_in_an_error() {
    leaves_nothing(async |place| {
        streams_are_cut_off(place, || place.sshd.kill_connections()).await;
    });
}

#[test]
fn streams_behind_a_network_that_is_silent_end_in_an_error() {
    leaves_nothing(async |place| {
        streams_are_cut_off(place, || place.proxy.freeze()).await;
        place.proxy.thaw();
    });
}
