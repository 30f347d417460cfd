//! Servers that break the protocol on purpose, each beside a healthy host in the same pool: no
//! call hangs, nothing panics or grows, the neighbour notices nothing, and what is shown of the
//! server's words is safe to print and short. In a test binary of its own, because it counts this
//! process's heap, descriptors, log lines and panics.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::alloc::System;

use cap::Cap;

mod behaviour;
mod calls;
mod channels;
mod connection;
mod login;
mod mutations;
mod record;
mod requests;
mod suite;
mod text;
mod transport;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);
