//! Who goes first.

use std::hash::{BuildHasher, RandomState};

/// The same items in a random order, another one in each run: whoever always goes second finds the
/// machine as the first has left it.
#[must_use]
pub fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    let random = RandomState::new();
    let mut drawn: Vec<T> = Vec::new();
    while !items.is_empty() {
        let draw = random.hash_one(items.len()) % items.len() as u64;
        drawn.push(items.swap_remove(usize::try_from(draw).unwrap_or_default()));
    }
    drawn
}
