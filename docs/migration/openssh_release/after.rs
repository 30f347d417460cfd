//! Releases an archive on a server: unpacks it beside the release that runs, migrates, switches a
//! link. With `ssh-pool`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use ssh_pool::{Host, HostKeyPolicy, Identity, Pool, Stdio, Target, Timeouts};
use tokio::io::AsyncWriteExt;

/// How to log in.
pub struct Server {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: PathBuf,
    pub known_hosts: PathBuf,
}

fn connect(server: &Server) -> Result<(Pool, Host), ssh_pool::Error> {
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(&server.known_hosts))
        .identity(Identity::key_file(&server.key))
        .timeouts(Timeouts::default().connect(Duration::from_secs(10)))
        .build()?;
    let host = pool.host(Target::new(&server.user, &server.host, server.port)?)?;
    Ok((pool, host))
}

async fn unpack(host: &Host, archive: &[u8], to: &str) -> Result<(), Box<dyn Error>> {
    let mut tar = host
        .command("tar")
        .args(["-x", "-C", to])
        .stdin(Stdio::piped())
        .spawn()
        .await?;
    let mut stdin = tar.stdin.take().ok_or("stdin is piped")?;
    stdin.write_all(archive).await?;
    drop(stdin);
    let status = tar.wait().await?;
    if !status.success() {
        return Err(format!("tar: {status}").into());
    }
    Ok(())
}

/// Releases the archive, and returns what its `VERSION` says.
pub async fn release(
    server: &Server,
    archive: &[u8],
    folder: &str,
) -> Result<String, Box<dyn Error>> {
    let (pool, host) = connect(server)?;
    let new = format!("{folder}/new");
    let status = host.command("mkdir").args(["-p", &new]).status().await?;
    if !status.success() {
        return Err(format!("mkdir: {status}").into());
    }
    unpack(&host, archive, &new).await?;

    let output = host
        .shell(format!("cd '{new}' && ./migrate 2>&1"))
        .output()
        .await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        return Err(format!("migrate: {}: {said}", output.status).into());
    }
    let current = format!("{folder}/current");
    let status = host
        .command("ln")
        .args(["-sfn", &new, &current])
        .status()
        .await?;
    if !status.success() {
        return Err(format!("ln: {status}").into());
    }
    let output = host
        .command("cat")
        .arg(format!("{current}/VERSION"))
        .output()
        .await?;
    pool.close().await;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server {
        user: "deploy".into(),
        host: "web-1".into(),
        port: 22,
        key: "/etc/deploy/id_ed25519".into(),
        known_hosts: "/etc/deploy/known_hosts".into(),
    };
    let archive = std::fs::read("app.tar")?;
    println!("{} runs", release(&server, &archive, "/srv/app").await?);
    Ok(())
}
