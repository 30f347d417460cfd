//! How far a host has come, and what is shown of it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;

/// One of the steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// What is there, and what an earlier deploy has left is cleared away.
    Look,
    Fetch,
    Build,
    /// The new container beside the old one.
    Start,
    /// Until it is healthy.
    Wait,
    /// The new one in the place of the old one.
    Switch,
}

pub(crate) const STEPS: [Step; 6] = [
    Step::Look,
    Step::Fetch,
    Step::Build,
    Step::Start,
    Step::Wait,
    Step::Switch,
];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Step::Look => "look",
            Step::Fetch => "fetch",
            Step::Build => "build",
            Step::Start => "start",
            Step::Wait => "wait",
            Step::Switch => "switch",
        })
    }
}

/// Where lines are shown.
pub(crate) type Screen = Arc<dyn Fn(&str) + Send + Sync>;

/// How far a host has come. It outlives a step that is interrupted.
pub(crate) struct Progress {
    host: String,
    bar: ProgressBar,
    screen: Screen,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: Option<Step>,
    done: usize,
    notes: Vec<String>,
}

impl Progress {
    pub(crate) fn new(host: String, bar: ProgressBar, screen: Screen) -> Self {
        Self {
            host,
            bar,
            screen,
            state: Mutex::default(),
        }
    }

    pub(crate) fn begin(&self, step: Step) {
        self.state().begun = Some(step);
        self.bar.set_message(format!("{} {step}", self.host));
    }

    pub(crate) fn done(&self) {
        self.state().done += 1;
        self.bar.inc(1);
    }

    pub(crate) fn end(&self, word: &str) {
        self.bar
            .abandon_with_message(format!("{} {word}", self.host));
    }

    /// Shows a line of a build or a log.
    pub(crate) fn say(&self, line: &str) {
        (self.screen)(&format!("{} | {line}", self.host));
    }

    /// Shows what happened, and keeps it for the summary.
    pub(crate) fn note(&self, text: String) {
        (self.screen)(&format!("{}: {text}", self.host));
        self.state().notes.push(text);
    }

    /// The last step that was begun.
    pub(crate) fn begun(&self) -> Option<Step> {
        self.state().begun
    }

    /// How many steps are done, and the notes.
    pub(crate) fn sum(&self) -> (usize, Vec<String>) {
        let state = self.state();
        (state.done, state.notes.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
