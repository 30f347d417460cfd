//! A progress bar that stays away where nobody looks.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `length` steps, on standard error if that is a terminal.
#[must_use]
pub fn bar(length: usize, message: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64).with_message(message.to_owned());
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
