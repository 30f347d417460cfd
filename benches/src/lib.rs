//! What the measurements share: fair order, medians, and a report that can be printed, drawn and
//! read by programs.

pub mod order;
pub mod paired;
pub mod report;
pub mod stats;
