//! The releases of servers that tests run.

use nix::unistd::Uid;

use crate::trixie;

/// Which OpenSSH an [`Sshd`](crate::Sshd) is, and which dropbear a [`Dropbear`](crate::Dropbear).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Release {
    /// `/usr/sbin/sshd`, or what `SSH_POOL_TEST_SSHD` names; `/usr/sbin/dropbear`.
    #[default]
    Installed,
    /// OpenSSH 10.0, or dropbear 2025.89, from a Debian trixie that scripts/test has made (`SSH_POOL_TEST_TRIXIE` names
    /// its folder). It runs in a chroot, so the tests must run as root.
    ///
    /// Its commands see this machine's processes, accounts, `/tmp`, `/var/tmp` and the home of its
    /// user, and the programs of a minimal trixie with the shells that scripts/test adds: there is no `ps`. Unlike older
    /// ones, it refuses clients for a while that often connect and do not log in
    /// (PerSourcePenalties), on loopback too.
    Trixie,
}

impl Release {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Installed, Self::Trixie];

    /// Whether this machine has it, and we may start it. Tests do not ask: what they need and
    /// cannot have is a panic.
    #[must_use]
    pub fn is_there(self) -> bool {
        match self {
            Self::Installed => true,
            Self::Trixie => Uid::effective().is_root() && trixie::has(trixie::SSHD),
        }
    }
}
