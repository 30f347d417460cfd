//! The stream of a session: which requests are under way, how it ended, and when it is cut.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::packet::{self, Answer, Request};
use crate::ChannelStream;

/// How a line ended.
#[derive(Debug, Clone)]
pub(super) enum LineEnd {
    /// The server ended the stream: its SFTP process has ended.
    Closed,
    /// The connection was lost.
    Lost(crate::Error),
    /// What came was not SFTP.
    Nonsense,
    /// The server left a request unanswered for so long.
    Silent(Duration),
}

impl LineEnd {
    /// A lost connection is the inner error of what a stream says.
    pub(super) fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        inner.map_or(Self::Closed, |error| Self::Lost(crate::Error::clone(error)))
    }
}

/// How long a server may leave a request unanswered; all sessions of an `Sftp` share it.
#[derive(Debug)]
pub(in crate::sftp) struct RequestTimeout(AtomicU64);

impl RequestTimeout {
    const DEFAULT: Duration = Duration::from_secs(60);
    /// What puts all of a file on the disk may take as many times longer.
    const SLOW: u32 = 10;

    pub(in crate::sftp) fn set(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }

    pub(in crate::sftp) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn of(&self, pace: Pace) -> Duration {
        match pace {
            Pace::Prompt => self.get(),
            Pace::Slow => self.get().saturating_mul(Self::SLOW),
        }
    }
}

impl Default for RequestTimeout {
    fn default() -> Self {
        let timeout = Self(AtomicU64::default());
        timeout.set(Self::DEFAULT);
        timeout
    }
}

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    Prompt,
    /// It waits for a disk, or whatever a server has in its place.
    Slow,
}

/// A request that has no answer yet.
#[derive(Debug)]
struct Pending {
    /// Closed if the request was dropped: the answer is still due.
    answer: oneshot::Sender<Answer>,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct LineState {
    /// By number, which is the order in which they were sent.
    pending: BTreeMap<u32, Pending>,
    next: u32,
    /// Since when the first of them is the first. A server answers in order, or nearly, so what is
    /// behind a long queue on a slow line has not yet begun to wait.
    since: Option<Instant>,
    end: Option<LineEnd>,
}

impl LineState {
    /// When the server has left the first request unanswered for too long.
    fn due(&self) -> Option<(Instant, Duration)> {
        let (_, first) = self.pending.first_key_value()?;
        // Longer than any clock counts: never.
        let due = self.since?.checked_add(first.timeout)?;
        Some((due, first.timeout))
    }
}

/// What both tasks and all requests of a line know.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<LineState>,
    over: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, LineState> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only the first end counts. All requests fail, and both tasks end.
    fn ended(&self, end: LineEnd) {
        let pending = {
            let mut state = self.state();
            state.end.get_or_insert(end);
            std::mem::take(&mut state.pending)
        };
        drop(pending);
        self.over.notify_waiters();
    }

    async fn over(&self) {
        loop {
            let over = self.over.notified();
            if self.state().end.is_some() {
                return;
            }
            over.await;
        }
    }

    /// Hands an answer to its request. One that was not asked for is dropped.
    fn answered(&self, id: u32, answer: Answer) {
        let pending = {
            let mut state = self.state();
            let first = state.pending.first_key_value().map(|(first, _)| *first);
            if first == Some(id) {
                state.since = Some(Instant::now());
            }
            state.pending.remove(&id)
        };
        if let Some(pending) = pending {
            pending.answer.send(answer).ok();
        }
    }
}

/// One stream to the server's SFTP process. Dropped, it is cut: nothing waits for a server that
/// takes nothing.
#[derive(Debug)]
pub(super) struct Line {
    shared: Arc<Shared>,
    outbox: mpsc::UnboundedSender<Vec<u8>>,
    timeout: Arc<RequestTimeout>,
}

impl Line {
    /// Says hello, and reads what the server says: its version and the names of its extensions.
    pub(super) async fn open(
        mut stream: ChannelStream,
        timeout: Arc<RequestTimeout>,
    ) -> Result<(Self, u32, Vec<Vec<u8>>), LineEnd> {
        let hello = async {
            let written = async {
                stream.write_all(&packet::INIT).await?;
                stream.flush().await
            };
            // What is no SFTP server may say something and end: then this fails, and not the reading.
            written.await.ok();
            read_packet(&mut stream).await
        };
        let hello = hello.await.map_err(|error| LineEnd::of(&error))?;
        let (version, extensions) = packet::version(&hello?).ok_or(LineEnd::Nonsense)?;
        let shared = Arc::new(Shared::default());
        let (outbox, packets) = mpsc::unbounded_channel();
        let (from, to) = tokio::io::split(stream);
        let ends_line = || EndsLine(shared.clone());
        tokio::spawn(until_over(ends_line(), read(from, shared.clone())));
        tokio::spawn(until_over(ends_line(), write(to, packets)));
        let line = Self {
            shared,
            outbox,
            timeout,
        };
        Ok((line, version, extensions))
    }

    /// Whether it is open, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        self.shared.state().end.is_none()
    }

    /// Sends a request and waits for its answer, or for the end of the line: a server that leaves a
    /// request unanswered is given up.
    pub(super) async fn ask(&self, request: Request, pace: Pace) -> Result<Answer, LineEnd> {
        let mut answer = self.send(request, pace)?;
        loop {
            let due = self.shared.state().due();
            let overdue = async {
                match due {
                    Some((due, timeout)) => {
                        tokio::time::sleep_until(due).await;
                        timeout
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                answer = &mut answer => return answer.map_err(|_| self.end()),
                timeout = overdue => {
                    // The first may be another one by now.
                    let due = self.shared.state().due();
                    if due.is_some_and(|(due, _)| due <= Instant::now()) {
                        self.shared.ended(LineEnd::Silent(timeout));
                    }
                }
            }
        }
    }

    fn send(&self, request: Request, pace: Pace) -> Result<oneshot::Receiver<Answer>, LineEnd> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.shared.state();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        let id = state.next;
        state.next = id.wrapping_add(1);
        if state.pending.is_empty() {
            state.since = Some(Instant::now());
        }
        let pending = Pending {
            answer: sender,
            timeout: self.timeout.of(pace),
        };
        state.pending.insert(id, pending);
        // In the order of their numbers, so under the lock. The task that writes has gone only after
        // an end, which drops what is pending.
        self.outbox.send(request.numbered(id)).ok();
        Ok(receiver)
    }

    /// How it ended, after a request has failed without an answer.
    fn end(&self) -> LineEnd {
        self.shared.state().end.clone().unwrap_or(LineEnd::Closed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.ended(LineEnd::Closed);
    }
}

/// Without one of its tasks a line is over, also when their runtime ends before they have begun.
struct EndsLine(Arc<Shared>);

impl Drop for EndsLine {
    fn drop(&mut self) {
        self.0.ended(LineEnd::Closed);
    }
}

async fn until_over(line: EndsLine, work: impl Future<Output = ()>) {
    tokio::select! {
        () = line.0.over() => {}
        () = work => {}
    }
}

async fn read(mut from: ReadHalf<ChannelStream>, shared: Arc<Shared>) {
    let end = loop {
        match read_packet(&mut from).await {
            Ok(Ok(packet)) => match packet::answer(packet) {
                Some((id, answer)) => shared.answered(id, answer),
                None => break LineEnd::Nonsense,
            },
            Ok(Err(end)) => break end,
            Err(error) => break LineEnd::of(&error),
        }
    };
    shared.ended(end);
}

async fn read_packet(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Vec<u8>, LineEnd>> {
    let length = from.read_u32().await?;
    if length > packet::LONGEST {
        return Ok(Err(LineEnd::Nonsense));
    }
    let mut packet = vec![0; usize::try_from(length).unwrap_or_default()];
    from.read_exact(&mut packet).await?;
    Ok(Ok(packet))
}

async fn write(mut to: WriteHalf<ChannelStream>, mut packets: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(packet) = packets.recv().await {
        let written = async {
            to.write_all(&packet).await?;
            to.flush().await
        };
        if written.await.is_err() {
            // The channel has ended. The reading side learns why, after what has still arrived.
            return std::future::pending().await;
        }
    }
}
