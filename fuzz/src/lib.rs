//! What the fuzz targets check: one module for each, with a `check` that panics where a promise is
//! broken. libFuzzer calls it with whatever it thinks of; `cargo test` with the seeds and what
//! becomes of them.

#![forbid(unsafe_code)]

use std::alloc::System;

use cap::Cap;

pub mod banner;
pub mod inputs;
pub mod invocation;
pub mod known_hosts;
pub mod quoting;
mod shell;
pub mod shim_message;
pub mod slots;
pub mod target;

/// Counts the heap, and holds it to a limit where one is set.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// A target's name and its check.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("banner", banner::check),
    ("invocation", invocation::check),
    ("known_hosts", known_hosts::check),
    ("quoting", quoting::check),
    ("shim_message", shim_message::check),
    ("slots", slots::check),
    ("target", target::check),
];
