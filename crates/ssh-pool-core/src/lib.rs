//! The mechanism behind the `ssh-pool` crate. Use that one: this crate is exempt from semver.
//!
//! The public interface is the export block below. How the parts fit together is told in the
//! repository's ARCHITECTURE.md.

mod command;
mod error;
mod host;
mod host_key;
mod hub;
mod identity;
mod inbox;
mod limits;
mod maintenance;
mod output;
mod pool;
mod quote;
mod run;
mod secret;
mod status;
mod sync;
mod target;
mod timeouts;
mod transport;

pub use command::{Command, Stdio};
pub use error::{Cause, CommandState, Error, HostKeyProblem, Phase, Stream};
pub use host::Host;
pub use host_key::HostKeyPolicy;
pub use identity::Identity;
pub use limits::Limits;
pub use output::{ExitStatus, Output};
pub use pool::{Pool, PoolBuilder};
pub use status::{HostStatus, PoolStatus};
pub use target::Target;
pub use timeouts::Timeouts;
