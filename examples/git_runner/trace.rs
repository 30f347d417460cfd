//! What strace has seen.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// The successful calls of `execve` and `bind`, a line each.
pub(crate) struct Trace(Vec<String>);

impl Trace {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(path).context("no trace")?;
        let text = String::from_utf8_lossy(&bytes);
        let calls = text.lines().filter(|line| line.ends_with("= 0"));
        Ok(Self(calls.map(str::to_owned).collect()))
    }

    /// Every program, by its file.
    fn programs(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|line| {
            let (_, rest) = line.split_once("execve(\"")?;
            Some(rest.split_once('"')?.0)
        })
    }

    pub(crate) fn all_executed(&self) -> usize {
        self.programs().count()
    }

    /// How often a program of that name was executed.
    pub(crate) fn executed(&self, name: &str) -> usize {
        let named = |path: &&str| Path::new(path).file_name().is_some_and(|file| file == name);
        self.programs().filter(named).count()
    }

    /// Unix sockets that got a name in the file system. An abstract one is shown with an `@`.
    pub(crate) fn socket_files(&self) -> Vec<&str> {
        let bound = |line: &&String| line.contains("bind(") && line.contains("sun_path=\"");
        self.0.iter().filter(bound).map(String::as_str).collect()
    }
}
