//! What the examples share: measuring, and showing progress.

mod measure;
mod progress;

pub use measure::{Timings, quantile};
pub use progress::bar;
