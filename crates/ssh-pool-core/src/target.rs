//! Whom to log in as, on which machine: the parsed form of `user@host:port`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use crate::algorithms::Algorithms;
use crate::error::Error;
use crate::host_key::HostKeyPolicy;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::local_user;
use crate::timeouts::Timeouts;

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
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::Target;
/// let target: Target = "deploy@web-1:2222".parse()?;
/// assert_eq!((target.user(), target.host(), target.port()), ("deploy", "web-1", 2222));
/// assert_eq!(target.to_string(), "deploy@web-1:2222");
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
    /// A target from its parts. `host` is a name or an address; IPv6 goes with or without
    /// brackets.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when the user or the host is empty, begins with `-`, or contains
    /// white space, control characters or characters that no such name has, and when the port
    /// is 0.
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
        // No message below repeats the text: in `ssh://user:pa/ss@host`, any part of it may be a
        // part of a password.
        let scheme = text
            .get(..6)
            .filter(|start| start.eq_ignore_ascii_case("ssh://"));
        let (text, url) = match scheme.and_then(|start| text.get(start.len()..)) {
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
                    "a password cannot be part of a target; use Identity::password instead",
                ));
            }
            Some(user) if url => Some(percent_decode(user)?),
            Some(user) => Some(user.to_owned()),
            None => None,
        };
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

/// `user@host:port`, with an IPv6 address in brackets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user, host, port, ..
        } = self;
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

fn has_blank(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || c.is_whitespace())
}

fn check_user(user: &str) -> Result<(), Error> {
    if user.is_empty() {
        return Err(invalid("the user name is empty"));
    }
    // It would be an option where a user name ends up on a command line.
    if user.starts_with('-') {
        return Err(invalid("the user name begins with '-'"));
    }
    if has_blank(user) {
        return Err(invalid(
            "the user name contains white space or a control character",
        ));
    }
    if user.contains(['/', ':']) {
        return Err(invalid("the user name contains '/' or ':'"));
    }
    Ok(())
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
    if host.contains(|c| NEVER_IN_A_HOST.contains(c)) {
        return Err(invalid(
            "the host name contains a character that no host name has",
        ));
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
    let bad = || invalid("a malformed '%' escape in the user name");
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

fn local_user() -> Result<String, Error> {
    local_user::name().ok_or_else(|| {
        invalid(
            "no user is given, and neither the user data base nor $USER names the local one; \
             write user@host",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, u16) {
        let target: Target = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        (
            target.user().to_owned(),
            target.host().to_owned(),
            target.port(),
        )
    }

    fn reason(text: &str) -> String {
        match text.parse::<Target>() {
            Err(Error::InvalidInput {
                what: "target",
                reason,
            }) => reason,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn every_documented_form_parses() {
        for (text, host, port) in [
            ("me@web-1:2222", "web-1", 2222),
            ("me@web-1", "web-1", 22),
            ("me@WEB-1.Example.ORG", "web-1.example.org", 22),
            ("me@[::1]:2222", "::1", 2222),
            ("me@[::1]", "::1", 22),
            ("me@::1", "::1", 22),
            ("me@[0:0:0::0:1]", "::1", 22),
            ("me@fe80::1%eth0", "fe80::1%eth0", 22),
            ("me@10.0.0.1:65535", "10.0.0.1", 65535),
            ("ssh://me@web-1:2222", "web-1", 2222),
            ("SSH://me@web-1", "web-1", 22),
            ("ssh://me@[::1]:22/", "::1", 22),
            ("me@[web-1]:2222", "web-1", 2222),
        ] {
            assert_eq!(parts(text), ("me".into(), host.into(), port), "{text}");
        }
    }

    #[test]
    fn a_user_may_contain_an_at_sign() {
        assert_eq!(parts("me@corp.example@gate:22").0, "me@corp.example");
        assert_eq!(parts("ssh://me%40corp@gate").0, "me@corp");
    }

    #[test]
    fn a_target_without_user_means_the_local_user() {
        let Ok(local) = local_user() else {
            assert!(reason("web-1").contains("write user@host"));
            return;
        };
        for text in ["web-1", "web-1:22", "[::1]:22", "::1", "ssh://web-1/"] {
            assert_eq!(parts(text).0, local, "{text}");
        }
    }

    #[test]
    fn malformed_targets_are_refused() {
        for text in [
            "me@",
            "@web-1",
            "me@:22",
            "me@-oProxyCommand=x",
            "-l@web-1",
            "me@web 1",
            "me@web\0",
            "me@web\n",
            "m e@web",
            "m/e@web",
            "me@web/1",
            "me@web-1:0",
            "me@web-1:65536",
            "me@web-1:",
            "me@web-1:+22",
            "me@web-1:22x",
            "me@[::1",
            "me@[::1]22",
            "me@[::1]:0",
            "me@::1]",
            "me@a:b:c",
            "me@fe80::1%",
            "me@*",
            "me@a,b",
            "me@|1|x",
            "ssh://me@web-1/path",
            "ssh://me@web-1?query",
            "ssh://me%4@web-1",
            "ssh://me%zz@web-1",
            "ssh://me%00@web-1",
            "ssh://",
            "",
        ] {
            assert!(!reason(text).is_empty(), "{text:?}");
        }
        assert!(Target::new("me", "web-1", 0).is_err());
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for text in [
            "ssh://me:hunter2@web-1",
            "me:hunter2@web-1",
            "ssh://me:hunt/er2@web-1",
            "ssh://me:hunt@er2@web-1",
            "ssh://me:hunter2",
        ] {
            let reason = reason(text);
            assert!(
                !reason.contains("hunt") && !reason.contains("er2"),
                "{reason}"
            );
        }
    }

    #[test]
    fn display_can_be_parsed_again() {
        for text in [
            "me@web-1:22",
            "me@[::1]:2222",
            "me@[fe80::1%eth0]:22",
            "a@b@c:1",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn identity_and_policy_are_part_of_equality() {
        let plain = Target::new("me", "web-1", 22).unwrap();
        assert_eq!(plain, Target::try_from("me@WEB-1").unwrap());
        assert_eq!(plain, Target::try_from(&String::from("me@web-1")).unwrap());
        assert_ne!(plain, plain.clone().identity(Identity::password("x")));
        assert_ne!(
            plain,
            plain
                .clone()
                .host_key_policy(HostKeyPolicy::dangerous_accept_any())
        );
        let both = plain.identity(Identity::password("x"));
        assert!(both.own_identity().is_some() && both.own_policy().is_none());
        assert!(!format!("{both:?}").contains('x'), "{both:?}");
    }
}
