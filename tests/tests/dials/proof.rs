//! A server has to prove that it holds the host key that it shows (RFC 4253, section 8).

use std::fs;
use std::sync::Arc;

use russh::keys::PublicKey;
use russh::keys::ssh_key::Mpint;
use russh::keys::ssh_key::public::{KeyData, RsaPublicKey};
use ssh_pool::{Algorithms, Error, HostKeyPolicy, HostKeyProblem, Identity, Phase, Pool};
use ssh_pool_tests::raw::{Act, At, KeyExchange, RawServer, Trick, number};

fn pool(server: &RawServer) -> ssh_pool::PoolBuilder {
    let policy = HostKeyPolicy::known_hosts_file(server.known_hosts());
    Pool::builder(policy).identity(Identity::password("x"))
}

fn signature(name: &str, length: usize) -> Vec<u8> {
    let mut blob = Vec::new();
    for part in [name.as_bytes(), &vec![5; length]] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    blob
}

fn is_not_proven(error: &Error) {
    let Error::HostKey {
        reason: HostKeyProblem::NotProven { .. },
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    let text = error.to_string();
    let expected = "the server could not prove that it holds its host key: ";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("someone may be in between"), "{text}");
    assert_eq!(error.phase(), Phase::HostKey);
    assert!(!error.is_transient());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_of_the_key_exchange_may_be_an_attack() {
    for signature in [
        signature("ssh-ed25519", 64),
        signature("ssh-ed25519", 63),
        signature("ssh-rsa", 256),
        b"nonsense".to_vec(),
        Vec::new(),
    ] {
        let shown = format!("{signature:?}");
        let key_exchange = KeyExchange {
            signature: Some(signature),
            ..KeyExchange::default()
        };
        let server = RawServer::with_tricks(key_exchange, Vec::new());
        let pool = pool(&server).build().unwrap();
        let host = pool.host(server.target()).unwrap();
        let error = host.command("true").output().await.unwrap_err();
        is_not_proven(&error);
        assert_eq!((server.accepted(), server.logins()), (1, 0), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_known_key_signs_that_is_too_long_to_check_is_no_attack() {
    let key_exchange = KeyExchange {
        signature: Some(signature("rsa-sha2-512", 2048)),
        ..KeyExchange::default()
    };
    let server = RawServer::with_tricks(key_exchange, Vec::new());
    let known = fs::read_to_string(server.known_hosts()).unwrap();
    let (name, _) = known.split_once(' ').unwrap();
    let number = Mpint::from_positive_bytes;
    let key = RsaPublicKey::new(number(&[1, 0, 1]), number(&[0xff; 2048])).unwrap();
    let key = PublicKey::from(KeyData::Rsa(key)).to_openssh().unwrap();
    fs::write(server.known_hosts(), format!("{name} {key}\n")).unwrap();
    // As if the server had that key: its own one is not looked at before its signature.
    let pool = pool(&server).build().unwrap();
    let host = pool.host(server.target()).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("RSA key of 16384 bits"), "{text}");
    assert!(!text.contains("in between"), "{text}");
    assert_eq!(error.phase(), Phase::HostKey);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_by_another_algorithm_than_agreed_proves_nothing() {
    let mut key_exchange = KeyExchange::default();
    // It agrees to ECDSA, and signs with its Ed25519 key.
    key_exchange.lists[1] = "ecdsa-sha2-nistp256".into();
    let server = RawServer::with_tricks(key_exchange, Vec::new());
    let algorithms = Algorithms::default().host_key("ecdsa-sha2-nistp256");
    let pool = pool(&server).algorithms(algorithms).build().unwrap();
    let host = pool.host(server.target()).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    is_not_proven(&error);
    assert!(error.to_string().contains("ssh-ed25519"), "{error}");
    assert_eq!(server.logins(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_when_keys_are_changed_is_named_too() {
    let server = RawServer::start(Arc::new(|mut peer| {
        Box::pin(async move {
            peer.handshake().await?;
            peer.log_in().await?;
            peer.key_exchange.signature = Some(signature("ssh-ed25519", 64));
            let at = At::First(number::CHANNEL_SUCCESS);
            peer.play(Arc::new(vec![Trick::new(at, vec![Act::Rekey])]));
            peer.serve().await
        })
    }));
    let pool = pool(&server).build().unwrap();
    let host = pool.host(server.target()).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    let mut shown = error.to_string();
    let mut below: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(cause) = below {
        shown += &format!(": {cause}");
        below = cause.source();
    }
    assert!(
        shown.contains("could not prove that it holds its host key"),
        "{shown}"
    );
}
