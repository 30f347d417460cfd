//! What is done on one host, and what becomes of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ssh_pool_examples::Member;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::containers::{Containers, Seen};
use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::health;
use crate::image::Build;
use crate::progress::{Progress, Step};
use crate::source;
use crate::summary::{Outcome, Row};

/// A host gets this long to be brought in order after a failure, …
const TIDY: Duration = Duration::from_secs(60);
/// … and is looked at again after this time, where something may still be going on.
const SETTLE: Duration = Duration::from_secs(1);
const TURNS: u32 = 5;

/// One host, and where things are on it.
pub(crate) struct Place {
    pub(crate) member: Member,
    /// The daemon's socket, if it is not the usual one.
    pub(crate) socket: Option<PathBuf>,
    /// The mirror of the repository.
    pub(crate) dir: String,
}

/// A deploy to one host.
pub(crate) struct Deploy<'a> {
    place: &'a Place,
    app: &'a App,
    progress: &'a Progress,
    /// How often somebody has pressed Ctrl-C.
    interrupts: watch::Receiver<u32>,
    daemon: Option<Daemon>,
    build: Build,
    /// The new container, once it is there.
    made: Option<String>,
}

impl<'a> Deploy<'a> {
    pub(crate) fn new(
        place: &'a Place,
        app: &'a App,
        progress: &'a Progress,
        interrupts: watch::Receiver<u32>,
    ) -> Self {
        Self {
            place,
            app,
            progress,
            interrupts,
            daemon: None,
            build: Build::default(),
            made: None,
        }
    }

    /// Deploys. Whatever happens, the host has one live container afterwards, the old one or the
    /// new one, and nothing else of ours: or the row says that nobody knows.
    pub(crate) async fn run(mut self) -> Row {
        let began = Instant::now();
        let (failure, seen) = match self.steps().await {
            Ok(seen) => (None, Some(seen)),
            Err(failure) => {
                let seen = self.back(&failure).await;
                (Some(failure), seen)
            }
        };
        let begun = self.progress.begun();
        let live = seen.as_ref().and_then(|seen| seen.live.as_ref());
        let outcome = match (&failure, &seen) {
            (None, _) => Outcome::Deployed,
            // It was switched, and then something went wrong.
            (_, Some(_)) if live.is_some_and(|live| Some(&live.id) == self.made.as_ref()) => {
                Outcome::Deployed
            }
            // Before that step no container is touched.
            _ if begun < Some(Step::Start) => Outcome::Unchanged,
            (_, Some(_)) => Outcome::RolledBack,
            (_, None) => Outcome::Unknown,
        };
        let (done, notes) = self.progress.sum();
        self.progress.end(outcome.word());
        Row {
            host: self.place.member.name.clone(),
            done,
            took: began.elapsed(),
            outcome,
            live: live.cloned(),
            is_known: seen.is_some(),
            failure: failure.map(|failure| (begun, failure)),
            notes,
        }
    }

    /// Step by step; the first that fails is the last. What takes long can be interrupted, for the
    /// pool ends what is dropped in the middle. Requests that make or change something are short,
    /// and are not left half way.
    async fn steps(&mut self) -> Result<Seen, Failure> {
        let (place, app, progress) = (self.place, self.app, self.progress);
        let host = &place.member.host;

        progress.begin(Step::Look);
        let connect = Daemon::connect(host, place.socket.as_deref());
        let daemon = self.unless_interrupted(connect).await?;
        self.daemon = Some(daemon.clone());
        let containers = Containers::new(&daemon, app);
        let cleared = containers.tidy().await?.changes;
        if cleared > 0 {
            progress.note(format!(
                "an earlier deploy had left {cleared} things to put right"
            ));
        }
        progress.done();

        progress.begin(Step::Fetch);
        let fetch = source::fetch(host, &place.dir, app);
        let commit = self.unless_interrupted(fetch).await?;
        progress.done();

        progress.begin(Step::Build);
        let build = (self.build).run((host, &place.dir), &daemon, app, &commit, progress);
        let image = self.unless_interrupted(build).await?;
        progress.done();

        progress.begin(Step::Start);
        let id = containers.start_candidate(&image).await?;
        self.made = Some(id.clone());
        progress.done();

        progress.begin(Step::Wait);
        let healthy = health::wait(&daemon, &id, app.patience, progress);
        self.unless_interrupted(healthy).await?;
        progress.done();

        progress.begin(Step::Switch);
        let seen = containers.switch(&id).await?;
        progress.done();
        Ok(seen)
    }

    async fn unless_interrupted<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            biased;
            _ = interrupts.wait_for(|count| *count > 0) => Err(Failure::Interrupted),
            done = work => done,
        }
    }

    /// After a failure: finds out what is live, and takes away the rest. `None` when that is not
    /// known.
    async fn back(&self, failure: &Failure) -> Option<Seen> {
        // The host did not answer, or has been looked at just now.
        let daemon = self.daemon.as_ref()?;
        let mut interrupts = self.interrupts.clone();
        let tidied = tokio::select! {
            tidied = timeout(TIDY, self.tidy(daemon, failure.is_open())) => tidied,
            _ = interrupts.wait_for(|count| *count > 1) => Ok(Err(Failure::Interrupted)),
        };
        let why = match tidied {
            Ok(Ok(seen)) => return Some(seen),
            Ok(Err(why)) => why,
            Err(_) => Failure::TooLong {
                doing: "clear up",
                after: TIDY,
            },
        };
        self.progress.note(format!("not cleared up: {why}"));
        None
    }

    /// A request whose answer is lost may be worked on after the next one is answered. So where
    /// that can be, the host counts as in order when there was nothing to do for a while.
    async fn tidy(&self, daemon: &Daemon, open: bool) -> Result<Seen, Failure> {
        let containers = Containers::new(daemon, self.app);
        let mut turn = 1;
        loop {
            let mut seen = containers.tidy().await?;
            seen.changes += self.build.clear(daemon).await?;
            if !open || turn == TURNS || turn > 1 && seen.changes == 0 {
                return Ok(seen);
            }
            turn += 1;
            sleep(SETTLE).await;
        }
    }
}
