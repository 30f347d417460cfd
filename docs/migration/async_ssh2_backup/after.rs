//! Backs a data base up and restores it elsewhere: uploads a script, streams the dump of one server
//! into another, and downloads a report. With `ssh-pool`.

use std::error::Error;
use std::path::{Path, PathBuf};

use ssh_pool::sftp::SftpExt;
use ssh_pool::{Host, HostKeyPolicy, Identity, Pool, Stdio, Target};

/// How to log in.
pub struct Server {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: PathBuf,
    pub known_hosts: PathBuf,
}

fn connect(pool: &Pool, server: &Server) -> Result<Host, ssh_pool::Error> {
    let target = Target::new(&server.user, &server.host, server.port)?
        .identity(Identity::key_file(&server.key))
        .host_key_policy(HostKeyPolicy::known_hosts_file(&server.known_hosts));
    pool.host(target)
}

/// Streams the output of a command on one server into a command on another.
async fn pipe(from: &Host, dump: &str, to: &Host, load: &str) -> Result<(), Box<dyn Error>> {
    let mut dumping = from.shell(dump).spawn().await?;
    let mut loading = to.shell(load).stdin(Stdio::piped()).spawn().await?;
    let mut bytes = dumping.stdout.take().ok_or("stdout is piped")?;
    let mut input = loading.stdin.take().ok_or("stdin is piped")?;
    let copy = async move { tokio::io::copy(&mut bytes, &mut input).await };
    // At once: a command waits while what it writes to its other streams is not read.
    let (copied, dumped, loaded) =
        tokio::join!(copy, dumping.wait_with_output(), loading.wait_with_output());
    dumped?.exit_ok()?;
    loaded?.exit_ok()?;
    copied?;
    Ok(())
}

/// Backs up what `script` writes, loads it on the other server, and fetches its report.
pub async fn back_up(
    source: &Server,
    copy: &Server,
    script: &Path,
    folder: &str,
    report: &Path,
) -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder(HostKeyPolicy::known_hosts()).build()?;
    let (source, copy) = (connect(&pool, source)?, connect(&pool, copy)?);
    let remote = format!("{folder}/dump.sh");
    source.sftp().await?.upload(script, &remote).await?;
    let (dump, load) = (format!("sh {remote}"), format!("cat > {folder}/copy"));
    pipe(&source, &dump, &copy, &load).await?;
    copy.shell(format!("wc -c < {folder}/copy > {folder}/report"))
        .output()
        .await?
        .exit_ok()?;
    let remote = format!("{folder}/report");
    copy.sftp().await?.download(remote, report).await?;
    pool.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = |host: &str| Server {
        user: "backup".into(),
        host: host.into(),
        port: 22,
        key: "/etc/backup/id_ed25519".into(),
        known_hosts: "/etc/backup/known_hosts".into(),
    };
    let (source, copy) = (server("db-1"), server("db-2"));
    let (script, report) = (Path::new("dump.sh"), Path::new("report"));
    back_up(&source, &copy, script, "/var/backups", report).await
}
