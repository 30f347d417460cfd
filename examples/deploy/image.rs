//! Building an image, and taking away what a build that failed has left.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::models::ImageSummary;
use bollard::query_parameters::{ListImagesOptions, RemoveImageOptions};
use ssh_pool::Host;

use crate::answer::Answer;
use crate::app::App;
use crate::containers;
use crate::context;
use crate::daemon::{Daemon, gone};
use crate::failure::{Failure, Said};
use crate::progress::Progress;

const BUILD: Duration = Duration::from_secs(900);

/// One build, or none yet. It outlives a build that is dropped in the middle.
#[derive(Debug, Default)]
pub(crate) struct Build(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The images without a name that were there before.
    before: HashSet<String>,
    /// The beginnings of the ids that the build has spoken of.
    seen: HashSet<String>,
    /// The container of the step that runs.
    step: Option<String>,
}

impl Build {
    /// Builds the image of a commit in the mirror `dir`.
    ///
    /// Sent once: a build may have been received, and its context is gone. Dropped in the middle,
    /// the stream is closed, and the daemon gives up the build.
    pub(crate) async fn run(
        &self,
        (host, dir): (&Host, &str),
        daemon: &Daemon,
        app: &App,
        commit: &str,
        progress: &Progress,
    ) -> Result<String, Failure> {
        let before = nameless(daemon).await?;
        self.state().before = before.into_iter().collect();
        let (context, mut fault) = context::archive(host, dir, commit).await?;
        // No step gets a network, and no container of a step stays.
        let query = format!(
            "t={}&labels={}&networkmode=none&rm=1&forcerm=1",
            app.image(commit),
            app.label_in_query(),
        );
        let build = async {
            let answer = Answer::of_build(daemon, &query, context).await?;
            self.follow(answer, progress).await
        };
        let built = match tokio::time::timeout(BUILD, build).await {
            Ok(built) => built,
            Err(_) => Err(Failure::TooLong {
                doing: "the build",
                after: BUILD,
            }),
        };
        // If the archive has failed, it is to blame for what the daemon says.
        built.map_err(|failure| fault.try_recv().unwrap_or(failure))?;

        let image = app.image(commit);
        let made = daemon.again("inspect the image", async |d: Docker| {
            d.inspect_image(&image).await
        });
        let config = made.await?.config.unwrap_or_default();
        if app.check.is_none() && config.healthcheck.is_none() {
            return Err(Failure::Build {
                why: "the image cannot say whether it is healthy: give its Dockerfile a \
                      HEALTHCHECK, or use --check"
                    .into(),
                said: Vec::new(),
            });
        }
        Ok(image)
    }

    /// Reads what the daemon says to the end. That is a good one only if there is an image.
    async fn follow(&self, mut answer: Answer, progress: &Progress) -> Result<(), Failure> {
        let mut said = Said::default();
        let mut made = false;
        let failed = |why: String, said: &Said| {
            Err(Failure::Build {
                why,
                said: said.last(),
            })
        };
        while let Some(answer) = answer.next_info().await? {
            if let Some(error) = answer.error_detail {
                return failed(error.message.unwrap_or_default(), &said);
            }
            made |= answer.aux.is_some_and(|image| image.id.is_some());
            // The builder has a colour for what a step writes to standard error.
            let text = answer.stream.unwrap_or_default();
            let text = text.replace("\u{1b}[91m", "").replace("\u{1b}[0m", "");
            for line in said.add(text.as_bytes()).await {
                self.state().hear(&line);
                progress.say(&line);
            }
        }
        if made {
            Ok(())
        } else {
            failed("it ended without an image".into(), &said)
        }
    }

    /// Takes away what a build has left which came to no good end: the container of a step, and
    /// images without a name. Says how much there was.
    ///
    /// The daemon does not tell whose such images are: ours are new, and the build has spoken of
    /// them, or of what they are made from. There may be several steps in between, which the daemon
    /// made after the connection was lost.
    pub(crate) async fn clear(&self, daemon: &Daemon) -> Result<usize, Failure> {
        // The daemon takes it away too, when it gives up the build, but in its own time.
        let step = self.state().step.clone();
        let mut changes = 0;
        if let Some(step) = step {
            changes += usize::from(containers::remove(daemon, &step).await?);
        }
        let now = nameless(daemon).await?;
        let parents = parents(daemon).await?;
        let ours: Vec<String> = {
            let state = self.state();
            now.into_iter()
                .filter(|id| !state.before.contains(id))
                .filter(|id| state.has_spoken_of(id, &parents))
                .collect()
        };
        for id in &ours {
            changes += usize::from(remove(daemon, id).await?);
        }
        Ok(changes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The classic builder says what it makes, as ` ---> Running in 7b4648ec7fe5` and
    /// ` ---> 130441db0057`.
    fn hear(&mut self, line: &str) {
        let Some(what) = line.strip_prefix(" ---> ") else {
            return;
        };
        self.step = what.strip_prefix("Running in ").map(str::to_owned);
        if self.step.is_none() {
            self.seen.insert(what.trim().to_owned());
        }
    }

    /// Whether the build has spoken of that image, or of one that it is made from.
    fn has_spoken_of(&self, id: &String, parents: &HashMap<String, String>) -> bool {
        let seen = |id: &String| {
            let id = id.trim_start_matches("sha256:");
            self.seen.iter().any(|seen| id.starts_with(seen.as_str()))
        };
        std::iter::successors(Some(id), |id| parents.get(*id)).any(seen)
    }
}

/// The images that have no name and are no part of another.
async fn nameless(daemon: &Daemon) -> Result<Vec<String>, Failure> {
    let options = ListImagesOptions {
        filters: Some(HashMap::from([(
            "dangling".to_owned(),
            vec!["true".to_owned()],
        )])),
        ..ListImagesOptions::default()
    };
    let found = list(daemon, options).await?;
    Ok(found.into_iter().map(|image| image.id).collect())
}

/// What each image is made from, images that are part of another among them.
async fn parents(daemon: &Daemon) -> Result<HashMap<String, String>, Failure> {
    let options = ListImagesOptions {
        all: true,
        ..ListImagesOptions::default()
    };
    let found = list(daemon, options).await?;
    Ok(found.into_iter().map(|i| (i.id, i.parent_id)).collect())
}

/// Takes away all images of an app but one, and says how many.
pub(crate) async fn keep_only(
    daemon: &Daemon,
    app: &App,
    image: Option<&str>,
) -> Result<usize, Failure> {
    let options = ListImagesOptions {
        filters: Some(app.filter()),
        ..ListImagesOptions::default()
    };
    let mut others = list(daemon, options).await?;
    others.retain(|other| Some(other.id.as_str()) != image);
    let mut changes = 0;
    for other in &others {
        changes += usize::from(remove(daemon, &other.id).await?);
    }
    Ok(changes)
}

async fn list(daemon: &Daemon, options: ListImagesOptions) -> Result<Vec<ImageSummary>, Failure> {
    let list = async |d: Docker| d.list_images(Some(options.clone())).await;
    daemon.again("list images", list).await
}

/// Removes an image, and says whether it did. Without force: one that somebody uses stays.
async fn remove(daemon: &Daemon, id: &str) -> Result<bool, Failure> {
    let options = None::<RemoveImageOptions>;
    let remove = async |d: Docker| d.remove_image(id, options.clone(), None).await;
    let removed = daemon.again("remove an image", remove).await;
    gone(removed, false)
}
