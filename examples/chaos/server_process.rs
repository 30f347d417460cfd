//! The process with the servers, as the one with the pool sees it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context as _;

use crate::host::HostInfo;
use crate::schedule::Strike;
use crate::supervisor::{Left, Order, Struck, Word};

/// Two dozen servers have to start, on a machine that may be busy.
const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(60);

/// The stage, which ends with this.
pub(crate) struct ServerProcess {
    child: Child,
    orders: Option<ChildStdin>,
    words: Receiver<Word>,
}

/// What the stage says in the end.
pub(crate) struct Ended {
    pub(crate) struck: Vec<Struck>,
    pub(crate) failed: Vec<String>,
    pub(crate) left: Vec<Left>,
}

impl ServerProcess {
    pub(crate) fn start(folder: &Path) -> anyhow::Result<(Self, Vec<HostInfo>)> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .arg("--supervisor")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the servers")?;
        let (said, words) = channel();
        let lines = child.stdout.take().context("its output is piped")?;
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                // What is no word is noticed by those who wait for one.
                let Ok(word) = serde_json::from_str(&line) else {
                    return;
                };
                if said.send(word).is_err() {
                    return;
                }
            }
        });
        let mut server_process = Self {
            orders: child.stdin.take(),
            child,
            words,
        };
        match server_process.words.recv_timeout(START) {
            Ok(Word::Ready(hosts)) => Ok((server_process, hosts)),
            other => {
                server_process.orders = None;
                anyhow::bail!("the servers do not start: {other:?}")
            }
        }
    }

    pub(crate) fn begin(&mut self, schedule: Vec<Strike>) -> anyhow::Result<()> {
        self.order(&Order::Begin(schedule))
    }

    /// Ends everything, and waits for what it says then.
    pub(crate) fn end(mut self) -> anyhow::Result<Ended> {
        self.order(&Order::End)?;
        match self
            .words
            .recv_timeout(END)
            .context("the servers do not end")?
        {
            Word::Ended {
                struck,
                failed,
                left,
            } => Ok(Ended {
                struck,
                failed,
                left,
            }),
            Word::Ready(_) => anyhow::bail!("the servers have started again"),
        }
    }

    fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        let orders = self.orders.as_mut().context("the servers have ended")?;
        let line = serde_json::to_string(order)? + "\n";
        orders
            .write_all(line.as_bytes())
            .context("the servers have ended")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // The end of its input ends it, with all that it has started.
        self.orders = None;
        self.child.wait().ok();
    }
}
