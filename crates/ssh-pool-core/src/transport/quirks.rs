//! Servers that are known, by their identification line, to need special care.

/// What is known of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Server {
    OpenSsh {
        major: u32,
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
            let (major, _) = numbers(version)?;
            return Some(Self::OpenSsh { major });
        }
        let (year, release) = numbers(software.strip_prefix("dropbear_")?)?;
        Some(Self::Dropbear { year, release })
    }

    /// How many sessions at once the server handles correctly on one connection, where that is
    /// fewer than it grants.
    ///
    /// dropbear before 2024.86 closes every session channel that has not begun to execute as soon
    /// as the process of another one ends. A request that is on its way to such a channel is
    /// executed all the same, and the first byte of its output is an assertion failure that takes
    /// the whole connection down (mkj/dropbear#321). One session at a time is safe: then no other
    /// process can end between the open and the exec.
    pub(super) fn sessions_at_most(self) -> Option<u32> {
        match self {
            Server::Dropbear { year, release } if (year, release) < (2024, 86) => Some(1),
            _ => None,
        }
    }

    /// Whether a signal request (RFC 4254, section 6.9) reaches the whole process group of a
    /// command that this user runs. There is no reply to one.
    ///
    /// OpenSSH before 10.0 passes no signals on when its session runs as root; dropbear signals
    /// the login shell alone. Of others nothing is known, and nothing is assumed.
    pub(super) fn passes_signals(self, user: &str) -> bool {
        match self {
            Server::OpenSsh { major } => major >= 10 || user != "root",
            Server::Dropbear { .. } => false,
            Server::Other => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Server;

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
    fn who_passes_signals_on_depends_on_server_and_user() {
        for (line, root, others) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", false, true),
            ("SSH-2.0-OpenSSH_10.0p2 Debian-7", true, true),
            ("SSH-2.0-OpenSSH_for_Windows_9.5", true, true),
            ("SSH-2.0-dropbear_2022.83", false, false),
            ("SSH-2.0-Go", true, true),
        ] {
            let server = Server::identify(line.as_bytes());
            assert_eq!(server.passes_signals("root"), root, "{line}");
            assert_eq!(server.passes_signals("deploy"), others, "{line}");
        }
    }
}
