//! Keys and certificates, made by `ssh-keygen`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::run;

/// How a private key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// OpenSSH's own (`BEGIN OPENSSH PRIVATE KEY`).
    OpenSsh,
    /// PKCS#8 (`BEGIN PRIVATE KEY`, `BEGIN ENCRYPTED PRIVATE KEY`).
    Pkcs8,
    /// The older ones of OpenSSL (`BEGIN RSA PRIVATE KEY`, `BEGIN EC PRIVATE KEY`).
    Pem,
}

/// A key pair in two files.
#[derive(Clone, Debug)]
pub struct KeyPair {
    private: PathBuf,
}

impl KeyPair {
    /// The file with the private key (mode 0600).
    #[must_use]
    pub fn private(&self) -> &Path {
        &self.private
    }

    /// The text of the private key.
    #[must_use]
    pub fn private_text(&self) -> String {
        read(&self.private)
    }

    /// The file with the public key.
    #[must_use]
    pub fn public(&self) -> PathBuf {
        suffixed(&self.private, ".pub")
    }

    /// The public key as one line: `ssh-ed25519 AAAA… comment`.
    #[must_use]
    pub fn public_line(&self) -> String {
        read(&self.public()).trim_end().to_owned()
    }

    /// `SHA256:…`, as OpenSSH prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.public())
    }
}

/// Makes the key pair `dir/name`. `kind` is a type that `ssh-keygen -t` knows: `ed25519`, `ecdsa`
/// or `rsa`, which its length may follow: `rsa -b 3000`.
///
/// OpenSSH before 9.6 writes Ed25519 keys in its own format whatever was asked for.
#[must_use]
pub fn generate(
    dir: &Path,
    name: &str,
    kind: &str,
    passphrase: Option<&str>,
    format: KeyFormat,
) -> KeyPair {
    let private = dir.join(name);
    let mut command = keygen();
    command
        .args(["-q", "-C", name, "-t"])
        .args(kind.split(' '))
        .arg("-N")
        .arg(passphrase.unwrap_or(""));
    match format {
        KeyFormat::OpenSsh => &mut command,
        KeyFormat::Pkcs8 => command.args(["-m", "PKCS8"]),
        KeyFormat::Pem => command.args(["-m", "PEM"]),
    };
    run(command.arg("-f").arg(&private), PACKAGE);
    KeyPair { private }
}

/// Signs a user certificate for `key`, good for an hour, and gives its file, which lies beside the
/// key (`name-cert.pub`).
#[must_use]
pub fn sign_user_certificate(ca: &KeyPair, key: &KeyPair, principals: &[&str]) -> PathBuf {
    let mut command = keygen();
    command
        .args(["-q", "-I", "ssh-pool-test", "-V", "-5m:+1h"])
        .args(["-n", &principals.join(",")])
        .arg("-s")
        .arg(ca.private())
        .arg(key.public());
    run(&mut command, PACKAGE);
    suffixed(key.private(), "-cert.pub")
}

/// Signs a host certificate for the host key `key`, good for an hour, and gives its file, which
/// lies beside the key (`name-cert.pub`).
#[must_use]
pub fn sign_host_certificate(ca: &KeyPair, key: &KeyPair, names: &[&str]) -> PathBuf {
    let mut command = keygen();
    command
        .args(["-q", "-h", "-I", "ssh-pool-test", "-V", "-5m:+1h"])
        .args(["-n", &names.join(",")])
        .arg("-s")
        .arg(ca.private())
        .arg(key.public());
    run(&mut command, PACKAGE);
    suffixed(key.private(), "-cert.pub")
}

/// The fingerprint of the first key in a file: `SHA256:…`.
#[must_use]
pub fn fingerprint(public: &Path) -> String {
    let listing = run(keygen().arg("-lf").arg(public), PACKAGE);
    listing
        .split_whitespace()
        .nth(1)
        .expect("ssh-keygen -l prints bits, fingerprint, comment and type")
        .to_owned()
}

const PACKAGE: &str = "openssh-client";

fn keygen() -> Command {
    Command::new("ssh-keygen")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
