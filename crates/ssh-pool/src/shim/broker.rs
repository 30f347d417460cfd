//! Takes the requests of shims, in the process that has the pool.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use ssh_pool_core::StreamGroup;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::error::Error;
use super::hosts::Hosts;
use super::rights::{self, COUNT};
use super::session;

/// At most this many are reported. A hook that asks for nonsense in a loop takes no more memory
/// than that.
const MOST_ERRORS: usize = 100;

/// What went wrong between a program and its hosts, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct ErrorLog(Arc<Mutex<Vec<Error>>>);

impl ErrorLog {
    pub(super) fn add(&self, error: Error) {
        let mut list = self.list();
        if list.len() < MOST_ERRORS {
            list.push(error);
        }
    }

    pub(super) fn take(&self) -> Vec<Error> {
        std::mem::take(&mut *self.list())
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Error>> {
        // A list of errors is as good as it was before a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what a program has begun, for when it is not the program's own end that does.
#[derive(Debug)]
pub(super) struct Broker {
    cut: watch::Sender<bool>,
}

impl Broker {
    /// Ends every session of this program's shims, and takes no more.
    pub(super) fn cut(&self) {
        self.cut.send_replace(true);
    }
}

/// Waits for [`Broker::cut`]. Without a broker any more, for ever.
async fn is_cut(mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|cut| *cut).await.is_err() {
        std::future::pending().await
    }
}

/// Makes the socket that the program and its children inherit, and serves what comes through it
/// until the last of them has gone. In the current runtime.
pub(super) fn start(hosts: Arc<Hosts>, errors: ErrorLog) -> io::Result<(Broker, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    let (cut, to_cut) = watch::channel(false);
    // The program and all that it starts: a stream of one may not end before another one has its own.
    let group = StreamGroup::new();
    tokio::spawn(async move {
        let listening = listen(&ours, &hosts, &group, &errors, &to_cut);
        let error = tokio::select! {
            result = listening => result.err(),
            () = is_cut(to_cut.clone()) => None,
        };
        if let Some(error) = error {
            tracing::warn!(%error, "no more requests of shims are taken");
        }
    });
    Ok((Broker { cut }, theirs.into()))
}

async fn listen(
    socket: &UnixStream,
    hosts: &Arc<Hosts>,
    group: &StreamGroup,
    errors: &ErrorLog,
    to_cut: &watch::Receiver<bool>,
) -> io::Result<()> {
    loop {
        socket.readable().await?;
        let received = socket.try_io(Interest::READABLE, || rights::receive(socket));
        let descriptors = match received {
            Ok(Some(descriptors)) => descriptors,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Ok(descriptors) = <[OwnedFd; COUNT]>::try_from(descriptors) else {
            // Also when this process has no descriptors left: the kernel drops what does not fit,
            // and the end of its control stream tells the shim.
            let error = io::Error::other("the descriptors of a shim did not arrive");
            errors.add(Error::Request { source: error });
            continue;
        };
        let (hosts, group) = (hosts.clone(), group.clone());
        let (errors, to_cut) = (errors.clone(), to_cut.clone());
        tokio::spawn(async move {
            // Dropped, a session ends its command and its shim.
            tokio::select! {
                () = session::serve(descriptors, &hosts, &group, &errors) => {}
                () = is_cut(to_cut) => {}
            }
        });
    }
}
