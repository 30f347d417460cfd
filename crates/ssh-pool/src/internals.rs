//! What lies under the public interface, for fuzzing: what a shim and the pool's process say to each
//! other, and what the arguments of an ssh mean.
//!
//! Behind the feature `internals`, which only the crate `fuzz` asks for. It is no interface: it
//! changes whenever the inside does.

pub use crate::shim::internals::{
    Asked, Question, ShimAnswer, address, parse_address, parse_arguments, read_answer,
    read_question,
};
