//! The Docker API over the pool: no tunnel process, no socket file, no `docker` on this machine.
//!
//! [`Docker`] sends HTTP requests to the daemon of a host. Requests with short answers share SSH
//! connections and are quick; logs, attached and executed commands, archives, images and builds get
//! a stream that holds up no other stream. [`Connector`] is the transport alone, for a hyper-util
//! client of your own.
//!
//! ```no_run
//! use ssh_pool::docker::Docker;
//!
//! # async fn list(host: &ssh_pool::Host) -> Result<(), Box<dyn std::error::Error>> {
//! let docker = Docker::new(host); // dials nothing
//! let request = http::Request::get("/containers/json").body(String::new())?;
//! let response = docker.request(request).await?;
//! println!("{}", response.status());
//! # Ok(())
//! # }
//! ```
//!
//! `bollard` takes it as its transport, without any of its features:
//!
//! ```text
//! let docker = ssh_pool::docker::Docker::new(&host);
//! let bollard = bollard::Docker::connect_with_custom_transport(
//!     move |request: bollard::BollardRequest| {
//!         let response = docker.request(request);
//!         async move { response.await.map_err(|error| std::io::Error::from(error).into()) }
//!     },
//!     Some("http://docker"),
//!     120,
//!     bollard::API_DEFAULT_VERSION,
//! )?;
//! ```
//!
//! # How it gets there
//!
//! By a stream to the socket (OpenSSH's `direct-streamlocal@openssh.com`). Where the server opens
//! none, because `AllowStreamLocalForwarding` forbids it, or it is a dropbear, it runs `docker
//! system dial-stdio` there, which is what the stock client does. That takes a session for each
//! HTTP connection, and a process; [`Docker`] pings the daemon through each before it sends a
//! request. For the usual socket that command goes by the account's own settings, such as
//! `DOCKER_HOST` and contexts. Which way works is remembered: see [`Connector`].
//!
//! # The stock `docker`
//!
//! [`Cli`] runs the `docker` of this machine with the pool as its `ssh`, for what the API alone does
//! not do: `docker compose`, `docker buildx`, contexts of files.
//!
//! # What is sent twice
//!
//! Nothing that may have reached the daemon, with one exception: a `GET` or `HEAD` without a body
//! that went out on a kept connection is sent once more if that connection ends without an answer.
//! All other methods go out on a fresh stream. [`Error::command_state`] says whether a failed
//! request can have had an effect.

mod body;
#[cfg(unix)]
mod cli;
mod client;
mod connector;
mod dial_stdio;
mod error;
mod idle_pool;
mod route;
mod socket;
mod stream;
mod transport;

#[cfg(unix)]
pub use cli::Cli;
pub use client::Docker;
pub use connector::Connector;
pub use error::{Error, HttpCause};
pub use stream::Stream;

#[cfg(unix)]
pub use crate::shim::{Child, Command, Error as CliError, Output, run_shim_if_asked};
