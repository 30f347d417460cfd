//! Servers that are known, by their identification line, to need special care.

use super::sizes::Sizes;
use super::{ServerProfile, Signals};

/// A server by its software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Server {
    OpenSsh {
        major: u32,
        minor: u32,
    },
    Dropbear {
        year: u32,
        release: u32,
    },
    #[default]
    Other,
}

impl Server {
    /// From an identification line (RFC 4253, section 4.2).
    pub(super) fn identify(line: &[u8]) -> Self {
        Self::parse(line).unwrap_or_default()
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let software = text.strip_prefix("SSH-2.0-")?;
        let numbers = |version: &str| {
            let mut numbers = version
                .split(|c: char| !c.is_ascii_digit())
                .map(str::parse::<u32>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        };
        if let Some(version) = software.strip_prefix("OpenSSH_") {
            let (major, minor) = numbers(version)?;
            return Some(Self::OpenSsh { major, minor });
        }
        let version = software.strip_prefix("dropbear")?;
        let (year, release) = (version.strip_prefix('_').and_then(numbers))
            // Some builds do not say it. Few are that old.
            .unwrap_or((u32::MAX, 0));
        Some(Self::Dropbear { year, release })
    }

    /// What is known of it, and of what it does for this user.
    pub(super) fn profile(self, user: &str) -> ServerProfile {
        ServerProfile {
            sessions_at_most: self.sessions_at_most(),
            signals: self.signals(user),
            sizes: self.sizes(),
        }
    }

    /// The longest strings that it takes.
    pub(super) fn sizes(self) -> Sizes {
        match self {
            Server::OpenSsh { .. } => Sizes::OPENSSH,
            Server::Dropbear { year, release } if (year, release) < (2015, 68) => {
                Sizes::OLD_DROPBEAR
            }
            Server::Dropbear { .. } => Sizes::DROPBEAR,
            Server::Other => Sizes::ANY,
        }
    }

    /// How many sessions at once the server handles correctly on one connection, where that is
    /// fewer than it grants.
    ///
    /// dropbear before 2024.86 closes every session channel that has not begun to execute as soon
    /// as the process of another one ends. A request that is on its way to such a channel is
    /// executed all the same, and the first byte of its output is an assertion failure that takes
    /// the whole connection down (mkj/dropbear#321). One session at a time is safe: then no other
    /// process can end between the open and the exec.
    fn sessions_at_most(self) -> Option<u32> {
        match self {
            Server::Dropbear { year, release } if (year, release) < (2024, 86) => Some(1),
            _ => None,
        }
    }

    /// Whether it counts failed logins against the address that they come from, as far as is known:
    /// OpenSSH does since 9.8 (`PerSourcePenalties`).
    pub(super) fn charges_failed_logins(self) -> bool {
        match self {
            Server::OpenSsh { major, minor } => (major, minor) >= (9, 8),
            Server::Dropbear { .. } => false,
            Server::Other => true,
        }
    }

    /// Whether it executes command lines by the login shell of the account. Other servers may have no
    /// shells at all: network devices, Windows.
    pub(super) fn has_login_shells(self) -> bool {
        matches!(self, Server::OpenSsh { .. } | Server::Dropbear { .. })
    }

    /// What it does with signals to a command that this user runs.
    ///
    /// OpenSSH before 10.0 passes none on when its session runs as root; dropbear signals the
    /// login shell alone. Of others nothing is known.
    fn signals(self, user: &str) -> Signals {
        match self {
            Server::OpenSsh { major, .. } if major < 10 && user == "root" => Signals::Ignored,
            Server::Dropbear { .. } => Signals::Shell,
            Server::OpenSsh { .. } | Server::Other => Signals::Group,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Server, Signals};
    use crate::transport::sizes::Sizes;

    #[test]
    fn failed_logins_are_charged_by_openssh_since_9_8_and_perhaps_by_what_is_not_known() {
        for (line, expected) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7", false),
            ("SSH-2.0-OpenSSH_9.7", false),
            ("SSH-2.0-OpenSSH_9.8p1", true),
            ("SSH-2.0-OpenSSH_10.0p2", true),
            ("SSH-2.0-dropbear_2025.88", false),
            ("SSH-2.0-Go", true),
        ] {
            let server = Server::identify(line.as_bytes());
            assert_eq!(server.charges_failed_logins(), expected, "{line}");
        }
    }

    #[test]
    fn an_old_dropbear_gets_one_session_at_a_time() {
        for (line, expected) in [
            ("SSH-2.0-dropbear_2022.83", Some(1)),
            ("SSH-2.0-dropbear_2024.85", Some(1)),
            ("SSH-2.0-dropbear_2019.78 extra", Some(1)),
            ("SSH-2.0-dropbear_2024.86", None),
            ("SSH-2.0-dropbear_2026.94", None),
            ("SSH-2.0-dropbear", None),
            ("SSH-2.0-dropbear_", None),
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", None),
        ] {
            let server = Server::identify(line.as_bytes());
            assert_eq!(server.sessions_at_most(), expected, "{line}");
        }
    }

    #[test]
    fn the_identification_line_says_how_long_a_string_may_be() {
        for (line, expected) in [
            ("SSH-2.0-dropbear_2022.83", Sizes::DROPBEAR),
            ("SSH-2.0-dropbear_2025.89", Sizes::DROPBEAR),
            ("SSH-2.0-dropbear", Sizes::DROPBEAR),
            ("SSH-2.0-dropbear_2015.68", Sizes::DROPBEAR),
            ("SSH-2.0-dropbear_2015.67", Sizes::OLD_DROPBEAR),
            ("SSH-2.0-dropbear_0.52", Sizes::OLD_DROPBEAR),
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", Sizes::OPENSSH),
            ("SSH-2.0-OpenSSH_for_Windows_9.5", Sizes::ANY),
            ("SSH-2.0-Go", Sizes::ANY),
            ("", Sizes::ANY),
        ] {
            let server = Server::identify(line.as_bytes());
            assert_eq!(server.sizes(), expected, "{line}");
        }
    }

    #[test]
    fn only_servers_of_unix_are_known_to_have_login_shells() {
        for (line, expected) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", true),
            ("SSH-2.0-dropbear_2022.83", true),
            ("SSH-2.0-OpenSSH_for_Windows_9.5", false),
            ("SSH-2.0-Cisco-1.25", false),
            ("SSH-2.0-Go", false),
        ] {
            let server = Server::identify(line.as_bytes());
            assert_eq!(server.has_login_shells(), expected, "{line}");
        }
    }

    #[test]
    fn who_passes_signals_on_depends_on_server_and_user() {
        use Signals::{Group, Ignored, Shell};
        for (line, root, others) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", Ignored, Group),
            ("SSH-2.0-OpenSSH_10.0p2 Debian-7", Group, Group),
            ("SSH-2.0-OpenSSH_for_Windows_9.5", Group, Group),
            ("SSH-2.0-dropbear_2022.83", Shell, Shell),
            ("SSH-2.0-dropbear", Shell, Shell),
            ("SSH-2.0-Go", Group, Group),
        ] {
            let server = Server::identify(line.as_bytes());
            assert_eq!(server.signals("root"), root, "{line}");
            assert_eq!(server.signals("deploy"), others, "{line}");
        }
    }
}
