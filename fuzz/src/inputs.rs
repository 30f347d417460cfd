//! Inputs without a fuzzer: the seeds of a target, and what becomes of them at random.

use std::fs;
use std::path::Path;

use fastrand::Rng;

const LONGEST: usize = 4_096;

type Texts = Vec<Vec<u8>>;

fn seeds(target: &str) -> Texts {
    let folder = Path::new("seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("a seed"))
        .collect()
}

/// The words of a dictionary, in libFuzzer's format: one in quotes on each line.
fn words(target: &str) -> Texts {
    let path = Path::new("dictionaries")
        .join(target)
        .with_extension("dict");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.lines().map(word).collect()
}

fn word(line: &str) -> Vec<u8> {
    let quoted = line
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let mut text = quoted.unwrap_or_else(|| panic!("{line} is not in quotes"));
    let mut word = Vec::new();
    while let Some(byte) = text.bytes().next() {
        let taken = match (byte, text.get(1..2)) {
            (b'\\', Some("x")) => {
                let digits = text.get(2..4).expect("two digits");
                word.push(u8::from_str_radix(digits, 16).expect("two digits"));
                4
            }
            (b'\\', Some(escaped)) => {
                word.extend_from_slice(escaped.as_bytes());
                2
            }
            _ => {
                word.push(byte);
                1
            }
        };
        text = text.get(taken..).expect("ASCII");
    }
    word
}

/// A few changes to one of them.
fn changed(rng: &mut Rng, seeds: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut input = rng.choice(seeds).expect("a seed").clone();
    for _ in 0..rng.usize(1..8) {
        let from = rng.usize(0..=input.len());
        let to = rng.usize(from..=input.len().min(from + 16));
        let part = match rng.u8(0..6) {
            0 => vec![rng.u8(..)],
            1 => input[from..to].repeat(rng.usize(2..5)),
            2 => rng.choice(seeds).expect("a seed").clone(),
            3 => Vec::new(),
            _ => rng.choice(words).expect("a word").clone(),
        };
        // Between, or in its place.
        let end = if rng.bool() { from } else { to };
        input.splice(from..end, part);
        input.truncate(LONGEST);
    }
    input
}

/// The seeds, and so many inputs made of them: the same ones every time, for a failure is no matter
/// of luck.
#[must_use]
pub fn inputs(target: &str, made: usize) -> Texts {
    let (mut all, words) = (seeds(target), words(target));
    let seeds = all.clone();
    let mut rng = Rng::with_seed(6);
    all.extend((0..made).map(|_| changed(&mut rng, &seeds, &words)));
    all
}
