//! Targets, status and events in JSON.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use serde_json::{Value, json};
use ssh_pool::{Identity, Target};
use ssh_pool_tests::Sshd;

#[path = "support/mod.rs"]
mod support;

use support::{SOON, builder, known};

#[test]
fn a_target_is_its_text_and_one_with_settings_is_refused() {
    let target: Target = serde_json::from_value(json!("deploy@WEB-1")).unwrap();
    assert_eq!(target.to_string(), "deploy@web-1:22");
    assert_eq!(serde_json::to_value(&target).unwrap(), "deploy@web-1:22");
    let error = serde_json::from_value::<Target>(json!("deploy@a b")).unwrap_err();
    assert!(error.to_string().contains("white space"), "{error}");

    let secret = target.identity(Identity::password("hunter2"));
    let error = serde_json::to_value(&secret).unwrap_err().to_string();
    assert!(
        error.contains("deploy@web-1:22 has settings of its own"),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_events_say_what_is_going_on() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let mut events = pool.events();
    let host = pool.host(sshd.target()).unwrap();
    assert!(host.command("true").status().await.unwrap().success());

    let status: Value = serde_json::to_value(pool.status()).unwrap();
    let shown = &status["hosts"][0];
    assert_eq!(shown["target"], sshd.target());
    assert_eq!(
        (&shown["dials"], &shown["breaker"]),
        (&json!(1), &json!("closed"))
    );
    let connection = &shown["each_connection"][0];
    assert_eq!(connection["purpose"], "shared");
    assert_eq!(connection["peer_addr"], sshd.addr().to_string());
    assert!(connection["age"]["secs"].is_u64(), "{connection}");

    let event = serde_json::to_value(events.next().await.unwrap()).unwrap();
    assert_eq!(event["kind"], "dialled");
    assert!(event["connection"].is_u64(), "{event}");
    assert_eq!(event["target"], sshd.target());
    assert!(
        event["took"]["nanos"].is_u64() && event["at"].is_object(),
        "{event}"
    );

    // With the error that an event is about.
    sshd.stop();
    sshd.kill_connections();
    let failed = async {
        loop {
            drop(host.command("true").status().await);
            let event = serde_json::to_value(events.next().await.unwrap()).unwrap();
            if event["kind"] == "dial_failed" {
                break event;
            }
        }
    };
    let failed = tokio::time::timeout(SOON, failed).await.unwrap();
    let error = &failed["error"];
    assert_eq!(error["target"], sshd.target());
    assert_eq!(
        (&error["phase"], &error["transient"]),
        (&json!("connect"), &json!(true))
    );
    assert_eq!(error["command_state"], "not_started");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with(&sshd.target()),
        "{error}"
    );
}
