//! What it costs to take a session channel that lies ready, and to put it back, beside what the
//! same costs in a bare deadpool that holds nothing; and what the pool itself does for one command.
//!
//! ```text
//! cargo bench -p ssh-pool-benches --features internals --bench checkout -- --quick
//! ```
//!
//! The servers exist in this process only and answer at once. The summary at the end measures again
//! side by side, in turns, and names the goals.

#![allow(clippy::expect_used, reason = "a bench that cannot run says why")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use deadpool::managed::{Manager, Metrics, RecycleResult};
use ssh_pool::{Host, Limits, Pool};
use ssh_pool_benches::order::shuffled;
use ssh_pool_benches::paired;
use ssh_pool_core::internals;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const TASKS: [u32; 3] = [1, 8, 64];
const HOSTS: [u32; 3] = [1, 100, 10_000];

/// A pool of nothing, as large as that of a host.
type Bare = deadpool::managed::Pool<Nothing>;

struct Nothing;

impl Manager for Nothing {
    type Type = ();
    type Error = Infallible;

    async fn create(&self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn recycle(&self, (): &mut (), _: &Metrics) -> RecycleResult<Infallible> {
        Ok(())
    }
}

fn bare() -> Bare {
    (Bare::builder(Nothing).max_size(80).build()).expect("no time-outs to refuse")
}

/// In no order of memory: a real caller does not walk along the hosts either.
fn bares(count: u32) -> Arc<[Bare]> {
    shuffled((0..count).map(|_| bare()).collect::<Vec<_>>()).into()
}

/// Hosts with an idle channel each.
async fn hosts(pool: &Pool, count: u32) -> Arc<[Host]> {
    let mut hosts = Vec::new();
    for n in 0..count {
        let host = pool.host(format!("deploy@host-{n}:22")).expect("valid");
        host.warm().await.expect("an instant server");
        // Settles: the next idle channel has been opened.
        host.warm().await.expect("an instant server");
        hosts.push(host);
    }
    tokio::task::yield_now().await;
    shuffled(hosts).into()
}

async fn spares(hosts: Arc<[Host]>, cycles: u32) {
    for (host, _) in hosts.iter().cycle().zip(0..cycles) {
        drop(internals::checkout(host).await.expect("a spare"));
    }
}

async fn objects(pools: Arc<[Bare]>, cycles: u32) {
    for (pool, _) in pools.iter().cycle().zip(0..cycles) {
        drop(pool.get().await.expect("an object"));
    }
}

/// How long it takes `tasks` to run so many cycles together.
async fn timed<T, F>(
    of: &Arc<[T]>,
    tasks: u32,
    cycles: u32,
    run: fn(Arc<[T]>, u32) -> F,
) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    let started = Instant::now();
    if tasks == 1 {
        run(of.clone(), cycles).await;
        return started.elapsed();
    }
    let each = cycles.div_ceil(tasks);
    let mut all = JoinSet::new();
    for _ in 0..tasks {
        all.spawn(run(of.clone(), each));
    }
    all.join_all().await;
    // Some more cycles than were asked for.
    started.elapsed() * cycles / (each * tasks)
}

fn few(cycles: u64) -> u32 {
    u32::try_from(cycles).unwrap_or(u32::MAX)
}

/// A pool with hosts, and the runtime that it lives on.
struct Bench {
    runtime: Runtime,
    pool: Pool,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let guard = runtime.enter();
        let pool = internals::pool(limits()).expect("valid limits");
        drop(guard);
        Self { runtime, pool }
    }

    fn hosts(&self, count: u32) -> Arc<[Host]> {
        self.runtime.block_on(hosts(&self.pool, count))
    }

    /// How long the first handle to a host takes, in a new pool that meets so many.
    fn meet(&self, count: u32) -> Duration {
        let _inside = self.runtime.enter();
        let pool = internals::pool(limits()).expect("valid limits");
        let targets: Vec<_> = (0..count).map(|n| format!("deploy@host-{n}:22")).collect();
        let started = Instant::now();
        let hosts: Vec<_> = (targets.iter())
            .map(|target| pool.host(target.as_str()).expect("valid"))
            .collect();
        let took = started.elapsed();
        drop(hosts);
        took / count
    }

    fn spares(&self, hosts: &Arc<[Host]>, tasks: u32, cycles: u32) -> Duration {
        self.runtime.block_on(timed(hosts, tasks, cycles, spares))
    }

    fn objects(&self, pools: &Arc<[Bare]>, tasks: u32, cycles: u32) -> Duration {
        self.runtime.block_on(timed(pools, tasks, cycles, objects))
    }

    fn tasks(&self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("checkout by tasks");
        let (one, pool) = (self.hosts(1), bares(1));
        for tasks in TASKS {
            group.bench_function(BenchmarkId::new("spare", tasks), |b| {
                b.iter_custom(|cycles| self.spares(&one, tasks, few(cycles)));
            });
            group.bench_function(BenchmarkId::new("bare deadpool", tasks), |b| {
                b.iter_custom(|cycles| self.objects(&pool, tasks, few(cycles)));
            });
        }
        group.finish();
    }

    fn by_hosts(&self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("checkout by hosts");
        for count in HOSTS {
            let (all, pools) = (self.hosts(count), bares(count));
            let one: Arc<[Host]> = all.iter().take(1).cloned().collect();
            group.bench_function(BenchmarkId::new("one of them", count), |b| {
                b.iter_custom(|cycles| self.spares(&one, 1, few(cycles)));
            });
            group.bench_function(BenchmarkId::new("in turn", count), |b| {
                b.iter_custom(|cycles| self.spares(&all, 1, few(cycles)));
            });
            group.bench_function(BenchmarkId::new("bare deadpools in turn", count), |b| {
                b.iter_custom(|cycles| self.objects(&pools, 1, few(cycles)));
            });
        }
        group.finish();
    }

    /// Current-thread: what is spawned runs when the command waits, and not on another core.
    fn commands(criterion: &mut Criterion) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let guard = runtime.enter();
        let pool = internals::pool(limits()).expect("valid limits");
        drop(guard);
        let all = runtime.block_on(hosts(&pool, 1));
        let host = all.first().expect("one host");
        let mut group = criterion.benchmark_group("command");
        // Taken, used, closed, released, and the next idle channel lies ready.
        group.bench_function("life of a session", |b| {
            b.to_async(&runtime).iter(|| async {
                (internals::checkout(host).await.expect("a spare")).use_up();
                tokio::task::yield_now().await;
            });
        });
        group.bench_function("output", |b| {
            b.to_async(&runtime).iter(|| async {
                let mut command = host.command("docker");
                command.args(["ps", "-q"]).output().await.expect("it runs")
            });
        });
        group.finish();
    }

    fn summary(&self) {
        println!("\nside by side, medians of ratios of 101 rounds, 1 task unless said otherwise");
        let pool = bares(1);
        let fresh = Self::new();
        let one = fresh.hosts(1);
        for tasks in TASKS {
            let cycles = 1_000 * tasks.min(8);
            let found = paired::measure(
                101,
                cycles,
                |n| fresh.spares(&one, tasks, n),
                |n| fresh.objects(&pool, tasks, n),
            );
            goal(
                &format!("spare / bare deadpool, {tasks} tasks"),
                &found,
                3.0,
            );
        }
        let many = self.hosts(10_000);
        let of_many: Arc<[Host]> = many.iter().take(1).cloned().collect();
        let found = paired::measure(
            101,
            1_000,
            |n| self.spares(&of_many, 1, n),
            |n| fresh.spares(&one, 1, n),
        );
        goal("one of 10,000 hosts / the only host", &found, 1.2);
        let pools = bares(10_000);
        let found = paired::measure(
            21,
            20_000,
            |n| self.spares(&many, 1, n),
            |n| self.objects(&pools, 1, n),
        );
        // No goal: it shows whose the cache misses are.
        show(
            "10,000 hosts in turn / 10,000 deadpools in turn",
            &found,
            "",
        );
        let found = paired::measure(
            21,
            20_000,
            |n| self.objects(&pools, 1, n),
            |n| self.objects(&pool, 1, n),
        );
        show("10,000 deadpools in turn / the only one", &found, "");
        let found = paired::measure(5, 1, |_| self.meet(10_000), |_| self.meet(100));
        show("to meet a host: each of 10,000 / of 100", &found, "");
    }
}

fn goal(what: &str, found: &paired::Paired, most: f64) {
    let verdict = if found.ratio <= most { "met" } else { "MISSED" };
    show(what, found, &format!("(goal {most:.1}: {verdict})"));
}

fn show(what: &str, found: &paired::Paired, verdict: &str) {
    let paired::Paired {
        first,
        second,
        ratio,
    } = found;
    println!("{what:<50} {first:>6.0} ns / {second:>5.0} ns = {ratio:.2} {verdict}");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let bench = Bench::new();
    bench.tasks(&mut criterion);
    bench.by_hosts(&mut criterion);
    Bench::commands(&mut criterion);
    criterion.final_summary();
    bench.summary();
}

/// Each of ten thousand hosts keeps its connection: none has to go for another one.
fn limits() -> Limits {
    Limits::default().connections(20_000)
}
