//! The Docker API over the pool.
