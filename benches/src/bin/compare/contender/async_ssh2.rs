//! The crate async-ssh2-tokio: one client, shared by all.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_ssh2_tokio::{AuthMethod, Client, Config, ServerCheckMethod};
use tokio::sync::mpsc;

use super::{CHUNK, READY, Ran};
use crate::place::{Place, SAME_CIPHER};

/// How many pieces wait between the crate and us; its example has 10.
const WAITING: usize = 64;

pub(super) struct Session(Client);

impl Session {
    pub(super) async fn open(place: &Place) -> anyhow::Result<Self> {
        let known_hosts = place.known_hosts.to_str().context("a path in UTF-8")?;
        let mut config = Config {
            // Off, it costs 40 ms on many a command.
            nodelay: true,
            ..Config::default()
        };
        if place.same_cipher {
            let ciphers = config.preferred.cipher.iter();
            let same = ciphers.filter(|name| name.as_ref() == SAME_CIPHER);
            config.preferred.cipher = Cow::Owned(same.copied().collect());
        }
        let host = place.addr.ip().to_string();
        let client = Client::connect_with_config(
            (host.as_str(), place.addr.port()),
            &place.user,
            AuthMethod::with_key_file(&place.key, None),
            ServerCheckMethod::with_known_hosts_file(known_hosts),
            config,
        )
        .await?;
        Ok(Self(client))
    }

    pub(super) async fn run(&self, line: &str) -> anyhow::Result<Ran> {
        let result = self.0.execute(line).await?;
        Ok(Ran {
            code: Some(result.exit_status.cast_signed()),
            stdout: result.stdout.into_bytes(),
            stderr: result.stderr.into_bytes(),
        })
    }

    pub(super) async fn down(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(WAITING);
        let running = self.0.execute_io(line, sender, None, None, false, None);
        let reading = async {
            let mut count = pieces.recv().await.map_or(0, |piece| piece.len() as u64);
            let began = Instant::now();
            while let Some(piece) = pieces.recv().await {
                count += piece.len() as u64;
            }
            let took = began.elapsed();
            ensure!(count == bytes, "{count} bytes have come of {bytes}");
            Ok(took)
        };
        let (code, took) = tokio::join!(running, reading);
        code?;
        took
    }

    pub(super) async fn up(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(WAITING);
        let (input, stdin) = mpsc::channel::<Vec<u8>>(WAITING);
        let running = self
            .0
            .execute_io(line, sender, None, Some(stdin), false, None);
        let pouring = async {
            let ready = pieces.recv().await.unwrap_or_default();
            ensure!(ready == READY.as_bytes(), "the far end is not ready");
            let began = Instant::now();
            let mut left = bytes;
            while left > 0 {
                let next = usize::try_from(left.min(CHUNK as u64))?;
                input.send(vec![0; next]).await?;
                left -= next as u64;
            }
            // Nothing at all is the end.
            input.send(Vec::new()).await?;
            let mut answer = Vec::new();
            while let Some(piece) = pieces.recv().await {
                answer.extend(piece);
            }
            let took = began.elapsed();
            let count: u64 = String::from_utf8(answer)?.trim().parse()?;
            ensure!(count == bytes, "{count} bytes have arrived of {bytes}");
            // The crate asks for input again and again once nobody has any.
            drop(input);
            Ok(took)
        };
        let (code, took) = tokio::join!(running, pouring);
        code?;
        took
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.0.disconnect().await?)
    }
}
