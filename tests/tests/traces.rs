//! What a subscriber sees: the three spans with their stable fields, and no secret. In a test
//! binary of its own, because it installs a global subscriber.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ssh_pool::{HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{Sshd, TestUser, eventually_async};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Seen {
    /// The fields with a value, by span name.
    fields: BTreeMap<String, BTreeSet<String>>,
    /// Everything, for the search.
    text: String,
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Seen>>);

impl Recorder {
    fn text(&self) -> String {
        self.0.lock().expect("not poisoned").text.clone()
    }
}

struct Visitor<'a> {
    seen: &'a mut Seen,
    name: &'a str,
}

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let fields = self.seen.fields.entry(self.name.to_owned()).or_default();
        fields.insert(field.name().to_owned());
        writeln!(self.seen.text, "{} {}={value:?}", self.name, field.name()).expect("a string");
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut seen = self.0.lock().expect("not poisoned");
        let name = attributes.metadata().name();
        attributes.record(&mut Visitor {
            seen: &mut seen,
            name,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut seen = self.0.lock().expect("not poisoned");
        let name = context.span(id).expect("a known span").name();
        values.record(&mut Visitor {
            seen: &mut seen,
            name,
        });
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut seen = self.0.lock().expect("not poisoned");
        event.record(&mut Visitor {
            seen: &mut seen,
            name: "event",
        });
    }
}

#[tokio::test]
async fn spans_have_stable_names_and_fields_and_hold_no_secret() {
    let recorder = Recorder::default();
    let subscriber = tracing_subscriber::registry().with(recorder.clone());
    tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");

    let sshd = Sshd::builder().user(TestUser::plain()).start();
    let pem = std::fs::read_to_string(sshd.client_key()).expect("a key");
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
        .identity(Identity::several([
            Identity::password("s3cret-password"),
            Identity::key_pem(&pem),
        ]))
        .build()
        .expect("valid settings");
    let host = pool.host(sshd.target()).expect("target");
    let output = host
        .command("echo")
        .arg("s3cret-argument")
        .env("TOKEN", "s3cret-environment")
        .stdin("s3cret-input")
        .output();
    assert!(output.await.expect("ran").status.success());
    host.command("")
        .output()
        .await
        .expect("a shell says that it knows no such command");
    let running = tokio::spawn(host.command("sleep").arg("1234").idempotent().output());
    let runs = || {
        let mut all = sshd.session_processes().into_iter();
        all.any(|(_, line)| line.ends_with("sleep 1234"))
    };
    assert!(eventually_async(PATIENCE, runs).await, "it runs");
    sshd.kill_connections();
    let told = || recorder.text().contains("event attempt=1");
    assert!(eventually_async(PATIENCE, told).await, "a loss is told");
    running.abort();
    sshd.stop();
    sshd.kill_connections();
    let gone = eventually_async(PATIENCE, || host.status().connections == 0);
    assert!(gone.await);
    // Commands that give up, until a dial has failed, which is told as well.
    let fails = async {
        loop {
            let given_up = Duration::from_secs(1);
            drop(host.command("true").timeout(given_up).output().await);
            if host.status().failed_dials > 0 {
                return;
            }
        }
    };
    let failed = tokio::time::timeout(PATIENCE, fails).await;
    failed.expect("a dial fails");
    pool.close().await;

    let seen = recorder.0.lock().expect("not poisoned");
    let fields = |name: &str| -> Vec<&str> {
        seen.fields
            .get(name)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    };
    assert_eq!(fields("ssh_pool.dial"), ["connection", "error", "host"]);
    let waits = ["back_off_ms", "channel_ms", "dial_ms", "queue_ms"];
    let with_waits = |others: &[&'static str]| {
        let mut all = [others, &waits].concat();
        all.sort_unstable();
        all
    };
    assert_eq!(fields("ssh_pool.queue"), with_waits(&["host"]));
    assert_eq!(
        fields("ssh_pool.command"),
        with_waits(&["attempts", "connection", "error", "exit", "host"])
    );
    for field in ["error", "pause"] {
        assert!(fields("event").contains(&field), "of a loss: {field}");
    }
    assert!(seen.text.contains("ssh_pool.command attempts=1"));
    assert!(!seen.text.contains("s3cret"), "{}", seen.text);
    for line in pem
        .lines()
        .filter(|line| line.len() > 40 && !line.contains("KEY"))
    {
        assert!(!seen.text.contains(line), "key material in a trace");
    }
}
