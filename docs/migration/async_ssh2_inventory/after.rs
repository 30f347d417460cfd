//! Asks many servers at once for their kernel, load and free disk space, and prints a table. With
//! `ssh-pool`.

use std::error::Error;
use std::path::PathBuf;

use ssh_pool::{HostKeyPolicy, Identity, Pool, Target};
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

async fn facts(pool: &Pool, server: &Server) -> Result<Facts, ssh_pool::Error> {
    let target = Target::new(&server.user, &server.host, server.port)?
        .identity(Identity::key_file(&server.key))
        .host_key_policy(HostKeyPolicy::known_hosts_file(&server.known_hosts));
    let host = pool.host(target)?;
    let kernel = host.shell("uname -r").output().await?;
    let load = host.shell("cut -d ' ' -f 1 /proc/loadavg").output().await?;
    let free = host
        .shell("df -P / | awk 'NR == 2 { print $4 }'")
        .output()
        .await?;
    Ok(Facts {
        kernel: kernel.stdout_lossy().trim().to_owned(),
        load: load.stdout_lossy().trim().to_owned(),
        free: free.stdout_lossy().trim().to_owned(),
    })
}

/// The facts of each server, in the order of the servers; or why there are none.
pub async fn inventory(pool: &Pool, servers: &[Server]) -> Vec<Result<Facts, String>> {
    let mut tasks = JoinSet::new();
    for (number, server) in servers.iter().cloned().enumerate() {
        let pool = pool.clone();
        tasks.spawn(async move {
            let facts = facts(&pool, &server).await;
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
    let pool = Pool::builder(HostKeyPolicy::known_hosts()).build()?;
    let all = inventory(&pool, &servers).await;
    for (Server { host, .. }, facts) in servers.iter().zip(all) {
        match facts {
            Ok(Facts { kernel, load, free }) => println!("{host}\t{kernel}\t{load}\t{free}"),
            Err(error) => println!("{host}\t{error}"),
        }
    }
    Ok(())
}
