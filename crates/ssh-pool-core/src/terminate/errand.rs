//! Commands of the pool's own, that find processes which the server does not signal.
//!
//! OpenSSH before 10.0 ignores signal requests when the session runs as root; dropbear signals the
//! login shell alone. There every command is marked: its line begins with a variable that all its
//! processes inherit, and with saying so. Nothing is ever signalled by number alone: a number could
//! by then belong to somebody else, and behind one name there may be several machines.
//!
//! Where the server does signal, it stops doing so once the login shell has ended, though others
//! of its group may have ignored the signal and hold the channel open. Those are the processes of
//! this very connection (`SSH_CONNECTION`) whose group has lost its leader.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Remote, Sent};
use crate::command_line::{Tag, portable_script};
use crate::error::Stream;
use crate::inbox::Sink;
use crate::lanes::Lanes;
use crate::process::Job;
use crate::run::{self, Call};
use crate::transport::{Channel, Link, OpenError, Request, Signals, Wire};

/// Between two tries to get a session on a connection whose sessions are all in use.
const PAUSE: Duration = Duration::from_millis(50);
/// Output of a script that is kept: far more than there are numbers of groups in it.
const MOST: usize = 64 << 10;

/// By which the processes of one command are known.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    tag: Tag,
    /// The command has a process group of its own.
    group: bool,
}

impl Mark {
    /// The tag as one, if the server needs it to end this command.
    pub(crate) fn needed(wire: &dyn Wire, job: &Job, tag: &Tag) -> Option<Self> {
        let group = match wire.server().signals {
            Signals::Group => return None,
            Signals::Ignored => true,
            Signals::Shell => false,
        };
        let line = matches!(job.request, Request::Exec(_)) && !job.verbatim;
        let command = line && !job.detached;
        command.then(|| Self {
            tag: tag.clone(),
            group,
        })
    }

    /// Signals every process with this mark: by its process group, if that is the one it began in;
    /// or one by one, if that is the server's. Those that have left for a session of their own are
    /// spared.
    ///
    /// A shell that has not executed anything shows the mark in its command line, everything below
    /// it in its environment: shells come first, so that they start nothing new. The brackets keep the pattern from matching its own command line.
    fn script(&self, signal: &str) -> String {
        let (first, rest) = self.tag.id().split_at(1);
        let kill = if self.group {
            format!(
                r#"case $p in */environ) grep -qs "$m\.$3\." "$p" || continue ;; esac
  kill -s {signal} -- "-$3" 2>/dev/null && n=0"#
            )
        } else {
            format!(
                r#"grep -qs "$m" "/proc/$4/environ" && continue
  kill -s {signal} "${{d##*/}}" 2>/dev/null && n=0"#
            )
        };
        format!(
            r#"test -r /proc/self/stat || exit 4
m='[{first}]{rest}'; n=3
for p in $(grep -ls "$m" /proc/[0-9]*/cmdline /proc/[0-9]*/environ); do
  d=${{p%/*}}
  s=$(cat "$d/stat" 2>/dev/null) || continue
  set -- ${{s##*) }}
  {kill}
done
exit $n"#
        )
    }
}

/// Prints the groups of this connection that have lost their leader and still hold a stream of a
/// session.
const ORPHANS: &str = r#"test -r /proc/self/stat || exit 4
for p in $(grep -Fls "SSH_CONNECTION=$SSH_CONNECTION" /proc/[0-9]*/environ); do
  d=${p%/*}
  s=$(cat "$d/stat" 2>/dev/null) || continue
  set -- ${s##*) }
  test "$3" = "$4" && ! test -d "/proc/$3" || continue
  for f in 0 1 2; do
    if test -S "$d/fd/$f" || test -p "$d/fd/$f"; then
      echo "$3"
      break
    fi
  done
done"#;

/// Signals groups that still have no leader.
fn to_groups(groups: &[u32], signal: &str) -> String {
    let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
    let groups = groups.join(" ");
    format!(
        r#"n=3; for g in {groups}; do
  test -d "/proc/$g" || {{ kill -s {signal} -- "-$g" && n=0; }}
done 2>/dev/null
exit $n"#
    )
}

fn meaning(code: Option<i32>) -> Sent {
    match code {
        Some(0) => Sent::Delivered,
        Some(3) => Sent::NotFound,
        _ => Sent::Impossible,
    }
}

/// Signals a marked command. Runs on a connection of its own, so that it does not queue behind
/// those it is to end; where the host has another address by now, on the command's connection, for
/// the process is not at the new one.
pub(super) async fn by_mark(remote: &Remote, mark: &Mark, signal: &str) -> Sent {
    let Remote { lanes, channel, .. } = remote;
    let there = channel.wire.peer_addr();
    let script = mark.script(signal);
    if !lanes.shared().has_left(there) {
        match apart(lanes, script.clone()).await {
            Some((sent, ran_at)) if ran_at == there => return sent,
            Some(_) => {}
            None => return Sent::NotFound,
        }
    }
    let Some(link) = remote.link.clone() else {
        return Sent::Impossible;
    };
    let command = channel.clone();
    // A dropped open would keep its session.
    let errand = tokio::spawn(async move { beside(&*link, &command, script).await });
    match errand.await {
        Ok(Some((code, _))) => meaning(code),
        _ => Sent::Impossible,
    }
}

/// Runs a script on a connection of its own: what its exit code means, and where it has run.
fn apart(
    lanes: &Arc<Lanes>,
    script: String,
) -> BoxFuture<'static, Option<(Sent, Option<SocketAddr>)>> {
    let script = portable_script(&script);
    let call = Call {
        job: Job {
            length: script.len(),
            request: Request::Exec(script),
            env: Vec::new(),
            pty: None,
            stdout: Sink::Discard,
            stderr: Sink::Discard,
            // No errand for an errand.
            detached: true,
            // zsh, for one, does not split what the script wants split: `sh` runs it in any case.
            verbatim: true,
            in_folder: false,
        },
        stdin: Bytes::new(),
        timeout: None,
        idempotent: false,
        exit_grace: None,
        limit: 0,
        group: None,
    };
    let lanes = lanes.clone();
    async move {
        match run::run(&lanes, lanes.errands(), &Ok(call)).await {
            Ok(output) => Some((meaning(output.status.code()), output.peer_addr)),
            Err(error) => {
                tracing::debug!(%error, "an errand failed");
                None
            }
        }
    }
    .boxed()
}

/// Signals what is left of commands that are being ended and whose login shell has ended. On their
/// own connection, by which their processes are known, and beside its sessions. In a task of its
/// own: a dropped open would keep its session.
pub(super) async fn to_orphans(link: Arc<dyn Link>, command: Channel, signal: &str) -> Sent {
    let signal = signal.to_owned();
    let errand = tokio::spawn(async move {
        let sent = orphans(&*link, &command, &signal).await;
        sent.unwrap_or(Sent::Impossible)
    });
    errand.await.unwrap_or(Sent::Impossible)
}

/// `None`: the connection does not run it.
async fn orphans(link: &dyn Link, command: &Channel, signal: &str) -> Option<Sent> {
    if !command.wire.may_sweep() {
        return Some(Sent::Impossible);
    }
    let (code, found) = beside(link, command, ORPHANS.to_owned()).await?;
    let mut groups: Vec<u32> = (found.split_ascii_whitespace())
        .filter_map(|group| group.parse().ok())
        .collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.is_empty() {
        return Some(meaning(code.filter(|code| *code != 0).or(Some(3))));
    }
    // Replies come in order: a neighbour whose shell had ended when we looked has said so by now.
    if !command.wire.may_sweep() {
        return Some(Sent::Impossible);
    }
    let (code, _) = beside(link, command, to_groups(&groups, signal)).await?;
    Some(meaning(code))
}

/// Runs a script on the connection of a command that has not ended: its exit code and output.
async fn beside(
    link: &dyn Link,
    command: &Channel,
    script: String,
) -> Option<(Option<i32>, String)> {
    let Channel { wire, inbox } = loop {
        match link.open().await {
            Ok(channel) => break channel,
            Err(OpenError::Refused { .. }) if !command.inbox.has_ended() => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(_) => return None,
        }
    };
    // A fresh channel has no tenant to give back; if it has ended, it says so below.
    inbox.begin(Sink::Collect(MOST), Sink::Discard, ()).ok();
    let script = Request::Exec(portable_script(&script));
    if command.inbox.has_ended() || wire.start(script).await.is_err() || wire.eof().await.is_err() {
        wire.close().await;
        return None;
    }
    inbox.ended().await;
    let code = inbox.transcript().exit.and_then(|status| status.code());
    let output = String::from_utf8(inbox.collected(Stream::Stdout)).unwrap_or_default();
    Some((code, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_does_not_match_the_errand_that_looks_for_it() {
        let tag = Tag::new();
        for group in [true, false] {
            let mark = Mark {
                tag: tag.clone(),
                group,
            };
            assert!(!mark.script("TERM").contains(tag.id()));
        }
    }
}
