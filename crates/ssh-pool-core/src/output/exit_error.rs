//! A command that ran and did not succeed, as an error.

use std::{error, fmt};

use super::{ExitStatus, Output};
use crate::printable;

/// How much of standard error is shown, in bytes before escaping: its end, where programs say why
/// they gave up.
const SHOWN: usize = 400;

/// A command ran, and its exit status was not 0. From [`Output::exit_ok`] and
/// [`ExitStatus::exit_ok`].
///
/// It is not an [`Error`](crate::Error), which is about a command without a status. `Display` names
/// the target, the status and the end of standard error, [printable](crate::printable()), on one line. It
/// does not show the command line, which may hold a secret.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{ExitStatus, Output};
///
/// let output = Output::new(ExitStatus::from_code(2), "", "no such table\n");
/// let error = output.exit_ok().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the command failed with exit status: 2; standard error: \"no such table\""
/// );
/// assert_eq!(error.status().code(), Some(2));
/// ```
#[derive(Clone)]
pub struct ExitError(Box<Output>);

impl ExitError {
    pub(super) fn new(output: Output) -> Self {
        Self(Box::new(output))
    }

    /// How the command ended.
    #[must_use]
    pub fn status(&self) -> &ExitStatus {
        &self.0.status
    }

    /// What it left behind; empty streams if it comes from an [`ExitStatus`].
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.0
    }

    /// The same, by value.
    #[must_use]
    pub fn into_output(self) -> Output {
        *self.0
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output {
            status,
            stderr,
            target,
            ..
        } = &*self.0;
        if let Some(target) = target {
            write!(f, "{target}: ")?;
        }
        write!(f, "the command failed with {status}")?;
        let said = stderr.trim_ascii();
        if said.is_empty() {
            return Ok(());
        }
        let shown = said.get(said.len().saturating_sub(SHOWN)..);
        let shown = shown.unwrap_or(said);
        let cut = if shown.len() < said.len() { "… " } else { "" };
        write!(f, "; standard error: \"{cut}{}\"", printable(shown))
    }
}

impl fmt::Debug for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl error::Error for ExitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_target_status_and_the_end_of_what_was_said() {
        let mut output = Output::new(ExitStatus::from_code(3), "out", "first\nlast\u{1b}[2J\n");
        output.target = Some("me@web-1:22".into());
        let error = output.clone().exit_ok().unwrap_err();
        assert_eq!(
            error.to_string(),
            "me@web-1:22: the command failed with exit status: 3; standard error: \
             \"first\\nlast\\u{1b}[2J\""
        );
        assert_eq!(error.into_output(), output);

        output.stderr = [vec![b'x'; 10_000], b"why".to_vec()].concat();
        let error = output.exit_ok().unwrap_err().to_string();
        assert!(error.len() < 1_000 && error.ends_with("xwhy\""), "{error}");
    }

    #[test]
    fn a_success_is_handed_on() {
        let output = Output::new(ExitStatus::from_code(0), "out", "warning");
        assert_eq!(output.clone().exit_ok().unwrap(), output);
        assert!(output.status.exit_ok().is_ok());
        let killed = ExitStatus::from_signal("KILL").exit_ok().unwrap_err();
        assert_eq!(killed.to_string(), "the command failed with signal: KILL");
    }
}
