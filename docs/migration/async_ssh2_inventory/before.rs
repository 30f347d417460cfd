//! Asks many servers at once for their kernel, load and free disk space, and prints a table. With the
//! crate `async-ssh2-tokio`.

#![allow(missing_docs)] // A program of a few functions, as people write them.

use std::error::Error;
use std::path::PathBuf;

use async_ssh2_tokio::{AuthMethod, Client, ServerCheckMethod};
use tokio::task::JoinSet;

/// How to log in.
#[derive(Clone)]
pub struct Server {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: PathBuf,
    pub known_hosts: PathBuf,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub kernel: String,
    pub load: String,
    pub free: String,
}

async fn facts(server: &Server) -> Result<Facts, async_ssh2_tokio::Error> {
    let known_hosts = server.known_hosts.to_string_lossy();
    let client = Client::connect(
        (server.host.as_str(), server.port),
        &server.user,
        AuthMethod::with_key_file(&server.key, None),
        ServerCheckMethod::with_known_hosts_file(&known_hosts),
    )
    .await?;
    let kernel = client.execute("uname -r").await?;
    let load = client.execute("cut -d ' ' -f 1 /proc/loadavg").await?;
    let free = client
        .execute("df -P / | awk 'NR == 2 { print $4 }'")
        .await?;
    client.disconnect().await?;
    Ok(Facts {
        kernel: kernel.stdout.trim().to_owned(),
        load: load.stdout.trim().to_owned(),
        free: free.stdout.trim().to_owned(),
    })
}

/// The facts of each server, in the order of the servers; or why there are none.
pub async fn inventory(servers: &[Server]) -> Vec<Result<Facts, String>> {
    let mut tasks = JoinSet::new();
    for (number, server) in servers.iter().cloned().enumerate() {
        tasks.spawn(async move {
            let facts = facts(&server).await;
            (number, facts.map_err(|error| error.to_string()))
        });
    }
    let mut all = tasks.join_all().await;
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, facts)| facts).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers: Vec<_> = (1..=40)
        .map(|number| Server {
            user: "deploy".into(),
            host: format!("web-{number}"),
            port: 22,
            key: "/etc/deploy/id_ed25519".into(),
            known_hosts: "/etc/deploy/known_hosts".into(),
        })
        .collect();
    let all = inventory(&servers).await;
    for (Server { host, .. }, facts) in servers.iter().zip(all) {
        match facts {
            Ok(Facts { kernel, load, free }) => println!("{host}\t{kernel}\t{load}\t{free}"),
            Err(error) => println!("{host}\t{error}"),
        }
    }
    Ok(())
}
