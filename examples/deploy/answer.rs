//! Answers that are streams: of a build, and of a log.
//!
//! bollard can read both, but of the error that ends one early it keeps the words alone. Here it is
//! to be known whether the connection was lost, so these two are asked for without it.

use std::io;

use bollard::errors::Error;
use bollard::models::BuildInfo;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, Stream};
use http_body_util::BodyExt as _;
use ssh_pool::docker;

use crate::daemon::Daemon;
use crate::failure::Failure;

/// Nothing that a daemon says at once is longer than this.
const LONGEST: usize = 1 << 20;

/// An answer as it comes.
pub(crate) struct Answer {
    doing: &'static str,
    chunks: BoxStream<'static, Result<Vec<u8>, Error>>,
    rest: Vec<u8>,
}

impl Answer {
    /// Begins a build. Its context is read while it is sent.
    pub(crate) async fn of_build(
        daemon: &Daemon,
        query: &str,
        context: impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static,
    ) -> Result<Self, Failure> {
        let context = bollard::body_try_stream(context.map(|chunk| chunk.map(Into::into)));
        let request = http::Request::post(daemon.path(&format!("/build?{query}")))
            .header(http::header::CONTENT_TYPE, "application/x-tar")
            .body(context);
        Self::new(daemon, "the answer", request).await
    }

    /// Follows the log of a container without a terminal, from its beginning.
    pub(crate) async fn of_log(daemon: &Daemon, id: &str) -> Result<Self, Failure> {
        let path = daemon.path(&format!("/containers/{id}/logs?follow=1&stdout=1&stderr=1"));
        let request = http::Request::get(path).body(bollard::body_full(Vec::new().into()));
        Self::new(daemon, "the log", request).await
    }

    async fn new(
        daemon: &Daemon,
        doing: &'static str,
        request: http::Result<bollard::BollardRequest>,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::Docker { doing, error };
        let request = request.map_err(|error| failed(error.into()))?;
        let response = daemon.pool().request(request).await;
        let response = response.map_err(|error| failed(wrap(error)))?;
        let status = response.status();
        let chunks = response.into_body().into_data_stream().map(|chunk| {
            let chunk = chunk.map_err(|error| io::Error::other(error).into());
            chunk.map(|bytes| bytes.to_vec())
        });
        let mut answer = Self {
            doing,
            chunks: chunks.boxed(),
            rest: Vec::new(),
        };
        if status.is_success() {
            return Ok(answer);
        }
        while answer.more().await? {}
        Err(failed(Error::DockerResponseServerError {
            status_code: status.as_u16(),
            message: String::from_utf8_lossy(&answer.rest).into_owned(),
        }))
    }

    /// Reads on; `false` at the end.
    async fn more(&mut self) -> Result<bool, Failure> {
        let chunk = match self.chunks.next().await.transpose() {
            Ok(Some(chunk)) if self.rest.len() + chunk.len() <= LONGEST => chunk,
            Ok(None) => return Ok(false),
            Ok(Some(_)) => {
                return Err(self.broken(io::Error::other("the daemon says too much at once")));
            }
            Err(error) => {
                return Err(Failure::Docker {
                    doing: self.doing,
                    error,
                });
            }
        };
        self.rest.extend(chunk);
        Ok(true)
    }

    fn broken(&self, error: io::Error) -> Failure {
        Failure::Docker {
            doing: self.doing,
            error: error.into(),
        }
    }

    /// The next thing that a build has to say: a line of JSON.
    pub(crate) async fn next_info(&mut self) -> Result<Option<BuildInfo>, Failure> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let info = serde_json::from_slice(&line);
                return info.map(Some).map_err(|e| self.broken(e.into()));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// The next piece of a log, mostly a line: behind a byte for the stream, three of zero and four
    /// for the length.
    pub(crate) async fn next_piece(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some([_, _, _, _, length @ ..]) = self.rest.first_chunk::<8>() {
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                let end = length.saturating_add(8);
                if let Some(piece) = self.rest.get(8..end) {
                    let piece = piece.to_vec();
                    self.rest.drain(..end);
                    return Ok(Some(piece));
                }
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }
}

/// What the pool says, as an error of bollard's.
pub(crate) fn wrap(error: docker::Error) -> Error {
    io::Error::from(error).into()
}
