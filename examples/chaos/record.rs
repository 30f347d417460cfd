//! What became of each call, written down as it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use ssh_pool::Error;

use crate::caller::LIMIT;
use crate::host::{ALLOWANCE, BUSY, millis};
use crate::work::Way;

/// What the caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StreamState {
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

/// Whose doing an error says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Blame {
    /// A login was refused.
    Login,
    /// What answered does not speak SSH.
    NotSsh,
    /// The way to the server, or the server.
    Way,
    /// This program, or the pool: no fault makes such an error.
    Us,
}

impl Blame {
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::AuthRejected { .. } => Self::Login,
            Error::NotSsh { .. } => Self::NotSsh,
            Error::Repeated { source, .. } => Self::of(source),
            Error::Resolve { .. }
            | Error::Connect { .. }
            | Error::Throttled { .. }
            | Error::KeyExchange { .. }
            | Error::AuthLost { .. }
            | Error::ClosedAfterLogin { .. }
            | Error::Timeout { .. }
            | Error::ConnectionLost { .. }
            | Error::NotKilled { .. } => Self::Way,
            _ => Self::Us,
        }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) host: usize,
    pub(crate) way: Way,
    pub(crate) stream_state: StreamState,
    /// How often it was tried, as far as is known: the most that the ledger may hold.
    pub(crate) attempts: u32,
    /// An error that says that a deadline passed.
    pub(crate) timed_out: bool,
    /// What kind of error it was.
    pub(crate) blame: Option<Blame>,
    /// Milliseconds since 1970.
    pub(crate) began: u64,
    /// The same: read after the end, so that what caused it was there before.
    pub(crate) ended: u64,
    pub(crate) took: u64,
    /// Milliseconds that it had.
    pub(crate) limit: u64,
    /// What is there to be read of it.
    pub(crate) text: Option<String>,
}

impl Record {
    /// Whether it had less time than it needed.
    pub(crate) fn is_short(&self) -> bool {
        self.timed_out && self.limit < millis(LIMIT)
    }

    /// Whether it ended later than it may after its time: `kill_grace` and more for what has to be
    /// ended on the server, and nothing for what has not been sent.
    pub(crate) fn is_late(&self, kill_grace: Duration) -> bool {
        let allowance = match self.stream_state {
            StreamState::NotStarted => BUSY,
            _ => kill_grace + ALLOWANCE,
        };
        self.stream_state == StreamState::Hung || self.took > self.limit + millis(allowance)
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
