//! The two sides, beside each other.

use std::fmt;

use crate::fault::Fault;
use crate::tally::{Count, Tally};

pub(crate) struct Table<'a>(pub(crate) &'a [Tally]);

/// A row of the whole: its name, and its number.
type Row = (&'static str, fn(&Count) -> f64);

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of commands are far below 2^52"
)]
const ROWS: [Row; 19] = [
    ("commands asked", |c| c.asked as f64),
    ("under way at a fault", |c| c.under_way as f64),
    ("succeeded", |c| c.succeeded as f64),
    ("failed", |c| c.failed as f64),
    ("  without having started", |c| c.never_started as f64),
    ("  in doubt, and not begun", |c| c.in_doubt_not_begun as f64),
    ("  though they had begun", |c| c.answer_lost as f64),
    ("  and the caller is told which", |c| c.told as f64),
    ("hung past the limit", |c| c.hung as f64),
    ("ran twice", |c| c.ran_twice as f64),
    ("  and called a success", |c| c.ran_twice_in_silence as f64),
    ("tried again", |c| c.retries as f64),
    ("stale control sockets", |c| c.stale_sockets as f64),
    ("left behind", |c| c.left_behind as f64),
    ("extra logins", |c| c.extra_logins as f64),
    ("lines of noise", |c| c.noise as f64),
    ("median, ms", |c| c.p50_ms),
    ("p99, ms", |c| c.p99_ms),
    ("all rounds, s", |c| c.seconds),
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
        write!(f, "{:20}", "")?;
        for tally in self.0 {
            write!(f, " | {:47}", tally.side)?;
        }
        write!(f, "\n{:20}", "")?;
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
            write!(f, "{fault:20}")?;
            for count in counts {
                write!(f, " | {:5}", count.asked)?;
                for (name, number) in COLUMNS {
                    write!(f, " {:1$}", number(count), name.len().max(5))?;
                }
            }
            writeln!(f)?;
        }
        write!(f, "\n{:30}", "all")?;
        for tally in self.0 {
            write!(f, " {:>10}", tally.side)?;
        }
        writeln!(f)?;
        for (name, number) in ROWS {
            write!(f, "{name:30}")?;
            for tally in self.0 {
                write!(f, " {:10.0}", number(&tally.total))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
