//! The Docker daemon of a host: bollard, over the pool.

use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest};
use ssh_pool::{Host, docker};

use crate::answer::wrap;
use crate::failure::Failure;

/// How often a request is sent that may be sent again, and how long to wait in between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// How long one answer may take to begin. Containers are stopped and images removed within it.
const ANSWER: Duration = Duration::from_secs(60);

/// What a host's daemon is asked through.
#[derive(Clone)]
pub(crate) struct Daemon {
    docker: bollard::Docker,
    /// The pool's own client, underneath.
    pool: docker::Docker,
}

impl Daemon {
    /// Agrees on a version of the API with the daemon.
    pub(crate) async fn connect(host: &Host, socket: Option<&Path>) -> Result<Self, Failure> {
        let doing = "connect";
        let failed = |error| Failure::Docker { doing, error };
        let pool = match socket {
            Some(path) => docker::Docker::at(host, path).map_err(|e| failed(wrap(e)))?,
            None => docker::Docker::new(host),
        };
        let transport = {
            let pool = pool.clone();
            move |request: BollardRequest| {
                let response = pool.request(request);
                async move { response.await.map_err(wrap) }
            }
        };
        let docker = bollard::Docker::connect_with_custom_transport(
            transport,
            Some("http://docker"),
            ANSWER.as_secs(),
            API_DEFAULT_VERSION,
        )
        .map_err(failed)?;
        let daemon = Self { docker, pool };
        daemon
            .again(doing, bollard::Docker::negotiate_version)
            .await?;
        Ok(daemon)
    }

    /// Asks once. For whatever makes something, or starts it: when its answer is lost, nobody
    /// knows whether it was done, and to ask again may do it twice. The pool does not ask again
    /// either. Whoever gets such a failure looks at the host: see `containers.rs`.
    pub(crate) async fn once<T>(
        &self,
        doing: &'static str,
        ask: impl AsyncFnOnce(bollard::Docker) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let done = ask(self.docker.clone()).await;
        done.map_err(|error| Failure::Docker { doing, error })
    }

    /// Asks again when the answer is lost; where the request was not sent, the pool has tried that
    /// already. Only for what has the same effect twice as once: lists
    /// and inspections; removing by id, stopping, and setting something to a value.
    pub(crate) async fn again<T>(
        &self,
        doing: &'static str,
        ask: impl AsyncFn(bollard::Docker) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let mut turn = 1;
        loop {
            match self.once(doing, &ask).await {
                Err(failure) if turn < TRIES && failure.is_loss() && failure.is_open() => {
                    tokio::time::sleep(PAUSE * turn).await;
                    turn += 1;
                }
                result => return result,
            }
        }
    }

    /// For requests whose answers are streams: see `answer.rs`.
    pub(crate) fn pool(&self) -> &docker::Docker {
        &self.pool
    }

    /// A path of the version of the API that was agreed on.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("/v{}{path}", self.docker.client_version())
    }
}

/// Of a removal: whether there was something to remove. `conflict` is the answer where the daemon
/// says that it is in use, or that it is under way.
pub(crate) fn gone<T>(result: Result<T, Failure>, conflict: bool) -> Result<bool, Failure> {
    match result {
        Err(failure) if failure.status() == Some(404) => Ok(false),
        Err(failure) if failure.status() == Some(409) => Ok(conflict),
        result => result.map(|_| true),
    }
}
