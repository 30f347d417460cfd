//! Which hosts a program may reach through the pool.

use std::ffi::OsStr;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use ssh_pool_core::{Error as SshError, Host, Pool, StreamGroup, Target};
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::Error;
use super::invocation::Invocation;

/// A stream in the place of a remote command that would do nothing but open one.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream that is being opened.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, Error>> + Send>>;

/// Opens streams in the place of this command line.
#[derive(Clone)]
pub(crate) struct Redirect {
    pub(crate) line: &'static str,
    pub(crate) open: Arc<dyn Fn(&StreamGroup) -> Opening + Send + Sync>,
}

impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redirect").field(&self.line).finish()
    }
}

/// One of them.
#[derive(Clone, Debug)]
struct Allowed {
    /// What it may also be called.
    alias: Option<String>,
    target: Target,
    host: Host,
}

/// The hosts that the caller has allowed.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    pool: Pool,
    allowed: Vec<Allowed>,
    redirect: Option<Redirect>,
}

impl Hosts {
    pub(crate) fn new(pool: &Pool) -> Self {
        Self {
            pool: pool.clone(),
            allowed: Vec::new(),
            redirect: None,
        }
    }

    /// One more, under another name too.
    pub(crate) fn allow(&mut self, alias: Option<String>, target: Target) -> Result<(), SshError> {
        if let Some(alias) = &alias {
            // What could not be a host's name is refused.
            Target::new("user", alias.as_str(), 22)?;
        }
        let host = self.pool.host(target.clone())?;
        self.allowed.push(Allowed {
            alias: alias.map(|alias| alias.to_ascii_lowercase()),
            target,
            host,
        });
        Ok(())
    }

    /// While this is there, programs are looked after where the pool's tasks run.
    pub(super) fn enter(&self) -> impl Sized + '_ {
        self.pool.enter()
    }

    /// Takes this way where that command is asked for.
    #[cfg(feature = "docker")]
    pub(crate) fn set_redirect(&mut self, redirect: Redirect) {
        self.redirect = Some(redirect);
    }

    /// A stream in the place of this command, if there is one.
    pub(super) fn redirect(&self, line: &OsStr, group: &StreamGroup) -> Option<Opening> {
        let redirect = self
            .redirect
            .as_ref()
            .filter(|redirect| line == redirect.line)?;
        Some((redirect.open)(group))
    }

    /// The one that is meant. Where no user or no port is named, any will do, if there is only
    /// one; or only one at port 22.
    pub(super) fn find(&self, asked: &Invocation) -> Result<&Host, Error> {
        let refused = || {
            let user = asked.user.as_ref().map(|user| format!("{user}@"));
            let port = asked.port.map(|port| format!(":{port}"));
            let (user, port) = (user.unwrap_or_default(), port.unwrap_or_default());
            Error::NotAllowed {
                host: format!("{user}{}{port}", asked.host)
                    .escape_debug()
                    .to_string(),
            }
        };
        // In the form that a target has it.
        let named = Target::new(
            asked.user.as_deref().unwrap_or("user"),
            asked.host.as_str(),
            asked.port.unwrap_or(22),
        )?;
        let found: Vec<&Allowed> = (self.allowed.iter())
            .filter(|allowed| {
                let target = &allowed.target;
                (target.host() == named.host() || allowed.alias.as_deref() == Some(named.host()))
                    && asked
                        .user
                        .as_deref()
                        .is_none_or(|user| user == target.user())
                    && asked.port.is_none_or(|port| port == target.port())
            })
            .collect();
        let usual = || found.iter().copied().filter(|one| one.target.port() == 22);
        let one = the_only(found.iter().copied()).or_else(|| the_only(usual()));
        Ok(&one.ok_or_else(refused)?.host)
    }
}

/// The first, if all are the same target.
fn the_only<'a>(mut several: impl Iterator<Item = &'a Allowed>) -> Option<&'a Allowed> {
    let first = several.next()?;
    several
        .all(|other| other.target == first.target)
        .then_some(first)
}

#[cfg(test)]
mod tests {
    use ssh_pool_core::HostKeyPolicy;

    use super::*;

    fn asked(user: Option<&str>, host: &str, port: Option<u16>) -> Invocation {
        Invocation {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            no_input: false,
            line: "true".into(),
        }
    }

    #[tokio::test]
    async fn only_what_is_allowed_is_found() {
        let pool = Pool::builder(HostKeyPolicy::known_hosts())
            .build()
            .expect("a pool");
        let mut hosts = Hosts::new(&pool);
        for (alias, target) in [
            (None, "git@web-1:22"),
            (None, "git@web-1:2222"),
            (None, "root@web-1:22"),
            (Some("Store"), "git@10.0.0.7:2200"),
        ] {
            let target = target.parse().expect("a target");
            let alias = alias.map(str::to_owned);
            hosts.allow(alias, target).expect("allowed");
        }
        let found = |user, host, port| {
            let found = hosts.find(&asked(user, host, port));
            found.map(|host| host.status().target).ok()
        };
        for (user, host, port, target) in [
            (Some("git"), "web-1", None, Some("git@web-1:22")),
            (Some("git"), "WEB-1", Some(2222), Some("git@web-1:2222")),
            (None, "web-1", Some(2222), Some("git@web-1:2222")),
            (Some("root"), "web-1", None, Some("root@web-1:22")),
            (Some("git"), "store", None, Some("git@10.0.0.7:2200")),
            (None, "10.0.0.7", None, Some("git@10.0.0.7:2200")),
            // Two accounts at port 22: which of them is not said.
            (None, "web-1", None, None),
            (Some("deploy"), "web-1", None, None),
            (Some("git"), "web-2", None, None),
            (Some("git"), "store", Some(22), None),
            (Some("git"), "web-1.evil.example", None, None),
            (Some("git"), "-oProxyCommand=x", None, None),
        ] {
            assert_eq!(
                found(user, host, port).as_deref(),
                target,
                "{user:?} {host} {port:?}"
            );
        }
        for alias in ["", "-x", "a b", "a/b"] {
            let target = "git@web-1".parse().expect("a target");
            assert!(
                hosts.allow(Some(alias.into()), target).is_err(),
                "{alias:?}"
            );
        }
    }
}
