//! Reading a remote file.

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::sync::OwnedSemaphorePermit;

use super::error::Error;
use super::options::{Call, REQUESTS, permits};
use super::session::{Fault, Handle};

/// Reads in order, many requests at once, and hands on what has come.
pub(super) struct Reads<'a> {
    call: &'a Call,
    handle: &'a Handle,
    remote: &'a str,
    queue: FuturesOrdered<BoxFuture<'a, Result<Piece, Fault>>>,
    /// The next to be asked for.
    next: u64,
    size: u64,
}

/// What one request brought.
struct Piece {
    at: u64,
    wanted: u32,
    bytes: Option<Vec<u8>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<'a> Reads<'a> {
    pub(super) fn new(
        call: &'a Call,
        handle: &'a Handle,
        remote: &'a str,
        from: u64,
        size: u64,
    ) -> Self {
        Self {
            call,
            handle,
            remote,
            queue: FuturesOrdered::new(),
            next: from,
            size,
        }
    }

    fn read(
        &self,
        at: u64,
        wanted: u32,
        permit: Option<OwnedSemaphorePermit>,
    ) -> BoxFuture<'a, Result<Piece, Fault>> {
        let handle = self.handle;
        Box::pin(async move {
            Ok(Piece {
                at,
                wanted,
                bytes: handle.read(at, wanted).await?,
                permit,
            })
        })
    }

    /// Asks for as much as may be under way.
    async fn ask(&mut self) {
        let length = self.handle.session().read_len;
        while self.next < self.size && self.queue.len() < REQUESTS {
            let left = self.size - self.next;
            let wanted = u32::try_from(left).unwrap_or(u32::MAX).min(length);
            let room = permits(wanted as usize);
            let window = self.call.window.clone();
            let permit = match window.clone().try_acquire_many_owned(room) {
                Ok(permit) => Some(permit),
                // Whoever holds some goes on first, so nobody waits for himself.
                Err(_) if !self.queue.is_empty() => return,
                // The semaphore is never closed.
                Err(_) => window.acquire_many_owned(room).await.ok(),
            };
            self.queue.push_back(self.read(self.next, wanted, permit));
            self.next += u64::from(wanted);
        }
    }

    /// The next bytes, and where they begin; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, Error> {
        self.ask().await;
        let Some(piece) = self.queue.next().await else {
            return Ok(None);
        };
        let piece = piece.map_err(|fault| self.call.sftp.at(fault, "read", self.remote))?;
        // The end, before where it was said to be.
        let bytes = piece.bytes.ok_or_else(|| changed(self.call, self.remote))?;
        // Not more than was asked for: Handle::read sees to it.
        let count = u32::try_from(bytes.len()).unwrap_or(piece.wanted);
        if count < piece.wanted {
            let (at, wanted) = (piece.at + u64::from(count), piece.wanted - count);
            let rest = self.read(at, wanted, piece.permit);
            self.queue.push_front(rest);
        }
        Ok(Some((piece.at, bytes)))
    }
}

pub(super) fn changed(call: &Call, remote: &str) -> Error {
    Error::Changed {
        place: call.sftp.target().clone(),
        path: remote.into(),
    }
}
