//! Which form a command's line has, by what is known of the login shell that gets it.

use super::{ExecRequest, Process, ProcessEnd};
use crate::command_line::{self, CommandLine};
use crate::error::Error;
use crate::group::Deadline;
use crate::login_shell::ShellKind;
use crate::quote;
use crate::receiver::Sink;
use crate::transport::{Channel, Request};

impl Process {
    /// The line in the form that the login shell takes, with a tag where it has to prove something.
    pub(super) fn command_line(
        &mut self,
        exec_request: &ExecRequest,
        exports: &[u8],
        line: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if exec_request.verbatim {
            return Ok(line.to_vec());
        }
        let Channel { sender, receiver } = &self.channel;
        let longest = sender.server().sizes.longest_line();
        let shell = sender.login_shell();
        let portable = match shell.kind() {
            ShellKind::Posix => false,
            ShellKind::Unseen | ShellKind::Other => true,
            // There is something of ours that not every shell understands.
            ShellKind::Unsure => exec_request.in_folder || !exports.is_empty(),
        };
        let mut parts = CommandLine {
            exports,
            line,
            marked: self.process_tag.is_some(),
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
                self.process_tag = None;
                parts.marked = false;
                parts.direct(&self.tag)
            } else {
                whole
            }
        };
        if portable || parts.marked {
            // dropbear may lose what a command has said to a terminal at once before it ends.
            let is_proof = portable || exec_request.pty.is_none();
            receiver.expect_tag(self.tag.line(), is_proof.then(|| shell.clone()));
        }
        Ok(whole)
    }

    /// Whether the login shell has to be known before this command is sent: its line fits in the
    /// direct form and not in the portable one, or its tag may get lost.
    pub(super) fn must_learn(&self, exec_request: &ExecRequest) -> Result<bool, Error> {
        let Request::Exec(line) = &exec_request.request else {
            return Ok(false);
        };
        let sender = &self.channel.sender;
        let unseen = sender.login_shell().kind() == ShellKind::Unseen;
        let longest = sender.server().sizes.longest_line();
        // The portable form takes four bytes for one at most.
        let values: usize = exec_request
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        // dropbear loses what a command has said to a terminal at once before it ends.
        if unseen && !exec_request.verbatim && exec_request.pty.is_some() {
            return Ok(true);
        }
        if exec_request.verbatim || !unseen || line.len() + values < longest / 8 {
            return Ok(false);
        }
        let mut exports = Vec::new();
        for (name, value) in &exec_request.env {
            quote::push_env(&mut exports, name, value)?;
        }
        let parts = CommandLine {
            exports: &exports,
            line,
            marked: self.process_tag.is_some(),
        };
        Ok(parts.portable(&self.tag).len() > longest)
    }

    /// Runs a command that does nothing, for its tag. `false`: it was not sent.
    pub(super) async fn learn(&mut self, deadline: Deadline) -> Result<bool, Error> {
        let nothing = ExecRequest {
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
        self.channel.receiver.stop();
        if !self.send(&nothing, deadline).await? {
            return Ok(false);
        }
        let Channel { sender, receiver } = self.channel.clone();
        let ended = async {
            // A connection that does not take it has ended, and the channel with it.
            sender.eof().await.ok();
            receiver.ended().await;
        };
        if tokio::time::timeout_at(deadline.at.into(), ended)
            .await
            .is_err()
        {
            let asked = "the account's login shell was asked what it is";
            return Err(self.group.unanswered(deadline.after, asked));
        }
        match self.classify(0).await {
            ProcessEnd::Failed(error) => Err(error),
            ProcessEnd::Done(_) => Ok(true),
            ProcessEnd::NeverStarted => Ok(false),
        }
    }
}
