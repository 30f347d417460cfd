//! What a server can make this process log. In a test binary of its own, because it counts what all
//! crates log.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use ssh_pool::{HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::raw::{Act, At, KeyExchange, Payload, RawServer, Trick, number};
use ssh_pool_tests::{KeyFormat, TempDir, generate};

/// Bytes and lines of level WARN and above.
static BYTES: AtomicUsize = AtomicUsize::new(0);
static LINES: AtomicUsize = AtomicUsize::new(0);

struct Counter;

impl Log for Counter {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        BYTES.fetch_add(record.args().to_string().len(), Ordering::Relaxed);
        LINES.fetch_add(1, Ordering::Relaxed);
    }

    fn flush(&self) {}
}

/// Far longer than a connection lasts here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of each connection.
const MOST_BYTES: usize = 512 << 10;
const MOST_LINES: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_nothing_asked_for_fill_no_log() {
    log::set_logger(&Counter).unwrap();
    log::set_max_level(LevelFilter::Warn);
    let name = "x".repeat(1_000);
    let request = Payload::new(number::GLOBAL_REQUEST).string(&*name).byte(0);
    let flood = vec![Act::Original, Act::Flood(request.into())];
    let trick = Trick::new(At::Every(number::CHANNEL_SUCCESS), flood);
    let server = RawServer::with_tricks(KeyExchange::default(), vec![trick]);
    let dir = TempDir::new();
    let key = generate(dir.path(), "key", "ed25519", None, KeyFormat::OpenSsh);
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(server.known_hosts()))
        .identity(Identity::key_file(key.private()))
        .build()
        .unwrap();
    let host = pool.host(server.target()).unwrap();
    for _ in 0..5 {
        let lost = tokio::time::timeout(PATIENCE, host.command("true").output()).await;
        lost.expect("the flood ends").unwrap_err();
    }
    pool.close().await;
    let connections = server.accepted();
    let (bytes, lines) = (BYTES.load(Ordering::Relaxed), LINES.load(Ordering::Relaxed));
    eprintln!("{connections} connections, {bytes} bytes in {lines} lines");
    assert!(lines > 0, "the logger hears russh");
    assert!(bytes <= connections * MOST_BYTES, "{bytes} bytes");
    assert!(lines <= connections * MOST_LINES, "{lines} lines");
}
