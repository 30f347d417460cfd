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
//! | portable | not known, or not POSIX       | `FORK sh -c 'prologue' sh ID 'direct form' …`   |
//!
//! The portable form carries the direct one as words in single quotes, which every shell reads
//! alike. What stands before them, [`FORK`], is read differently: fish and csh run
//! `exec env … sh -c 'prologue' sh ID …`, and a POSIX shell sets the same words as its positional
//! parameters and evaluates the prologue itself. So the account's start-up files are read once, and
//! their functions and options are there for the first command of a connection as for those after
//! it. The prologue writes the tag, one line on standard error that says that our line is about to
//! run and whether the login shell is POSIX; the receiving end takes it out (`receiver/tag_filter.rs`).
//! Then it evaluates the direct form, or has `sh` execute it in its own place: `exec` keeps the
//! process id, so the command leads its process group, and a signal that ends it is reported as
//! such.
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
    /// For a POSIX shell. A tagged command says its tag first.
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
        let tail = format!("{mark}{RUN}");
        in_words(FORK, CHOOSE, &tail, tag.id(), &body, EVALUATE)
    }

    fn push_body(&self, whole: &mut Vec<u8>) {
        whole.extend_from_slice(self.exports);
        whole.extend_from_slice(self.line);
    }
}

/// A script of the pool's own, for every login shell. It says no tag.
pub(crate) fn portable_script(script: &str) -> Vec<u8> {
    let tail = "exec sh -c \"$__l\"";
    in_words("exec ", "", tail, "-", script.as_bytes(), "")
}

/// Read in three ways, by what a backslash does between quotes:
///
/// - csh: not even in `"\"` does it take the quote its meaning. `exec env __q="…\" sh -c …`.
/// - fish: in `'\'` it does. Two calls of `true`, then `exec env __q=\' __r=\" sh -c …`.
/// - POSIX: only in `"\"`. Two calls of `true`, then `set '…' __r=\" sh -c …`.
const FORK: &str = r#"true "\" ; exec env __q=" ; true '\' ; set ' ; exec env __q=\' __r=\" "#;

/// The last word of the line: only a POSIX shell gets there. The prologue is the fifth of the words
/// that [`FORK`] has set.
const EVALUATE: &str = r#" ; eval "$5""#;

/// Sets `__k` to the kind of the login shell, and `$1` to the id. The first word that [`FORK`] sets
/// begins with a space.
const CHOOSE: &str = "case $1 in \" \"*) __k=posix; shift 6 ;; *) __k=other ;; esac; ";

/// Says the tag, and runs the line: nothing of ours is left in its shell but the tag.
const RUN: &str = "echo \"SSH_POOL_MARK=$__i:$__k\" >&2 || exit; set --; \
    unset __i __w __q __r; case $__k in other) unset __k; exec sh -c \"$__l\" ;; esac; \
    eval \"unset __k __l; $__l\"";

/// Joins the words behind the id to `__l`.
const JOIN: &str = "__i=$1; shift; __l=; for __w; do __l=$__l$__w; done; ";

/// Decodes `__l`. The dots keep a first `-` from being an option, and the substitution from taking
/// trailing newlines off.
const DECODE: &str = "__l=$(printf \".$__l.\"); __l=${__l#.}; __l=${__l%.}; ";

/// `HEAD sh -c 'PROLOGUE' sh ID 'WORD' 'WORD'… END`: the prologue, which ends with `tail`, finds the
/// words joined in `__l`.
fn in_words(head: &str, choose: &str, tail: &str, id: &str, text: &[u8], end: &str) -> Vec<u8> {
    let plain = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let decode = if plain { "" } else { DECODE };
    let mut whole = format!("{head}sh -c '{choose}{JOIN}{decode}{tail}' sh {id} '").into_bytes();
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
    whole.extend_from_slice(end.as_bytes());
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
        let text = [CHOOSE, JOIN, DECODE, RUN].concat();
        for byte in ['\'', '\\', '!', '\n'] {
            assert!(!text.contains(byte), "{byte:?}");
        }
        // A word for csh, with what is added for a tagged command.
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
