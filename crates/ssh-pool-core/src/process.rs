//! A remote command from its request to its end, whoever looks at it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;
use std::time::Duration;

use crate::command_line::Tag;
use crate::error::{Error, Origin, PartialOutput, Phase};
use crate::hub::{self, ConnectionId, Deadline, Entry, Hub, Idler, Next, Reached};
use crate::inbox::{End, Sink, Transcript};
use crate::lanes::Lanes;
use crate::pty::Pty;
use crate::quote;
use crate::terminate::{self, Mark, Outcome};
use crate::transport::{Channel, Link, Request, Unsent};
use crate::waited::{self, Waited};

mod form;

/// Variables that go by a request in one session. sshd takes that many, and throws away those that
/// come after them, which without an answer nobody would know.
const MOST_VARIABLES: usize = 128;

/// Everything about a command that matters on the wire, but its input.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) request: Request,
    /// The most that the string in its request can be, in bytes.
    pub(crate) length: usize,
    pub(crate) env: Vec<(String, Vec<u8>)>,
    pub(crate) pty: Option<Pty>,
    pub(crate) stdout: Sink,
    pub(crate) stderr: Sink,
    /// Whether the process lives on when nobody waits for it any more.
    pub(crate) detached: bool,
    /// Whether the command line goes out with nothing before it.
    pub(crate) verbatim: bool,
    /// Whether the line begins with a `cd` of ours.
    pub(crate) in_folder: bool,
}

/// How far our side of the channel has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    /// Something that changes the channel, and starts nothing.
    Preparation,
    Request,
}

/// A command on its way. Dropped before its channel has ended, it sees to it that the remote
/// process ends too, and its slot counts as taken until the server gives it back.
pub(crate) struct Process {
    hub: Arc<Hub>,
    lanes: Arc<Lanes>,
    channel: Channel,
    /// Its connection.
    on: ConnectionId,
    link: Option<Arc<dyn Link>>,
    tag: Tag,
    mark: Option<Mark>,
    sent: Sent,
    /// What the server has been asked before the request, and has not answered.
    asked: bool,
    /// Something has been sent before the request.
    prepared: bool,
    detached: bool,
    /// Nobody wants anything of it any more, though its channel may still be open.
    over: bool,
}

/// What the end of a channel says about its command.
pub(crate) enum Judgement {
    Done(crate::ExitStatus),
    Failed(Error),
    /// The channel ended before the request went out.
    NeverStarted,
}

/// Sends the request on a channel that takes it. Until that has happened nothing has started, so
/// a channel that fails is replaced. What was waited for is added to `waited`.
pub(crate) async fn start(
    lanes: &Arc<Lanes>,
    hub: &Arc<Hub>,
    job: &Job,
    entry: &mut Entry,
    deadline: Deadline,
    waited: &mut Waited,
) -> Result<Process, Error> {
    let mut asked = hub;
    loop {
        asked.begin(entry);
        if let Some(pause) = entry.pause() {
            let begun = hub::now();
            let until = (begun + pause).min(deadline.at);
            // In a box, like all that is seldom: every command that waits would have room for it.
            Box::pin(tokio::time::sleep_until(until.into())).await;
            waited.back_off += hub::now().saturating_duration_since(begun);
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
            match entry.is_stream() || asked.is_isolated() {
                // In a box: every command that waits would have room for this.
                true => Box::pin(lanes.stream_channel(asked, entry, deadline, &mut wait)).await,
                false => asked.checkout_before(entry, deadline, &mut wait).await,
            }
        };
        let got = tracing::Instrument::instrument(checkout, queue.clone()).await;
        wait.record(&queue);
        *waited += wait;
        let (mut lease, mut next) = got?;
        entry.let_in();
        let hub = &lease.hub().clone();
        tracing::Span::current().record("connection", lease.connection());
        let (on, link) = (lease.on(), hub.link_of(&lease));
        if let Some(link) = &link
            && !hub.is_isolated()
            && link.server().sizes.is_unsure(job.length)
        {
            // Should the server end the connection over it, nothing else is lost.
            asked = lanes.isolated();
            continue;
        }
        if let Some(link) = &link
            && (entry.is_wary() || hub.doubts(link))
        {
            // Its answer is not waited for.
            drop(next.take());
            if !hub.answers(on, link, deadline, waited).await? {
                hub.lost_under(entry, on, Some(link), Reached::Not)?;
                continue;
            }
        }
        match &job.request {
            Request::Subsystem(_) => lease.leave_unattended(Idler::Stream),
            Request::Exec(_) if job.detached => lease.leave_unattended(Idler::Detached),
            Request::Exec(_) => {}
        }
        let Some(channel) = lease.begin(job.stdout, job.stderr) else {
            if link
                .as_ref()
                .is_none_or(|link| link.lifeline().cause().is_some())
            {
                hub.lost_under(entry, on, link.as_ref(), Reached::Not)?;
            } else {
                entry.channel_closed();
            }
            continue;
        };
        let tag = Tag::new();
        let mut process = Process {
            hub: hub.clone(),
            lanes: lanes.clone(),
            mark: Mark::needed(&*channel.wire, job, &tag),
            on,
            tag,
            link,
            channel,
            sent: Sent::Nothing,
            asked: false,
            prepared: false,
            detached: job.detached,
            over: false,
        };
        if process.must_learn(job)? {
            drop(next);
            if !Box::pin(process.learn(deadline)).await? {
                process.never_started(entry)?;
            }
            continue;
        }
        if before(next, process.send(job, deadline), waited).await? {
            return Ok(process);
        }
        process.never_started(entry)?;
    }
}

/// What follows from taking a spare, the opening of the next, goes behind the request if that can
/// go out at once. If not it waits no longer: others may be waiting for it.
async fn before<T>(next: Option<Next>, send: impl Future<Output = T>, waited: &mut Waited) -> T {
    let asking = || {
        drop(next);
        hub::now()
    };
    let (sent, asked) = waited::marked(send, asking).await;
    if let Some(asked) = asked {
        waited.channel += hub::now().saturating_duration_since(asked);
    }
    sent
}

impl Process {
    /// Sends everything up to the request, before the deadline. `false`: the channel does not take
    /// it, or its connection does not answer any more, so it is not on the wire.
    async fn send(&mut self, job: &Job, deadline: Deadline) -> Result<bool, Error> {
        let (hub, on, link) = (self.hub.clone(), self.on, self.link.clone());
        let in_time = {
            let mut handed = pin!(self.request(job));
            // A connection that takes it at once costs no timer.
            let first = poll_fn(|cx| Poll::Ready(handed.as_mut().poll(cx))).await;
            match (first, &link) {
                (Poll::Ready(handed), _) => return handed,
                // It has ended, and takes nothing.
                (Poll::Pending, None) => return Ok(false),
                (Poll::Pending, Some(link)) => {
                    let handed = async { Some(handed.await) };
                    let handed = hub.while_there(on, link, deadline, handed);
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
                if let Some(link) = link {
                    hub.check_if_quiet(on, link);
                }
                let asked = match self.asked {
                    true => "the server was asked for variables or a terminal",
                    false => "the connection did not take the request",
                };
                Err(self.hub.unanswered(deadline.after, asked))
            }
        }
    }

    /// Cancel safe: the request is handed over as a whole, as the last step, or not at all.
    async fn request(&mut self, job: &Job) -> Result<bool, Error> {
        // Without variables and a terminal nothing is waited for. In a box otherwise: every command
        // that waits would have room for it.
        let plain = job.env.is_empty() && job.pty.is_none();
        let at_once = match plain {
            true => self.prepare(job).now_or_never(),
            false => None,
        };
        let prepared = match at_once {
            Some(prepared) => prepared?,
            None => Box::pin(self.prepare(job)).await?,
        };
        let Some(request) = prepared else {
            return Ok(false); // the channel has ended
        };
        let taken = took(self.channel.wire.start(request).await)?;
        if taken {
            self.sent = Sent::Request;
        }
        Ok(taken)
    }

    /// Everything that goes before the request. `None`: the channel has ended.
    async fn prepare(&mut self, job: &Job) -> Result<Option<Request>, Error> {
        let Channel { wire, inbox } = self.channel.clone();
        let names = wire.env_names();
        let sizes = wire.server().sizes;
        if let Request::Exec(line) = &job.request {
            sizes.line(line.len())?; // before anything is sent
        }
        // What is too long for a request goes on the line, which is then too long or is not.
        let as_text = |name: &str, value: &[u8]| {
            let text = std::str::from_utf8(value).ok()?;
            let fits = job.verbatim || sizes.variable(name, text).is_ok();
            fits.then(|| text.to_owned())
        };
        // What the server takes is asked once a connection; that costs a round trip.
        let asked: Vec<_> = (job.env.iter())
            .filter(|_| !job.verbatim)
            .filter(|(name, _)| names.taken(name).is_none())
            .filter_map(|(name, value)| Some((name, as_text(name, value)?)))
            .take(MOST_VARIABLES)
            .collect();
        let mut room = MOST_VARIABLES.saturating_sub(asked.len());
        let replies = asked.len() + usize::from(job.pty.is_some());
        if replies > 0 {
            self.set_prepared();
            inbox.expect(replies);
            for (name, value) in &asked {
                let sent = wire.env((*name).clone(), value.clone(), true).await;
                if !took(sent)? {
                    return Ok(None);
                }
            }
            if let Some(pty) = &job.pty
                && !took(wire.pty(pty).await)?
            {
                return Ok(None);
            }
            self.asked = true;
            let answers = inbox.answers().await;
            self.asked = false;
            if answers.len() < replies {
                return Ok(None);
            }
            for ((name, _), taken) in asked.iter().zip(&answers) {
                names.learn(name, *taken);
            }
            if job.pty.is_some() && answers.last() == Some(&false) {
                return Err(Error::PtyRefused {
                    target: self.hub.name().into(),
                });
            }
        }
        let mut exports = Vec::new();
        for (name, value) in &job.env {
            let taken = job.verbatim || names.taken(name) == Some(true);
            match as_text(name, value).filter(|_| taken) {
                // Sent when it was asked for.
                Some(_) if asked.iter().any(|(other, _)| *other == name) => {}
                Some(text) if room > 0 => {
                    room -= 1;
                    self.set_prepared();
                    if !took(wire.env(name.clone(), text, false).await)? {
                        return Ok(None);
                    }
                }
                _ if job.verbatim => tracing::debug!(name, "too many variables for one session"),
                _ => {
                    quote::check_exported(name)?;
                    quote::push_env(&mut exports, name, value)?;
                }
            }
        }
        Ok(Some(match &job.request {
            Request::Exec(line) => Request::Exec(self.command_line(job, &exports, line)?),
            subsystem @ Request::Subsystem(_) => subsystem.clone(),
        }))
    }

    fn set_prepared(&mut self) {
        self.sent = Sent::Preparation;
        self.prepared = true;
    }

    /// The channel has ended before the request was sent.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`] if it was the connection that ended, and the request is not tried
    /// on another.
    pub(crate) fn never_started(&self, entry: &mut Entry) -> Result<(), Error> {
        // Without an end of the channel, its connection has refused what was to be sent.
        let lost = |end: Option<End>| matches!(end, None | Some(End::Lost(_)));
        if !lost(self.channel.inbox.transcript().end) {
            tracing::debug!("the channel closed before exec: again");
            entry.channel_closed();
            return Ok(());
        }
        let reached = match self.prepared {
            true => Reached::Server,
            false => Reached::Not,
        };
        (self.hub).lost_under(entry, self.on, self.link.as_ref(), reached)
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(crate) fn on(&self) -> ConnectionId {
        self.on
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Completes when the server owes the answer to the request for too long, which is returned. For
    /// those who have no deadline: [`crate::Command::timeout`].
    pub(crate) async fn overdue(&self) -> Duration {
        let inbox = &self.channel.inbox;
        let (limit, check) = self.hub.answer_limits();
        // Checked after the limit only: waiting for the answer would wake this task for each one.
        tokio::time::sleep(limit).await;
        if let (false, Some(link)) = (inbox.is_answered(), &self.link) {
            // The request may be behind much else. What is asked now is answered behind it.
            link.ping().await;
            if tokio::time::timeout(check, inbox.answered()).await.is_err() {
                return limit;
            }
        }
        std::future::pending().await
    }

    /// What is needed to end it, apart from it.
    pub(crate) fn remote(&self) -> terminate::Remote {
        terminate::Remote {
            lanes: self.lanes.clone(),
            hub: self.hub.clone(),
            channel: self.channel.clone(),
            on: self.on,
            link: self.link.clone(),
            mark: self.mark.clone(),
            grace: self.hub.kill_grace(),
            _ending: None,
        }
    }

    /// The same for somebody who ends it, which may take errands: a pool that is being closed waits
    /// for them.
    pub(crate) fn doomed(&self) -> terminate::Remote {
        terminate::Remote {
            _ending: Some(self.lanes.ending()),
            ..self.remote()
        }
    }

    /// Ends the remote process, and says what is known about its end.
    pub(crate) async fn terminate(&self) -> Outcome {
        if self.detached {
            return Outcome::Unknown;
        }
        self.end().await
    }

    /// The same, detached or not. In a task of its own: whoever asks for it may go, or not look for a
    /// while, and a pool that is being closed would wait for them.
    pub(crate) async fn end(&self) -> Outcome {
        let doomed = self.doomed();
        let ended = (self.hub.runtime()).spawn(async move { doomed.terminate().await });
        ended.await.unwrap_or(Outcome::Unknown)
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached
    }

    /// Its end is known: what is left of its channel is of no interest.
    pub(crate) fn set_over(&mut self) {
        self.over = true;
    }

    /// Somebody has it now, and sees to its end.
    pub(crate) fn hand_over(&mut self) {
        self.over = false;
    }

    /// What has arrived of the output that is collected: taken now, and whole once that is awaited.
    pub(crate) fn partial_output(&self) -> impl Future<Output = PartialOutput> + use<> {
        let inbox = &self.channel.inbox;
        let (status, collected) = (inbox.transcript().exit, inbox.collected());
        async move {
            let (stdout, stderr) = collected.await.unwrap_or_default();
            PartialOutput {
                status,
                stdout,
                stderr,
            }
        }
    }

    /// What the end of the channel means. `limit` is the cap on output that holds.
    pub(crate) async fn judge(&self, limit: usize) -> Judgement {
        let inbox = &self.channel.inbox;
        if inbox.has_ended() {
            // The answer to a request proves that it was sent; without one, ask the transport.
            inbox.exec_settled().await;
        }
        match judge(&self.hub, inbox.transcript(), limit) {
            Judgement::Done(status) => self.proven(status),
            other => other,
        }
    }

    /// A status is that of the command if its tag has come. That of a login shell which did not
    /// understand the line, or of a forced command, is another one's, whatever it says.
    fn proven(&self, status: crate::ExitStatus) -> Judgement {
        let inbox = &self.channel.inbox;
        let ended_by_us = inbox.is_cancelled() && !status.success();
        match inbox.unproven() {
            Some(said) if status.signal().is_none() && !ended_by_us => {
                Judgement::Failed(Error::Unproven {
                    target: Origin::from(self.hub.name()),
                    status,
                    said,
                })
            }
            _ => Judgement::Done(status),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Channel { wire, inbox } = &self.channel;
        if inbox.has_ended() {
            return;
        }
        match self.sent {
            Sent::Nothing => inbox.take_back(),
            Sent::Request if self.detached && !self.over => inbox.stop(),
            Sent::Request if !self.over => {
                let doomed = self.doomed();
                self.hub.runtime().spawn(async move {
                    doomed.terminate().await;
                });
            }
            // Nothing runs here that anybody would miss.
            Sent::Preparation | Sent::Request => {
                inbox.stop();
                let wire = wire.clone();
                self.hub.runtime().spawn(async move { wire.close().await });
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

fn judge(hub: &Hub, transcript: Transcript, limit: usize) -> Judgement {
    let target = Origin::from(hub.name());
    let Transcript {
        sent,
        accepted,
        eof,
        exit,
        overrun,
        end,
    } = transcript;
    if let Some((stream, overrun)) = overrun {
        return Judgement::Failed(Error::OutputLimit {
            target,
            stream,
            limit: overrun.limit(limit),
        });
    }
    if accepted == Some(false) {
        return Judgement::Failed(Error::ExecRefused { target });
    }
    if end.is_some() && !sent && accepted.is_none() && exit.is_none() {
        return Judgement::NeverStarted;
    }
    match (exit, end) {
        (Some(status), None | Some(End::Closed | End::ClosedHere { .. })) => {
            Judgement::Done(status)
        }
        // The status and all output were there; only the goodbye was lost.
        (Some(status), Some(End::Lost(_))) if eof => Judgement::Done(status),
        (_, Some(End::Lost(source))) => {
            let phase = if accepted.is_some() {
                Phase::Running
            } else {
                Phase::Exec
            };
            Judgement::Failed(Error::ConnectionLost {
                target,
                phase,
                source,
            })
        }
        _ => Judgement::Failed(Error::ClosedWithoutStatus { target }),
    }
}
