//! What goes wrong on the way to a host, or on it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::Kind;

/// One row of the catalogue of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// Every byte is late.
    Delay,
    /// Nothing passes for a moment, less than a keepalive is waited for.
    Hiccup,
    /// Nothing passes for longer than keepalives are waited for.
    Freeze,
    /// Nothing that the server sends arrives, for as long.
    FreezeServer,
    /// Nothing that the client sends arrives, for as long.
    FreezeClient,
    /// All connections are reset.
    Reset,
    /// All connections end in good order.
    Fin,
    /// All connections are forgotten, as by a NAT: nobody is told.
    Forget,
    /// All connections are reset, and new ones are accepted and told nothing.
    Silence,
    /// … and told a banner and nothing more.
    BannerOnly,
    /// … and answered in HTTP.
    Garbage,
    /// … and told that there are too many.
    Throttled,
    /// … and get the banner late.
    HeldBanner,
    /// … and get some lines before the banner.
    Preamble,
    /// … and are reset at once.
    Refused,
    /// The server is restarted and its connections are killed.
    Restart,
    /// The server is restarted and its connections live on.
    Reload,
    /// The server's processes for connections are killed.
    Kill,
    /// The server's processes for connections are stopped, for longer than keepalives are waited for.
    Stop,
    /// All connections are reset, and the process that listens is stopped for a moment.
    Deaf,
    /// The server is away for some seconds.
    Down,
    /// All connections are reset, and the key is taken out of `authorized_keys` for a moment.
    KeyRefused,
    /// Logins succeed, and then sshd ends the connection: a `ChrootDirectory` with a wrong owner.
    BadChroot,
}

/// How it may show, and until how long after it has been mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Harm {
    /// Commands that have been sent may be lost.
    pub(crate) loses: Option<Duration>,
    /// Commands that have not been sent may fail: what is broken is not absorbed within
    /// `Timeouts::acquire`, or must not be.
    pub(crate) refuses: Option<Duration>,
}

/// A connection that was cut is known to be at once: this is for a machine that is busy.
const CUT: Duration = Duration::from_secs(3);
/// One that was forgotten is known by its keepalives: four seconds, as this program sets them.
const NOTICED: Duration = Duration::from_secs(7);
/// A failure that is no accident is remembered: for a pause of five seconds at most, or for the
/// cool-down of a refused login (three).
const REMEMBERED: Duration = Duration::from_secs(8);
/// A dial that is told nothing is over with its deadline (eight seconds), for all who wait for it,
/// and is remembered.
const DIALLED: Duration = Duration::from_secs(8 + 8);
/// sshd 10.0 remembers what a fault makes of our logins, and adds it up: while it does, it refuses.
const PENALTY: Duration = Duration::from_secs(30);

impl Fault {
    pub(crate) const ALL: [Self; 23] = [
        Self::Delay,
        Self::Hiccup,
        Self::Freeze,
        Self::FreezeServer,
        Self::FreezeClient,
        Self::Reset,
        Self::Fin,
        Self::Forget,
        Self::Silence,
        Self::BannerOnly,
        Self::Garbage,
        Self::Throttled,
        Self::HeldBanner,
        Self::Preamble,
        Self::Refused,
        Self::Restart,
        Self::Reload,
        Self::Kill,
        Self::Stop,
        Self::Deaf,
        Self::Down,
        Self::KeyRefused,
        Self::BadChroot,
    ];

    /// Whether that kind of server can be broken in this way.
    pub(crate) fn fits(self, kind: Kind) -> bool {
        match self {
            Self::Restart | Self::Reload | Self::Down | Self::KeyRefused | Self::BadChroot => {
                matches!(kind, Kind::Sshd | Kind::Sshd10)
            }
            Self::Kill | Self::Stop | Self::Deaf => kind != Kind::Embedded,
            _ => true,
        }
    }

    /// From when it strikes to when it is mended, in milliseconds: between these two.
    pub(crate) fn lasts(self) -> (u64, u64) {
        match self {
            Self::Reset | Self::Fin | Self::Forget => (0, 0),
            Self::Restart | Self::Reload | Self::Kill => (0, 0),
            Self::Delay => (2_000, 6_000),
            Self::Hiccup => (300, 1_500),
            Self::Freeze | Self::FreezeServer | Self::FreezeClient | Self::Stop => (5_500, 8_000),
            Self::Deaf => (500, 1_500),
            Self::Down => (1_500, 3_500),
            // Shorter than two cool-downs: sshd 10.0 would shut us out for more.
            Self::KeyRefused => (1_000, 2_500),
            _ => (1_000, 3_000),
        }
    }

    pub(crate) fn harm(self, kind: Kind) -> Harm {
        let (loses, refuses) = match self {
            Self::Delay | Self::Hiccup | Self::Reload => (None, None),
            Self::Reset | Self::Fin | Self::Restart | Self::Kill => (Some(CUT), None),
            Self::Throttled | Self::HeldBanner | Self::Preamble | Self::Deaf => (Some(CUT), None),
            Self::Freeze | Self::FreezeServer | Self::FreezeClient | Self::Stop | Self::Forget => {
                (Some(NOTICED), Some(DIALLED))
            }
            Self::Silence | Self::BannerOnly => (Some(CUT), Some(DIALLED)),
            Self::Garbage | Self::Refused | Self::Down => (Some(CUT), Some(REMEMBERED)),
            Self::KeyRefused | Self::BadChroot => (Some(CUT), Some(REMEMBERED)),
        };
        let refuses = match kind {
            Kind::Sshd10 if loses.is_some() => Some(PENALTY),
            _ => refuses,
        };
        Harm { loses, refuses }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Hiccup => "frozen, shortly",
            Self::Freeze => "frozen",
            Self::FreezeServer => "server frozen",
            Self::FreezeClient => "client frozen",
            Self::Reset => "reset",
            Self::Fin => "ended",
            Self::Forget => "forgotten",
            Self::Silence => "silence",
            Self::BannerOnly => "banner only",
            Self::Garbage => "not ssh",
            Self::Throttled => "throttled",
            Self::HeldBanner => "banner late",
            Self::Preamble => "preamble",
            Self::Refused => "refused",
            Self::Restart => "restarted",
            Self::Reload => "reloaded",
            Self::Kill => "killed",
            Self::Stop => "stopped",
            Self::Deaf => "not accepting",
            Self::Down => "down",
            Self::KeyRefused => "key refused",
            Self::BadChroot => "bad chroot",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
