//! What the server knows: which commands began, which came to their end, and how often.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::Context as _;
use ssh_pool_tests::{TempDir, TestUser};

/// A command, by its round and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) round: usize,
    pub(crate) number: usize,
}

impl Id {
    /// Every other command is about a repository, the rest about containers.
    pub(crate) fn is_git(self) -> bool {
        self.number.is_multiple_of(2)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.round, self.number)
    }
}

/// A file on the server that every command writes to, at its beginning and at its end.
#[derive(Debug)]
pub(crate) struct Ledger {
    _folder: TempDir,
    path: PathBuf,
}

impl Ledger {
    pub(crate) fn new(user: &TestUser) -> anyhow::Result<Self> {
        let folder = TempDir::new();
        let path = folder.path().join("ledger");
        File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        user.own(&path);
        Ok(Self {
            _folder: folder,
            path,
        })
    }

    /// The script of a command: a little of what git or docker do. A line of a few bytes is one
    /// write at the end of the file (O_APPEND), so lines do not mix. Between braces a script that
    /// was cut off in the middle does nothing.
    pub(crate) fn script(&self, id: Id) -> String {
        let path = self.path.display();
        // Of different lengths, or they would all end at once.
        let centiseconds = 10 + id.number * 7 % 40;
        let (before, after) = if id.is_git() {
            (
                "remote: Enumerating objects: 12, done.",
                "HEAD is now at 3f2a9c1 release",
            )
        } else {
            ("CONTAINER ID   IMAGE   STATUS", "0c9f41d2a7be   app   Up")
        };
        let work = format!("echo '{before}'; sleep 0.{centiseconds}; echo '{after}'");
        format!(
            "{{ echo 's {id}' >> '{path}'\n{work}\necho 'e {id}' >> '{path}'\necho 'done {id}'\n}}\n"
        )
    }

    /// How many commands of that round have begun, and how many of those have not ended.
    pub(crate) fn progress(&self, round: usize) -> (usize, usize) {
        let text = self.text();
        let count = |kind: &str| {
            let beginning = format!("{kind} {round}-");
            (text.lines())
                .filter(|line| line.starts_with(&beginning))
                .count()
        };
        let begun = count("s");
        (begun, begun.saturating_sub(count("e")))
    }

    /// How often each command has begun.
    pub(crate) fn starts(&self) -> HashMap<String, usize> {
        let mut starts = HashMap::new();
        for line in self.text().lines() {
            if let Some(id) = line.strip_prefix("s ") {
                *starts.entry(id.to_owned()).or_default() += 1;
            }
        }
        starts
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }
}

/// Whether this is the answer to that command, and not to another.
pub(crate) fn answers(stdout: &[u8], id: Id) -> bool {
    stdout.ends_with(format!("\ndone {id}\n").as_bytes())
}
