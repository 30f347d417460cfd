//! What the examples share: servers to run on, lines, interrupts, measuring, and showing progress.

mod explain;
mod fleet;
mod interrupt;
mod lines;
mod measure;
mod progress;

pub use explain::explain;
pub use fleet::{Fleet, Member};
pub use interrupt::Interrupts;
pub use lines::{Line, Lines};
pub use measure::{Timings, quantile};
pub use progress::bar;

/// The programs in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
