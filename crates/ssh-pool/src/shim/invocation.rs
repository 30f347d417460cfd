//! The command line of an `ssh` that git or docker wants to run.

use std::ffi::OsString;

use super::error::Error;

/// What may come as `-o`. None of them changes what is run or where: the pool has a time-out and
/// policies of its own.
const HARMLESS: [&str; 4] = [
    "sendenv",
    "connecttimeout",
    "batchmode",
    "serveraliveinterval",
];

/// Where to go and what to run there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invocation {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// One line for the remote shell.
    pub(super) line: OsString,
}

impl Invocation {
    /// Understands what git, git-lfs and docker ask for: `[-4|-6|-T|-q] [-p PORT] [-l USER] [-o
    /// SendEnv=…] [--] [USER@]HOST COMMAND…`. Whatever else there is, is refused: other options of
    /// ssh can run a program on this machine, and who chooses the arguments may not be who chose
    /// the program.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self, Error> {
        let (mut user, mut port) = (None, None);
        let mut arguments = arguments.iter();
        let place = loop {
            let word = text(arguments.next(), "a host")?;
            if let Some((letter, value)) = with_value(word) {
                let value = match value {
                    "" => text(arguments.next(), "the value of an option")?,
                    value => value,
                };
                // Of several, ssh takes the first.
                match letter {
                    'p' => port = port.or(Some(parse_port(value)?)),
                    'l' => user = user.or_else(|| Some(value.to_owned())),
                    _ => check_option(value)?,
                }
                continue;
            }
            match word {
                "--" => break text(arguments.next(), "a host")?,
                "-4" | "-6" | "-T" | "-q" | "-x" | "-a" => {}
                _ if word.starts_with('-') => {
                    let shown = name_of(word).escape_debug();
                    return Err(Error::arguments(format!("the option \"{shown}\"")));
                }
                place => break place,
            }
        };
        let host = match place.rsplit_once('@') {
            None => place,
            Some((name, host)) => {
                user = user.or_else(|| Some(name.to_owned()));
                host
            }
        };
        if host.is_empty() || host.starts_with('-') {
            let shown = name_of(place).escape_debug();
            return Err(Error::arguments(format!("\"{shown}\" is no host")));
        }
        // As ssh does: the words are put together, and the remote shell takes them apart.
        let words: Vec<OsString> = arguments.cloned().collect();
        if words.is_empty() {
            return Err(Error::arguments(
                "no command: a login shell is not for here",
            ));
        }
        if words
            .first()
            .is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"))
        {
            return Err(Error::arguments("an option after the host"));
        }
        Ok(Self {
            user,
            host: host.to_owned(),
            port,
            line: words.join(&OsString::from(" ")),
        })
    }
}

/// Everything but the command is text.
fn text<'a>(word: Option<&'a OsString>, what: &str) -> Result<&'a str, Error> {
    let word = word.ok_or_else(|| Error::arguments(format!("{what} is missing")))?;
    let text = word
        .to_str()
        .filter(|text| !text.contains(char::is_control));
    text.ok_or_else(|| Error::arguments(format!("{word:?} is not text")))
}

fn parse_port(text: &str) -> Result<u16, Error> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| Error::arguments(format!("\"{}\" is no port", text.escape_debug())))
}

/// An option that has a value, and what of it is in the same word, as docker has it. A blank is
/// enough: then the next word is no part of it.
fn with_value(word: &str) -> Option<(char, &str)> {
    let option = word.strip_prefix('-')?;
    let letter = option
        .chars()
        .next()
        .filter(|letter| "lop".contains(*letter))?;
    Some((letter, option.get(1..)?))
}

fn check_option(option: &str) -> Result<(), Error> {
    let name = name_of(option.trim_start_matches(' '));
    if HARMLESS.contains(&name.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    let shown = name.escape_debug();
    Err(Error::arguments(format!("the option \"-o {shown}\"")))
}

/// Without its value, which may be anything.
fn name_of(option: &str) -> &str {
    option.split(['=', ' ']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Invocation, Error> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Invocation::parse(&words)
    }

    fn meant(user: Option<&str>, host: &str, port: Option<u16>, line: &str) -> Invocation {
        Invocation {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            line: line.into(),
        }
    }

    #[test]
    fn what_git_lfs_and_docker_ask_for_is_understood() {
        let pack = "git-upload-pack '/srv/it'\\''s.git'";
        let cases: [(&[&str], Invocation); 5] = [
            (
                &[
                    "-o",
                    "SendEnv=GIT_PROTOCOL",
                    "-p",
                    "2222",
                    "git@web-1",
                    pack,
                ],
                meant(Some("git"), "web-1", Some(2222), pack),
            ),
            (&["-4", "web-1", pack], meant(None, "web-1", None, pack)),
            (
                &[
                    "-p",
                    "22",
                    "--",
                    "git@web-1",
                    "git-lfs-authenticate x download",
                ],
                meant(
                    Some("git"),
                    "web-1",
                    Some(22),
                    "git-lfs-authenticate x download",
                ),
            ),
            (
                &[
                    "-o ConnectTimeout=30",
                    "-T",
                    "-l",
                    "root",
                    "--",
                    "::1",
                    "docker",
                    "system",
                ],
                meant(Some("root"), "::1", None, "docker system"),
            ),
            (
                &["odd@name@web-1", "true"],
                meant(Some("odd@name"), "web-1", None, "true"),
            ),
        ];
        for (words, expected) in cases {
            assert_eq!(parse(words).expect("understood"), expected);
        }
    }

    #[test]
    fn of_two_users_or_ports_the_first_counts_as_with_ssh() {
        let words = [
            "-l",
            "root",
            "-p1",
            "-l",
            "admin",
            "-p",
            "2",
            "git@web-1",
            "true",
        ];
        let expected = meant(Some("root"), "web-1", Some(1), "true");
        assert_eq!(parse(&words).expect("understood"), expected);
    }

    #[test]
    fn a_blank_is_a_value_and_not_the_next_word() {
        let expected = meant(Some(" "), "web-1", None, "true x");
        let parsed = parse(&["-l ", "web-1", "true", "x"]);
        assert_eq!(parsed.expect("understood"), expected);
        for words in [
            ["-p ", "22", "web-1", "true"],
            ["-o ", "SendEnv=A", "web-1", "true"],
        ] {
            assert!(parse(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn what_could_run_something_here_is_refused() {
        let cases: [&[&str]; 17] = [
            &[],
            &["web-1"],
            &["--"],
            &["-oProxyCommand=touch /tmp/x", "web-1", "true"],
            &["-o", "ProxyCommand=touch /tmp/x", "web-1", "true"],
            &["-o", "proxycommand touch /tmp/x", "web-1", "true"],
            &["-o", "LocalCommand=x", "web-1", "true"],
            &["-F", "/tmp/config", "web-1", "true"],
            &["-S", "/tmp/socket", "web-1", "true"],
            &["-J", "other", "web-1", "true"],
            &["--", "-oProxyCommand=x", "true"],
            &["git@-oProxyCommand=x", "true"],
            &["-p", "0", "web-1", "true"],
            &["-p", "65536", "web-1", "true"],
            &["-p", "22 -oProxyCommand=x", "web-1", "true"],
            &["web-1", "-oProxyCommand=x", "true"],
            &["web-1\n", "true"],
        ];
        for words in cases {
            let error = parse(words).expect_err("refused");
            assert!(
                matches!(error, Error::Arguments { .. }),
                "{words:?}: {error:?}"
            );
            assert!(!error.to_string().contains("touch"), "{error}");
        }
    }
}
