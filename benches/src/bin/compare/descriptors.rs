//! How many files a process may have open.

use anyhow::ensure;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as it goes, and sees to it that so many are allowed.
pub(crate) fn want(count: u64) -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    ensure!(
        most >= count,
        "{most} open files are allowed, {count} are needed: raise it with `ulimit -Hn`, as root"
    );
    Ok(())
}
