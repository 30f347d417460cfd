//! An SFTP server that says what a test tells it to: a stock sshd whose subsystem is a relay to this
//! process.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use ssh_pool::sftp::{Error, Sftp, SftpExt};
use ssh_pool::{Host, Pool};
use ssh_pool_tests::{Sshd, TempDir, TestUser};

use crate::{builder, known};

/// What is asked, by its number in the draft.
pub(crate) const OPEN: u8 = 3;
pub(crate) const CLOSE: u8 = 4;
pub(crate) const READ: u8 = 5;
pub(crate) const WRITE: u8 = 6;
pub(crate) const OPENDIR: u8 = 11;
pub(crate) const READDIR: u8 = 12;
pub(crate) const READLINK: u8 = 19;

pub(crate) const OK: u32 = 0;
pub(crate) const EOF: u32 = 1;
pub(crate) const FAILURE: u32 = 4;
pub(crate) const CONNECTION_LOST: u32 = 7;

pub(crate) const FILE: u32 = 0o100_644;
pub(crate) const DIR: u32 = 0o040_755;
pub(crate) const LINK: u32 = 0o120_777;

/// One request.
pub(crate) struct Request {
    pub(crate) kind: u8,
    pub(crate) id: u32,
    body: Vec<u8>,
}

impl Request {
    /// Its first word: a path or a handle.
    pub(crate) fn word(&self) -> String {
        let length = u32::from_be_bytes(self.body[..4].try_into().unwrap()) as usize;
        String::from_utf8(self.body[4..4 + length].to_vec()).unwrap()
    }

    /// Of a read: where, and how much.
    pub(crate) fn range(&self) -> (u64, u32) {
        let rest = &self.body[4 + self.word().len()..];
        let offset = u64::from_be_bytes(rest[..8].try_into().unwrap());
        (offset, u32::from_be_bytes(rest[8..12].try_into().unwrap()))
    }

    pub(crate) fn status(&self, code: u32) -> Vec<u8> {
        let mut packet = self.answer(101);
        packet.extend(code.to_be_bytes());
        packet.extend(word(b"a text"));
        packet.extend(word(b"en"));
        packet
    }

    pub(crate) fn handle(&self, handle: &str) -> Vec<u8> {
        let mut packet = self.answer(102);
        packet.extend(word(handle.as_bytes()));
        packet
    }

    pub(crate) fn data(&self, bytes: &[u8]) -> Vec<u8> {
        let mut packet = self.answer(103);
        packet.extend(word(bytes));
        packet
    }

    pub(crate) fn names(&self, names: &[(&[u8], u32)]) -> Vec<u8> {
        let mut packet = self.answer(104);
        packet.extend((names.len() as u32).to_be_bytes());
        for (name, mode) in names {
            packet.extend(word(name));
            packet.extend(word(b"a long name"));
            packet.extend(attributes(*mode, 10));
        }
        packet
    }

    pub(crate) fn attributes(&self, mode: u32, size: u64) -> Vec<u8> {
        let mut packet = self.answer(105);
        packet.extend(attributes(mode, size));
        packet
    }

    fn answer(&self, kind: u8) -> Vec<u8> {
        let mut packet = vec![kind];
        packet.extend(self.id.to_be_bytes());
        packet
    }

    /// What a server says that has one folder, `/dir`, with nothing in it, and one file of ten
    /// bytes.
    fn usual(&self) -> Vec<u8> {
        match self.kind {
            OPEN => self.handle("file"),
            OPENDIR => self.handle("dir"),
            READDIR => self.status(EOF),
            READLINK => self.status(FAILURE),
            READ => match self.range() {
                (0, 10..) => self.data(b"0123456789"),
                _ => self.status(EOF),
            },
            // lstat, stat, fstat
            7 | 17 | 8 => match self.word() {
                path if path == "/dir" => self.attributes(DIR, 0),
                _ => self.attributes(FILE, 10),
            },
            _ => self.status(OK),
        }
    }
}

fn word(bytes: &[u8]) -> Vec<u8> {
    let mut word = (bytes.len() as u32).to_be_bytes().to_vec();
    word.extend(bytes);
    word
}

fn attributes(mode: u32, size: u64) -> Vec<u8> {
    let mut bytes = 5_u32.to_be_bytes().to_vec();
    bytes.extend(size.to_be_bytes());
    bytes.extend(mode.to_be_bytes());
    bytes
}

/// What is said to a request, without its length; `None` for the usual, and nothing for nothing.
type Answers = dyn Fn(&Request) -> Option<Vec<u8>> + Send + Sync;

/// A session with the fake.
pub(crate) struct Fake {
    pub(crate) sftp: Sftp,
    pub(crate) host: Host,
    pub(crate) local: TempDir,
    _pool: Pool,
    _sshd: Sshd,
    _relay: TempDir,
}

impl Fake {
    pub(crate) async fn new(
        answers: impl Fn(&Request) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers: Arc<Answers> = Arc::new(answers);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = answers.clone();
                std::thread::spawn(move || serve(stream, &*answers));
            }
        });
        let relay = TempDir::new();
        let script = relay.path().join("relay");
        let text = format!(
            "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{port} || exit\n\
             cat <&3 &\ncat >&3\nkill $!\n"
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let sshd = Sshd::builder().option(format!("Subsystem sftp {}", script.display()));
        let sshd = sshd.user(TestUser::plain()).start();
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        Self {
            sftp: host.sftp().await.unwrap(),
            host,
            local: TempDir::new(),
            _pool: pool,
            _sshd: sshd,
            _relay: relay,
        }
    }

    /// What comes of downloading the folder `/dir`.
    pub(crate) async fn tree(&self) -> Result<ssh_pool::sftp::Summary, Error> {
        let local = self.local.path().join("tree");
        self.sftp.download_dir("/dir", local).attempts(1).await
    }

    /// What comes of downloading the file `/file`.
    pub(crate) async fn file(&self) -> Result<ssh_pool::sftp::Summary, Error> {
        let local = self.local.path().join("file");
        self.sftp.download("/file", local).attempts(1).await
    }
}

/// Answers until the other side has gone.
fn serve(mut stream: TcpStream, answers: &Answers) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        if stream.read_exact(&mut packet).is_err() {
            return;
        }
        // SSH_FXP_INIT
        let answer = if packet[0] == 1 {
            let replacing = [word(b"posix-rename@openssh.com"), word(b"1")];
            [vec![2, 0, 0, 0, 3], replacing.concat()].concat()
        } else {
            let request = Request {
                kind: packet[0],
                id: u32::from_be_bytes(packet[1..5].try_into().unwrap()),
                body: packet[5..].to_vec(),
            };
            answers(&request).unwrap_or_else(|| request.usual())
        };
        if answer.is_empty() {
            continue;
        }
        if stream.write_all(&word(&answer)).is_err() {
            return;
        }
    }
}
