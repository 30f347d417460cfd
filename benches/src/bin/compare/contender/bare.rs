//! The crate russh as it is: one connection, and a channel for each command.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use russh::client::{Config, Handle, Handler};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, Disconnect, cipher};

use super::{Ran, pour};
use crate::place::{Place, SAME_CIPHER};

pub(super) struct Session(Handle<Checker>);

struct Checker {
    host: String,
    port: u16,
    known_hosts: PathBuf,
}

impl Handler for Checker {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else {
            return Ok(false);
        };
        Ok(russh::keys::check_known_hosts_path(
            &self.host,
            self.port,
            key,
            &self.known_hosts,
        )?)
    }
}

impl Session {
    pub(super) async fn open(place: &Place) -> anyhow::Result<Self> {
        let mut config = Config {
            // Off, it costs 40 ms on many a command.
            nodelay: true,
            ..Config::default()
        };
        if place.same_cipher {
            let name = cipher::Name::try_from(SAME_CIPHER);
            let name = name.map_err(|()| anyhow::anyhow!("russh has no {SAME_CIPHER}"))?;
            config.preferred.cipher = Cow::Owned(vec![name]);
        }
        let checker = Checker {
            host: place.addr.ip().to_string(),
            port: place.addr.port(),
            known_hosts: place.known_hosts.clone(),
        };
        let mut handle = russh::client::connect(Arc::new(config), place.addr, checker).await?;
        let key = Arc::new(russh::keys::load_secret_key(&place.key, None)?);
        let key = PrivateKeyWithHashAlg::new(key, None);
        let answer = handle.authenticate_publickey(&place.user, key).await?;
        ensure!(answer.success(), "the key is refused");
        Ok(Self(handle))
    }

    pub(super) async fn run(&self, line: &str) -> anyhow::Result<Ran> {
        let mut channel = self.0.channel_open_session().await?;
        channel.exec(true, line).await?;
        let mut ran = Ran {
            code: None,
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => ran.stdout.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => ran.stderr.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => {
                    ran.code = Some(exit_status.cast_signed())
                }
                _ => {}
            }
        }
        Ok(ran)
    }

    pub(super) async fn down(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let mut channel = self.0.channel_open_session().await?;
        channel.exec(true, line).await?;
        let (mut count, mut began) = (0, None);
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::Data { data } = message {
                count += data.len() as u64;
                began.get_or_insert_with(Instant::now);
            }
        }
        ensure!(count == bytes, "{count} bytes have come of {bytes}");
        Ok(began.context("nothing has come")?.elapsed())
    }

    pub(super) async fn up(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let channel = self.0.channel_open_session().await?;
        channel.exec(true, line).await?;
        let (from, to) = tokio::io::split(channel.into_stream());
        pour(to, from, bytes).await
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.0.disconnect(Disconnect::ByApplication, "", "").await?)
    }
}
