//! Whom to log in as, on which machine: the parsed form of `user@host:port`.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use crate::algorithms::Algorithms;
use crate::error::Error;
use crate::host_key::HostKeyPolicy;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::timeouts::Timeouts;
use crate::{local_user, printable};

/// The port that a target without one means (RFC 4253, section 4.1).
const DEFAULT_PORT: u16 = 22;

/// Stands for a user while the rest of a target is checked.
const ANY_USER: &str = "user";

/// Bytes that no host name contains and that mean something to a shell, to a URL or to a
/// known_hosts file. ssh refuses most of them too; the ones that are special in known_hosts must
/// go, or a stored line would match more than its host.
const NEVER_IN_A_HOST: &str = "@?*#[]|'\"\\,!/`$;&<>(){}";

/// One account on one machine.
///
/// Parsed from `user@host:port`, `host`, `host:port`, `user@host`, `[::1]:22`, `user@[::1]`, a
/// bare IPv6 address, or `ssh://user@host:port`. The port defaults to 22 and the user to the local
/// user's name: as for ssh, what the user data base has for the real user id, whatever `$USER` says.
/// Only where it has no such id, `$USER`, `$LOGNAME` or `%USERNAME%` is taken.
///
/// Host names are lower-cased and IPv6 addresses brought into their canonical form, as ssh does,
/// so that two spellings of one machine share connections.
///
/// In a text, a user name has no `:`, which may begin a password, no `/` and no white space; ssh takes
/// all of these before `@`. Such names are written with `%` escapes in a URL, as `Display` does, or given
/// to [`Target::new`]. A `;` begins parameters in a URL, which ssh ignores, and is refused there.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::Target;
/// let target: Target = "deploy@web-1:2222".parse()?;
/// assert_eq!((target.user(), target.host(), target.port()), ("deploy", "web-1", 2222));
/// assert_eq!(target.to_string(), "deploy@web-1:2222");
///
/// let console = Target::new("admin:port3", "console-1", 22)?;
/// assert_eq!(console.to_string(), "ssh://admin%3Aport3@console-1:22");
/// assert_eq!(console, "ssh://admin%3Aport3@console-1:22".parse()?);
/// # Ok::<(), ssh_pool::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    user: String,
    host: String,
    port: u16,
    identity: Option<Identity>,
    policy: Option<HostKeyPolicy>,
    timeouts: Option<Arc<Timeouts>>,
    limits: Option<Arc<Limits>>,
    algorithms: Option<Arc<Algorithms>>,
}

impl Target {
    /// A target from its parts. `user` is sent as it is, and may contain what ssh takes after `-l`: `:`,
    /// `/`, `@` and spaces; also quotes and characters of a shell, which ssh refuses because it hands the
    /// name to one. `host` is a name or an address; IPv6 goes with or without brackets.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when the user or the host is empty, begins with `-` or contains control
    /// characters, when the user has more than 1,024 bytes (ssh takes more), when the host contains white space or characters that no such name has, and when the
    /// port is 0.
    pub fn new(user: impl Into<String>, host: impl Into<String>, port: u16) -> Result<Self, Error> {
        let (user, host) = (user.into(), host.into());
        check_user(&user)?;
        let bare = match host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(inside) => inside,
            None => &host,
        };
        let host = canonical_host(bare)?;
        if port == 0 {
            return Err(invalid("the port must be from 1 to 65535"));
        }
        Ok(Self {
            user,
            host,
            port,
            identity: None,
            policy: None,
            timeouts: None,
            limits: None,
            algorithms: None,
        })
    }

    /// The account's name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The host's name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Logs in to this target with `identity` instead of the pool's.
    ///
    /// Targets that differ in their identity never share a connection.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Checks this target's host key under `policy` instead of the pool's.
    ///
    /// Targets that differ in their policy never share a connection.
    #[must_use]
    pub fn host_key_policy(mut self, policy: HostKeyPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How long for everything with this target, instead of the pool's [`Timeouts`]. These take the
    /// place of all of those: begin with a clone of them to change one. `Pool::close` has
    /// `Timeouts::drain` of the pool.
    ///
    /// Targets that differ in their timeouts never share a connection.
    ///
    /// ```
    /// # use ssh_pool_core as ssh_pool;
    /// use std::time::Duration;
    /// use ssh_pool::{Target, Timeouts};
    ///
    /// let timeouts = Timeouts::default().keepalive_interval(Duration::from_secs(60));
    /// let far_away = timeouts.clone().connect(Duration::from_secs(30));
    /// // Pool::builder(…).timeouts(timeouts), and for one of its hosts:
    /// let target = Target::new("deploy", "moon-1", 22)?.timeouts(far_away);
    /// # Ok::<(), ssh_pool::Error>(())
    /// ```
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = Some(Arc::new(timeouts));
        self
    }

    /// How much of everything for this target, instead of the pool's [`Limits`]. These take the place
    /// of all of those: begin with a clone of them to change one. Where they differ in a limit of the
    /// whole pool or of an address (`handshakes`, `handshakes_per_host`, `login_burst`, `connections`,
    /// `queued_commands`, `buffered_bytes`), `Pool::host` returns [`Error::InvalidInput`].
    ///
    /// Targets that differ in their limits never share a connection.
    ///
    /// ```
    /// # use ssh_pool_core as ssh_pool;
    /// use ssh_pool::{Limits, Target};
    ///
    /// let limits = Limits::default().handshakes(16);
    /// let small = limits.clone().connections_per_host(1).sessions_per_connection(1);
    /// // Pool::builder(…).limits(limits), and for one of its hosts:
    /// let target = Target::new("admin", "router-1", 22)?.limits(small);
    /// # Ok::<(), ssh_pool::Error>(())
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(Arc::new(limits));
        self
    }

    /// Whether there is anything that overrides the pool's.
    #[cfg(feature = "serde")]
    pub(crate) fn has_settings(&self) -> bool {
        let Self {
            user: _,
            host: _,
            port: _,
            identity,
            policy,
            timeouts,
            limits,
            algorithms,
        } = self;
        let rules = timeouts.is_some() || limits.is_some() || algorithms.is_some();
        identity.is_some() || policy.is_some() || rules
    }

    /// The timeouts that override the pool's.
    pub(crate) fn own_timeouts(&self) -> Option<&Timeouts> {
        self.timeouts.as_deref()
    }

    /// The limits that override the pool's.
    pub(crate) fn own_limits(&self) -> Option<&Limits> {
        self.limits.as_deref()
    }

    /// Uses these algorithms for this target instead of the pool's.
    ///
    /// Targets that differ in their algorithms never share a connection.
    #[must_use]
    pub fn algorithms(mut self, algorithms: Algorithms) -> Self {
        self.algorithms = Some(Arc::new(algorithms));
        self
    }

    /// The algorithms that override the pool's.
    pub(crate) fn own_algorithms(&self) -> Option<&Algorithms> {
        self.algorithms.as_deref()
    }

    /// The identity that overrides the pool's.
    pub(crate) fn own_identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The policy that overrides the pool's.
    pub(crate) fn own_policy(&self) -> Option<&HostKeyPolicy> {
        self.policy.as_ref()
    }
}

impl From<&Target> for Target {
    fn from(target: &Target) -> Self {
        target.clone()
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(|error| match (error, without_password(text)) {
            (Error::InvalidInput { what, reason }, Some(shown)) => Error::InvalidInput {
                what,
                reason: format!("\"{}\": {reason}", printable(&*shown)),
            },
            (error, _) => error,
        })
    }
}

impl Target {
    /// The errors do not repeat the text.
    fn parse(text: &str) -> Result<Self, Error> {
        let (text, url) = match after_scheme(text) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        // The last '@', as ssh does: a user name may contain one, a host name may not.
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, text),
        };
        let place = if url {
            place.strip_suffix('/').unwrap_or(place)
        } else {
            place
        };
        let user = match user {
            Some(user) if user.contains(':') => {
                return Err(invalid(
                    "a password cannot be part of a target; use Identity::password instead. A user name \
                     with ':' goes to Target::new, or has %3A in ssh://user@host",
                ));
            }
            Some(user) if !is_plain(user) => {
                return Err(invalid(
                    "white space or '/' before '@': a user name with these goes to Target::new, or has \
                     %20 or %2F in ssh://user@host",
                ));
            }
            Some(user) if url && user.contains(';') => {
                return Err(invalid(
                    "parameters (';') in a URL are not supported; a user name with ';' has %3B there",
                ));
            }
            Some(user) if url => Some(percent_decode(user)?),
            Some(user) => Some(user.to_owned()),
            None => None,
        };
        if place.contains('/') {
            return Err(invalid("a path cannot be part of a target; leave it out"));
        }
        let (host, port) = split_port(place)?;
        match user {
            Some(user) => Self::new(user, host, port),
            None => {
                // First what is wrong with the text: only a target that is right needs a user.
                Self::new(ANY_USER, host, port)?;
                Self::new(local_user()?, host, port)
            }
        }
    }
}

impl TryFrom<&str> for Target {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for Target {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<&String> for Target {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

/// `user@host:port`, with an IPv6 address in brackets. Where the user name has `:`, `/` or white space,
/// it is `ssh://user@host:port` with `%` escapes. Both can be parsed again.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user, host, port, ..
        } = self;
        let user = match is_plain(user) {
            true => Cow::Borrowed(user),
            false => Cow::Owned(format!("ssh://{}", percent_encode(user))),
        };
        if host.contains(':') {
            write!(f, "{user}@[{host}]:{port}")
        } else {
            write!(f, "{user}@{host}:{port}")
        }
    }
}

fn invalid(reason: &str) -> Error {
    Error::InvalidInput {
        what: "target",
        reason: reason.to_owned(),
    }
}

/// What follows `ssh://`.
fn after_scheme(text: &str) -> Option<&str> {
    let (start, rest) = text.split_at_checked("ssh://".len())?;
    start.eq_ignore_ascii_case("ssh://").then_some(rest)
}

/// What an error may show of a text: nothing where a password may be, as in `user:pa/ss@host`, and
/// without a user no more than its beginning, as of `ssh://user:password`.
fn without_password(text: &str) -> Option<Cow<'_, str>> {
    let rest = after_scheme(text).unwrap_or(text);
    match (rest.rsplit_once('@'), rest.find(':')) {
        (Some((user, _)), _) => {
            let colon = user.contains(':') || user.to_ascii_lowercase().contains("%3a");
            (!colon).then_some(text.into())
        }
        (None, Some(colon)) if !rest.starts_with('[') => {
            let begin = text.len() - rest.len();
            Some(format!("{}:...", text.get(..begin + colon)?).into())
        }
        (None, _) => Some(text.into()),
    }
}

fn has_blank(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// The longest user name, in bytes. A server answers one of 20,000 by closing the connection, or not at
/// all, and every error shows it.
const USER_LIMIT: usize = 1024;

fn check_user(user: &str) -> Result<(), Error> {
    if user.is_empty() {
        return Err(invalid("the user name is empty"));
    }
    if user.len() > USER_LIMIT {
        let length = user.len();
        let start: String = user.chars().take(32).collect();
        let start = printable(start);
        return Err(invalid(&format!(
            "the user name has {length} bytes, more than {USER_LIMIT}: it begins with \"{start}\""
        )));
    }
    // It would be an option where a user name ends up on a command line.
    if user.starts_with('-') {
        return Err(invalid("the user name begins with '-'"));
    }
    if user.contains(char::is_control) {
        return Err(invalid("the user name contains a control character"));
    }
    Ok(())
}

/// Whether `user@host` can only be read as that. Control characters have an error of their own.
fn is_plain(user: &str) -> bool {
    !user.contains(|c: char| matches!(c, ':' | '/') || c.is_whitespace() && !c.is_control())
}

fn canonical_host(host: &str) -> Result<String, Error> {
    if host.is_empty() {
        return Err(invalid("the host name is empty"));
    }
    if host.starts_with('-') {
        return Err(invalid("the host name begins with '-'"));
    }
    if has_blank(host) {
        return Err(invalid(
            "the host name contains white space or a control character",
        ));
    }
    if let Some(c) = host.chars().find(|c| NEVER_IN_A_HOST.contains(*c)) {
        return Err(invalid(&format!(
            "the host name contains {c:?}, which no host name has"
        )));
    }
    if !host.contains(':') {
        return Ok(host.to_ascii_lowercase());
    }
    // `fe80::1%eth0`: the zone is an interface name, whose case matters.
    let (address, zone) = match host.split_once('%') {
        Some((_, "")) => return Err(invalid("the IPv6 zone is empty")),
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    let address: Ipv6Addr = address
        .parse()
        .map_err(|_| invalid("more than one ':' but not an IPv6 address; write user@host:port"))?;
    Ok(match zone {
        Some(zone) => format!("{address}%{zone}"),
        None => address.to_string(),
    })
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port` or `v6`.
fn split_port(place: &str) -> Result<(&str, u16), Error> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest
            .split_once(']')
            .ok_or_else(|| invalid("'[' without ']'"))?;
        return match port.strip_prefix(':') {
            Some(port) => Ok((host, parse_port(port)?)),
            None if port.is_empty() => Ok((host, DEFAULT_PORT)),
            None => Err(invalid("after ']' only ':' and a port can follow")),
        };
    }
    match place.split_once(':') {
        // Two colons without brackets: an address, whose last group is not a port.
        Some((_, rest)) if rest.contains(':') => Ok((place, DEFAULT_PORT)),
        Some((host, port)) => Ok((host, parse_port(port)?)),
        None => Ok((place, DEFAULT_PORT)),
    }
}

fn parse_port(text: &str) -> Result<u16, Error> {
    // `u16::from_str` also takes "+22".
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(invalid("the port must be a number from 1 to 65535")),
    }
}

/// Decodes `%40` and the like in the user part of a URL (RFC 3986, section 2.1).
fn percent_decode(text: &str) -> Result<String, Error> {
    let bad = || invalid("a '%' escape in the user name is malformed, or no UTF-8");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            let byte = bytes.next().ok_or_else(bad)?;
            char::from(byte)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
                .ok_or_else(bad)
        };
        decoded.push(digit()? * 16 + digit()?);
    }
    String::from_utf8(decoded).map_err(|_| bad())
}

/// The reverse; only unreserved characters stay (RFC 3986, section 2.3).
fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn local_user() -> Result<String, Error> {
    local_user::name().ok_or_else(|| {
        invalid(
            "no user is given, and neither the user data base nor $USER names the local one; \
             write user@host",
        )
    })
}

#[cfg(test)]
mod tests;
