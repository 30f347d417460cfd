//! Reading a remote file.

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::sync::OwnedSemaphorePermit;

use super::Sftp;
use super::error::Error;
use super::metadata::Metadata;
use super::ops::SMALL;
use super::options::{Call, REQUESTS, permits};
use super::session::{Fault, Handle};

/// Reads in order, many requests at once, and hands on what has come, up to the end of the file. What
/// it was said to be like when it was opened is a hint: many files of `/proc` have no size, those of
/// `/sys` have a page. But of a file that changes while it is read, what is appended is left out, and
/// what is missing is an error.
pub(super) struct Reads<'a> {
    call: &'a Call,
    handle: &'a Handle,
    remote: &'a str,
    queue: FuturesOrdered<BoxFuture<'a, Result<Piece, Fault>>>,
    /// The next to be asked for.
    next: u64,
    size: u64,
    found: &'a Metadata,
    /// What comes after `size` has been asked for.
    asked_for_end: bool,
    /// The file is longer than it says.
    is_longer: bool,
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
        found: &'a Metadata,
    ) -> Self {
        Self {
            call,
            handle,
            remote,
            queue: FuturesOrdered::new(),
            next: from,
            size: found.len().max(from),
            found,
            asked_for_end: false,
            is_longer: false,
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
        while !self.asked_for_end && self.queue.len() < REQUESTS {
            let left = self.size.saturating_sub(self.next);
            let wanted = match left {
                0 if self.is_longer => length,
                // Most files end there.
                0 => 1,
                left => u32::try_from(left).unwrap_or(u32::MAX).min(length),
            };
            let room = permits(wanted as usize);
            let window = self.call.window.clone();
            let permit = match window.clone().try_acquire_many_owned(room) {
                Ok(permit) => Some(permit),
                // A transfer that holds some goes on first, so none waits for itself.
                Err(_) if !self.queue.is_empty() => return,
                // The semaphore is never closed.
                Err(_) => window.acquire_many_owned(room).await.ok(),
            };
            self.queue.push_back(self.read(self.next, wanted, permit));
            self.asked_for_end = left == 0;
            self.next = self.next.saturating_add(u64::from(wanted));
        }
    }

    /// The next bytes, and where they begin; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, Error> {
        self.ask().await;
        let Some(piece) = self.queue.next().await else {
            return Ok(None);
        };
        let piece = match piece {
            // There some servers refuse to read, or send nothing. What the file says has come.
            Err(Fault::Refused(..) | Fault::Protocol(_)) if self.is_last() && !self.is_longer => {
                return Ok(None);
            }
            piece => piece.map_err(|fault| self.call.sftp.at(fault, "read", self.remote))?,
        };
        let is_beyond = piece.at >= self.size;
        let Some(bytes) = piece.bytes else {
            self.queue.clear();
            self.asked_for_end = true;
            return match is_beyond || self.is_unchanged().await? {
                true => Ok(None),
                false => Err(changed(self.call, self.remote)),
            };
        };
        if is_beyond {
            if !self.is_longer && !self.is_unchanged().await? {
                return Ok(None);
            }
            self.is_longer = true;
            self.asked_for_end = false;
            self.size = piece.at + bytes.len() as u64;
            self.next = self.size;
            let more = self.size.saturating_sub(self.found.len());
            within_limit(&self.call.sftp, self.remote, more)?;
            return Ok(Some((piece.at, bytes)));
        }
        // Not more than was asked for: Handle::read sees to it.
        let count = u32::try_from(bytes.len()).unwrap_or(piece.wanted);
        if count < piece.wanted {
            let (at, wanted) = (piece.at + u64::from(count), piece.wanted - count);
            let rest = self.read(at, wanted, piece.permit);
            self.queue.push_front(rest);
        }
        Ok(Some((piece.at, bytes)))
    }

    /// Whether what was taken from the queue was asked for beyond the end.
    fn is_last(&self) -> bool {
        self.asked_for_end && self.queue.is_empty()
    }

    fn is_unchanged(&self) -> impl Future<Output = Result<bool, Error>> + use<'a> {
        // Not `self`, which threads do not share.
        let (call, handle, remote, found) = (self.call, self.handle, self.remote, self.found);
        async move {
            let now = handle.stat().await;
            let now = now.map_err(|fault| call.sftp.at(fault, "read", remote))?;
            Ok(is_same(found, &now))
        }
    }
}

/// Whether a file has not changed, as far as a server tells.
pub(super) fn is_same(before: &Metadata, now: &Metadata) -> bool {
    before.size == now.size && before.modified == now.modified
}

/// Whether that many bytes may come that a file did not say it has.
pub(super) fn within_limit(sftp: &Sftp, remote: &str, more: u64) -> Result<(), Error> {
    match more > SMALL {
        false => Ok(()),
        true => Err(Error::TooMuch {
            target: sftp.target().clone(),
            path: remote.to_owned(),
            what: "bytes",
            limit: SMALL,
        }),
    }
}

pub(super) fn changed(call: &Call, remote: &str) -> Error {
    Error::Changed {
        place: call.sftp.target().clone(),
        path: remote.into(),
    }
}
