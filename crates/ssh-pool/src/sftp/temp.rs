//! A remote file that is not ready yet.

use tokio::runtime::Handle as Runtime;

use super::Sftp;
use super::error::Reason;
use super::session::FAREWELL;

/// Dropped, the file is removed in the background, unless it is to be kept.
pub(super) struct RemoteTemp {
    sftp: Sftp,
    path: String,
    keep: bool,
    runtime: Runtime,
}

impl RemoteTemp {
    /// Nothing is made yet: a request that is dropped on the way may make it.
    pub(super) fn new(sftp: &Sftp, path: String, keep: bool) -> Self {
        Self {
            sftp: sftp.clone(),
            path,
            keep,
            runtime: Runtime::current(),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// It has its name now.
    pub(super) fn moved(mut self) {
        self.keep = true;
    }

    /// The server has refused to make it.
    pub(super) fn refused(&mut self) {
        self.keep = true;
    }

    /// Removes it when dropped, whatever was said before.
    pub(super) fn discard(&mut self) {
        self.keep = false;
    }

    /// Removes it now, unless it is to be kept.
    pub(super) async fn remove(mut self) {
        if !self.keep {
            remove(self.sftp.clone(), self.path.clone()).await;
            self.keep = true;
        }
    }
}

impl Drop for RemoteTemp {
    fn drop(&mut self) {
        if !self.keep {
            let (sftp, path) = (self.sftp.clone(), std::mem::take(&mut self.path));
            self.runtime.spawn(remove(sftp, path));
        }
    }
}

/// With the session there is, or a new one: what was interrupted by a lost connection lies there
/// too.
async fn remove(sftp: Sftp, path: String) {
    let removed = async {
        match sftp.live().await?.remove(&path).await {
            Err(fault) if fault.is(Reason::NotFound) => Ok(()),
            removed => removed,
        }
    };
    match tokio::time::timeout(FAREWELL, removed).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(host = %sftp.target(), path, "an unfinished file stays behind");
        }
    }
}
