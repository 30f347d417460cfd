//! Command lines for the remote user's shell.
//!
//! SSH sends one string and the server runs `$SHELL -c string` (RFC 4254, section 6.5; sshd(8)),
//! so arguments have to survive a POSIX shell.

use crate::error::Error;

/// The longest command line that Linux's `execve` takes as one argument (`MAX_ARG_STRLEN`).
const LONGEST_LINE: usize = 128 * 1024 - 1;

/// Appends `word`, quoted.
pub(crate) fn push_word(line: &mut Vec<u8>, word: &[u8], what: &'static str) -> Result<(), Error> {
    let quoted = shlex::bytes::try_quote(word).map_err(|_| Error::InvalidInput {
        what,
        reason: "it contains a NUL byte, which no command line can carry".into(),
    })?;
    line.extend_from_slice(&quoted);
    Ok(())
}

/// What means something else to a login shell than to the program: read-only (`UID` in bash), not
/// text (`path` in zsh), or an order (`UID` and `USERNAME` change the user in a zsh of root's).
/// bash(1), "Shell Variables"; zshparam(1), "Parameters Set By The Shell"; zshmodules(1),
/// "zsh/parameter"; ksh(1), mksh(1).
#[rustfmt::skip]
const SHELL_NAMES: &[&str] = &[
    "ARGC", "BASHOPTS", "BASHPID", "BASH_ARGC", "BASH_ARGV", "BASH_ARGV0", "BASH_COMMAND",
    "BASH_SUBSHELL", "BASH_VERSINFO", "DIRSTACK", "EGID", "EPOCHREALTIME", "EPOCHSECONDS", "ERRNO",
    "EUID", "FUNCNAME", "GID", "GROUPS", "HISTCMD", "KSHEGID", "KSHGID", "KSHUID", "LINENO",
    "PGRP", "PIPESTATUS", "PPID", "RANDOM", "SECONDS", "SHELLOPTS", "SRANDOM", "TTYIDLE", "UID",
    "USERNAME", "USER_ID",
    "aliases", "argv", "builtins", "cdpath", "commands", "dirstack", "dis_aliases", "dis_builtins",
    "dis_functions", "dis_galiases", "dis_reswords", "dis_saliases", "fignore", "fpath",
    "funcfiletrace", "funcsourcetrace", "funcstack", "functions", "functions_source", "functrace",
    "galiases", "histchars", "history", "historywords", "jobdirs", "jobstates", "jobtexts",
    "mailpath", "manpath", "module_path", "modules", "nameddirs", "options", "parameters", "patchars",
    "path", "pipestatus", "prompt", "psvar", "reswords", "saliases", "signals", "status", "termcap",
    "terminfo", "userdirs", "usergroups", "watch", "widgets", "zsh_eval_context",
];

/// Refuses a variable that cannot be set by a login shell.
pub(crate) fn check_exported(name: &str) -> Result<(), Error> {
    if !SHELL_NAMES.contains(&name) {
        return Ok(());
    }
    Err(Error::InvalidInput {
        what: "environment variable",
        reason: format!(
            "\"{name}\" is a variable of login shells' own, and the server does not take it otherwise: \
             add it to sshd's AcceptEnv, or run `env {name}=… program`"
        ),
    })
}

/// Appends `export NAME='value'; `.
pub(crate) fn push_env(line: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), Error> {
    // IEEE 1003.1, section 8.1: what a shell can assign to.
    let mut bytes = name.bytes();
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    if !bytes.next().is_some_and(first) || !bytes.all(|byte| first(byte) || byte.is_ascii_digit()) {
        return Err(Error::InvalidInput {
            what: "environment variable",
            reason: format!(
                "the name \"{}\" is not letters, digits and underscores with no digit first",
                name.escape_debug()
            ),
        });
    }
    line.extend_from_slice(b"export ");
    line.extend_from_slice(name.as_bytes());
    line.push(b'=');
    push_word(line, value, "environment variable")?;
    line.extend_from_slice(b"; ");
    Ok(())
}

/// Appends `cd -- 'dir' || exit; `.
pub(crate) fn push_current_dir(line: &mut Vec<u8>, dir: &[u8]) -> Result<(), Error> {
    line.extend_from_slice(b"cd -- ");
    // A relative path must not be looked up in CDPATH, nor `-` mean the previous folder.
    let absolute = dir.first() == Some(&b'/');
    let mut path = if absolute { Vec::new() } else { b"./".to_vec() };
    path.extend_from_slice(dir);
    push_word(line, &path, "current directory")?;
    line.extend_from_slice(b" || exit; ");
    Ok(())
}

/// Refuses a command line that no server runs. `exports` more bytes go before it.
pub(crate) fn check_line(line: &[u8], exports: usize) -> Result<(), Error> {
    let length = line.len() + exports;
    let reason = if line.is_empty() {
        "it is empty: a server would start an interactive shell".to_owned()
    } else if line.contains(&0) {
        "it contains a NUL byte, which no command line can carry".to_owned()
    } else if length > LONGEST_LINE {
        format!(
            "it is {length} bytes long, and a shell takes {LONGEST_LINE} at most: use Host::script, \
             or stdin"
        )
    } else {
        return Ok(());
    };
    Err(Error::InvalidInput {
        what: "command line",
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        push_word(&mut line, text, "argument").expect("quotable");
        line
    }

    #[test]
    fn words_that_mean_something_to_a_shell_are_quoted() {
        assert_eq!(word(b"plain"), b"plain");
        assert_eq!(word(b""), b"''");
        for text in [
            "a b", "$HOME", "`id`", "*", "~", "a;b", "#x", "a\nb", "-n!", "\\",
        ] {
            assert_ne!(
                word(text.as_bytes()),
                text.as_bytes(),
                "{text:?} went through bare"
            );
        }
    }

    #[test]
    fn a_nul_byte_is_an_error_and_not_a_truncation() {
        let mut line = Vec::new();
        let error = push_word(&mut line, b"a\0b", "argument").expect_err("NUL");
        assert!(error.to_string().contains("NUL"), "{error}");
        assert!(line.is_empty());
    }

    #[test]
    fn names_that_a_shell_cannot_assign_are_refused() {
        for name in ["", "1A", "A-B", "A B", "A=B", "$(id)", "é"] {
            assert!(push_env(&mut Vec::new(), name, b"x").is_err(), "{name:?}");
        }
        let mut line = Vec::new();
        push_env(&mut line, "_A1", b"it's").expect("valid");
        assert_eq!(line, b"export _A1=\"it's\"; ");
    }

    #[test]
    fn names_that_login_shells_keep_for_themselves_are_refused() {
        for name in SHELL_NAMES {
            assert!(check_exported(name).is_err(), "{name}");
        }
        for name in ["PATH", "HOME", "USER", "TZ", "STATUS", "Path"] {
            check_exported(name).expect("it is for programs");
        }
        assert!(
            SHELL_NAMES
                .is_sorted_by_key(|name| (name.starts_with(|c: char| c.is_lowercase()), *name))
        );
    }

    #[test]
    fn a_relative_folder_cannot_be_an_option_nor_the_previous_one() {
        for (dir, expected) in [
            ("-", "cd -- ./- || exit; "),
            ("/srv", "cd -- /srv || exit; "),
        ] {
            let mut line = Vec::new();
            push_current_dir(&mut line, dir.as_bytes()).expect("valid");
            assert_eq!(String::from_utf8_lossy(&line), expected);
        }
    }
}
