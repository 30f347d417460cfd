//! The two sides, beside each other.

use std::fmt;

use crate::fault::Fault;
use crate::tally::{Count, Tally};

pub(crate) struct Table<'a>(pub(crate) &'a [Tally]);

/// A row of the whole: its name, and its number with so many decimals.
type Row = (&'static str, fn(&Count) -> f64, usize);

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of commands are far below 2^52"
)]
const ROWS: [Row; 18] = [
    ("commands asked", |c| c.asked as f64, 0),
    ("succeeded", |c| c.succeeded as f64, 0),
    ("failed", |c| c.failed as f64, 0),
    ("  without having started", |c| c.never_started as f64, 0),
    ("  known to be in doubt", |c| c.in_doubt as f64, 0),
    ("    … had not begun", |c| c.in_doubt_not_begun as f64, 0),
    ("  though they had begun", |c| c.answer_lost as f64, 0),
    ("hung past the limit", |c| c.hung as f64, 0),
    ("ran twice", |c| c.ran_twice as f64, 0),
    (
        "  and nobody was told",
        |c| c.ran_twice_in_silence as f64,
        0,
    ),
    ("tried again", |c| c.retries as f64, 0),
    ("stale control sockets", |c| c.stale_sockets as f64, 0),
    ("left behind", |c| c.left_behind as f64, 0),
    ("extra logins", |c| c.extra_logins as f64, 0),
    ("lines of noise", |c| c.noise as f64, 0),
    ("median, ms", |c| c.p50_ms, 0),
    ("p99, ms", |c| c.p99_ms, 0),
    ("all rounds, s", |c| c.seconds, 1),
];

/// A column for each fault.
type Column = (&'static str, fn(&Count) -> usize);

const COLUMNS: [Column; 7] = [
    ("ok", |c| c.succeeded),
    ("failed", |c| c.failed),
    ("unrun", |c| c.never_started),
    ("hung", |c| c.hung),
    ("twice", |c| c.ran_twice),
    ("stale", |c| c.stale_sockets),
    ("left", |c| c.left_behind),
];

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:22}", "")?;
        for tally in self.0 {
            write!(f, " | {:47}", tally.side)?;
        }
        write!(f, "\n{:22}", "")?;
        for _ in self.0 {
            write!(f, " | {:>5}", "asked")?;
            for (name, _) in COLUMNS {
                write!(f, " {name:>5}")?;
            }
        }
        writeln!(f)?;
        for fault in Fault::ALL {
            let counts: Vec<_> = self.0.iter().filter_map(|t| t.faults.get(&fault)).collect();
            if counts.is_empty() {
                continue;
            }
            write!(f, "{fault:22}")?;
            for count in counts {
                write!(f, " | {:5}", count.asked)?;
                for (name, number) in COLUMNS {
                    write!(f, " {:1$}", number(count), name.len().max(5))?;
                }
            }
            writeln!(f)?;
        }
        write!(f, "\n{:28}", "all")?;
        for tally in self.0 {
            write!(f, " {:>10}", tally.side)?;
        }
        writeln!(f)?;
        for (name, number, decimals) in ROWS {
            write!(f, "{name:28}")?;
            for tally in self.0 {
                write!(f, " {:10.decimals$}", number(&tally.total))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
