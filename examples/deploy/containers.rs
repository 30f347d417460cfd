//! The containers of an app on one host, and which of them is live.
//!
//! The names tell, so that there is nothing else to go wrong:
//!
//! ```text
//! shop-7              live: of those without a suffix the one with the greatest number
//! shop-8-candidate    started beside it, and not known to be healthy
//! ```
//!
//! A candidate becomes live by being renamed. That is one request, which the daemon does or does not
//! do: whatever happens before it leaves the old one live, whatever happens after it the new one. So
//! when an answer is lost nothing is guessed. [`tidy`](Containers::tidy) looks, and takes away
//! whatever is not live; it may be done at any time, and twice.
//!
//! It knows of no other deploy: two at once of one app on one host would clear away each other's
//! candidates.

use std::time::Duration;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, ContainerSummaryStateEnum, ContainerUpdateBody, HealthConfig, HostConfig,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, RenameContainerOptions,
    StopContainerOptions,
};

use crate::app::App;
use crate::daemon::{Daemon, gone};
use crate::failure::Failure;
use crate::image;

/// How long an old container has between `SIGTERM` and `SIGKILL`, in seconds.
const GRACE: i32 = 10;
/// Of a check that is given with `--check`.
const EVERY: Duration = Duration::from_secs(1);
const RETRIES: i64 = 10;

/// The containers of an app on one host.
pub(crate) struct Containers<'a> {
    daemon: &'a Daemon,
    app: &'a App,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: String,
    image_id: String,
    number: u64,
    candidate: bool,
    running: bool,
}

/// What a look has found, and what it has done about it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The one that is live now, if there is any; it runs.
    pub(crate) live: Option<Container>,
    /// How much was taken away or started.
    pub(crate) changes: usize,
}

impl<'a> Containers<'a> {
    pub(crate) fn new(daemon: &'a Daemon, app: &'a App) -> Self {
        Self { daemon, app }
    }

    /// The greatest number first.
    async fn list(&self) -> Result<Vec<Container>, Failure> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(self.app.filter()),
            ..ListContainersOptions::default()
        };
        let list = async |d: Docker| d.list_containers(Some(options.clone())).await;
        let found = self.daemon.again("list containers", list).await?;
        let ours = found.into_iter().filter_map(|one| {
            let name = one.names.unwrap_or_default().into_iter().next()?;
            let name = name.trim_start_matches('/').to_owned();
            // With our label and another name it is somebody else's affair.
            let (number, candidate) = self.app.parse(&name)?;
            Some(Container {
                id: one.id?,
                name,
                image: one.image.unwrap_or_default(),
                image_id: one.image_id.unwrap_or_default(),
                number,
                candidate,
                running: one.state == Some(ContainerSummaryStateEnum::RUNNING),
            })
        });
        let mut ours: Vec<Container> = ours.collect();
        ours.sort_by_key(|one| std::cmp::Reverse(one.number));
        Ok(ours)
    }

    /// Takes away every container and every image but what is live, and starts that if it does not
    /// run.
    pub(crate) async fn tidy(&self) -> Result<Seen, Failure> {
        let mut live = None;
        let mut changes = 0;
        for one in self.list().await? {
            if live.is_none() && !one.candidate {
                live = Some(one);
            } else {
                changes += usize::from(remove(self.daemon, &one.id).await?);
            }
        }
        if let Some(live) = &mut live
            && !live.running
        {
            self.start(&live.id).await?;
            live.running = true;
            changes += 1;
        }
        let image = live.as_ref().map(|live| live.image_id.as_str());
        changes += image::keep_only(self.daemon, self.app, image).await?;
        Ok(Seen { live, changes })
    }

    /// Starts a container of an image beside the one that is live, and gives its id.
    ///
    /// It does not come back by itself when it ends, so that its end is seen.
    pub(crate) async fn start_candidate(&self, image: &str) -> Result<String, Failure> {
        let newest = self.list().await?.first().map_or(0, |one| one.number);
        let options = CreateContainerOptions {
            name: Some(self.app.container(newest + 1, true)),
            ..CreateContainerOptions::default()
        };
        let healthcheck = self.app.check.as_ref().map(|check| HealthConfig {
            test: Some(vec!["CMD-SHELL".to_owned(), check.clone()]),
            interval: i64::try_from(EVERY.as_nanos()).ok(),
            retries: Some(RETRIES),
            ..HealthConfig::default()
        });
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            labels: Some(self.app.labels()),
            healthcheck,
            // Yours will have a network, and something that leads requests to it.
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let create = async |d: Docker| d.create_container(Some(options), body).await;
        let made = self.daemon.once("create a container", create).await?;
        self.start(&made.id).await?;
        Ok(made.id)
    }

    /// Makes a candidate live, and ends the one that was.
    pub(crate) async fn switch(&self, id: &str) -> Result<Seen, Failure> {
        let all = self.list().await?;
        let new = all.iter().find(|one| one.id == id);
        let number = new.map_or(0, |one| one.number);
        // From now on the daemon brings it back, also after the machine was started again.
        let policy = ContainerUpdateBody {
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            ..ContainerUpdateBody::default()
        };
        let update = async |d: Docker| d.update_container(id, policy.clone()).await;
        self.daemon.again("set the restart policy", update).await?;
        let name = self.app.container(number, false);
        let options = RenameContainerOptions { name };
        let rename = async |d: Docker| d.rename_container(id, options).await;
        self.daemon.once("rename the container", rename).await?;

        for old in all.iter().filter(|one| one.id != id && one.running) {
            let options = Some(StopContainerOptions {
                t: Some(GRACE),
                ..StopContainerOptions::default()
            });
            let stop = async |d: Docker| d.stop_container(&old.id, options.clone()).await;
            let stopped = self.daemon.again("stop the old container", stop).await;
            gone(stopped, true)?;
        }
        self.tidy().await
    }

    /// Not again: one that ends at once would run twice.
    async fn start(&self, id: &str) -> Result<(), Failure> {
        let start = async |d: Docker| d.start_container(id, None).await;
        self.daemon.once("start the container", start).await
    }
}

/// Removes a container, and says whether it was there.
pub(crate) async fn remove(daemon: &Daemon, id: &str) -> Result<bool, Failure> {
    let options = Some(RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    });
    let remove = async |d: Docker| d.remove_container(id, options.clone()).await;
    let removed = daemon.again("remove a container", remove).await;
    gone(removed, true)
}
