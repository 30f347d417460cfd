//! Random faults in what a server sends that else keeps to the protocol.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ssh_pool_tests::raw::{RawPeer, Script};

use crate::behaviour::Behaviour;
use crate::suite;

/// Packets that are sent as they are, before some are changed.
const QUIET: u64 = 12;

/// A server whose packets are changed before they are encrypted: bytes flipped, left out, doubled.
pub(crate) fn server(seed: u64) -> Script {
    Arc::new(move |mut peer: RawPeer| {
        Box::pin(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            // Some faults come in the handshake, most of them later.
            let mut quiet = random.u64(0..QUIET);
            peer.mutate = Some(Box::new(move |message| {
                if quiet > 0 {
                    quiet -= 1;
                    return vec![message];
                }
                change(&mut random, message)
            }));
            let served: io::Result<()> = async {
                peer.handshake().await?;
                peer.serve().await
            }
            .await;
            served
        })
    })
}

fn change(random: &mut fastrand::Rng, mut message: Vec<u8>) -> Vec<Vec<u8>> {
    let at = random.usize(0..message.len().max(1));
    match random.u8(0..12) {
        0 if at < message.len() => message[at] ^= 1 << random.u8(0..8),
        1 => message.truncate(at),
        2 => return vec![message.clone(), message],
        3 => return Vec::new(),
        4 => message.extend(std::iter::repeat_with(|| random.u8(..)).take(at)),
        5 if at < message.len() => message[at] = 0xff,
        6 => {
            let end = message.len().min(at + 4);
            message[at.min(end)..end].fill(0xff);
        }
        _ => {}
    }
    vec![message]
}

/// Runs random faults for as many seconds as `HOSTILE_SECONDS` says; a few seeds without it.
#[test]
fn random_faults_of_a_server_harm_only_the_calls_to_itself() {
    let seconds = std::env::var("HOSTILE_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let first = std::env::var("HOSTILE_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let _alone = suite::alone();
    let healthy = suite::healthy();
    let mut seed: u64 = first.unwrap_or(1);
    let started = Instant::now();
    let time = Duration::from_secs(seconds.unwrap_or(0));
    loop {
        let behaviours = (seed..seed + 16)
            .map(|seed| Behaviour::script("random faults", server(seed)))
            .collect();
        let reports = suite::run_all(behaviours, &healthy);
        let found = suite::problems(&reports);
        assert!(found.is_empty(), "seeds from {seed} on:\n{found}");
        seed += 16;
        if started.elapsed() >= time {
            break;
        }
    }
    println!("seeds up to {seed} in {:?}", started.elapsed());
}
