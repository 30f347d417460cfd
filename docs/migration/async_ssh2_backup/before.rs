//! Backs a data base up and restores it elsewhere: uploads a script, streams the dump of one server
//! into another, and downloads a report. With the crate `async-ssh2-tokio`.

#![allow(missing_docs)] // A program of a few functions, as people write them.

use std::error::Error;
use std::path::{Path, PathBuf};

use async_ssh2_tokio::{AuthMethod, Client, ServerCheckMethod};
use tokio::sync::mpsc;

/// How to log in.
pub struct Server {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: PathBuf,
    pub known_hosts: PathBuf,
}

async fn connect(server: &Server) -> Result<Client, async_ssh2_tokio::Error> {
    let known_hosts = server.known_hosts.to_string_lossy();
    Client::connect(
        (server.host.as_str(), server.port),
        &server.user,
        AuthMethod::with_key_file(&server.key, None),
        ServerCheckMethod::with_known_hosts_file(&known_hosts),
    )
    .await
}

/// Streams the output of a command on one server into a command on another.
async fn pipe(from: &Client, dump: &str, to: &Client, load: &str) -> Result<(), Box<dyn Error>> {
    let (bytes, input) = mpsc::channel(10);
    let (said, mut heard) = mpsc::channel(10);
    let end = bytes.clone();
    let dumping = async {
        let status = from.execute_io(dump, bytes, None, None, false, None).await;
        // Nothing at all is the end of the input.
        end.send(Vec::new()).await.ok();
        drop(end);
        status
    };
    let loading = to.execute_io(load, said, None, Some(input), false, None);
    let listening = async { while heard.recv().await.is_some() {} };
    let (dumped, loaded, ()) = tokio::join!(dumping, loading, listening);
    match (dumped?, loaded?) {
        (0, 0) => Ok(()),
        (dumped, loaded) => Err(format!("dump: {dumped}, load: {loaded}").into()),
    }
}

/// Backs up what `script` writes, loads it on the other server, and fetches its report.
pub async fn back_up(
    source: &Server,
    copy: &Server,
    script: &Path,
    folder: &str,
    report: &Path,
) -> Result<(), Box<dyn Error>> {
    let (source, copy) = tokio::try_join!(connect(source), connect(copy))?;
    let remote = format!("{folder}/dump.sh");
    source
        .upload_file(&*script.to_string_lossy(), &remote, Some(30), None, false)
        .await?;
    let (dump, load) = (format!("sh {remote}"), format!("cat > {folder}/copy"));
    pipe(&source, &dump, &copy, &load).await?;
    let counted = copy
        .execute(&format!("wc -c < {folder}/copy > {folder}/report"))
        .await?;
    if counted.exit_status != 0 {
        return Err(counted.stderr.into());
    }
    let report = report.to_string_lossy().into_owned();
    copy.download_file(format!("{folder}/report"), report)
        .await?;
    source.disconnect().await?;
    copy.disconnect().await?;
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
