//! A server process of ours, and everything that came from it.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::mark::Mark;
use crate::procs::{self, Process};
use crate::run::missing;
use crate::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(10);

/// A process in the foreground, started with a mark in its environment. Dropping it ends it and
/// all that it has started.
#[derive(Debug)]
pub(crate) struct Daemon {
    mark: Mark,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    /// Processes that were below a server which has been stopped. Nobody else knows them then.
    orphans: Vec<Process>,
}

impl Daemon {
    /// A daemon that is not running yet; `dir` is its own and makes its mark unique.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            mark: Mark::new(dir),
            state: Mutex::default(),
        }
    }

    /// To be put into the environment of the commands it runs.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Starts it, with an environment of nothing but PATH and the mark.
    pub(crate) fn start(&self, command: &mut Command, package: &str) {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env(Mark::NAME, self.mark.value())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}", missing(&program, package, &e)));
        let mut state = self.state();
        assert!(state.child.is_none(), "{program} is running already");
        state.child = Some(child);
    }

    /// How it ended, if it ended by itself.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        let mut state = self.state();
        let status = state.child.as_mut()?.try_wait().expect("wait for a child");
        if status.is_some() {
            state.child = None;
        }
        status
    }

    /// Its process id while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.state().child.as_ref().map(Child::id)
    }

    /// Ends the server process; what it has started lives on.
    pub(crate) fn stop(&self) {
        self.end_server(Signal::SIGTERM);
    }

    /// The direct children of the server, also of one that was stopped.
    pub(crate) fn children(&self) -> Vec<u32> {
        let mut state = self.state();
        state.orphans.retain(|process| process.is_alive());
        let mut found: Vec<u32> = state.orphans.iter().map(|process| process.pid).collect();
        if let Some(child) = &state.child {
            found.extend(procs::children(child.id()));
        }
        found
    }

    /// Everything that came from the server and runs, without the server itself: parents first.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = self.children();
        found.extend(procs::descendants(&found));
        // What was started for a connection that is gone belongs to nobody, but keeps the mark.
        let server = self.pid();
        for marked in self.mark.processes() {
            if Some(marked) != server && !found.contains(&marked) {
                found.push(marked);
            }
        }
        found
    }

    /// Kills everything, and sees it gone.
    pub(crate) fn end(&self) {
        self.end_server(Signal::SIGKILL);
        let gone = eventually(PATIENCE, || {
            let left = self.processes();
            for pid in &left {
                procs::kill(*pid);
            }
            left.is_empty()
        });
        // In a drop while unwinding a second panic would abort the whole test run.
        if !gone && !std::thread::panicking() {
            panic!("processes survive SIGKILL: {:?}", self.processes());
        }
    }

    fn end_server(&self, signal: Signal) {
        let mut state = self.state();
        let Some(mut child) = state.child.take() else {
            return;
        };
        // Stopped, it starts no further process between the look and its end.
        procs::pause(child.id());
        let below = procs::children(child.id());
        state
            .orphans
            .extend(below.into_iter().filter_map(Process::find));
        procs::send_signal(child.id(), signal);
        procs::resume(child.id());
        let ended = eventually(PATIENCE, || !matches!(child.try_wait(), Ok(None)));
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}
