//! Restarts a service, follows its log until it says that it is ready, and asks it for its health
//! through a forwarded port. With the crate `openssh`.

#![allow(missing_docs)] // A program of a few functions, as people write them.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use openssh::{ForwardType, KnownHosts, Session, SessionBuilder, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How to log in.
pub struct Server {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: PathBuf,
    pub known_hosts: PathBuf,
}

async fn wait_for(session: &Session, log: &str, word: &str) -> Result<String, Box<dyn Error>> {
    let mut tail = session
        .command("tail")
        .args(["-n", "+1", "-f", log])
        .stdout(Stdio::piped())
        .spawn()
        .await?;
    let stdout = tail.stdout().take().ok_or("stdout is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if line.contains(word) {
            tail.disconnect().await?;
            return Ok(line);
        }
    }
    Err(format!("{log} has ended without {word}").into())
}

async fn ask(session: &Session, service: SocketAddr) -> Result<String, Box<dyn Error>> {
    // Any port that is free.
    let local = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    session
        .request_port_forward(ForwardType::Local, local, service)
        .await?;
    let mut stream = TcpStream::connect(local).await?;
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
    let session = SessionBuilder::default()
        .user(server.user.clone())
        .port(server.port)
        .keyfile(&server.key)
        .known_hosts_check(KnownHosts::Strict)
        .user_known_hosts_file(&server.known_hosts)
        .connect_mux(&server.host)
        .await?;
    let output = session.shell(command).output().await?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let line = wait_for(&session, log, "ready").await?;
    let health = ask(&session, service).await?;
    session.close().await?;
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
