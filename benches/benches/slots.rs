//! What the decisions about sessions cost, without anything that carries them out.
//!
//! ```text
//! cargo bench -p ssh-pool-benches --features internals --bench slots -- --quick
//! ```

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ssh_pool_core::internals::StateDriver;

/// Four connections with ten sessions each, the defaults, all in use.
const QUEUES: [u32; 3] = [1, 1_000, 10_000];

/// One that ends where it began.
type Story = fn(&mut StateDriver);

fn spares(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slots, a spare");
    let mut driver = StateDriver::idle();
    group.bench_function("claim and return", |b| b.iter(|| driver.claim_and_return()));
    group.bench_function("claim, close, cool, open", |b| {
        b.iter(|| driver.claim_and_close())
    });
    group.finish();
}

fn queues(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slots, a queue");
    let stories: [(&str, Story); 4] = [
        ("look", StateDriver::reschedule),
        ("close, cool, open, hand over", StateDriver::next_turn),
        ("the same, refused once", StateDriver::refused_turn),
        ("give up in the middle", StateDriver::cancel_waiter),
    ];
    for (name, story) in stories {
        for queue in QUEUES {
            let mut driver = StateDriver::busy(4, 10, queue);
            group.bench_function(BenchmarkId::new(name, queue), |b| {
                b.iter(|| story(&mut driver))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, spares, queues);
criterion_main!(benches);
