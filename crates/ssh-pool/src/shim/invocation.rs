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
    /// `-n`: the command's standard input is empty, whatever that of ssh is.
    pub(super) no_input: bool,
    /// One line for the remote shell.
    pub(super) line: OsString,
}

impl Invocation {
    /// Understands what git, git-lfs, git-annex and docker ask for: `[OPTIONS] [--] [USER@]HOST [OPTIONS] [--]
    /// COMMAND…`, with `-4`, `-6`, `-T`, `-q`, `-x`, `-a`, `-n`, `-p PORT`, `-l USER` and `-o SendEnv=…`.
    /// Any other option is refused: some run a program on this machine, and the arguments may come
    /// from another place than the program.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self, Error> {
        let mut options = Options::default();
        let mut words = arguments.iter();
        let terminated = options.take(&mut words)?;
        let place = text(words.next(), "a host")?;
        let host = match place.rsplit_once('@') {
            None => place,
            Some((name, host)) => {
                options.user.get_or_insert_with(|| name.to_owned());
                host
            }
        };
        if host.is_empty() || host.starts_with('-') {
            let shown = name_of(place).escape_debug();
            return Err(Error::arguments(format!("\"{shown}\" is no host")));
        }
        // ssh.c, main: options are read once more after the host, unless `--` stood before it.
        if !terminated {
            options.take(&mut words)?;
        }
        let words = words.as_slice();
        let Some(first) = words.first() else {
            return Err(Error::arguments(
                "no command: a login shell is not for here",
            ));
        };
        // Stricter than ssh, which would run it after `--`.
        if first.as_encoded_bytes().starts_with(b"-") {
            return Err(Error::arguments("a command that begins with a dash"));
        }
        Ok(Self {
            user: options.user,
            host: host.to_owned(),
            port: options.port,
            no_input: options.no_input,
            // As ssh does: the words are joined, and the remote shell splits them.
            line: words.join(&OsString::from(" ")),
        })
    }
}

/// What options have said so far. Of two values ssh takes the first.
#[derive(Default)]
struct Options {
    user: Option<String>,
    port: Option<u16>,
    no_input: bool,
}

impl Options {
    /// Takes options, as getopt(3) of BSD reads them, up to the first word that is none; true after
    /// `--`, which is taken too.
    fn take(&mut self, words: &mut std::slice::Iter<'_, OsString>) -> Result<bool, Error> {
        while let Some(word) = words.as_slice().first() {
            if !word.as_encoded_bytes().starts_with(b"-") {
                break;
            }
            let word = text(words.next(), "a host")?;
            if word == "--" {
                return Ok(true);
            }
            let mut letters = word.chars();
            letters.next();
            while let Some(letter) = letters.next() {
                if "lop".contains(letter) {
                    // A blank is enough: then the next word is no part of it.
                    let value = match letters.as_str() {
                        "" => text(words.next(), "the value of an option")?,
                        value => value,
                    };
                    self.set(letter, value)?;
                    break;
                }
                match letter {
                    '4' | '6' | 'T' | 'q' | 'x' | 'a' => {}
                    'n' => self.no_input = true,
                    _ => return Err(unknown(word)),
                }
            }
            if word == "-" {
                return Err(unknown(word));
            }
        }
        Ok(false)
    }

    fn set(&mut self, letter: char, value: &str) -> Result<(), Error> {
        match letter {
            'p' => {
                let port = parse_port(value)?;
                self.port.get_or_insert(port);
            }
            'l' => {
                self.user.get_or_insert_with(|| value.to_owned());
            }
            _ => check_option(value)?,
        }
        Ok(())
    }
}

fn unknown(word: &str) -> Error {
    let shown = name_of(word).escape_debug();
    Error::arguments(format!("the option \"{shown}\""))
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
            no_input: false,
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
    fn options_after_the_host_are_read_as_ssh_reads_them() {
        // git-annex with GIT_ANNEX_USE_GIT_SSH=1.
        let annex = parse(&[
            "-n",
            "git@web-1",
            "-p",
            "2222",
            "git-annex-shell 'configlist'",
        ]);
        let expected = Invocation {
            no_input: true,
            ..meant(
                Some("git"),
                "web-1",
                Some(2222),
                "git-annex-shell 'configlist'",
            )
        };
        assert_eq!(annex.expect("understood"), expected);
        let cases: [(&[&str], Invocation); 5] = [
            (
                &["web-1", "-l", "me", "-p5", "--", "true"],
                meant(Some("me"), "web-1", Some(5), "true"),
            ),
            // The first value counts, wherever it stands.
            (
                &["-p4", "me@web-1", "-l", "root", "-p", "5", "true"],
                meant(Some("me"), "web-1", Some(4), "true"),
            ),
            // Letters in one word.
            (
                &["-Tqp", "7", "web-1", "-4x", "true"],
                meant(None, "web-1", Some(7), "true"),
            ),
            // The command has begun.
            (
                &["web-1", "true", "-p", "9"],
                meant(None, "web-1", None, "true -p 9"),
            ),
            (
                &["web-1", "-oBatchMode=yes", "-n", "--", "ls", "--", "-n"],
                Invocation {
                    no_input: true,
                    ..meant(None, "web-1", None, "ls -- -n")
                },
            ),
        ];
        for (words, expected) in cases {
            assert_eq!(parse(words).expect("understood"), expected);
        }
        for words in [
            &["--", "web-1", "-p", "5", "true"][..],
            &["web-1", "--", "-p", "5"],
            &["web-1", "-p", "5"],
            &["web-1", "-F", "/tmp/config", "true"],
            &["web-1", "-nS/tmp/socket", "true"],
            &["-n", "web-1", "-oLocalCommand=x", "true"],
            &["-", "web-1", "true"],
        ] {
            parse(words).expect_err("refused");
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
