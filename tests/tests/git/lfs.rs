//! Git LFS, which asks the server over ssh where its files are, and for leave to get them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use ssh_pool::git::Command;
use ssh_pool_tests::{Sshd, TempDir};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::{Place, succeeds};

const TOKEN: &str = "given-over-ssh";

type Store = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// As much of an LFS server as it takes to get files from it and to it.
struct Lfs {
    store: Store,
    port: u16,
}

impl Lfs {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = Store::default();
        let files = store.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, files.clone(), port));
            }
        });
        Self { store, port }
    }
}

/// Answers one request: which files there are to get or to give, a file, or a place for one.
async fn serve(stream: TcpStream, store: Store, port: u16) {
    let mut stream = BufReader::new(stream);
    let (mut first, mut length, mut allowed) = (String::new(), 0, false);
    stream.read_line(&mut first).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => allowed = value == TOKEN,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let words: Vec<&str> = first.split(' ').collect();
    let oid = words[1].rsplit('/').next().unwrap().to_owned();
    let (status, answer) = match words[0] {
        _ if !allowed => ("401 Unauthorized", Vec::new()),
        "POST" => ("200 OK", batch(&body, port)),
        "PUT" => {
            store.lock().unwrap().insert(oid, body);
            ("200 OK", Vec::new())
        }
        _ => match store.lock().unwrap().get(&oid) {
            Some(file) => ("200 OK", file.clone()),
            None => ("404 Not Found", Vec::new()),
        },
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/vnd.git-lfs+json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    let answer = [head.into_bytes(), answer].concat();
    stream.write_all(&answer).await.unwrap();
}

fn batch(body: &[u8], port: u16) -> Vec<u8> {
    let asked: Value = serde_json::from_slice(body).unwrap();
    let operation = asked["operation"].as_str().unwrap();
    let objects: Vec<Value> = (asked["objects"].as_array().unwrap().iter())
        .map(|object| {
            let oid = object["oid"].as_str().unwrap();
            let place = json!({
                "href": format!("http://127.0.0.1:{port}/{oid}"),
                "header": { "Authorization": TOKEN },
            });
            json!({
                "oid": oid,
                "size": object["size"],
                "authenticated": true,
                "actions": { operation: place },
            })
        })
        .collect();
    json!({ "transfer": "basic", "objects": objects })
        .to_string()
        .into_bytes()
}

/// An account that runs git's commands and tells LFS where to go, and keeps a list of what it was
/// asked for.
fn forced(dir: &Path, port: u16) -> PathBuf {
    let log = dir.join("asked");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
    let path = dir.join("forced");
    let script = format!(
        "#!/bin/sh\necho \"$SSH_ORIGINAL_COMMAND\" >>{}\ncase $SSH_ORIGINAL_COMMAND in\n\
         git-upload-pack*|git-receive-pack*) exec sh -c \"$SSH_ORIGINAL_COMMAND\" ;;\n\
         git-lfs-authenticate*) echo '{}' ;;\n*) echo 'not here' >&2; exit 127 ;;\nesac\n",
        log.display(),
        json!({
            "href": format!("http://127.0.0.1:{port}"),
            "header": { "Authorization": TOKEN },
        })
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn with_lfs(command: &mut Command) {
    for option in [
        "filter.lfs.clean=git-lfs clean -- %f",
        "filter.lfs.smudge=git-lfs smudge -- %f",
        "filter.lfs.process=git-lfs filter-process",
        "filter.lfs.required=true",
    ] {
        command.args(["-c", option]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_lfs_come_and_go_over_an_account_with_a_forced_command() {
    let lfs = Lfs::start().await;
    let dir = TempDir::new();
    let forced = forced(dir.path(), lfs.port);
    let sshd = Sshd::builder()
        .option(format!("ForceCommand {}", forced.display()))
        .start();
    let place = Place::on(sshd);
    let content = "large\n".repeat(1000);
    let oid: String = Sha256::digest(&content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n",
        content.len()
    );
    lfs.store
        .lock()
        .unwrap()
        .insert(oid, content.clone().into_bytes());
    let attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n";
    let files = [(".gitattributes", attributes), ("a.bin", &pointer)];
    place.repos.create_with("app", &files);

    let clone = place.dir.path().join("app");
    let mut command = place.command();
    with_lfs(&mut command);
    command.args(["clone", &place.url("app")]).arg(&clone);
    succeeds(command).await;
    assert_eq!(fs::read_to_string(clone.join("a.bin")).unwrap(), content);

    fs::write(clone.join("b.bin"), "another\n").unwrap();
    for words in [
        &["add", "b.bin"][..],
        &["commit", "--quiet", "--message=More"],
        &["lfs", "push", "origin", "main"],
        &["push", "--quiet", "origin", "main"],
    ] {
        let mut command = place.inside("app");
        with_lfs(&mut command);
        command.args(words);
        succeeds(command).await;
    }
    let stored = lfs.store.lock().unwrap();
    assert!(stored.values().any(|file| file == b"another\n"));

    let asked = fs::read_to_string(dir.path().join("asked")).unwrap();
    for (operation, least) in [("download", 1), ("upload", 1)] {
        let path = place.repos.repo("app");
        let line = format!("git-lfs-authenticate '{}' {operation}", path.display());
        let plain = line.replace('\'', "");
        let times = asked
            .lines()
            .filter(|asked| asked.replace('\'', "") == plain)
            .count();
        assert!(times >= least, "{operation}: {asked}");
    }
    assert!(place.sshd.accepted() <= 4, "{}", place.sshd.log());
}
