//! Restarts a service, follows its log until it says that it is ready, and asks it for its health
//! through a forwarded port. With `ssh-pool`.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ssh_pool::{Host, HostKeyPolicy, Identity, Pool, Stdio, Target};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// How to log in.
pub struct Server {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: PathBuf,
    pub known_hosts: PathBuf,
}

async fn wait_for(host: &Host, log: &str, word: &str) -> Result<String, Box<dyn Error>> {
    let mut tail = host
        .command("tail")
        .args(["-n", "+1", "-f", log])
        .stderr(Stdio::inherit())
        .spawn()
        .await?;
    let stdout = tail.stdout.take().ok_or("stdout is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if line.contains(word) {
            tail.kill().await?;
            return Ok(line);
        }
    }
    Err(format!("{log} has ended without {word}").into())
}

async fn ask(host: &Host, service: SocketAddr) -> Result<String, Box<dyn Error>> {
    let mut stream = host
        .connect_tcp(service.ip().to_string(), service.port())
        .await?;
    stream.write_all(b"health\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Restarts the service; returns the line of its log and its health.
pub async fn restart(
    server: &Server,
    command: &str,
    log: &str,
    service: SocketAddr,
) -> Result<(String, String), Box<dyn Error>> {
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(&server.known_hosts))
        .identity(Identity::key_file(&server.key))
        .build()?;
    let host = pool.host(Target::new(&server.user, &server.host, server.port)?)?;
    host.shell(command).output().await?.exit_ok()?;
    let line = wait_for(&host, log, "ready").await?;
    let health = ask(&host, service).await?;
    pool.close().await;
    Ok((line, health))
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
    let service = (Ipv4Addr::LOCALHOST, 8080).into();
    let (line, health) = restart(&server, "svc restart app", "/var/log/app.log", service).await?;
    println!("{line}\n{health}");
    Ok(())
}
