//! The mechanism behind the `ssh-pool` crate. Use that one: this crate is exempt from semver.
//!
//! The public interface is the export block below. How the parts fit together is told in the
//! repository's ARCHITECTURE.md.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod algorithms;
mod buffered;
mod child;
mod command;
mod command_line;
mod connection_handle;
mod error;
mod event;
mod forward;
mod group;
mod home;
mod host;
mod host_key;
mod host_pools;
mod identity;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod limits;
mod local_user;
mod login_shell;
mod maintenance;
#[cfg(feature = "metrics")]
mod metrics;
mod output;
mod pool;
mod printable;
mod process;
mod pty;
mod quote;
mod read_gate;
mod readiness;
mod receiver;
mod run;
mod runtime;
mod secret;
#[cfg(feature = "serde")]
mod serialize;
mod status;
mod stream;
mod stream_group;
mod sync;
mod target;
mod terminate;
mod timeouts;
mod transport;
mod waited;
mod wildcard;

pub use address::Address;
pub use algorithms::Algorithms;
pub use child::{Child, ChildStderr, ChildStdin, ChildStdout};
pub use command::{Command, Stdio};
pub use connection_handle::ConnectionHandle;
pub use error::{
    Cause, CommandState, Error, HostKeyProblem, MessageKind, Origin, PartialOutput, Phase, Refusal,
    ServerMessage, Stream,
};
pub use event::{Event, EventKind, Events, LoginDelay, Retirement};
pub use forward::Forward;
pub use host::Host;
pub use host_key::HostKeyPolicy;
pub use identity::{Challenge, Identity, Prompt};
pub use limits::Limits;
pub use output::{ExitError, ExitStatus, Output};
pub use pool::{Pool, PoolBuilder};
pub use printable::printable;
pub use pty::Pty;
pub use readiness::Readiness;
pub use status::{Breaker, ConnectionStatus, HostStatus, PoolStatus, Purpose};
pub use stream::{ChannelStream, Connect};
pub use stream_group::StreamGroup;
pub use target::Target;
pub use timeouts::Timeouts;
pub use waited::Waited;
