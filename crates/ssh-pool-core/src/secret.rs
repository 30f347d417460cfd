//! A secret text, such as a password: wiped on drop, never printed.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret text.
///
/// Clones share one allocation, so that there is one place in memory to wipe. Equality and hash
/// go by content: a secret is part of the key under which connections are shared, and callers who
/// hold different passwords must not meet on one connection.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The secret itself. Callers must not store or print it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not even the length: that is a hint too.
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
        assert_eq!(
            format!("{:?}", Some(Secret::new("hunter2"))),
            "Some(Secret(…))"
        );
    }

    #[test]
    fn equality_and_hash_go_by_content() {
        let mut set = HashSet::new();
        assert!(set.insert(Secret::new("one")));
        assert!(!set.insert(Secret::new(String::from("one"))));
        assert!(set.insert(Secret::new("two")));
        assert_eq!(Secret::new("one").expose(), "one");
    }
}
