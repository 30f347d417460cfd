//! The arguments of an ssh mean what they mean to ssh, or are refused.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use ssh_pool::internals::{Asked, parse_arguments};

/// What may be set: nothing that runs a program, or leads elsewhere.
const HARMLESS: [&str; 4] = [
    "sendenv",
    "connecttimeout",
    "batchmode",
    "serveraliveinterval",
];

pub fn check(data: &[u8]) {
    let arguments: Vec<OsString> = (data.split(|byte| *byte == 0))
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    match parse_arguments(&arguments) {
        Ok(asked) => {
            assert!(!asked.host.is_empty() && !asked.host.starts_with('-'));
            let names = [Some(&asked.host), asked.user.as_ref()];
            let clean = |name: &String| !name.contains(char::is_control);
            assert!(names.into_iter().flatten().all(clean), "{asked:?}");
            assert_ne!(asked.port, Some(0), "{asked:?}");
            let meant = as_ssh_does(&arguments).expect("ssh understands it too");
            assert_eq!(asked, meant, "{arguments:?}");
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains(char::is_control), "{message:?}");
        }
    }
}

/// What options have said, as ssh.c has it: of two users or ports the first counts.
#[derive(Default)]
struct Said {
    user: Option<String>,
    port: Option<u16>,
    no_input: bool,
}

/// getopt: options up to the first word that is none. True after `--`.
fn options(words: &mut std::slice::Iter<'_, OsString>, said: &mut Said) -> Option<bool> {
    while let Some(word) = words.as_slice().first() {
        if !word.as_encoded_bytes().starts_with(b"-") {
            return Some(false);
        }
        let word = words.next()?.to_str()?;
        let option = word.strip_prefix('-')?;
        if option == "-" {
            return Some(true);
        }
        assert!(!option.is_empty(), "a dash was let through");
        let mut letters = option.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '4' | '6' | 'T' | 'q' | 'x' | 'a' => continue,
                'n' => {
                    said.no_input = true;
                    continue;
                }
                'p' | 'l' | 'o' => {}
                _ => panic!("-{letter} was let through"),
            }
            let value = match letters.as_str() {
                "" => words.next()?.to_str()?,
                value => value,
            };
            match letter {
                'l' => {
                    said.user.get_or_insert_with(|| value.to_owned());
                }
                'p' => said.port = said.port.or_else(|| value.trim().parse::<u16>().ok()),
                _ => {
                    let name = value.trim_start().split(['=', ' ', '\t']).next()?;
                    let name = name.to_ascii_lowercase();
                    assert!(HARMLESS.contains(&name.as_str()), "{name} was let through");
                }
            }
            break;
        }
    }
    Some(false)
}

/// ssh.c, main.
fn as_ssh_does(arguments: &[OsString]) -> Option<Asked> {
    let mut said = Said::default();
    let mut words = arguments.iter();
    let terminated = options(&mut words, &mut said)?;
    let place = words.next()?.to_str()?;
    let host = match place.rsplit_once('@') {
        None => place,
        Some((name, host)) => {
            said.user.get_or_insert_with(|| name.to_owned());
            host
        }
    };
    if !terminated {
        options(&mut words, &mut said)?;
    }
    let rest = words.as_slice();
    let first = rest.first()?;
    assert!(
        !first.as_encoded_bytes().starts_with(b"-"),
        "{first:?} may be an option"
    );
    Some(Asked {
        user: said.user,
        host: host.to_owned(),
        port: said.port,
        no_input: said.no_input,
        line: rest.join(&OsString::from(" ")),
    })
}
