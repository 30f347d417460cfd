//! What is shown, and the one thread that shows it.

use std::io::{self, Write};

use tokio::sync::{mpsc, oneshot};

/// Lines that wait for the terminal. More than these, of at most [`LONGEST`] bytes each, are never
/// kept: who has another one waits.
pub(crate) const QUEUE: usize = 256;
/// Bytes of a line that are shown.
pub(crate) const LONGEST: usize = 16 << 10;

/// One line for somebody to see.
pub(crate) enum Shown {
    /// Of a followed file: to standard output.
    Line(String),
    /// About it: to standard error.
    Note(String),
}

/// Why nothing more is shown.
#[derive(Debug)]
pub(crate) enum Full {
    /// All the lines that were asked for.
    Enough,
    /// Nobody follows anything any more.
    Silence,
    /// Nobody looks: `logs … | head` has ended.
    Unread(io::Error),
}

/// Where it is shown.
pub(crate) struct Screen {
    pub(crate) lines: Box<dyn Write + Send>,
    pub(crate) notes: Box<dyn Write + Send>,
}

impl Screen {
    /// Standard output and standard error.
    pub(crate) fn terminal() -> Self {
        Self {
            lines: Box::new(io::BufWriter::new(io::stdout())),
            notes: Box::new(io::stderr()),
        }
    }

    /// Shows what comes, up to `most` lines, on a thread of its own: a terminal that is held
    /// (Ctrl-S) would keep a runtime from ending. Nobody waits for this thread.
    pub(crate) fn show(
        mut self,
        mut queue: mpsc::Receiver<Shown>,
        most: Option<u64>,
    ) -> io::Result<oneshot::Receiver<Full>> {
        let (tell, told) = oneshot::channel();
        let show = move || {
            let full = self.run(&mut queue, most).unwrap_or_else(Full::Unread);
            // Before anybody hears of it: who still has a line need not wait.
            drop(queue);
            // Who has gone does not want to know.
            tell.send(full).ok();
        };
        std::thread::Builder::new()
            .name("screen".into())
            .spawn(show)?;
        Ok(told)
    }

    fn run(
        &mut self,
        queue: &mut mpsc::Receiver<Shown>,
        most: Option<u64>,
    ) -> Result<Full, io::Error> {
        let mut count = 0;
        while let Some(shown) = queue.blocking_recv() {
            match shown {
                Shown::Line(line) => {
                    writeln!(self.lines, "{line}")?;
                    count += 1;
                    if queue.is_empty() || Some(count) == most {
                        self.lines.flush()?;
                    }
                }
                Shown::Note(note) => {
                    self.lines.flush()?;
                    writeln!(self.notes, "{note}")?;
                }
            }
            if Some(count) == most {
                return Ok(Full::Enough);
            }
        }
        self.lines.flush()?;
        Ok(Full::Silence)
    }
}
