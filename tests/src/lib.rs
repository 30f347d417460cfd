//! Servers, keys, agents and faults: what the tests, examples and benches of `ssh-pool` share.
//!
//! Everything here runs on loopback, from a temporary folder of its own, and is gone when it is
//! dropped, with every process that came from it. Fixtures can be used side by side, also by
//! several test processes at once. A process that is killed, or calls `std::process::exit`, drops
//! nothing: it leaves its servers running.
//!
//! | | |
//! |---|---|
//! | [`Sshd`] in two [releases](Release), [`Dropbear`] | the real servers, with stock limits |
//! | [`SftpServer`] | asyncssh and ProFTPD, which have SFTP of other makers |
//! | [`Dockerd`], [`compose_config`] | a Docker daemon with an image, which knows of no other; `docker compose` |
//! | [`Embedded`] | an SSH server inside this process, which needs nothing installed |
//! | [`raw::RawServer`] | an SSH server that breaks the protocol in every way it is told to |
//! | [`Proxy`] | a TCP proxy that delays, freezes, resets and worse, also [by script](Step) |
//! | [`BlackHole`] | a host that swallows every packet |
//! | [`Names`] | what host names resolve to |
//! | [`Machines`] | two servers that one name leads to |
//! | [`CountedLine`] | a slow line that counts round trips |
//! | [`Agent`], [`generate`], [`sign_user_certificate`] | what a client logs in with |
//! | [`OddAgent`] | an agent that is slow, silent or holds odd keys |
//! | [`Home`] | a home folder of its own for ssh and the library |
//! | [`Repos`] | bare git repositories |
//! | [`TestUser`] | who it logs in as |
//! | [`Ledger`], [`storm()`] | what ran how often; many commands at once |
//! | [`procs`] | what runs below a server, and what this process holds |
//! | [`eventually`] | waiting with a deadline, in the place of sleeping |
//! | [`block_on`] | a caller without a runtime |
//! | [`PacedCaller`], [`moment()`] | callers who come back, and callers who give up |
//!
//! Whatever a fixture needs and cannot have is a panic that says what to install: a test that
//! passes has run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: a fixture that cannot be set up must fail the test, and say why"
)]

mod account;
mod agent;
mod background;
mod black_hole;
mod client;
mod compose;
mod connection;
mod counted_line;
mod daemon;
mod dockerd;
mod dropbear;
mod embedded;
mod exec;
mod home;
mod keys;
mod ledger;
mod log;
mod machines;
mod mark;
mod moment;
mod names;
mod noise;
mod odd_agent;
mod paced;
mod pam;
mod ports;
pub mod procs;
mod proxy;
pub mod raw;
mod relay;
mod release;
mod repos;
mod run;
mod script;
mod sftp_server;
mod sshd;
mod storm;
mod temp;
mod trixie;
mod user;
mod wait;

pub use agent::Agent;
pub use black_hole::BlackHole;
pub use client::ssh;
pub use compose::compose_config;
pub use connection::EndsAt;
pub use counted_line::CountedLine;
pub use dockerd::Dockerd;
pub use dropbear::{Dropbear, DropbearBuilder};
pub use embedded::{Embedded, EmbeddedBuilder};
pub use home::Home;
pub use keys::{
    KeyFormat, KeyPair, fingerprint, generate, sign_host_certificate, sign_user_certificate,
};
pub use ledger::Ledger;
pub use machines::Machines;
pub use moment::{moment, moment_passes};
pub use names::Names;
pub use noise::noise;
pub use odd_agent::{Habit, OddAgent};
pub use paced::PacedCaller;
pub use ports::free as free_address;
pub use proxy::{Greeting, Proxy};
pub use relay::Cut;
pub use release::Release;
pub use repos::{OBJECTS_PER_COMMIT, Repos, git_env, stock_git};
pub use script::{Fault, Rate, Side, Step};
pub use sftp_server::SftpServer;
pub use sshd::{Sshd, SshdBuilder};
pub use storm::storm;
pub use temp::TempDir;
pub use user::TestUser;
pub use wait::{block_on, eventually, eventually_async};
