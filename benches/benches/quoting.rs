//! What it costs to quote words for a remote shell.
//!
//! ```text
//! cargo bench -p ssh-pool-benches --features internals --bench quoting -- --quick
//! ```

#![allow(clippy::expect_used, reason = "a bench that cannot run says why")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ssh_pool_core::internals::push_word;

fn line<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut line = Vec::new();
    for word in words {
        push_word(&mut line, black_box(word)).expect("no NUL byte");
        line.push(b' ');
    }
    line
}

fn words(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("quoting");
    let long = "a-long-word/".repeat(400);
    let hostile = "it's $HOME `id` \"x\" \\ *?[~#!;&|<>() \t\n".repeat(100);
    let many: Vec<String> = (0..1_000)
        .map(|n| format!("--label=app-{n}=v{n}"))
        .collect();
    let docker = [
        "docker",
        "ps",
        "--all",
        "--no-trunc",
        "--filter",
        "label=app=shop",
        "--format",
        "{{.ID}}\t{{.Names}}\t{{json .Labels}}",
    ];
    let cases: [(&str, Vec<&[u8]>); 5] = [
        ("a short word", vec![b"docker"]),
        ("a long word, 4,800 bytes", vec![long.as_bytes()]),
        ("a hostile word, 4,000 bytes", vec![hostile.as_bytes()]),
        (
            "1,000 arguments",
            many.iter().map(String::as_bytes).collect(),
        ),
        (
            "docker ps with a format",
            docker.iter().map(|word| word.as_bytes()).collect(),
        ),
    ];
    for (name, words) in cases {
        let bytes: usize = words.iter().map(|word| word.len()).sum();
        group.throughput(Throughput::Bytes(u64::try_from(bytes).unwrap_or(u64::MAX)));
        group.bench_function(name, |b| b.iter(|| line(words.iter().copied())));
    }
    group.finish();
}

criterion_group!(benches, words);
criterion_main!(benches);
