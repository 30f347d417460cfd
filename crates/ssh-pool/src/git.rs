//! The stock git over the pool.
//!
//! git speaks its own protocol with a `git-upload-pack` or `git-receive-pack` on the server, and
//! takes an `ssh` to get there. Here that is the [`Pool`]: no ssh process, no control socket, and a
//! connection that is there already. Every git command that reaches a server works: `clone`,
//! `fetch`, `push`, `ls-remote`, `archive --remote`, submodules in parallel, partial clones with
//! their later fetches, and Git LFS over SSH.
//!
//! ```no_run
//! use ssh_pool::git::Git;
//! use ssh_pool::{HostKeyPolicy, Pool};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     ssh_pool::git::run_shim_if_asked(); // this program is also git's ssh
//!     run()
//! }
//!
//! #[tokio::main]
//! async fn run() -> Result<(), Box<dyn std::error::Error>> {
//!     let pool = Pool::builder(HostKeyPolicy::known_hosts()).build()?;
//!     let git = Git::new(&pool).allow("git@web-1:22")?;
//!     let url = "ssh://git@web-1/srv/app.git";
//!     let output = git.command().args(["clone", "--depth=1", url, "app"]).output().await?;
//!     if !output.status.success() {
//!         eprintln!("{}", String::from_utf8_lossy(&output.stderr)); // git's own words
//!         for trouble in output.troubles {
//!             eprintln!("{trouble}"); // and what went wrong with the server, by type
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Which server
//!
//! The host comes from the URL that git was given, or that it finds in a submodule or a
//! configuration. So it is compared with what was [allowed](Git::allow): git cannot be led to
//! another host, nor to an option of ssh that would run something here. What git asks the server to
//! run is passed on as it is, without a shell's variables or anything else before it, so that
//! accounts with `git-shell` or a forced command work too.
//!
//! Whatever git runs, a hook or a filter, can reach the same hosts: it inherits the descriptor that
//! the shim asks through, as it would find the control socket of an ssh.
//!
//! # Each git has a connection of its own
//!
//! It reads a pack at its own pace, and no other stream is held up: see
//! `Limits::isolated_per_host`. The connection is kept for the next one. Each git that is started
//! here is a [`StreamGroup`](crate::StreamGroup) with all that it starts: hooks and submodules wait
//! for no limit that the connection of their own git fills.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ssh_pool_core::{Error as SshError, Pool, Target};

use crate::shim::{self, Hosts, SetUpShim, ShimSetup};

pub use crate::shim::{Child, Command, Error, Output, run_shim_if_asked};

/// Runs the stock git with the pool as its ssh. Cheap to clone.
///
/// ```no_run
/// # async fn example(pool: ssh_pool::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use ssh_pool::git::Git;
///
/// let git = Git::new(&pool).allow("git@web-1")?; // it reaches no other host
/// let clone = ["clone", "ssh://git@web-1/srv/app.git", "app"];
/// let output = git.command().args(clone).output().await?;
/// assert!(output.status.success());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Git {
    hosts: Arc<Hosts>,
    shim: Option<PathBuf>,
}

impl Git {
    /// One that may reach no host yet.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        Self {
            hosts: Arc::new(Hosts::new(pool)),
            shim: None,
        }
    }

    /// Lets it reach this account, by the host's name or address as the target has it. A URL that
    /// names no user or no port means this one, if there is only one that fits.
    ///
    /// # Errors
    ///
    /// Those of [`Pool::host`].
    pub fn allow<T>(self, target: T) -> Result<Self, SshError>
    where
        T: TryInto<Target>,
        T::Error: Into<SshError>,
    {
        self.allowed(None, target)
    }

    /// Lets it reach this account, also by another name of the host, as with `Host` and `HostName`
    /// in ssh_config: `git@store:app.git` may then be an address with a port.
    ///
    /// # Errors
    ///
    /// Those of [`Pool::host`], and `InvalidInput` for a name that no host can have.
    pub fn allow_as<T>(self, name: impl Into<String>, target: T) -> Result<Self, SshError>
    where
        T: TryInto<Target>,
        T::Error: Into<SshError>,
    {
        self.allowed(Some(name.into()), target)
    }

    fn allowed<T>(mut self, name: Option<String>, target: T) -> Result<Self, SshError>
    where
        T: TryInto<Target>,
        T::Error: Into<SshError>,
    {
        let target = target.try_into().map_err(Into::into)?;
        Arc::make_mut(&mut self.hosts).allow(name, target)?;
        Ok(self)
    }

    /// The program that git runs as its ssh: one that calls [`run_shim_if_asked`]. Default: this
    /// program.
    #[must_use]
    pub fn shim(mut self, program: impl AsRef<Path>) -> Self {
        self.shim = Some(program.as_ref().to_owned());
        self
    }

    /// A git command, without arguments yet.
    #[must_use]
    pub fn command(&self) -> Command {
        let shim = self.shim.clone();
        let set_up_shim: SetUpShim = Arc::new(move |command| {
            let shim = unmistakable(&shim::file(shim.as_ref())?);
            // A name without anything special in it is run as it is, any other by a shell, which
            // costs more than the shim itself.
            let mut ssh = quoted(&shim);
            if ssh != shim.as_bytes() {
                ssh.splice(..0, *b"exec ");
            }
            command.env("GIT_SSH_COMMAND", OsString::from_vec(ssh));
            // As OpenSSH: else git would ask for version 0 of its protocol.
            command.env("GIT_SSH_VARIANT", "ssh");
            Ok(ShimSetup {
                name: shim,
                keep: None,
            })
        });
        let mut command = Command::new("git", self.hosts.clone(), set_up_shim);
        // LFS would have OpenSSH multiplex, with a control socket.
        command.args(["-c", "lfs.ssh.automultiplex=false"]);
        command
    }
}

/// A way to write this path that no other program has for it: a program that git runs for another
/// reason, out of a hook, must not take itself for the shim.
fn unmistakable(path: &Path) -> OsString {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(file)) => {
            let mut name = folder.as_os_str().to_owned();
            name.push("/././");
            name.push(file);
            name
        }
        _ => path.as_os_str().to_owned(),
    }
}

/// As one word for a shell. A path contains no NUL byte, so there always is one.
fn quoted(path: &OsStr) -> Vec<u8> {
    shlex::bytes::try_quote(path.as_bytes())
        .map(|word| word.into_owned())
        .unwrap_or_default()
}
