//! The command line that a command puts on the wire, and what is fed to it.

use bytes::Bytes;

use super::stdio::{Stdio, StdioKind};
use super::{Command, Error};
use crate::quote;
use crate::transport;

#[derive(Clone)]
pub(super) enum Body {
    /// Quoted words.
    Words(Vec<u8>),
    /// A line as it is.
    Line(Vec<u8>),
    /// An interpreter that reads `text` from its standard input, and its quoted arguments.
    Script {
        interpreter: Option<Vec<u8>>,
        arguments: Vec<u8>,
        text: Bytes,
    },
}

impl Command {
    /// What would have to be told to a shell is refused where there may be none.
    fn check_verbatim(&self) -> Result<(), Error> {
        let text = |(_, value): &(String, Vec<u8>)| std::str::from_utf8(value).is_ok();
        let (what, reason) = match self {
            Self {
                verbatim: false, ..
            } => return Ok(()),
            Self {
                current_dir: Some(_),
                ..
            } => ("folder", "a verbatim command line cannot change it"),
            Self { env, .. } if !env.iter().all(text) => {
                ("environment", "a verbatim command takes UTF-8 values only")
            }
            _ => return Ok(()),
        };
        Err(Error::InvalidInput {
            what,
            reason: reason.into(),
        })
    }

    /// The command line, without its environment, and what is fed to it.
    pub(super) fn request(&self) -> Result<(CommandText, Stdio), Error> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        if let Some(pty) = &self.pty {
            transport::check_pty(pty)?;
        }
        let mut line = Vec::new();
        for (name, value) in &self.env {
            quote::push_env(&mut line, name, value)?;
        }
        let exports = if self.verbatim { 0 } else { line.len() };
        line.clear();
        self.check_verbatim()?;
        if let Some(dir) = &self.current_dir {
            quote::push_current_dir(&mut line, dir)?;
        }
        let mut stdin = self.stdin.clone();
        match &self.body {
            Body::Words(words) | Body::Line(words) => line.extend_from_slice(words),
            Body::Script {
                interpreter,
                arguments,
                text,
            } => {
                let text = match interpreter {
                    None => whole_or_nothing(text),
                    Some(_) => text.clone(),
                };
                if stdin.replace(Stdio(StdioKind::Bytes(text))).is_some() {
                    return Err(Error::InvalidInput {
                        what: "stdin",
                        reason: "a script is read from it: pass data as arguments".into(),
                    });
                }
                // -s reads the script from stdin, -e stops at the first failure.
                line.extend_from_slice(interpreter.as_deref().unwrap_or(b"sh -se"));
                if !arguments.is_empty() {
                    let separator: &[u8] = if interpreter.is_none() { b" -- " } else { b" " };
                    line.extend_from_slice(separator);
                    line.extend_from_slice(arguments);
                }
            }
        }
        quote::check_line(&line, exports)?;
        let line = CommandText {
            text: line,
            exports,
        };
        Ok((line, stdin.unwrap_or_else(Stdio::null)))
    }
}

/// A command line without its environment.
pub(super) struct CommandText {
    pub(super) text: Vec<u8>,
    /// The length of the environment, if all of it is on the line too.
    pub(super) exports: usize,
}

/// A shell reads its script line by line, and runs what it has when its input ends: also when that
/// is in the middle of a line, because the connection was lost. Between braces it runs nothing
/// before it has seen the closing one. The blank line is for a script that ends in a backslash.
fn whole_or_nothing(script: &Bytes) -> Bytes {
    [b"{ :; ", script.as_ref(), b"\n\n}\n"].concat().into()
}
