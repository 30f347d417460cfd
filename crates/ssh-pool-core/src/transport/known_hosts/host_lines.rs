//! What known_hosts files say about one host, and how a line is added.
//!
//! Everything here blocks on files.

use std::fmt::Display;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use russh::keys::PublicKey;

use super::Untrusted;
use super::decision::{HostKeyDecision, fingerprint};
use super::format::{DEFAULT_PORT, EntryKind, KnownHostsEntry, host_name, matching};
use crate::error::{HostKeyProblem, no_descriptors};
use crate::printable;

/// The largest known_hosts file that is read, in bytes: a link to `/dev/zero` must not fill the
/// memory.
const FILE_LIMIT: u64 = 64 << 20;

/// How long to wait for another process that is appending to the same file.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_STEP: Duration = Duration::from_millis(10);

/// A stored name must not act as a pattern (sshconnect.c, `check_host_key`).
const UNWRITABLE_IN_A_HOST: &str = "@?*#[]|'\"\\,!";

/// The lines that apply to one host, from all files.
#[derive(Debug)]
pub(super) struct HostLines {
    /// Without brackets and port.
    host: String,
    port: u16,
    files: Vec<PathBuf>,
    /// Of these, what did not exist.
    absent: Vec<PathBuf>,
    /// Where an unknown key is stored, if unknown keys are taken.
    append_to: Option<PathBuf>,
    /// Lines for the host on its port.
    exact: Vec<KnownHostsEntry>,
    /// Lines for the host as if it were on port 22, when it is not. ssh falls back to them
    /// ("checking without port identifier").
    portless: Vec<KnownHostsEntry>,
}

impl HostLines {
    /// For `host`, from `files`, not yet read.
    pub(super) fn new(host: &str, port: u16, files: Vec<PathBuf>) -> Self {
        let (exact, portless) = (Vec::new(), Vec::new());
        Self {
            host: host.to_owned(),
            port,
            files,
            absent: Vec::new(),
            append_to: None,
            exact,
            portless,
        }
    }

    /// Takes unknown keys, to be stored in `path`.
    pub(super) fn accepting_new(self, path: &Path) -> Self {
        Self {
            append_to: Some(path.to_owned()),
            ..self
        }
    }

    pub(super) fn accepts_new(&self) -> bool {
        self.append_to.is_some()
    }

    /// The same question, not yet read.
    pub(super) fn blank(&self) -> Self {
        let append_to = self.append_to.clone();
        Self {
            append_to,
            ..Self::new(&self.host, self.port, self.files.clone())
        }
    }

    /// Reads the files. One that does not exist lists nothing.
    pub(super) fn read(&mut self) -> Result<(), Untrusted> {
        for path in self.files.clone() {
            match File::open(&path).and_then(|mut file| read_limited(&mut file)) {
                Ok(text) => self.add(&text, &path),
                // NotADirectory: a folder on the way is a file, so this one cannot exist either.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    self.absent.push(path);
                }
                Err(error) => return Err(failed(error, |error| unreadable(&path, error))),
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, text: &[u8], path: &Path) {
        let name = host_name(&self.host, self.port);
        let portless = host_name(&self.host, DEFAULT_PORT);
        self.exact.extend(matching(text, path, &name));
        if portless != name {
            self.portless.extend(matching(text, path, &portless));
        }
    }

    /// The keys that would be trusted: those of portless lines only where there are no others.
    pub(super) fn trusted_keys(&self) -> impl Iterator<Item = &PublicKey> {
        let keys = self.listed().map(|entry| &entry.key);
        keys.filter(|key| !self.is_revoked(key))
    }

    /// Of each kind the first key, if it would be trusted. As with ssh, a kind whose first key is revoked
    /// counts as not known, so that another known key is asked for (hostfile.c,
    /// `lookup_key_in_hostkeys_by_type`).
    pub(super) fn first_keys(&self) -> impl Iterator<Item = &PublicKey> {
        let mut kinds = Vec::new();
        let keys = self.listed().map(|entry| &entry.key);
        let keys = keys.filter(|key| !key.key_data().is_certificate());
        keys.filter(move |key| {
            let is_first = !kinds.contains(&key.algorithm());
            kinds.push(key.algorithm());
            is_first && !self.is_revoked(key)
        })
    }

    fn listed(&self) -> impl Iterator<Item = &KnownHostsEntry> {
        let exact = plain(&self.exact).next().is_some();
        plain(if exact { &self.exact } else { &self.portless })
    }

    /// Whether lines that [`decide`](Self::decide) looks at first revoke a listed key.
    fn is_revoked(&self, key: &PublicKey) -> bool {
        let exact = plain(&self.exact).next().is_some();
        revoked(&self.exact, key).is_some() || !exact && revoked(&self.portless, key).is_some()
    }

    pub(super) fn decide(&self, key: &PublicKey) -> HostKeyDecision {
        if let Some(problem) = revoked(&self.exact, key) {
            return HostKeyDecision::Refused(problem);
        }
        if plain(&self.exact).any(|entry| entry.is_for(key)) {
            return HostKeyDecision::Trusted;
        }
        // Also when only keys of another type are known: ssh says "changed" then, too.
        if plain(&self.exact).next().is_some() {
            return HostKeyDecision::changed(key, plain(&self.exact).map(describe).collect());
        }
        // In this fallback ssh's accept-new warns, then stores and accepts even a revoked key.
        // That cannot be meant: what revokes a key for the host revokes it on every port.
        if let Some(problem) = revoked(&self.portless, key) {
            return HostKeyDecision::Refused(problem);
        }
        if plain(&self.portless).any(|entry| entry.is_for(key)) {
            return HostKeyDecision::Trusted;
        }
        // Portless lines with another key do not make it "changed": another port may be another
        // machine.
        if self.append_to.is_some() {
            return HostKeyDecision::TrustedNew;
        }
        HostKeyDecision::Refused(HostKeyProblem::Unknown {
            algorithm: printable(key.algorithm().to_string()),
            fingerprint: fingerprint(key),
            searched: self
                .files
                .iter()
                .map(|path| match self.absent.contains(path) {
                    true => format!("{}, which does not exist", path.display()),
                    false => path.display().to_string(),
                })
                .collect(),
        })
    }

    /// Stores `key` unless it has been stored meanwhile. Call it on [`blank`](Self::blank) lines:
    /// the file is read under a lock, so that of two processes that meet a new host with two keys
    /// only the first is believed.
    pub(super) fn store(mut self, key: &PublicKey) -> Result<(), Untrusted> {
        let Some(path) = self.append_to.clone() else {
            return Ok(());
        };
        let fail = |error: &dyn Display| not_stored(key, &path, error).into();
        if self
            .host
            .contains(|c: char| c.is_whitespace() || UNWRITABLE_IN_A_HOST.contains(c))
        {
            return Err(fail(&"the host name would act as a pattern"));
        }
        let mut file = open_for_append(&path)
            .map_err(|error| failed(error, |error| not_stored(key, &path, error)))?;
        lock(&file).map_err(|error| fail(&error))?;
        let text = read_limited(&mut file).map_err(|error| unreadable(&path, &error))?;
        self.add(&text, &path);
        match self.decide(key) {
            HostKeyDecision::Trusted => return Ok(()),
            HostKeyDecision::Refused(problem) => return Err(problem.into()),
            HostKeyDecision::TrustedNew => {}
        }
        // Without the comment that the key may carry.
        let key_text = PublicKey::from(key.key_data().clone()).to_openssh();
        let key_text = key_text.map_err(|error| fail(&error))?;
        // The line must not continue an unfinished one.
        let newline = if text.last().is_some_and(|byte| *byte != b'\n') {
            "\n"
        } else {
            ""
        };
        let name = host_name(&self.host, self.port);
        let line = format!("{newline}{name} {}\n", key_text.trim_end());
        // One write in append mode: neither we nor an ssh that appends now can tear a line.
        match file.write(line.as_bytes()) {
            Ok(written) if written == line.len() => Ok(()),
            Ok(_) => Err(fail(&"the line was written in part; is the disk full?")),
            Err(error) => Err(fail(&error)),
        }
        // Closing the file gives the lock back.
    }

    /// The error for lines that could not be read at all.
    pub(super) fn unread(&self, reason: &dyn Display) -> HostKeyProblem {
        unreadable(
            self.files.first().map_or(Path::new(""), PathBuf::as_path),
            reason,
        )
    }

    /// The error for a key that could not be stored.
    pub(super) fn not_stored(&self, key: &PublicKey, reason: &dyn Display) -> HostKeyProblem {
        not_stored(
            key,
            self.append_to.as_deref().unwrap_or(Path::new("")),
            reason,
        )
    }
}

fn plain(entries: &[KnownHostsEntry]) -> impl Iterator<Item = &KnownHostsEntry> {
    entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Plain)
}

fn revoked(entries: &[KnownHostsEntry], key: &PublicKey) -> Option<HostKeyProblem> {
    let entry = entries
        .iter()
        .find(|e| e.kind == EntryKind::Revoked && e.is_for(key))?;
    let location = entry.location.clone();
    Some(HostKeyProblem::Revoked {
        fingerprint: fingerprint(key),
        location,
    })
}

fn describe(entry: &KnownHostsEntry) -> String {
    let KnownHostsEntry { key, location, .. } = entry;
    let what = if key.key_data().is_certificate() {
        "certificate of "
    } else {
        ""
    };
    format!(
        "{what}{} {} ({location})",
        key.algorithm(),
        fingerprint(key)
    )
}

fn read_limited(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > FILE_LIMIT) {
        return Err(io::Error::other(format!("larger than {FILE_LIMIT} bytes")));
    }
    Ok(text)
}

fn open_for_append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Locks the file itself, so that nothing is left behind. Advisory: it binds other processes that
/// use this library, which is who else appends while we look.
fn lock(file: &File) -> io::Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {
                // On a thread for blocking work.
                std::thread::sleep(LOCK_STEP);
                waited += LOCK_STEP;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process keeps the file locked"));
            }
            // Some network file systems have no locks; appending is still atomic enough.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                return Ok(());
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// A file was not opened.
fn failed(error: io::Error, problem: impl FnOnce(&io::Error) -> HostKeyProblem) -> Untrusted {
    if no_descriptors(&error) {
        Untrusted::Descriptors(error)
    } else {
        problem(&error).into()
    }
}

fn unreadable(path: &Path, reason: &dyn Display) -> HostKeyProblem {
    HostKeyProblem::Unreadable {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn not_stored(key: &PublicKey, path: &Path, reason: &dyn Display) -> HostKeyProblem {
    HostKeyProblem::NotStored {
        fingerprint: fingerprint(key),
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
