//! An open file of a session.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::line::Pace;
use super::packet::{Attributes, Request, kind};
use super::{CLEANUP_TIMEOUT, Fault, Session};
use crate::sftp::metadata::Metadata;

/// An open file or folder of a server. Dropped, it is closed in the background.
#[derive(Debug)]
pub(in crate::sftp) struct Handle {
    session: Arc<Session>,
    /// Any bytes: OpenSSH and asyncssh have a number in binary, others a text.
    id: Vec<u8>,
    open: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Handle {
    pub(super) fn new(
        session: Arc<Session>,
        id: Vec<u8>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            session,
            id,
            open: true,
            permit,
        }
    }

    /// A request about it.
    pub(super) fn request(&self, kind: u8) -> Request {
        Request::new(kind).word(&self.id)
    }

    pub(in crate::sftp) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Reads up to `length` bytes; `None` is the end. Fewer bytes are no end.
    pub(in crate::sftp) async fn read(
        &self,
        offset: u64,
        length: u32,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let request = self.request(kind::READ).u64(offset).u32(length);
        match self.session.data(request).await {
            Ok(data) if data.is_empty() => Err(Fault::Protocol("sends nothing")),
            Ok(data) if data.len() > length as usize => {
                Err(Fault::Protocol("sends more than was asked for"))
            }
            Ok(data) => Ok(Some(data)),
            Err(Fault::End) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    pub(in crate::sftp) async fn write(&self, offset: u64, data: &[u8]) -> Result<(), Fault> {
        let request = self.request(kind::WRITE).u64(offset).word(data);
        self.session.tell(request, Pace::Prompt).await
    }

    pub(in crate::sftp) async fn stat(&self) -> Result<Metadata, Fault> {
        self.session.attributes(self.request(kind::FSTAT)).await
    }

    pub(in crate::sftp) async fn set(&self, attributes: &Attributes) -> Result<(), Fault> {
        let request = self.request(kind::FSETSTAT).attributes(attributes);
        self.session.tell(request, Pace::Prompt).await
    }

    /// Puts it on the disk, where the server offers that (`fsync@openssh.com`).
    pub(in crate::sftp) async fn sync(&self) -> Result<(), Fault> {
        self.session.fsync(&self.id).await
    }

    /// Closes it, and says whether that went well: some servers write only then.
    pub(in crate::sftp) async fn close(mut self) -> Result<(), Fault> {
        self.open = false;
        let request = self.request(kind::CLOSE);
        self.session.tell(request, Pace::Slow).await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.open && self.session.is_alive() {
            let (session, request) = (self.session.clone(), self.request(kind::CLOSE));
            let permit = self.permit.take();
            self.session.runtime.clone().spawn(async move {
                let _until_closed = permit;
                let close = session.tell(request, Pace::Slow);
                if tokio::time::timeout(CLEANUP_TIMEOUT, close).await.is_err() {
                    tracing::debug!("a server does not close a file");
                }
            });
        }
    }
}
