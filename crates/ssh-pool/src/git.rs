//! The stock git over the pool.
