//! The longest strings that a server takes in one request, by its kind.
//!
//! A server that is sent more does not refuse the request. It ends the connection, and with it
//! everything that runs there. So the length is checked before anything is sent.
//!
//! | bytes                      | dropbear | OpenSSH | any other |
//! |----------------------------|----------|---------|-----------|
//! | command line               |    9,000 | 131,071 |   131,071 |
//! | environment variable       |    9,000 | 131,071 |   131,071 |
//! | terminal                   |      200 | 131,066 |    31,744 |
//! | any other string           |    9,000 | 261,120 |    31,744 |
//! | surely taken               |      all |     all |    31,744 |
//!
//! dropbear ends a connection on a string longer than `MAX_STRING_LEN` (sysoptions.h; before 2015.68
//! it was 1,400 bytes, and a command line 1,024), OpenSSH on a packet longer than `PACKET_MAX_SIZE` (256 KiB, packet.c). Linux
//! executes nothing with a string of more than `MAX_ARG_STRLEN` (128 KiB with its NUL, execve(2)).
//! Every other server has to take 32,768 bytes a packet (RFC 4253, section 6.1); most take as much
//! as OpenSSH. 1 KiB of a packet is left for its other fields and the padding.

use crate::address::Address;
use crate::error::Error;
use crate::pty::Pty;

/// Linux's `MAX_ARG_STRLEN`, without the NUL.
const EXECVE: usize = 128 * 1024 - 1;
/// dropbear's `MAX_STRING_LEN`, and its `MAX_TERM_LEN`.
const DROPBEAR: usize = 9_000;
const DROPBEAR_TERM: usize = 200;
/// Before 2015.68: `MAX_CMD_LEN`, `MAX_STRING_LEN`.
const OLD_DROPBEAR_LINE: usize = 1_024;
const OLD_DROPBEAR: usize = 1_400;
/// OpenSSH's `PACKET_MAX_SIZE`, less what goes around a string.
const OPENSSH: usize = 255 * 1024;
/// What every server has to take, less the same.
const ANY: usize = 31 * 1024;

/// The longest strings that a server takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// The server, for messages.
    name: &'static str,
    line: usize,
    term: usize,
    string: usize,
    /// Above this it is not known whether the server takes it.
    unsure_above: Option<usize>,
}

impl Sizes {
    pub(super) const DROPBEAR: Self = Self {
        name: "dropbear",
        line: DROPBEAR,
        term: DROPBEAR_TERM,
        string: DROPBEAR,
        unsure_above: None,
    };

    pub(super) const OLD_DROPBEAR: Self = Self {
        line: OLD_DROPBEAR_LINE,
        string: OLD_DROPBEAR,
        ..Self::DROPBEAR
    };

    pub(crate) const OPENSSH: Self = Self {
        name: "OpenSSH",
        line: EXECVE,
        term: EXECVE - "TERM=".len(),
        string: OPENSSH,
        unsure_above: None,
    };

    pub(super) const ANY: Self = Self {
        name: "a server of this kind",
        line: EXECVE,
        term: ANY,
        string: ANY,
        unsure_above: Some(ANY),
    };

    /// The longest command line.
    pub(crate) fn longest_line(&self) -> usize {
        self.line
    }

    /// Whether the server may end the connection over a string of this length that is not refused.
    pub(crate) fn is_unsure(&self, length: usize) -> bool {
        self.unsure_above.is_some_and(|sure| length > sure)
    }

    /// Refuses a command line of this length.
    pub(crate) fn line(&self, length: usize) -> Result<(), TooLong> {
        let hint = "send it as a script (Host::script), or pass data on stdin";
        self.check("command line", length, self.line, hint)
    }

    /// Refuses an environment variable, which takes as much room in the environment as on a line.
    pub(crate) fn variable(&self, name: &str, value: &str) -> Result<(), TooLong> {
        let length = name.len() + 1 + value.len();
        let hint = "pass it on stdin";
        self.check("environment variable", length, self.line, hint)
    }

    pub(crate) fn pty(&self, pty: &Pty) -> Result<(), TooLong> {
        let hint = "name a terminal that terminfo knows";
        self.check("terminal", pty.term.len(), self.term, hint)?;
        // A number and four bytes each.
        let modes = 5 * pty.modes.len();
        let hint = "set each mode once";
        self.check("terminal modes", modes, self.string, hint)
    }

    pub(crate) fn address(&self, address: &Address) -> Result<(), TooLong> {
        let length = match address {
            Address::Tcp { host, .. } => host.len(),
            Address::Unix(path) => path.as_os_str().len(),
        };
        self.string("address", length)
    }

    /// Refuses any other string of this length.
    pub(crate) fn string(&self, what: &'static str, length: usize) -> Result<(), TooLong> {
        self.check(what, length, self.string, "use a shorter one")
    }

    fn check(
        &self,
        what: &'static str,
        length: usize,
        limit: usize,
        hint: &'static str,
    ) -> Result<(), TooLong> {
        if length <= limit {
            return Ok(());
        }
        Err(TooLong {
            what,
            length,
            limit,
            server: self.name,
            hint,
        })
    }
}

/// A string that was not sent: the server would end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong {
    what: &'static str,
    length: usize,
    limit: usize,
    server: &'static str,
    hint: &'static str,
}

impl From<TooLong> for Error {
    fn from(long: TooLong) -> Self {
        let TooLong {
            what,
            length,
            limit,
            server,
            hint,
        } = long;
        Error::InvalidInput {
            what,
            reason: format!("it is {length} bytes long, and {server} takes {limit}: {hint}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_string_is_taken_up_to_its_limit_and_refused_above_it() {
        type Check = fn(&Sizes, usize) -> Result<(), TooLong>;
        let checks: [(&str, Check, [usize; 3]); 6] = [
            ("line", |sizes, n| sizes.line(n), [9_000, 131_071, 131_071]),
            (
                "variable",
                |sizes, n| sizes.variable("A", &"v".repeat(n - 2)),
                [9_000, 131_071, 131_071],
            ),
            (
                "terminal",
                |sizes, n| sizes.pty(&Pty::default().term("t".repeat(n))),
                [200, 131_066, 31_744],
            ),
            (
                "host",
                |sizes, n| sizes.address(&("h".repeat(n), 1).into()),
                [9_000, 261_120, 31_744],
            ),
            (
                "path",
                |sizes, n| sizes.address(&Address::Unix("p".repeat(n).into())),
                [9_000, 261_120, 31_744],
            ),
            (
                "subsystem",
                |sizes, n| sizes.string("subsystem", n),
                [9_000, 261_120, 31_744],
            ),
        ];
        for (what, check, limits) in checks {
            let servers = [Sizes::DROPBEAR, Sizes::OPENSSH, Sizes::ANY];
            for (sizes, limit) in servers.into_iter().zip(limits) {
                assert_eq!(check(&sizes, limit), Ok(()), "{what}, {}", sizes.name);
                let long = check(&sizes, limit + 1).expect_err(what);
                let error = Error::from(long).to_string();
                for part in [limit, limit + 1].map(|n| n.to_string()) {
                    assert!(error.contains(&part), "{what}: {error}");
                }
                assert!(error.contains(sizes.name), "{what}: {error}");
            }
        }
    }

    #[test]
    fn terminal_modes_count_five_bytes_each() {
        let modes = |count| Pty {
            modes: vec![(53, 0); count],
            ..Pty::default()
        };
        assert_eq!(Sizes::DROPBEAR.pty(&modes(1_800)), Ok(()));
        assert!(Sizes::DROPBEAR.pty(&modes(1_801)).is_err());
    }

    #[test]
    fn only_with_an_unknown_server_there_is_a_doubt_about_what_is_sent() {
        for sizes in [Sizes::DROPBEAR, Sizes::OPENSSH] {
            assert!(!sizes.is_unsure(131_071), "{sizes:?}");
        }
        assert!(!Sizes::ANY.is_unsure(31_744));
        assert!(Sizes::ANY.is_unsure(31_745));
    }
}
