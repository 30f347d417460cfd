//! A remote command from its request to its end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;
use std::time::Duration;

use crate::command_line::Tag;
use crate::error::{Error, Origin, Phase};
use crate::group::{
    self, Admission, ConnectionGroup, ConnectionId, Deadline, DeferredEffects, Reached,
    UnattendedUse,
};
use crate::host_pools::HostPools;
use crate::pty::Pty;
use crate::quote;
use crate::receiver::{ChannelEnd, ChannelOutcome, Sink};
use crate::terminate::{self, ProcessTag, TerminationOutcome};
use crate::transport::{Channel, Connection, Request, Unsent};
use crate::waited::{self, Waited};

mod form;

/// Variables that go by a request in one session. sshd takes that many, and throws away those that
/// come after them, which without a reply would go unnoticed.
const MOST_VARIABLES: usize = 128;

/// Everything about a command that matters on the wire, but its input.
#[derive(Debug, Clone)]
pub(crate) struct ExecRequest {
    pub(crate) request: Request,
    /// The most that the string in its request can be, in bytes.
    pub(crate) length: usize,
    pub(crate) env: Vec<(String, Vec<u8>)>,
    pub(crate) pty: Option<Pty>,
    pub(crate) stdout: Sink,
    pub(crate) stderr: Sink,
    /// Whether the process lives on when no caller waits for it.
    pub(crate) detached: bool,
    /// Whether the command line goes out with nothing before it.
    pub(crate) verbatim: bool,
    /// Whether the line begins with a `cd` of ours.
    pub(crate) in_folder: bool,
}

/// How far our side of the channel has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestProgress {
    Nothing,
    /// Something that changes the channel, and starts nothing.
    Preparation,
    Request,
}

/// A command on its way. Dropped before its channel has ended, it sees to it that the remote
/// process ends too, and its slot counts as taken until the server gives it back.
pub(crate) struct Process {
    group: Arc<ConnectionGroup>,
    pools: Arc<HostPools>,
    channel: Channel,
    /// Its connection.
    on: ConnectionId,
    connection: Option<Arc<dyn Connection>>,
    tag: Tag,
    process_tag: Option<ProcessTag>,
    sent: RequestProgress,
    /// What the server has been asked before the request, and has not answered.
    asked: bool,
    /// Something has been sent before the request.
    prepared: bool,
    detached: bool,
    /// No caller waits for it, though its channel may still be open.
    over: bool,
}

/// What the end of a channel says about its command.
pub(crate) enum ProcessEnd {
    Done(crate::ExitStatus),
    Failed(Error),
    /// The channel ended before the request went out.
    NeverStarted,
}

/// Sends the request on a channel that takes it. Until that has happened nothing has started, so
/// a channel that fails is replaced. What was waited for is added to `waited`.
pub(crate) async fn start(
    pools: &Arc<HostPools>,
    group: &Arc<ConnectionGroup>,
    exec_request: &ExecRequest,
    admission: &mut Admission,
    deadline: Deadline,
    waited: &mut Waited,
) -> Result<Process, Error> {
    let mut asked = group;
    loop {
        asked.begin(admission);
        if let Some(pause) = admission.pause() {
            let begun = group::now();
            let until = (begun + pause).min(deadline.at);
            // In a box, like all that is seldom: every command that waits would have room for it.
            Box::pin(tokio::time::sleep_until(until.into())).await;
            waited.back_off += group::now().saturating_duration_since(begun);
        }
        let queue = tracing::debug_span!(
            "ssh_pool.queue",
            host = %asked.name(),
            queue_ms = tracing::field::Empty,
            dial_ms = tracing::field::Empty,
            back_off_ms = tracing::field::Empty,
            channel_ms = tracing::field::Empty,
        );
        let mut wait = Waited::default();
        let checkout = async {
            match admission.is_stream() || asked.is_isolated() {
                // In a box: every command that waits would have room for this.
                true => Box::pin(pools.stream_channel(asked, admission, deadline, &mut wait)).await,
                false => asked.checkout_before(admission, deadline, &mut wait).await,
            }
        };
        let got = tracing::Instrument::instrument(checkout, queue.clone()).await;
        wait.record(&queue);
        *waited += wait;
        let (mut guard, mut deferred) = got?;
        admission.admitted();
        let group = &guard.group().clone();
        tracing::Span::current().record("connection", guard.connection());
        let (on, connection) = (guard.on(), group.connection_of(&guard));
        if let Some(connection) = &connection
            && !group.is_isolated()
            && connection.server().sizes.is_unsure(exec_request.length)
        {
            // Should the server end the connection over it, nothing else is lost.
            asked = pools.isolated();
            continue;
        }
        if let Some(connection) = &connection
            && (admission.is_wary() || group.doubts(connection))
        {
            // Its answer is not waited for.
            drop(deferred.take());
            if !group.answers(on, connection, deadline, waited).await? {
                group.lost_under(admission, on, Some(connection), Reached::Not)?;
                continue;
            }
        }
        match &exec_request.request {
            Request::Subsystem(_) => guard.leave_unattended(UnattendedUse::Stream),
            Request::Exec(_) if exec_request.detached => {
                guard.leave_unattended(UnattendedUse::Detached)
            }
            Request::Exec(_) => {}
        }
        let Some(channel) = guard.begin(exec_request.stdout, exec_request.stderr) else {
            if connection
                .as_ref()
                .is_none_or(|connection| connection.close_signal().cause().is_some())
            {
                group.lost_under(admission, on, connection.as_ref(), Reached::Not)?;
            } else {
                admission.channel_closed();
            }
            continue;
        };
        let tag = Tag::new();
        let mut process = Process {
            group: group.clone(),
            pools: pools.clone(),
            process_tag: ProcessTag::needed(&*channel.sender, exec_request, &tag),
            on,
            tag,
            connection,
            channel,
            sent: RequestProgress::Nothing,
            asked: false,
            prepared: false,
            detached: exec_request.detached,
            over: false,
        };
        if process.must_learn(exec_request)? {
            drop(deferred);
            if !Box::pin(process.learn(deadline)).await? {
                process.never_started(admission)?;
            }
            continue;
        }
        if before(deferred, process.send(exec_request, deadline), waited).await? {
            return Ok(process);
        }
        process.never_started(admission)?;
    }
}

/// What follows from taking an idle channel, the opening of the next, goes behind the request if
/// that can go out at once. If not it waits no longer: others may be waiting for it.
async fn before<T>(
    deferred: Option<DeferredEffects>,
    send: impl Future<Output = T>,
    waited: &mut Waited,
) -> T {
    let asking = || {
        drop(deferred);
        group::now()
    };
    let (sent, asked) = waited::marked(send, asking).await;
    if let Some(asked) = asked {
        waited.channel += group::now().saturating_duration_since(asked);
    }
    sent
}

impl Process {
    /// Sends everything up to the request, before the deadline. `false`: the channel does not take
    /// it, or its connection does not answer any more, so it is not on the wire.
    async fn send(
        &mut self,
        exec_request: &ExecRequest,
        deadline: Deadline,
    ) -> Result<bool, Error> {
        let (group, on, connection) = (self.group.clone(), self.on, self.connection.clone());
        let in_time = {
            let mut handed = pin!(self.request(exec_request));
            // A connection that takes it at once costs no timer.
            let first = poll_fn(|cx| Poll::Ready(handed.as_mut().poll(cx))).await;
            match (first, &connection) {
                (Poll::Ready(handed), _) => return handed,
                // It has ended, and takes nothing.
                (Poll::Pending, None) => return Ok(false),
                (Poll::Pending, Some(connection)) => {
                    let handed = async { Some(handed.await) };
                    let handed = group.while_there(on, connection, deadline, handed);
                    // In a box: seldom, and every command would have room for it.
                    Box::pin(tokio::time::timeout_at(deadline.at.into(), handed)).await
                }
            }
        };
        match in_time {
            Ok(Some(handed)) => handed,
            Ok(None) => {
                tracing::debug!("the connection does not answer, and has not taken the request");
                Ok(false)
            }
            // Dropped before it was in the transport's queue, a request is never sent.
            Err(_) => {
                if let Some(connection) = connection {
                    group.check_if_quiet(on, connection);
                }
                let asked = match self.asked {
                    true => "the server was asked for variables or a terminal",
                    false => "the connection did not take the request",
                };
                Err(self.group.unanswered(deadline.after, asked))
            }
        }
    }

    /// Cancel safe: the request is handed over as a whole, as the last step, or not at all.
    async fn request(&mut self, exec_request: &ExecRequest) -> Result<bool, Error> {
        // Without variables and a terminal nothing is waited for. In a box otherwise: every command
        // that waits would have room for it.
        let plain = exec_request.env.is_empty() && exec_request.pty.is_none();
        let at_once = match plain {
            true => self.prepare(exec_request).now_or_never(),
            false => None,
        };
        let prepared = match at_once {
            Some(prepared) => prepared?,
            None => Box::pin(self.prepare(exec_request)).await?,
        };
        let Some(request) = prepared else {
            return Ok(false); // the channel has ended
        };
        let taken = took(self.channel.sender.start(request).await)?;
        if taken {
            self.sent = RequestProgress::Request;
        }
        Ok(taken)
    }

    /// Everything that goes before the request. `None`: the channel has ended.
    async fn prepare(&mut self, exec_request: &ExecRequest) -> Result<Option<Request>, Error> {
        let Channel { sender, receiver } = self.channel.clone();
        let names = sender.env_names();
        let sizes = sender.server().sizes;
        if let Request::Exec(line) = &exec_request.request {
            sizes.line(line.len())?; // before anything is sent
        }
        // What is too long for a request goes on the line, which is then too long or is not.
        let as_text = |name: &str, value: &[u8]| {
            let text = std::str::from_utf8(value).ok()?;
            let fits = exec_request.verbatim || sizes.variable(name, text).is_ok();
            fits.then(|| text.to_owned())
        };
        // What the server takes is asked once a connection; that costs a round trip.
        let asked: Vec<_> = (exec_request.env.iter())
            .filter(|_| !exec_request.verbatim)
            .filter(|(name, _)| names.taken(name).is_none())
            .filter_map(|(name, value)| Some((name, as_text(name, value)?)))
            .take(MOST_VARIABLES)
            .collect();
        let mut room = MOST_VARIABLES.saturating_sub(asked.len());
        let replies = asked.len() + usize::from(exec_request.pty.is_some());
        if replies > 0 {
            self.set_prepared();
            receiver.expect(replies);
            for (name, value) in &asked {
                let sent = sender.env((*name).clone(), value.clone(), true).await;
                if !took(sent)? {
                    return Ok(None);
                }
            }
            if let Some(pty) = &exec_request.pty
                && !took(sender.pty(pty).await)?
            {
                return Ok(None);
            }
            self.asked = true;
            let answers = receiver.answers().await;
            self.asked = false;
            if answers.len() < replies {
                return Ok(None);
            }
            for ((name, _), taken) in asked.iter().zip(&answers) {
                names.learn(name, *taken);
            }
            if exec_request.pty.is_some() && answers.last() == Some(&false) {
                return Err(Error::PtyRefused {
                    target: self.group.name().into(),
                });
            }
        }
        let mut exports = Vec::new();
        for (name, value) in &exec_request.env {
            let taken = exec_request.verbatim || names.taken(name) == Some(true);
            match as_text(name, value).filter(|_| taken) {
                // Sent when it was asked for.
                Some(_) if asked.iter().any(|(other, _)| *other == name) => {}
                Some(text) if room > 0 => {
                    room -= 1;
                    self.set_prepared();
                    if !took(sender.env(name.clone(), text, false).await)? {
                        return Ok(None);
                    }
                }
                _ if exec_request.verbatim => {
                    tracing::debug!(name, "too many variables for one session")
                }
                _ => {
                    quote::check_exported(name)?;
                    quote::push_env(&mut exports, name, value)?;
                }
            }
        }
        Ok(Some(match &exec_request.request {
            Request::Exec(line) => {
                Request::Exec(self.command_line(exec_request, &exports, line)?)
            }
            subsystem @ Request::Subsystem(_) => subsystem.clone(),
        }))
    }

    fn set_prepared(&mut self) {
        self.sent = RequestProgress::Preparation;
        self.prepared = true;
    }

    /// The channel has ended before the request was sent.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`] if it was the connection that ended, and the request is not tried
    /// on another.
    pub(crate) fn never_started(&self, admission: &mut Admission) -> Result<(), Error> {
        // Without an end of the channel, its connection has refused what was to be sent.
        let lost = |end: Option<ChannelEnd>| matches!(end, None | Some(ChannelEnd::Lost(_)));
        if !lost(self.channel.receiver.outcome().end) {
            tracing::debug!("the channel closed before exec: again");
            admission.channel_closed();
            return Ok(());
        }
        let reached = match self.prepared {
            true => Reached::Server,
            false => Reached::Not,
        };
        (self.group).lost_under(admission, self.on, self.connection.as_ref(), reached)
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(crate) fn on(&self) -> ConnectionId {
        self.on
    }

    pub(crate) fn group(&self) -> &Arc<ConnectionGroup> {
        &self.group
    }

    /// Completes when the server owes the answer to the request for too long, which is returned. For
    /// those who have no deadline: [`crate::Command::timeout`].
    pub(crate) async fn reply_timeout(&self) -> Duration {
        let receiver = &self.channel.receiver;
        let (limit, check) = self.group.answer_limits();
        // Checked after the limit only: waiting for the answer would wake this task for each one.
        tokio::time::sleep(limit).await;
        if let (false, Some(connection)) = (receiver.is_answered(), &self.connection) {
            // The request may be behind much else. What is asked now is answered behind it.
            connection.ping().await;
            if tokio::time::timeout(check, receiver.answered())
                .await
                .is_err()
            {
                return limit;
            }
        }
        std::future::pending().await
    }

    /// What is needed to end it, apart from it.
    pub(crate) fn signaller(&self) -> terminate::Terminator {
        terminate::Terminator {
            pools: self.pools.clone(),
            group: self.group.clone(),
            channel: self.channel.clone(),
            on: self.on,
            connection: self.connection.clone(),
            process_tag: self.process_tag.clone(),
            grace: self.group.kill_grace(),
            _ending: None,
        }
    }

    /// The same to end it, which may take helper commands: a pool that is being closed waits for
    /// them.
    pub(crate) fn terminator(&self) -> terminate::Terminator {
        terminate::Terminator {
            _ending: Some(self.pools.ending()),
            ..self.signaller()
        }
    }

    /// Ends the remote process, and says what is known about its end.
    pub(crate) async fn terminate(&self) -> TerminationOutcome {
        if self.detached {
            return TerminationOutcome::Unknown;
        }
        self.end().await
    }

    /// The same, detached or not. In a task of its own: the caller may be dropped or not polled for
    /// a while, and a pool that is being closed would wait for it.
    pub(crate) async fn end(&self) -> TerminationOutcome {
        let terminator = self.terminator();
        let ended = (self.group.runtime()).spawn(async move { terminator.terminate().await });
        ended.await.unwrap_or(TerminationOutcome::Unknown)
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached
    }

    /// Its end is known: what is left of its channel is of no interest.
    pub(crate) fn set_over(&mut self) {
        self.over = true;
    }

    /// A caller has it now, and sees to its end.
    pub(crate) fn hand_over(&mut self) {
        self.over = false;
    }

    /// What the end of the channel means. `limit` is the cap on output that holds.
    pub(crate) async fn classify(&self, limit: usize) -> ProcessEnd {
        let receiver = &self.channel.receiver;
        if receiver.has_ended() {
            // The answer to a request proves that it was sent; without one, ask the transport.
            receiver.exec_settled().await;
        }
        match classify(&self.group, receiver.outcome(), limit) {
            ProcessEnd::Done(status) => self.require_tag(status),
            other => other,
        }
    }

    /// A status is that of the command if its tag has come. That of a login shell which did not
    /// understand the line, or of a forced command, is another one's, whatever it says.
    fn require_tag(&self, status: crate::ExitStatus) -> ProcessEnd {
        let receiver = &self.channel.receiver;
        let ended_by_us = receiver.is_cancelled() && !status.success();
        match receiver.text_before_tag() {
            Some(said) if status.signal().is_none() && !ended_by_us => {
                ProcessEnd::Failed(Error::Unproven {
                    target: Origin::from(self.group.name()),
                    status,
                    said,
                })
            }
            _ => ProcessEnd::Done(status),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Channel { sender, receiver } = &self.channel;
        if receiver.has_ended() {
            return;
        }
        match self.sent {
            RequestProgress::Nothing => receiver.reset(),
            RequestProgress::Request if self.detached && !self.over => receiver.stop(),
            RequestProgress::Request if !self.over => {
                let terminator = self.terminator();
                self.group.runtime().spawn(async move {
                    terminator.terminate().await;
                });
            }
            // Nothing runs here that is still needed.
            RequestProgress::Preparation | RequestProgress::Request => {
                receiver.stop();
                let sender = sender.clone();
                self.group
                    .runtime()
                    .spawn(async move { sender.close().await });
            }
        }
    }
}

/// Whether the connection took a request. `false`: it has ended.
fn took(sent: Result<(), Unsent>) -> Result<bool, Error> {
    match sent {
        Ok(()) => Ok(true),
        Err(Unsent::Gone) => Ok(false),
        Err(Unsent::TooLong(long)) => Err(long.into()),
    }
}

fn classify(group: &ConnectionGroup, outcome: ChannelOutcome, limit: usize) -> ProcessEnd {
    let target = Origin::from(group.name());
    let ChannelOutcome {
        sent,
        accepted,
        eof,
        exit,
        overflow,
        end,
    } = outcome;
    if let Some((stream, overflow)) = overflow {
        return ProcessEnd::Failed(Error::OutputLimit {
            target,
            stream,
            limit: overflow.limit(limit),
        });
    }
    if accepted == Some(false) {
        return ProcessEnd::Failed(Error::ExecRefused { target });
    }
    if end.is_some() && !sent && accepted.is_none() && exit.is_none() {
        return ProcessEnd::NeverStarted;
    }
    match (exit, end) {
        (Some(status), None | Some(ChannelEnd::Closed | ChannelEnd::ClosedHere { .. })) => {
            ProcessEnd::Done(status)
        }
        // The status and all output were there; only the goodbye was lost.
        (Some(status), Some(ChannelEnd::Lost(_))) if eof => ProcessEnd::Done(status),
        (_, Some(ChannelEnd::Lost(source))) => {
            let phase = if accepted.is_some() {
                Phase::Running
            } else {
                Phase::Exec
            };
            ProcessEnd::Failed(Error::ConnectionLost {
                target,
                phase,
                source,
            })
        }
        _ => ProcessEnd::Failed(Error::ClosedWithoutStatus { target }),
    }
}
