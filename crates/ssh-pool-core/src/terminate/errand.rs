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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Remote, Sent, batch};
use crate::command_line::{Tag, portable_script};
use crate::error::Stream;
use crate::inbox::Sink;
use crate::lanes::Lanes;
use crate::process::Job;
use crate::run::{self, Call};
use crate::transport::{Channel, Link, OpenError, Request, Signals, Wire};

/// Between two tries to get a session on a connection whose sessions are all in use.
const PAUSE: Duration = Duration::from_millis(50);
/// Output of a script that is kept, however full the pool is: what fills it may have to be ended. Far
/// more than there are numbers of groups in it.
const MOST: usize = 64 << 10;

/// By which the processes of one command are known.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    tag: Tag,
    /// The command has a process group of its own.
    group: bool,
    /// Processes without the mark have been seen that are the command's, or may be.
    strays: Arc<AtomicBool>,
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
            strays: Arc::default(),
        })
    }

    /// What the answer of its script says.
    pub(super) fn meaning(&self, code: Option<i32>) -> Sent {
        if code == Some(STRAYS) {
            self.set_strays();
        }
        meaning(code)
    }

    /// There are such processes, or it is not known whether there are.
    pub(super) fn set_strays(&self) {
        self.strays.store(true, Ordering::Relaxed);
    }

    /// Whether processes have been seen that are the command's, or may be, and that no look for the
    /// mark finds again.
    pub(super) fn has_strays(&self) -> bool {
        self.strays.load(Ordering::Relaxed)
    }

    /// What signals the command, for the functions of its [`script`].
    ///
    /// A shell that has not executed anything shows the mark in its command line, everything below
    /// it in its environment: shells come first, so that they start nothing new. The brackets keep the
    /// pattern from matching its own command line.
    fn call(&self, signal: &str) -> String {
        let (first, rest) = self.tag.id().split_at(1);
        format!("mark '[{first}]{rest}' {signal}")
    }

    /// Commands that have the same may share a script.
    pub(super) fn functions(&self) -> &'static str {
        if self.group { BY_GROUP } else { ONE_BY_ONE }
    }
}

/// A script that signals these commands, which have the same functions. Its exit code is the answer; of
/// several commands it prints them.
pub(super) fn script<'a>(signals: impl IntoIterator<Item = (&'a Mark, &'a str)>) -> String {
    let mut functions = "";
    let calls: Vec<_> = (signals.into_iter())
        .map(|(mark, signal)| {
            functions = mark.functions();
            mark.call(signal)
        })
        .collect();
    // One alone need not say what its exit code says.
    let end = if calls.len() == 1 {
        "exit $n"
    } else {
        "echo $n; exit 6"
    };
    let script = format!("{functions} {}; {end}", calls.join("; echo $n; "));
    // In one line, and without the margin: dropbear before 2015.68 takes 1,024 bytes.
    script
        .split_ascii_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// `mark PATTERN SIGNAL` signals the process groups that processes with the mark began in. `n` is 0
/// then, and 3 if there is none. Those that have left for a session of their own are spared.
const BY_GROUP: &str = r#"cd /proc && test -r self/stat || exit 4;
exec 2>/dev/null;
mark() {
  m=$1 g=$2 n=3;
  for p in $(grep -l "$m" [0-9]*/cmdline [0-9]*/environ); do
    s=$(cat ${p%/*}/stat) || continue;
    set -- ${s##*) };
    case $p in */environ) grep -q "$m\.$3\." $p || continue ;; esac;
    kill -s $g -- -$3 && n=0;
  done;
};"#;

/// The same one by one, where the group is the server's: the processes in `k`, of the session `l`, and
/// those in `u`, which are below them and have lost the mark, as after `env -i`. `n` is 5 if one of
/// those is still there a second later; or one of those in `o`, which have no mark and whose parent has
/// ended: they may be this command's. They are looked for twice, because a process that is about to
/// execute another program has no mark either.
const ONE_BY_ONE: &str = r#"cd /proc && test -r self/stat || exit 4;
exec 2>/dev/null;
bare() { grep -q . $1/cmdline && ! grep -q SSH_POOL_MARK= $1/environ $1/cmdline; };
stat() { s=$(cat $1/stat) && set -- ${s##*) } && a=$2 b=$4; };
mark() {
  m=$1 g=$2 n=3 k=' ' l= u= o=;
  for p in $(grep -l "$m" [0-9]*/cmdline [0-9]*/environ); do
    p=${p%/*};
    stat $p && ! grep -q "$m" $b/environ && k="$k$p " l=$b;
  done;
  test "$l" || return;
  for p in $(grep -l ") . [0-9]* [0-9]* $l " [0-9]*/stat); do
    p=${p%/*} a=$p;
    case "$k$l " in *" $p "*) continue ;; esac;
    bare $p || continue;
    until case $k in *" $a "*) u="$u $p" ;; *) test $a = $l ;; esac; do
      stat $a && test $b = $l || { o="$o $p"; break; };
    done;
  done;
  for p in $k $u; do kill -s $g $p && n=0; done;
  test "$u" && sleep 1;
  for p in $u $o; do bare $p && n=5; done;
};"#;

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

/// The answer of a script that has signalled a command which has lost its mark in part.
const STRAYS: i32 = 5;

fn meaning(code: Option<i32>) -> Sent {
    match code {
        Some(0 | STRAYS) => Sent::Delivered,
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
    if !lanes.shared().has_left(there) {
        let longest = channel.wire.server().sizes.longest_line();
        match batch::signal(lanes, longest, mark, signal).await {
            Some((sent, ran_at)) if ran_at == there => return sent,
            Some(_) => {}
            None => return Sent::Failed,
        }
    }
    let Some(link) = remote.link.clone() else {
        return Sent::Impossible;
    };
    let command = channel.clone();
    let script = script([(mark, signal)]);
    // A dropped open would keep its session.
    let errand = tokio::spawn(async move { beside(&*link, &command, script).await });
    match errand.await {
        Ok(Some((code, _))) => mark.meaning(code),
        _ => Sent::Impossible,
    }
}

/// What came of a script: its exit code, what it says, and where it has run.
pub(super) type Answer = (Option<i32>, String, Option<SocketAddr>);

/// Runs a script on a connection of its own.
pub(super) fn apart(lanes: &Arc<Lanes>, script: String) -> BoxFuture<'static, Option<Answer>> {
    let script = portable_script(&script);
    let call = Call {
        job: Job {
            length: script.len(),
            request: Request::Exec(script),
            env: Vec::new(),
            pty: None,
            stdout: Sink::Keep(MOST),
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
        limit: MOST,
        group: None,
    };
    let lanes = lanes.clone();
    async move {
        match run::run(&lanes, lanes.errands(), &Ok(call)).await {
            Ok(output) => {
                let said = output.stdout_lossy().into_owned();
                Some((output.status.code(), said, output.peer_addr))
            }
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
    inbox.begin(Sink::Keep(MOST), Sink::Discard, ()).ok();
    let script = Request::Exec(portable_script(&script));
    if command.inbox.has_ended() || wire.start(script).await.is_err() || wire.eof().await.is_err() {
        wire.close().await;
        return None;
    }
    inbox.ended().await;
    let code = inbox.transcript().exit.and_then(|status| status.code());
    let output =
        String::from_utf8(inbox.rest(Stream::Stdout).unread().to_vec()).unwrap_or_default();
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
                strays: Arc::default(),
            };
            let script = script([(&mark, "TERM")]);
            assert!(!script.contains(tag.id()));
            // What dropbear before 2015.68 takes.
            assert!(portable_script(&script).len() < 1024);
        }
    }
}
