//! An open file of a session.

use std::sync::Arc;

use russh_sftp::protocol::FileAttributes;
use tokio::sync::OwnedSemaphorePermit;

use super::metadata::Metadata;
use super::session::{FAREWELL, Fault, Session, Settings, metadata};

/// An open file or folder of a server. Dropped, it is closed in the background.
#[derive(Debug)]
pub(super) struct Handle {
    session: Arc<Session>,
    id: String,
    open: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Handle {
    pub(super) fn new(
        session: Arc<Session>,
        id: String,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            session,
            id,
            open: true,
            permit,
        }
    }

    pub(super) fn id(&self) -> String {
        self.id.clone()
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Reads up to `length` bytes; `None` is the end. Fewer bytes are no end.
    pub(super) async fn read(&self, offset: u64, length: u32) -> Result<Option<Vec<u8>>, Fault> {
        let read = self.session.raw.read(self.id.clone(), offset, length);
        match self.session.call(read).await {
            Ok(data) if data.data.is_empty() => Err(Fault::Protocol("sends nothing")),
            Ok(data) if data.data.len() > length as usize => {
                Err(Fault::Protocol("sends more than was asked for"))
            }
            Ok(data) => Ok(Some(data.data)),
            Err(Fault::End) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    pub(super) async fn write(&self, offset: u64, data: Vec<u8>) -> Result<(), Fault> {
        let write = self.session.raw.write(self.id.clone(), offset, data);
        self.session.call(write).await?;
        Ok(())
    }

    pub(super) async fn stat(&self) -> Result<Metadata, Fault> {
        let stat = self.session.raw.fstat(self.id.clone());
        Ok(metadata(self.session.call(stat).await?.attrs))
    }

    pub(super) async fn set(&self, settings: Settings) -> Result<(), Fault> {
        let set = self.session.raw.fsetstat(self.id.clone(), settings.into());
        self.session.call(set).await?;
        Ok(())
    }

    pub(super) async fn truncate(&self, size: u64) -> Result<(), Fault> {
        let attributes = FileAttributes {
            size: Some(size),
            ..FileAttributes::default()
        };
        let set = self.session.raw.fsetstat(self.id.clone(), attributes);
        self.session.call(set).await?;
        Ok(())
    }

    /// Puts it on the disk, where the server offers that (`fsync@openssh.com`).
    pub(super) async fn sync(&self) -> Result<(), Fault> {
        if self.session.fsync {
            let sync = self.session.raw.fsync(self.id.clone());
            self.session.call(sync).await?;
        }
        Ok(())
    }

    /// Closes it, and says whether that went well: some servers write only then.
    pub(super) async fn close(mut self) -> Result<(), Fault> {
        self.open = false;
        let close = self.session.raw.close(self.id.clone());
        self.session.call(close).await?;
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.open && self.session.is_alive() {
            let (session, id) = (self.session.clone(), std::mem::take(&mut self.id));
            let permit = self.permit.take();
            self.session.runtime.clone().spawn(async move {
                let _until_closed = permit;
                let close = session.raw.close(id);
                if tokio::time::timeout(FAREWELL, close).await.is_err() {
                    tracing::debug!("a server does not close a file");
                }
            });
        }
    }
}
