//! What became of every host.

use std::fmt;
use std::time::Duration;

use crate::containers::Container;
use crate::failure::Failure;
use crate::progress::{STEPS, Step};

/// What became of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The new container is live, and the only one.
    Deployed,
    /// It failed before any container was touched.
    Unchanged,
    /// There was a new container, or may have been. It is gone, and the old one is live.
    RolledBack,
    /// The host has gone, and left us in the middle.
    Unknown,
}

impl Outcome {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Deployed => "deployed",
            Self::Unchanged => "unchanged",
            Self::RolledBack => "rolled back",
            Self::Unknown => "unknown",
        }
    }

    /// 2 is what options that cannot be understood give.
    fn code(self) -> u8 {
        match self {
            Self::Deployed => 0,
            Self::Unchanged => 1,
            Self::RolledBack => 3,
            Self::Unknown => 4,
        }
    }
}

/// One host.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) host: String,
    /// How many steps are done.
    pub(crate) done: usize,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
    /// What is live, as far as that is known.
    pub(crate) live: Option<Container>,
    pub(crate) is_known: bool,
    /// What went wrong, and in which step.
    pub(crate) failure: Option<(Option<Step>, Failure)>,
    pub(crate) notes: Vec<String>,
}

impl Row {
    fn state(&self) -> &'static str {
        match (self.outcome, &self.live) {
            (Outcome::Deployed, _) => "deployed",
            (Outcome::Unchanged, Some(_)) => "unchanged: runs what it ran before",
            (Outcome::Unchanged, None) if self.is_known => "unchanged: nothing runs, as before",
            (Outcome::Unchanged, None) => "unchanged: no container was touched",
            (Outcome::RolledBack, Some(_)) => "rolled back: the old container runs",
            (Outcome::RolledBack, None) => "rolled back: nothing runs, as before",
            (Outcome::Unknown, _) => "unknown: one container or two; the next deploy clears up",
        }
    }
}

/// All hosts.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) rows: Vec<Row>,
    /// The exit code that goes with the signal.
    pub(crate) interrupted: Option<u8>,
}

impl Summary {
    /// 0 if every host has the new container. Otherwise 130 or 143 after a signal, or the worst of
    /// 1 (unchanged), 3 (rolled back) and 4 (unknown).
    pub(crate) fn code(&self) -> u8 {
        let worst = self.rows.iter().map(|row| row.outcome).max();
        match (worst.map_or(0, Outcome::code), self.interrupted) {
            (0, _) => 0,
            (_, Some(signal)) => signal,
            (code, None) => code,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live = |row: &Row| match &row.live {
            Some(live) => (live.image.clone(), live.name.clone()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let widest = |title: &str, cell: &dyn Fn(&Row) -> usize| {
            let widest = self.rows.iter().map(cell).max();
            widest.unwrap_or(0).max(title.len())
        };
        let host = widest("host", &|row| row.host.len());
        let image = widest("image", &|row| live(row).0.len());
        let container = widest("container", &|row| live(row).1.len());
        writeln!(
            f,
            "{:host$}  steps  seconds  {:image$}  {:container$}  state",
            "host", "image", "container"
        )?;
        for row in &self.rows {
            let (its_image, its_container) = live(row);
            let steps = format!("{}/{}", row.done, STEPS.len());
            writeln!(
                f,
                "{:host$}  {steps:>5}  {:>7.2}  {its_image:image$}  {its_container:container$}  {}",
                row.host,
                row.took.as_secs_f64(),
                row.state(),
            )?;
            for note in &row.notes {
                writeln!(f, "{:host$}  {note}", "")?;
            }
            if let Some((step, failure)) = &row.failure {
                let step = step.map_or("begin".into(), |step| step.to_string());
                writeln!(f, "{:host$}  {step}: {failure}", "")?;
                for line in failure.said() {
                    writeln!(f, "{:host$}  | {line}", "")?;
                }
            }
        }
        Ok(())
    }
}
