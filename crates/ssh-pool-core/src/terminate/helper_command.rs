//! Commands of the pool's own, that find processes which the server does not signal.
//!
//! OpenSSH before 10.0 ignores signal requests when the session runs as root; dropbear signals the
//! login shell alone. There every command is tagged: its line begins by setting a variable that all
//! its processes inherit, and by writing a line that says so. Nothing is ever signalled by number
//! alone: a number could by then belong to another process, and behind one name there may be several
//! machines.
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

use super::{SignalResult, Terminator, batch};
use crate::command_line::{Tag, portable_script};
use crate::error::Stream;
use crate::host_pools::HostPools;
use crate::process::ExecRequest;
use crate::receiver::Sink;
use crate::run::{self, BufferedExec};
use crate::transport::{Channel, ChannelSender, Connection, OpenError, Request, Signals};

/// Between two tries to get a session on a connection whose sessions are all in use.
const PAUSE: Duration = Duration::from_millis(50);
/// Output of a script that is kept, however full the pool is: what fills it may have to be ended. Far
/// more than there are numbers of groups in it.
const MOST: usize = 64 << 10;

/// By which the processes of one command are known.
#[derive(Debug, Clone)]
pub(crate) struct ProcessTag {
    tag: Tag,
    /// The command has a process group of its own.
    group: bool,
    /// Processes without the tag have been seen that are the command's, or may be.
    untagged: Arc<AtomicBool>,
}

impl ProcessTag {
    /// The tag as one, if the server needs it to end this command.
    pub(crate) fn needed(
        sender: &dyn ChannelSender,
        exec_request: &ExecRequest,
        tag: &Tag,
    ) -> Option<Self> {
        let group = match sender.server().signals {
            Signals::Group => return None,
            Signals::Ignored => true,
            Signals::Shell => false,
        };
        let line = matches!(exec_request.request, Request::Exec(_)) && !exec_request.verbatim;
        let command = line && !exec_request.detached;
        command.then(|| Self {
            tag: tag.clone(),
            group,
            untagged: Arc::default(),
        })
    }

    /// What the answer of its script says.
    pub(super) fn meaning(&self, code: Option<i32>) -> SignalResult {
        if code == Some(UNTAGGED) {
            self.set_untagged();
        }
        meaning(code)
    }

    /// There are such processes, or it is not known whether there are.
    pub(super) fn set_untagged(&self) {
        self.untagged.store(true, Ordering::Relaxed);
    }

    /// Whether processes have been seen that are the command's, or may be, and that no look for the
    /// tag finds again.
    pub(super) fn has_untagged(&self) -> bool {
        self.untagged.load(Ordering::Relaxed)
    }

    /// What signals the command, for the functions of its [`script`].
    ///
    /// A shell that has not executed anything shows the tag in its command line, everything below
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
pub(super) fn script<'a>(signals: impl IntoIterator<Item = (&'a ProcessTag, &'a str)>) -> String {
    let mut functions = "";
    let calls: Vec<_> = (signals.into_iter())
        .map(|(process_tag, signal)| {
            functions = process_tag.functions();
            process_tag.call(signal)
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

/// `mark PATTERN SIGNAL` signals the process groups that processes with the tag began in. `n` is 0
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
/// those in `u`, which are below them and have lost the tag, as after `env -i`. `n` is 5 if one of
/// those is still there a second later; or one of those in `o`, which have no tag and whose parent has
/// ended: they may be this command's. They are looked for twice, because a process that is about to
/// execute another program has no tag either.
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
const LEADERLESS: &str = r#"test -r /proc/self/stat || exit 4
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

/// The answer of a script that has signalled a command of which some processes have lost the tag.
const UNTAGGED: i32 = 5;

fn meaning(code: Option<i32>) -> SignalResult {
    match code {
        Some(0 | UNTAGGED) => SignalResult::Delivered,
        Some(3) => SignalResult::NotFound,
        _ => SignalResult::Impossible,
    }
}

/// Signals a tagged command. Runs on a connection of its own, so that it does not queue behind
/// those it is to end; where the host has another address by now, on the command's connection, for
/// the process is not at the new one.
pub(super) async fn by_process_tag(
    remote: &Terminator,
    process_tag: &ProcessTag,
    signal: &str,
) -> SignalResult {
    let Terminator { pools, channel, .. } = remote;
    let there = channel.sender.peer_addr();
    if !pools.shared().has_left(there) {
        let longest = channel.sender.server().sizes.longest_line();
        match batch::signal(pools, longest, process_tag, signal).await {
            Some((sent, ran_at)) if ran_at == there => return sent,
            Some(_) => {}
            None => return SignalResult::Failed,
        }
    }
    let Some(connection) = remote.connection.clone() else {
        return SignalResult::Impossible;
    };
    let command = channel.clone();
    let script = script([(process_tag, signal)]);
    // A dropped open would keep its session.
    let helper =
        tokio::spawn(async move { on_same_connection(&*connection, &command, script).await });
    match helper.await {
        Ok(Some((code, _))) => process_tag.meaning(code),
        _ => SignalResult::Impossible,
    }
}

/// What came of a script: its exit code, what it says, and where it has run.
pub(super) type ScriptResult = (Option<i32>, String, Option<SocketAddr>);

/// Runs a script on a connection of its own.
pub(super) fn on_control_connection(
    pools: &Arc<HostPools>,
    script: String,
) -> BoxFuture<'static, Option<ScriptResult>> {
    let script = portable_script(&script);
    let exec = BufferedExec {
        exec_request: ExecRequest {
            length: script.len(),
            request: Request::Exec(script),
            env: Vec::new(),
            pty: None,
            stdout: Sink::Keep(MOST),
            stderr: Sink::Discard,
            // No helper command for a helper command.
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
        stream_group: None,
    };
    let pools = pools.clone();
    async move {
        match run::run(&pools, pools.control(), &Ok(exec)).await {
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
pub(super) async fn signal_leaderless(
    connection: Arc<dyn Connection>,
    command: Channel,
    signal: &str,
) -> SignalResult {
    let signal = signal.to_owned();
    let helper = tokio::spawn(async move {
        let sent = signal_leaderless_groups(&*connection, &command, &signal).await;
        sent.unwrap_or(SignalResult::Impossible)
    });
    helper.await.unwrap_or(SignalResult::Impossible)
}

/// `None`: the connection does not run it.
async fn signal_leaderless_groups(
    connection: &dyn Connection,
    command: &Channel,
    signal: &str,
) -> Option<SignalResult> {
    if !command.sender.may_signal_leaderless() {
        return Some(SignalResult::Impossible);
    }
    let (code, found) = on_same_connection(connection, command, LEADERLESS.to_owned()).await?;
    let mut groups: Vec<u32> = (found.split_ascii_whitespace())
        .filter_map(|group| group.parse().ok())
        .collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.is_empty() {
        return Some(meaning(code.filter(|code| *code != 0).or(Some(3))));
    }
    // Replies come in order: a neighbour whose shell had ended when we looked has said so by now.
    if !command.sender.may_signal_leaderless() {
        return Some(SignalResult::Impossible);
    }
    let (code, _) = on_same_connection(connection, command, to_groups(&groups, signal)).await?;
    Some(meaning(code))
}

/// Runs a script on the connection of a command that has not ended: its exit code and output.
async fn on_same_connection(
    connection: &dyn Connection,
    command: &Channel,
    script: String,
) -> Option<(Option<i32>, String)> {
    let Channel { sender, receiver } = loop {
        match connection.open().await {
            Ok(channel) => break channel,
            Err(OpenError::Refused { .. }) if !command.receiver.has_ended() => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(_) => return None,
        }
    };
    // A fresh channel has no owner to give back; if it has ended, it says so below.
    receiver.begin(Sink::Keep(MOST), Sink::Discard, ()).ok();
    let script = Request::Exec(portable_script(&script));
    if command.receiver.has_ended()
        || sender.start(script).await.is_err()
        || sender.eof().await.is_err()
    {
        sender.close().await;
        return None;
    }
    receiver.ended().await;
    let code = receiver.outcome().exit.and_then(|status| status.code());
    let output =
        String::from_utf8(receiver.rest(Stream::Stdout).unread().to_vec()).unwrap_or_default();
    Some((code, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_does_not_match_the_helper_command_that_looks_for_it() {
        let tag = Tag::new();
        for group in [true, false] {
            let process_tag = ProcessTag {
                tag: tag.clone(),
                group,
                untagged: Arc::default(),
            };
            let script = script([(&process_tag, "TERM")]);
            assert!(!script.contains(tag.id()));
            // What dropbear before 2015.68 takes.
            assert!(portable_script(&script).len() < 1024);
        }
    }
}
