//! What a shim and the pool's process say to each other means one thing or nothing, and costs no
//! more memory than a message may be long.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use ssh_pool::internals::{
    Question, ShimAnswer, address, parse_address, read_answer, read_question,
};

use crate::HEAP;

/// The longest message, and some.
const LARGEST: usize = 5 << 20;
/// A word in memory, beside one byte of a message: it may be empty.
const EACH: usize = 64;
/// How much of standard error goes into one message.
const LONGEST_TEXT: usize = 64 << 10;

pub fn check(data: &[u8]) {
    received(data);
    sent(data);
    named(data);
}

/// Whatever comes.
fn received(data: &[u8]) {
    HEAP.set_limit(HEAP.allocated() + LARGEST + EACH * data.len())
        .expect("a limit above what is in use");
    let mut rest = data;
    let question = read_question(&mut rest).map(|question| (question, rest.len()));
    let mut rest = data;
    let answer = read_answer(&mut rest).map(|answer| (answer, rest.len()));
    HEAP.set_limit(usize::MAX).expect("no limit");

    if let Ok((question, left)) = question {
        let encoded = question.encode().expect("it was sent");
        assert_eq!(encoded, data[..data.len() - left], "{question:?}");
        cut(&encoded, |mut part| read_question(&mut part).is_err());
    }
    if let Ok((answer, left)) = answer {
        let encoded = answer.encode();
        assert_eq!(encoded, data[..data.len() - left], "{answer:?}");
        cut(&encoded, |mut part| read_answer(&mut part).is_err());
    }
}

/// No beginning of a message is one.
fn cut(message: &[u8], refused: impl Fn(&[u8]) -> bool) {
    let some = message.len() / 64 + 1;
    for length in (0..message.len()).step_by(some) {
        let part = &message[..length];
        assert!(refused(part), "{} passes for all", part.escape_ascii());
    }
}

/// Whatever there is to say.
fn sent(data: &[u8]) {
    let mut words = data
        .split(|byte| *byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()));
    let question = Question {
        protocol: words.next().filter(|protocol| !protocol.is_empty()),
        arguments: words.collect(),
    };
    let mut message = question.encode().expect("short enough");
    let length = message.len();
    message.extend_from_slice(data);
    let mut from = message.as_slice();
    assert_eq!(read_question(&mut from).expect("one"), question);
    assert_eq!(from, &message[length..], "what follows is left");

    let (first, text) = data.split_first().unwrap_or((&0, &[]));
    for answer in [ShimAnswer::Exit(*first), ShimAnswer::Text(text.to_vec())] {
        let mut message = answer.encode();
        message.extend_from_slice(data);
        let mut from = message.as_slice();
        let expected = match answer {
            ShimAnswer::Text(text) => {
                ShimAnswer::Text(text[..text.len().min(LONGEST_TEXT)].to_vec())
            }
            exit @ ShimAnswer::Exit(_) => exit,
        };
        assert_eq!(read_answer(&mut from).expect("one"), expected);
        assert_eq!(from, data, "what follows is left");
    }
}

/// Whose name is whose.
fn named(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (name, value) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let (name, value) = (OsStr::from_bytes(name), OsStr::from_bytes(value));
    let ours = parse_address(&address(name), name);
    assert!(matches!(ours, Some(Some(3..))), "{name:?}: {ours:?}");
    if name != value {
        assert_eq!(parse_address(&address(name), value), None, "{value:?}");
    }
    if let Some(Some(descriptor)) = parse_address(value, name) {
        assert!(descriptor > 2, "{value:?} is a standard stream");
        assert!(value.as_bytes().ends_with(name.as_bytes()));
    }
}
