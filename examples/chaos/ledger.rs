//! What the servers know: which commands began there, and how often.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// What a command does before anything else. A line of a few bytes is one write at the end of the
/// file (O_APPEND), so lines do not mix.
pub(crate) fn entry(id: &str, ledger: &Path) -> String {
    format!("echo '{id}' >> '{}'", ledger.display())
}

/// How often each command has begun on a host.
pub(crate) fn read(ledger: &Path) -> anyhow::Result<HashMap<String, usize>> {
    let text = fs::read_to_string(ledger);
    let text = text.with_context(|| format!("cannot read {}", ledger.display()))?;
    let mut begun = HashMap::new();
    for id in text.lines() {
        *begun.entry(id.to_owned()).or_default() += 1;
    }
    Ok(begun)
}
