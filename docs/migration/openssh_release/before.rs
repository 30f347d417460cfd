//! Releases an archive on a server: unpacks it beside the release that runs, migrates, switches a
//! link. With the crate `openssh`.

#![allow(missing_docs)] // A program of a few functions, as people write them.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use openssh::{KnownHosts, Session, SessionBuilder, Stdio};
use tokio::io::AsyncWriteExt;

/// How to log in.
pub struct Server {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: PathBuf,
    pub known_hosts: PathBuf,
}

async fn connect(server: &Server) -> Result<Session, openssh::Error> {
    SessionBuilder::default()
        .user(server.user.clone())
        .port(server.port)
        .keyfile(&server.key)
        .known_hosts_check(KnownHosts::Strict)
        .user_known_hosts_file(&server.known_hosts)
        .connect_timeout(Duration::from_secs(10))
        .connect(&server.host)
        .await
}

async fn unpack(session: &Session, archive: &[u8], to: &str) -> Result<(), Box<dyn Error>> {
    let mut tar = session
        .command("tar")
        .args(["-x", "-C", to])
        .stdin(Stdio::piped())
        .spawn()
        .await?;
    let mut stdin = tar.stdin().take().ok_or("stdin is piped")?;
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
    let session = connect(server).await?;
    let new = format!("{folder}/new");
    let status = session.command("mkdir").args(["-p", &new]).status().await?;
    if !status.success() {
        return Err(format!("mkdir: {status}").into());
    }
    unpack(&session, archive, &new).await?;

    let output = session
        .shell(format!("cd '{new}' && ./migrate 2>&1"))
        .output()
        .await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        return Err(format!("migrate: {}: {said}", output.status).into());
    }
    let current = format!("{folder}/current");
    let status = session
        .command("ln")
        .args(["-sfn", &new, &current])
        .status()
        .await?;
    if !status.success() {
        return Err(format!("ln: {status}").into());
    }
    let output = session
        .command("cat")
        .arg(format!("{current}/VERSION"))
        .output()
        .await?;
    session.close().await?;
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
