//! Which form a command's line has, by what is known of the login shell that gets it.

use super::{Job, Judgement, Process};
use crate::command_line::{self, CommandLine};
use crate::error::Error;
use crate::hub::Deadline;
use crate::inbox::Sink;
use crate::login_shell::Kind;
use crate::quote;
use crate::transport::{Channel, Request};

impl Process {
    /// The line in the form that the login shell takes, with a tag where it has to prove something.
    pub(super) fn command_line(
        &mut self,
        job: &Job,
        exports: &[u8],
        line: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if job.verbatim {
            return Ok(line.to_vec());
        }
        let Channel { wire, inbox } = &self.channel;
        let longest = wire.server().sizes.longest_line();
        let shell = wire.login_shell();
        let portable = match shell.kind() {
            Kind::Posix => false,
            Kind::Unseen | Kind::Other => true,
            // There is something of ours that not every shell understands.
            Kind::Unsure => job.in_folder || !exports.is_empty(),
        };
        let mut parts = CommandLine {
            exports,
            line,
            marked: self.mark.is_some(),
        };
        let whole = if portable {
            let whole = parts.portable(&self.tag);
            if whole.len() > longest {
                return Err(command_line::too_long(whole.len(), longest));
            }
            whole
        } else {
            let whole = parts.direct(&self.tag);
            if whole.len() > longest && parts.marked {
                // The command itself goes first.
                self.mark = None;
                parts.marked = false;
                parts.direct(&self.tag)
            } else {
                whole
            }
        };
        if portable || parts.marked {
            // dropbear may lose what a command has said to a terminal at once before it ends.
            let is_proof = portable || job.pty.is_none();
            inbox.expect_tag(self.tag.line(), is_proof.then(|| shell.clone()));
        }
        Ok(whole)
    }

    /// Whether the login shell has to be known before this command is sent: its line fits in the
    /// direct form and not in the portable one, or its tag may get lost.
    pub(super) fn must_learn(&self, job: &Job) -> Result<bool, Error> {
        let Request::Exec(line) = &job.request else {
            return Ok(false);
        };
        let wire = &self.channel.wire;
        let unseen = wire.login_shell().kind() == Kind::Unseen;
        let longest = wire.server().sizes.longest_line();
        // The portable form takes four bytes for one at most.
        let values: usize = job
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        // dropbear loses what a command has said to a terminal at once before it ends.
        if unseen && !job.verbatim && job.pty.is_some() {
            return Ok(true);
        }
        if job.verbatim || !unseen || line.len() + values < longest / 8 {
            return Ok(false);
        }
        let mut exports = Vec::new();
        for (name, value) in &job.env {
            quote::push_env(&mut exports, name, value)?;
        }
        let parts = CommandLine {
            exports: &exports,
            line,
            marked: self.mark.is_some(),
        };
        Ok(parts.portable(&self.tag).len() > longest)
    }

    /// Runs a command that does nothing, for its tag. `false`: it was not sent.
    pub(super) async fn learn(&mut self, deadline: Deadline) -> Result<bool, Error> {
        let nothing = Job {
            request: Request::Exec(b":".to_vec()),
            length: 1,
            env: Vec::new(),
            pty: None,
            stdout: Sink::Discard,
            stderr: Sink::Discard,
            detached: false,
            verbatim: false,
            in_folder: false,
        };
        self.channel.inbox.stop();
        if !self.send(&nothing, deadline).await? {
            return Ok(false);
        }
        let Channel { wire, inbox } = self.channel.clone();
        let ended = async {
            // A connection that does not take it has ended, and the channel with it.
            wire.eof().await.ok();
            inbox.ended().await;
        };
        if tokio::time::timeout_at(deadline.at.into(), ended)
            .await
            .is_err()
        {
            let asked = "the account's login shell was asked what it is";
            return Err(self.hub.unanswered(deadline.after, asked));
        }
        match self.judge(0).await {
            Judgement::Failed(error) => Err(error),
            Judgement::Done(_) => Ok(true),
            Judgement::NeverStarted => Ok(false),
        }
    }
}
