//! What became of each call, written down as it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::host::millis;
use crate::work::Way;

/// What the caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// It has ended well, with its own output.
    Ok,
    /// It has ended, and not as it should.
    Wrong,
    /// An error that says that it has not run.
    NotStarted,
    /// An error that says that it may have run.
    Unknown,
    /// Nothing: the caller did not wait for it.
    Dropped,
    /// Nothing, though its time and the allowance were over.
    Hung,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) host: usize,
    pub(crate) way: Way,
    pub(crate) fate: Fate,
    /// How often it was tried, as far as is known: the most that the ledger may hold.
    pub(crate) attempts: u32,
    /// An error that says that a deadline passed.
    pub(crate) timed_out: bool,
    /// Milliseconds since 1970.
    pub(crate) began: u64,
    pub(crate) took: u64,
    /// Milliseconds that it had.
    pub(crate) limit: u64,
    /// What is there to be read of it.
    pub(crate) text: Option<String>,
}

impl Record {
    pub(crate) fn ended(&self) -> u64 {
        self.began + self.took
    }

    /// Whether it ended later than `allowance` after its time.
    pub(crate) fn is_late(&self, allowance: Duration) -> bool {
        self.fate == Fate::Hung || self.took > self.limit + millis(allowance)
    }
}

/// All records, in a file: in memory they would be taken for a leak of the pool.
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

impl Journal {
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("journal");
        let file = File::create(&path).context("cannot make the journal")?;
        Ok(Self {
            path,
            file: Mutex::new(BufWriter::new(file)),
        })
    }

    pub(crate) fn write(&self, record: &Record) -> anyhow::Result<()> {
        let line = serde_json::to_string(record)? + "\n";
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())
            .context("cannot write the journal")
    }

    /// Everything that was written.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<Record>> {
        (self.file.lock().unwrap_or_else(PoisonError::into_inner)).flush()?;
        let lines = BufReader::new(File::open(&self.path)?).lines();
        lines
            .map(|line| Ok(serde_json::from_str(&line?)?))
            .collect()
    }
}
