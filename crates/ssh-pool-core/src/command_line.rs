//! The command line as it goes on the wire: what the pool puts around the caller's line, and in
//! which form.
//!
//! A server runs `$SHELL -c line` (RFC 4254, section 6.5; sshd(8)), and login shells differ. fish
//! 3.6 exits with 0 when it cannot parse a line; csh has no `export`, and writes to a file named `2`
//! for `>&2`. So there are two forms:
//!
//! | form     | sent while the login shell is | looks like                                      |
//! |----------|-------------------------------|-------------------------------------------------|
//! | direct   | POSIX                         | `[tag] export A=…; cd -- … \|\| exit; line`     |
//! | portable | not known, or not POSIX       | `exec sh -c 'prologue' sh ID 'direct form' …`   |
//!
//! The portable form is words in single quotes, which every shell reads alike, and its prologue is
//! run by `sh`. The prologue writes the tag, one line on standard error that says that our line is
//! about to run and whether the login shell is POSIX; the receiving end takes it out
//! (`inbox/herald.rs`). Then it runs the direct form in the login shell if that is a POSIX one, so
//! that the first command of a connection behaves as those after it, and in `sh` if not. `exec`
//! keeps the process id: the command leads its process group, and a signal that ends it is reported
//! as such. Restricted shells refuse `exec`, and with it the command.
//!
//! The server is not asked beforehand which shell it is. On an account with a forced command every
//! line runs that command, so a question would run it once more.

use std::sync::Arc;

use crate::error::Error;

/// The longest word of a line. csh takes words of 1 KiB.
const WORD: usize = 800;

/// Identifies one run of a command: its first line of output, and its processes.
#[derive(Debug, Clone)]
pub(crate) struct Tag(Arc<str>);

impl Tag {
    pub(crate) fn new() -> Self {
        Self(format!("{:032x}", fastrand::u128(..)).into())
    }

    pub(crate) fn id(&self) -> &str {
        &self.0
    }

    /// How the line that the command says first begins. The portable form does not contain it, so an
    /// account that echoes its command line does not say it.
    pub(crate) fn line(&self) -> Vec<u8> {
        format!("SSH_POOL_MARK={}", self.0).into_bytes()
    }
}

/// What goes around a caller's line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandLine<'a> {
    /// `export …; ` for each variable that goes through the shell.
    pub(crate) exports: &'a [u8],
    /// The caller's line, behind its `cd`.
    pub(crate) line: &'a [u8],
    /// Whether the processes of the command are to carry the tag in their environment.
    pub(crate) marked: bool,
}

impl CommandLine<'_> {
    /// For a POSIX shell. A marked command says its tag first.
    pub(crate) fn direct(&self, tag: &Tag) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.exports.len() + self.line.len() + 160);
        if self.marked {
            // `$$` is the process group: the login shell leads one.
            let id = tag.id();
            let mark = format!(
                "echo SSH_POOL_MARK={id} >&2; SSH_POOL_MARK={id}.$$.; export SSH_POOL_MARK; "
            );
            whole.extend_from_slice(mark.as_bytes());
        }
        self.push_body(&mut whole);
        whole
    }

    /// For every login shell.
    pub(crate) fn portable(&self, tag: &Tag) -> Vec<u8> {
        let mut body = Vec::new();
        self.push_body(&mut body);
        let mark = if self.marked {
            "SSH_POOL_MARK=$__i.$$.; export SSH_POOL_MARK; "
        } else {
            ""
        };
        let tail =
            format!("{CHOOSE}{mark}echo SSH_POOL_MARK=$__i:$__k >&2; exec \"$__x\" -c \"$__l\"");
        in_words(tag.id(), &tail, &body)
    }

    fn push_body(&self, whole: &mut Vec<u8>) {
        whole.extend_from_slice(self.exports);
        whole.extend_from_slice(self.line);
    }
}

/// A script of the pool's own, for every login shell. It says no tag.
pub(crate) fn portable_script(script: &str) -> Vec<u8> {
    in_words("-", "exec sh -c \"$__l\"", script.as_bytes())
}

/// Sets `__x` to what runs the line, and `__k` to the kind of the login shell. A start-up file may
/// have set `SHELL` to another shell than that of the account, so the user data base is asked;
/// where it does not confirm `SHELL`, the login shell counts as `other`. The two lists are one: what
/// runs the line is the same for the first command and for the next.
const CHOOSE: &str = "__k=other; __x=sh; case ${SHELL##*/} in \
    sh|ash|dash|bash|ksh|ksh93|mksh|zsh) if test -x \"$SHELL\"; then __x=$SHELL; \
    case $(getent passwd \"$LOGNAME\" 2>/dev/null || grep \"^$LOGNAME:\" /etc/passwd 2>/dev/null) in \
    *:\"$SHELL\") __k=posix ;; esac; fi ;; esac; ";

/// Joins the words behind the id to `__l`.
const JOIN: &str = "__i=$1; shift; __l=; for __w; do __l=$__l$__w; done; ";

/// Decodes `__l`. The dots keep a first `-` from being an option, and the substitution from taking
/// trailing newlines off.
const DECODE: &str = "__l=$(printf \".$__l.\"); __l=${__l#.}; __l=${__l%.}; ";

/// `exec sh -c 'PROLOGUE' sh ID 'WORD' 'WORD'…`: the prologue finds the words joined in `__l`.
fn in_words(id: &str, tail: &str, text: &[u8]) -> Vec<u8> {
    let plain = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let decode = if plain { "" } else { DECODE };
    let mut whole = format!("exec sh -c '{JOIN}{decode}{tail}' sh {id} '").into_bytes();
    let mut word = 0;
    for byte in text {
        let mut octal = Vec::new();
        let encoded: &[u8] = match byte {
            b'\'' if plain => br"'\''",
            b'\\' if plain => br"'\\'",
            // Of csh's history, also between single quotes.
            b'!' if plain => br"'\!'",
            b'\'' | b'\\' | b'!' | b'%' if !plain => {
                push_octal(&mut octal, *byte);
                &octal
            }
            b' '..=b'~' => std::slice::from_ref(byte),
            // csh takes no newline between quotes; others decode what is not ASCII by their locale.
            _ => {
                push_octal(&mut octal, *byte);
                &octal
            }
        };
        if word + encoded.len() > WORD {
            whole.extend_from_slice(b"' '");
            word = 0;
        }
        word += encoded.len();
        whole.extend_from_slice(encoded);
    }
    whole.push(b'\'');
    whole
}

/// As `printf` reads it, whatever digit follows.
fn push_octal(to: &mut Vec<u8>, byte: u8) {
    to.extend_from_slice(format!("\\{byte:03o}").as_bytes());
}

/// Refuses a line that is too long in the portable form and has to be sent in it.
pub(crate) fn too_long(length: usize, longest: usize) -> Error {
    Error::InvalidInput {
        what: "command line",
        reason: format!(
            "the account's login shell is not a POSIX one, and quoted for it the line is {length} \
             bytes long; this server takes {longest} at most: use Host::script, or stdin"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    fn parts(line: &[u8]) -> CommandLine<'_> {
        CommandLine {
            exports: b"",
            line,
            marked: true,
        }
    }

    fn run(line: &[u8]) -> Output {
        use std::os::unix::ffi::OsStrExt;
        let line = std::ffi::OsStr::from_bytes(line);
        let mut sh = Command::new("sh");
        sh.arg("-c").arg(line).env("SHELL", "/bin/sh");
        sh.output().expect("run sh")
    }

    #[test]
    fn the_prologue_needs_no_quoting_in_any_shell() {
        let text = [JOIN, DECODE, CHOOSE].concat();
        for byte in ['\'', '\\', '!', '\n'] {
            assert!(!text.contains(byte), "{byte:?}");
        }
        // A word for csh, with what is added for a marked command.
        assert!(text.len() < 900, "{}", text.len());
    }

    #[test]
    fn every_byte_and_every_length_survives_the_portable_form() {
        let all: Vec<u8> = (1..=u8::MAX).collect();
        let ascii: Vec<u8> = (b' '..=b'~').collect();
        let long = b"it's long\\! ".repeat(500);
        for argument in [&all[..], &ascii, &long, b"-", b"%s%%", b"\n", b"ends\n\n"] {
            let mut line = b"printf %s ".to_vec();
            crate::quote::push_word(&mut line, argument, "argument").expect("no NUL");
            let output = run(&parts(&line).portable(&Tag::new()));
            assert_eq!(output.stdout, argument, "{output:?}");
        }
    }

    #[test]
    fn the_tag_is_said_and_is_not_in_the_line() {
        let tag = Tag::new();
        let line = parts(b"printf %s \"${SSH_POOL_MARK%.*.}\"; exit 7").portable(&tag);
        let said = tag.line();
        assert!(!line.windows(said.len()).any(|part| part == said));
        let output = run(&line);
        assert!(output.stderr.starts_with(&said), "{output:?}");
        assert_eq!(output.stdout, tag.id().as_bytes());
        assert_eq!(output.status.code(), Some(7));
    }

    #[test]
    fn no_word_of_a_line_is_longer_than_csh_takes() {
        for filling in [b"x", b"!", b"\n"] {
            let line = parts(&filling.repeat(5000)).portable(&Tag::new());
            let longest = line.split(|byte| *byte == b' ').map(<[u8]>::len).max();
            assert!(longest < Some(1000), "{longest:?}");
        }
    }
}
