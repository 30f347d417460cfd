//! The path of a Docker socket on a host.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ssh_pool_core::Host;
#[cfg(unix)]
use ssh_pool_core::StreamGroup;

use super::error::Error;

/// Where dockerd listens by default.
const USUAL: &str = "/var/run/docker.sock";

/// A host, and a path on it that is safe to hand on.
#[derive(Clone)]
pub(super) struct SocketPath {
    host: Host,
    path: Arc<str>,
}

impl fmt::Debug for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SocketPath")
            .field(&self.host)
            .field(&self.path)
            .finish()
    }
}

impl SocketPath {
    pub(super) fn usual(host: &Host) -> Self {
        Self {
            host: host.clone(),
            path: USUAL.into(),
        }
    }

    pub(super) fn at(host: &Host, path: &Path) -> Result<Self, Error> {
        let wrong = |reason| Error::InvalidSocket {
            path: path
                .as_os_str()
                .as_encoded_bytes()
                .escape_ascii()
                .to_string(),
            reason,
        };
        let path = path.to_str().ok_or_else(|| wrong("it must be UTF-8"))?;
        // An absolute path can be taken for no option. Control characters have no place in a socket's
        // path, and would be seen in the messages of both sides.
        if path.is_empty() {
            return Err(wrong("it is empty"));
        } else if !path.starts_with('/') {
            return Err(wrong("it must be absolute"));
        } else if path.chars().any(char::is_control) {
            return Err(wrong("it has a control character in it"));
        }
        Ok(Self {
            host: host.clone(),
            path: path.into(),
        })
    }

    /// The same, whose streams belong to that group.
    #[cfg(unix)]
    pub(super) fn in_group(&self, group: &StreamGroup) -> Self {
        Self {
            host: self.host.in_group(group),
            path: self.path.clone(),
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What `docker --host` is told; nothing for the usual path, where the account's own settings
    /// may know better.
    pub(super) fn docker_host(&self) -> Option<String> {
        (self.path() != USUAL).then(|| format!("unix://{}", self.path))
    }

    /// The target and the path, for an error.
    pub(super) fn names(&self) -> (String, String) {
        (self.host.status().target, self.path().to_owned())
    }
}
