//! Which algorithms a connection may use, in ssh's words.

use crate::error::Error;
use crate::wildcard::matches_pattern;

/// Algorithms of a connection, for servers that need others than the defaults.
///
/// The names are ssh's, and so is the form of a list (ssh_config(5)): names with commas between
/// them, the most preferred first. A list that begins with `+` adds to the default, one with `-`
/// takes away from it, one with `^` puts its names first. `*` and `?` stand for other characters.
/// Stricter than in ssh, which passes over a comma too many, no name may be empty, and there is no white
/// space anywhere.
///
/// What is not set keeps its default, which is ssh's as far as this library has the algorithms:
/// without DES, UMAC, sntrup761 and DSA. [`Pool::host`](crate::Pool::host) refuses an unknown name
/// and says which are known. Targets that differ in their algorithms share no connection.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{Algorithms, Target};
///
/// // A switch that knows nothing newer.
/// let old = Algorithms::default()
///     .kex("+diffie-hellman-group14-sha1")
///     .host_key("+ssh-rsa")
///     .ciphers("^aes256-cbc");
/// let target = "admin@switch-7".parse::<Target>()?.algorithms(old);
/// # Ok::<(), ssh_pool::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Algorithms {
    pub(crate) kex: Option<String>,
    pub(crate) host_key: Option<String>,
    pub(crate) ciphers: Option<String>,
    pub(crate) macs: Option<String>,
    pub(crate) compression: Option<String>,
    pub(crate) public_key: Option<String>,
}

impl Algorithms {
    /// Key exchange (ssh's `KexAlgorithms`). Default: mlkem768x25519-sha256, curve25519-sha256 and its
    /// older name, the three NIST curves, and the finite fields with SHA-2. Known beside these, with
    /// SHA-1: diffie-hellman-group-exchange-sha1, diffie-hellman-group14-sha1 and
    /// diffie-hellman-group1-sha1.
    #[must_use]
    pub fn kex(mut self, list: impl Into<String>) -> Self {
        self.kex = Some(list.into());
        self
    }

    /// What the server proves itself with (ssh's `HostKeyAlgorithms`). Default: ssh-ed25519,
    /// ecdsa-sha2-nistp256, -nistp384 and -nistp521, rsa-sha2-512, rsa-sha2-256; those of keys that
    /// are known for the host come first, unless the list is given in full or begins with `^`. Known
    /// beside these: ssh-rsa, which is RSA with SHA-1.
    #[must_use]
    pub fn host_key(mut self, list: impl Into<String>) -> Self {
        self.host_key = Some(list.into());
        self
    }

    /// Encryption (ssh's `Ciphers`). Default: the AES-GCM ciphers, chacha20-poly1305@openssh.com, and
    /// the AES-CTR ciphers; ChaCha20 first where the processor has no AES. Known beside these: the
    /// AES-CBC ciphers.
    #[must_use]
    pub fn ciphers(mut self, list: impl Into<String>) -> Self {
        self.ciphers = Some(list.into());
        self
    }

    /// Message authentication (ssh's `MACs`), for ciphers that do not bring their own. Default:
    /// HMAC with SHA-512, SHA-256 and SHA-1, the `-etm@openssh.com` forms first of each.
    #[must_use]
    pub fn macs(mut self, list: impl Into<String>) -> Self {
        self.macs = Some(list.into());
        self
    }

    /// Compression. Default: none, zlib@openssh.com, so it is used only where the server wants it.
    /// ssh's `Compression yes` is `^zlib@openssh.com`. Known beside these: zlib, which begins before
    /// the login.
    #[must_use]
    pub fn compression(mut self, list: impl Into<String>) -> Self {
        self.compression = Some(list.into());
        self
    }

    /// What user keys sign a login with (ssh's `PubkeyAcceptedAlgorithms`). Keys of other kinds are
    /// not offered. Default: Ed25519, ECDSA and RSA with SHA-2, their forms on hardware tokens (by an
    /// agent), and certificates of all these. Known beside these: ssh-rsa and
    /// ssh-rsa-cert-v01@openssh.com, which are RSA with SHA-1.
    #[must_use]
    pub fn public_key(mut self, list: impl Into<String>) -> Self {
        self.public_key = Some(list.into());
        self
    }
}

/// What a list, if there is one, makes of `default`. `what` is the method that it was given to.
///
/// # Errors
///
/// [`Error::InvalidInput`] for a name that is not among `known`, that is empty or has white space in it, and
/// when no name is left.
pub(crate) fn assemble(
    what: &str,
    list: Option<&str>,
    default: &[&str],
    known: &[&str],
) -> Result<Vec<String>, Error> {
    let invalid = |reason: String| Error::InvalidInput {
        what: "algorithms",
        reason,
    };
    let Some(list) = list else {
        return Ok(default.iter().map(|name| (*name).to_owned()).collect());
    };
    let (form, patterns) = match list.split_at_checked(1) {
        Some((form @ ("+" | "-" | "^"), patterns)) => (form, patterns),
        _ => ("", list),
    };
    let mut named: Vec<&str> = Vec::new();
    for (n, pattern) in patterns.split(',').enumerate() {
        let n = n + 1;
        // ssh takes `-` alone, which takes nothing away.
        let wrong = match pattern {
            "" if form == "-" && patterns.is_empty() => None,
            "" => Some("is empty".to_owned()),
            _ => (pattern.contains(char::is_whitespace))
                .then(|| format!("has white space in it, {pattern:?}")),
        };
        if let Some(wrong) = wrong {
            return Err(invalid(format!(
                "name {n} in Algorithms::{what}, {list:?}, {wrong}; write one comma between two names and \
                 nothing else"
            )));
        }
        let found = known.iter().filter(|name| matches_pattern(pattern, name));
        let before = named.len();
        named.extend(found);
        // As with ssh, it does no harm to take away what is not there.
        if named.len() == before && form != "-" {
            return Err(invalid(format!(
                "Algorithms::{what} has {pattern:?}, which is not known here; known are {}",
                known.join(", ")
            )));
        }
    }
    let is_named = |name: &&str| named.contains(name);
    let rest = default.iter().copied();
    let chosen: Vec<&str> = match form {
        "+" => rest.chain(named.iter().copied()).collect(),
        "-" => rest.filter(|name| !is_named(name)).collect(),
        "^" => named.iter().copied().chain(rest).collect(),
        _ => named,
    };
    let mut names: Vec<String> = Vec::new();
    for name in chosen {
        if !names.iter().any(|there| there == name) {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(invalid(format!(
            "Algorithms::{what} leaves none; the default is {}",
            default.join(",")
        )));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: [&str; 3] = ["b", "c", "d-1"];
    const KNOWN: [&str; 6] = ["a", "b", "c", "d-1", "d-2", "e"];

    fn assembled(list: &str) -> String {
        match assemble("kex", Some(list), &DEFAULT, &KNOWN) {
            Ok(names) => names.join(","),
            Err(Error::InvalidInput { what, reason }) => format!("{what}: {reason}"),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_are_assembled_as_ssh_does() {
        for (list, expected) in [
            ("a,b", "a,b"),
            ("e,a,e", "e,a"),
            ("+a,b", "b,c,d-1,a"),
            ("-c", "b,d-1"),
            ("-d*,nowhere", "b,c"),
            ("^e,d-1", "e,d-1,b,c"),
            ("d-?", "d-1,d-2"),
            ("+*", "b,c,d-1,a,d-2,e"),
        ] {
            assert_eq!(assembled(list), expected, "{list}");
        }
        let stock = assemble("kex", None, &DEFAULT, &KNOWN).unwrap();
        assert_eq!(stock, DEFAULT);
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_are_known() {
        for list in ["a,x", "+x", "^x", "x*", "ä"] {
            let text = assembled(list);
            assert!(
                text.starts_with("algorithms: Algorithms::kex has \""),
                "{text}"
            );
            assert!(text.ends_with("known are a, b, c, d-1, d-2, e"), "{text}");
        }
        assert!(assembled("-*").contains("leaves none"));
    }

    #[test]
    fn a_name_that_is_empty_or_has_white_space_is_refused_by_its_place() {
        for (list, n, wrong) in [
            ("", 1, "is empty"),
            ("+", 1, "is empty"),
            ("^", 1, "is empty"),
            ("a,", 2, "is empty"),
            (",a", 1, "is empty"),
            ("a,,b", 2, "is empty"),
            ("+a,", 2, "is empty"),
            ("-a,", 2, "is empty"),
            (" a", 1, "has white space in it, \" a\""),
            ("a, b", 2, "has white space in it, \" b\""),
            ("+a,b\t", 2, "has white space in it, \"b\\t\""),
            // Else this one would not be taken away.
            ("-a, b", 2, "has white space in it, \" b\""),
        ] {
            let text = assembled(list);
            let place =
                format!("algorithms: name {n} in Algorithms::kex, {list:?}, {wrong}; write");
            assert!(text.starts_with(&place), "{text}");
        }
        assert_eq!(assembled("-"), "b,c,d-1");
    }
}
