//! What is known of the shell that executes the command lines of a connection.

use std::sync::atomic::{AtomicU8, Ordering};

/// The login shell of one connection's account, as far as it is known.
///
/// A server keeps the account's entry of the user data base from the login to the end of the
/// connection, so what was learned holds that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum ShellKind {
    /// The server is of an unknown kind. It may have no login shells at all, as network devices.
    #[default]
    Unsure,
    /// The server executes command lines by a login shell that has not been seen yet.
    Unseen,
    /// It takes POSIX syntax.
    Posix,
    /// It does not, or that is unclear: fish, csh, tcsh.
    Other,
}

/// [`ShellKind`], shared between the session loop that learns it and the commands that ask for it.
#[derive(Debug, Default)]
pub(crate) struct LoginShell(AtomicU8);

impl LoginShell {
    pub(crate) fn kind(&self) -> ShellKind {
        // The value stands for itself: nothing else is read after it.
        match self.0.load(Ordering::Relaxed) {
            byte if byte == ShellKind::Unseen as u8 => ShellKind::Unseen,
            byte if byte == ShellKind::Posix as u8 => ShellKind::Posix,
            byte if byte == ShellKind::Other as u8 => ShellKind::Other,
            _ => ShellKind::Unsure,
        }
    }

    /// The server is known to execute command lines by login shells.
    pub(crate) fn expect(&self) {
        let (from, to) = (ShellKind::Unsure as u8, ShellKind::Unseen as u8);
        // It has been learned already if this fails.
        self.0
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .ok();
    }

    /// A command has said which one it is. `Other` is final: start-up files may give different
    /// answers, and the portable form suits every shell.
    pub(crate) fn learn(&self, posix: bool) {
        let kind = if posix {
            ShellKind::Posix
        } else {
            ShellKind::Other
        };
        self.0.fetch_max(kind as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_kept_and_doubt_wins() {
        let shell = LoginShell::default();
        assert_eq!(shell.kind(), ShellKind::Unsure);
        shell.expect();
        assert_eq!(shell.kind(), ShellKind::Unseen);
        shell.learn(true);
        shell.expect();
        assert_eq!(shell.kind(), ShellKind::Posix);
        shell.learn(false);
        assert_eq!(shell.kind(), ShellKind::Other);
        shell.learn(true);
        assert_eq!(shell.kind(), ShellKind::Other);
    }
}
