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

/// ssh.c, main: getopt; of two users or ports the first counts.
fn as_ssh_does(arguments: &[OsString]) -> Option<Asked> {
    let (mut user, mut port) = (None, None);
    let mut words = arguments.iter();
    let place = loop {
        let word = words.next()?.to_str()?;
        let Some(option) = word.strip_prefix('-') else {
            break word;
        };
        if option == "-" {
            break words.next()?.to_str()?;
        }
        let mut letters = option.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '4' | '6' | 'T' | 'q' | 'x' | 'a' => continue,
                'p' | 'l' | 'o' => {}
                _ => panic!("-{letter} was let through"),
            }
            let value = match letters.as_str() {
                "" => words.next()?.to_str()?,
                value => value,
            };
            match letter {
                'l' => user = user.or_else(|| Some(value.to_owned())),
                'p' => port = port.or_else(|| value.trim().parse::<u16>().ok()),
                _ => {
                    let name = value.trim_start().split(['=', ' ', '\t']).next()?;
                    let name = name.to_ascii_lowercase();
                    assert!(HARMLESS.contains(&name.as_str()), "{name} was let through");
                }
            }
            break;
        }
    };
    let host = match place.rsplit_once('@') {
        None => place,
        Some((name, host)) => {
            user = user.or_else(|| Some(name.to_owned()));
            host
        }
    };
    let rest: Vec<OsString> = words.cloned().collect();
    let first = rest.first()?;
    assert!(
        !first.as_encoded_bytes().starts_with(b"-"),
        "{first:?} may be an option"
    );
    Some(Asked {
        user,
        host: host.to_owned(),
        port,
        line: rest.join(&OsString::from(" ")),
    })
}
