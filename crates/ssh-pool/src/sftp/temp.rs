//! A remote file that is not ready yet.

use std::sync::Arc;

use tokio::runtime::Handle as Runtime;

use super::Sftp;
use super::error::Reason;
use super::session::{CLEANUP_TIMEOUT, Session};

/// Dropped, the file is removed in the background, unless it is to be kept.
pub(super) struct RemoteTemp {
    sftp: Sftp,
    path: String,
    /// It was made with this one.
    session: Option<Arc<Session>>,
    keep: bool,
    runtime: Runtime,
}

impl RemoteTemp {
    /// Nothing is made yet: a request that is dropped on the way may make it.
    pub(super) fn new(sftp: &Sftp, path: String, keep: bool) -> Self {
        Self {
            sftp: sftp.clone(),
            path,
            session: None,
            keep,
            runtime: Runtime::current(),
        }
    }

    /// One that is made with this session, and not to be kept.
    pub(super) fn on(session: &Arc<Session>, sftp: &Sftp, path: String) -> Self {
        let mut temp = Self::new(sftp, path, false);
        temp.is_on(session);
        temp
    }

    /// It is on the machine of this session.
    pub(super) fn is_on(&mut self, session: &Arc<Session>) {
        self.session = Some(session.clone());
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
            remove(self.sftp.clone(), self.path.clone(), self.session.take()).await;
            self.keep = true;
        }
    }
}

impl Drop for RemoteTemp {
    fn drop(&mut self) {
        if !self.keep {
            let (sftp, path) = (self.sftp.clone(), std::mem::take(&mut self.path));
            self.runtime.spawn(remove(sftp, path, self.session.take()));
        }
    }
}

/// With the session that has made it, or a new one: what was interrupted by a lost connection lies
/// there too, unless the host is another machine by then.
async fn remove(sftp: Sftp, path: String, made_with: Option<Arc<Session>>) {
    let removed = async {
        let peer = made_with.as_ref().and_then(|session| session.peer);
        let session = match made_with.filter(|session| session.is_alive()) {
            Some(session) => session,
            None => sftp.live().await?,
        };
        if let Some(moved) = session.moved_from(peer) {
            return Err(moved);
        }
        match session.remove(&path).await {
            Err(fault) if fault.is(Reason::NotFound) => Ok(()),
            removed => removed,
        }
    };
    match tokio::time::timeout(CLEANUP_TIMEOUT, removed).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(host = %sftp.target(), path, "an unfinished file stays behind");
        }
    }
}
