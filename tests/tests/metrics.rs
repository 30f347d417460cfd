//! What the feature `metrics` counts, held against a server that counts too.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn};
use metrics::{Key, KeyName, Metadata, Recorder, SharedString, Unit};
use ssh_pool::{Host, HostKeyPolicy, Identity, Limits, Pool, Timeouts};
use ssh_pool_tests::{Embedded, eventually_async};

const SOON: Duration = Duration::from_secs(20);

/// Keeps everything: by name and labels, as Prometheus shows them.
#[derive(Clone, Default)]
struct Numbers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    values: BTreeMap<String, Vec<f64>>,
    described: BTreeMap<String, Option<Unit>>,
}

impl Numbers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// All that was recorded of a histogram; the one value of anything else.
    fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let key = shown(name, labels.iter().copied());
        self.state().values.get(&key).cloned().unwrap_or_default()
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.values(name, labels).last().copied().unwrap_or(0.0)
    }

    fn described(&self, name: KeyName, unit: Option<Unit>) {
        self.state()
            .described
            .insert(name.as_str().to_owned(), unit);
    }

    fn one(&self, key: &Key) -> Arc<One> {
        let labels = key.labels().map(|label| (label.key(), label.value()));
        Arc::new(One(self.clone(), shown(key.name(), labels)))
    }
}

fn shown<'a>(name: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let labels: BTreeSet<String> = labels
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    format!("{name}{labels:?}")
}

/// One of them.
struct One(Numbers, String);

impl One {
    fn change(&self, change: impl FnOnce(&mut Vec<f64>)) {
        change(self.0.state().values.entry(self.1.clone()).or_default());
    }

    fn set_to(&self, value: impl FnOnce(f64) -> f64) {
        self.change(|values| *values = vec![value(values.last().copied().unwrap_or(0.0))]);
    }
}

impl CounterFn for One {
    fn increment(&self, more: u64) {
        self.set_to(|value| value + f64::from(u32::try_from(more).unwrap()));
    }

    fn absolute(&self, _: u64) {
        panic!("nothing here is counted elsewhere");
    }
}

impl GaugeFn for One {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }

    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.set_to(|_| value);
    }
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        self.change(|values| values.push(value));
    }
}

impl Recorder for Numbers {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described(name, unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described(name, unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described(name, unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.one(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(key))
    }
}

/// The recorder of this process. Hosts keep the tests apart.
fn numbers() -> Numbers {
    static NUMBERS: OnceLock<Numbers> = OnceLock::new();
    let install = || {
        let numbers = Numbers::default();
        metrics::set_global_recorder(numbers.clone()).unwrap_or_else(|_| panic!("there is one"));
        numbers
    };
    NUMBERS.get_or_init(install).clone()
}

/// A server, a pool that looks at its hosts every 20 ms, and the host in it.
async fn server(limits: Limits) -> (Embedded, Pool, Host, Numbers) {
    let numbers = numbers();
    let server = Embedded::start().await;
    let idle = Duration::from_millis(100);
    // No files: they would be gone with the server.
    let pool = Pool::builder(HostKeyPolicy::pinned(server.host_key()))
        .identity(Identity::key_pem(server.client_key_pem()))
        .limits(limits)
        .timeouts(Timeouts::default().idle(idle))
        .build()
        .unwrap();
    let host = pool.host(server.target()).unwrap();
    (server, pool, host, numbers)
}

/// A command for a server that is not there any more.
async fn too_late(host: &Host) {
    let mut command = host.command("true");
    let command = command.timeout(Duration::from_millis(500));
    command.output().await.unwrap_err();
}

async fn becomes(numbers: &Numbers, name: &str, labels: &[(&str, &str)], wanted: f64) {
    let reached = eventually_async(SOON, || numbers.value(name, labels) == wanted).await;
    assert!(reached, "{name}: {:?}", numbers.state().values);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_counted_by_how_they_ended_and_with_what_they_waited_for() {
    let (server, _pool, host, numbers) = server(Limits::default().output_bytes(1000)).await;
    let target = server.target();
    let of = |result| [("host", &*target), ("result", result)];
    for _ in 0..5 {
        host.command("true").output().await.unwrap();
    }
    // One that fails on the server is one that has run.
    assert!(!host.command("false").status().await.unwrap().success());
    let mut child = host.command("true").spawn().await.unwrap();
    child.wait().await.unwrap();
    child.wait().await.unwrap();
    drop(child);
    let mut too_much = host.shell("head -c 2000 /dev/zero");
    too_much.output().await.unwrap_err();
    let child = too_much.spawn().await.unwrap();
    child.wait_with_output().await.unwrap_err();
    drop(host.command("sleep").arg("60").spawn().await.unwrap());
    host.evict();
    server.stop();
    too_late(&host).await;
    for (result, count) in [
        ("ok", 7.0),
        ("unknown", 2.0),
        ("dropped", 1.0),
        ("not_started", 1.0),
    ] {
        assert_eq!(
            numbers.value("ssh_pool_commands_total", &of(result)),
            count,
            "{result}"
        );
    }
    let by_host = [("host", &*target)];
    assert_eq!(numbers.value("ssh_pool_overruns_total", &by_host), 2.0);
    let took = numbers.values("ssh_pool_command_seconds", &by_host);
    assert_eq!(took.len(), 10, "of all but the one that nobody waited for");
    assert!(took.iter().all(|seconds| *seconds < 60.0), "{took:?}");
    let dial = numbers.values(
        "ssh_pool_wait_seconds",
        &[("host", &target), ("part", "dial")],
    );
    assert_eq!(dial.len(), 10);
    assert!(dial.first().is_some_and(|first| *first > 0.0), "{dial:?}");
    assert!(
        dial.contains(&0.0),
        "who came later waited for none: {dial:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_and_shown_as_long_as_they_are_there() {
    let (server, pool, host, numbers) = server(Limits::default()).await;
    let target = server.target();
    let by_host = [("host", &*target)];
    let running = tokio::spawn(host.command("sleep").arg("60").output());
    becomes(&numbers, "ssh_pool_running", &by_host, 1.0).await;
    becomes(&numbers, "ssh_pool_connections", &by_host, 1.0).await;
    becomes(&numbers, "ssh_pool_spare", &by_host, 1.0).await;
    assert_eq!(numbers.value("ssh_pool_waiting", &by_host), 0.0);
    assert_eq!(numbers.value("ssh_pool_dials_total", &by_host), 1.0);
    running.abort();
    drop(running.await);
    becomes(&numbers, "ssh_pool_running", &by_host, 0.0).await;
    let idle = [("host", &*target), ("reason", "idle")];
    becomes(&numbers, "ssh_pool_retired_connections_total", &idle, 1.0).await;
    becomes(&numbers, "ssh_pool_connections", &by_host, 0.0).await;
    assert_eq!(server.connections(), 1);

    server.stop();
    too_late(&host).await;
    let failed = [("host", &*target), ("phase", "connect")];
    assert!(numbers.value("ssh_pool_failed_dials_total", &failed) >= 1.0);
    drop((host, pool));
    let described = numbers.state().described.clone();
    for name in numbers.state().values.keys() {
        let name = name.split('{').next().unwrap();
        let unit = described
            .get(name)
            .unwrap_or_else(|| panic!("{name}: what is it?"));
        let seconds = name.ends_with("_seconds");
        let expected = if seconds { Unit::Seconds } else { Unit::Count };
        assert_eq!(*unit, Some(expected), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_gone_shows_no_connections() {
    let (server, pool, host, numbers) = server(Limits::default()).await;
    let target = server.target();
    let by_host = [("host", &*target)];
    let child = host.command("sleep").arg("60").spawn().await.unwrap();
    becomes(&numbers, "ssh_pool_connections", &by_host, 1.0).await;
    drop((child, host, pool));
    becomes(&numbers, "ssh_pool_connections", &by_host, 0.0).await;
}
