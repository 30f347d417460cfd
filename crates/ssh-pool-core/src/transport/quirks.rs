//! Servers that are known, by their identification line, to need special care.

/// How many sessions at once a server handles correctly on one connection, where that is fewer
/// than it grants.
///
/// dropbear before 2024.86 closes every session channel that has not begun to execute as soon as
/// the process of another one ends. A request that is on its way to such a channel is executed all
/// the same, and the first byte of its output is an assertion failure that takes the whole
/// connection down (mkj/dropbear#321). One session at a time is safe: then no other process can
/// end between the open and the exec.
pub(super) fn sessions_at_most(identification: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(identification).ok()?;
    let version = text.strip_prefix("SSH-2.0-dropbear_")?;
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let year = numbers.next()?.ok()?;
    let release = numbers.next()?.ok()?;
    ((year, release) < (2024, 86)).then_some(1)
}

#[cfg(test)]
mod tests {
    use super::sessions_at_most;

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
            assert_eq!(sessions_at_most(line.as_bytes()), expected, "{line}");
        }
    }
}
