//! The checks of the fuzz targets over their seeds and over what becomes of them at random: a smoke
//! run that needs no libFuzzer. It finds what is easy to find.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use ssh_pool_fuzz::TARGETS;
use ssh_pool_fuzz::inputs::inputs;

/// How many inputs are made of the seeds of one target.
const MADE: usize = 3_000;

fn holds(name: &str) {
    // What is counted of the heap is counted of the process.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (_, check) = TARGETS
        .iter()
        .find(|(other, _)| *other == name)
        .expect("a target");
    for input in inputs(name, MADE) {
        if let Err(problem) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
            eprintln!("{name} fails with {}", input.escape_ascii());
            resume_unwind(problem);
        }
    }
}

#[test]
fn a_server_is_identified_by_its_line_alone() {
    holds("banner");
}

#[test]
fn arguments_of_an_ssh_mean_what_they_mean_to_ssh() {
    holds("invocation");
}

#[test]
fn a_known_hosts_file_trusts_what_its_lines_say() {
    holds("known_hosts");
}

#[test]
fn shells_read_what_was_quoted() {
    holds("quoting");
}

#[test]
fn a_shims_message_means_one_thing_or_nothing() {
    holds("shim_message");
}

#[test]
fn stories_of_the_books_end_well() {
    holds("slots");
}

#[test]
fn a_target_reads_back_as_it_is() {
    holds("target");
}

#[test]
fn every_target_has_its_test() {
    let here = include_str!("seeds.rs");
    for (name, _) in TARGETS {
        assert!(here.contains(&format!("holds(\"{name}\")")), "{name}");
    }
}
