//! What lies in `~/.ssh`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ssh_pool_tests::{KeyFormat, KeyPair, TempDir, TestUser, generate, sign_user_certificate};

/// Keys to choose from. Those whose name begins with `right` are authorized on every server.
pub(crate) struct Stock {
    dir: TempDir,
    pub(crate) ca: KeyPair,
}

/// One content of the folder.
pub(crate) struct KeySet {
    pub(crate) name: &'static str,
    /// Tried with every server, and with the agents that are common, too.
    pub(crate) is_common: bool,
    pub(crate) lay_out: fn(&Stock, &Path),
}

const fn set(name: &'static str, lay_out: fn(&Stock, &Path)) -> KeySet {
    KeySet {
        name,
        is_common: false,
        lay_out,
    }
}

const fn common(name: &'static str, lay_out: fn(&Stock, &Path)) -> KeySet {
    KeySet {
        name,
        is_common: true,
        lay_out,
    }
}

pub(crate) const KEY_SETS: &[KeySet] = &[
    common("no file", |_, _| {}),
    common("ed25519", |stock, to| {
        stock.put(to, "right_ed25519", "id_ed25519");
    }),
    set("ecdsa", |stock, to| {
        stock.put(to, "right_ecdsa", "id_ecdsa")
    }),
    set("rsa", |stock, to| stock.put(to, "right_rsa", "id_rsa")),
    set("rsa in PEM", |stock, to| {
        stock.put(to, "right_rsa_pem", "id_rsa");
    }),
    set("rsa in PKCS#8, no .pub", |stock, to| {
        stock.put_private(to, "right_rsa_pkcs8", "id_rsa");
    }),
    set("ecdsa in SEC1, no .pub", |stock, to| {
        stock.put_private(to, "right_ecdsa_pem", "id_ecdsa");
    }),
    common("a wrong key", |stock, to| {
        stock.put(to, "wrong_ed25519", "id_ed25519");
    }),
    common("a wrong one and the right one", |stock, to| {
        stock.put(to, "wrong_rsa", "id_rsa");
        stock.put(to, "right_ed25519", "id_ed25519");
    }),
    set("two wrong ones and the right one", |stock, to| {
        stock.put(to, "wrong_rsa", "id_rsa");
        stock.put(to, "wrong_ecdsa", "id_ecdsa");
        stock.put(to, "right_ed25519", "id_ed25519");
    }),
    set("a name that is not a default", |stock, to| {
        stock.put(to, "right_ed25519", "id_deploy");
    }),
    set(".pub alone", |stock, to| {
        stock.put(to, "right_ed25519", "id_ed25519");
        fs::remove_file(to.join("id_ed25519")).unwrap();
    }),
    set("encrypted", |stock, to| {
        stock.put(to, "right_ed25519", "id_ed25519");
        encrypt(&to.join("id_ed25519"));
    }),
    set("encrypted, and the right one", |stock, to| {
        stock.put(to, "right_rsa", "id_rsa");
        encrypt(&to.join("id_rsa"));
        stock.put(to, "right_ed25519", "id_ed25519");
    }),
    common("certificate", |stock, to| {
        stock.put(to, "certified", "id_ed25519");
    }),
    set("certificate, no .pub", |stock, to| {
        stock.put(to, "certified", "id_ed25519");
        fs::remove_file(to.join("id_ed25519.pub")).unwrap();
    }),
    set("rsa certificate", |stock, to| {
        stock.put(to, "certified_rsa", "id_rsa");
    }),
    set("certificate for another account", |stock, to| {
        stock.put(to, "certified_other", "id_ed25519");
    }),
    set("certificate of an unknown authority", |stock, to| {
        stock.put(to, "certified_unknown", "id_ed25519");
    }),
    set("certificate and .pub alone", |stock, to| {
        stock.put(to, "certified", "id_ed25519");
        fs::remove_file(to.join("id_ed25519")).unwrap();
    }),
    set("others may read it", |stock, to| {
        stock.put(to, "right_ed25519", "id_ed25519");
        set_mode(&to.join("id_ed25519"), 0o644);
    }),
    set("rsa in PEM with CRLF", |stock, to| {
        stock.put(to, "right_rsa_pem", "id_rsa");
        rewrite(&to.join("id_rsa"), |text| text.replace('\n', "\r\n"));
    }),
    set("ed25519 with CRLF", |stock, to| {
        stock.put(to, "right_ed25519", "id_ed25519");
        rewrite(&to.join("id_ed25519"), |text| text.replace('\n', "\r\n"));
    }),
    set("rsa in PKCS#8 with a byte order mark", |stock, to| {
        stock.put(to, "right_rsa_pkcs8", "id_rsa");
        rewrite(&to.join("id_rsa"), |text| format!("\u{feff}{text}"));
    }),
    set("ed25519 with a byte order mark", |stock, to| {
        stock.put(to, "right_ed25519", "id_ed25519");
        rewrite(&to.join("id_ed25519"), |text| format!("\u{feff}{text}"));
    }),
    set("no key in the file", |stock, to| {
        stock.put(to, "right_ed25519", "id_ed25519");
        rewrite(&to.join("id_ed25519"), |_| "nothing\n".into());
    }),
    set("cut off", |stock, to| {
        stock.put(to, "right_ed25519", "id_ed25519");
        rewrite(&to.join("id_ed25519"), |text| text[..200].into());
    }),
    set("another key's .pub beside it", |stock, to| {
        stock.put(to, "right_ed25519", "id_ed25519");
        fs::copy(stock.path("wrong_rsa.pub"), to.join("id_ed25519.pub")).unwrap();
    }),
];

impl Stock {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new();
        let key = |name: &str, kind: &str, format| generate(dir.path(), name, kind, None, format);
        for kind in ["ed25519", "ecdsa", "rsa"] {
            let _ = key(&format!("right_{kind}"), kind, KeyFormat::OpenSsh);
            let _ = key(&format!("wrong_{kind}"), kind, KeyFormat::OpenSsh);
        }
        let _ = key("right_rsa_pem", "rsa", KeyFormat::Pem);
        let _ = key("right_rsa_pkcs8", "rsa", KeyFormat::Pkcs8);
        let _ = key("right_ecdsa_pem", "ecdsa", KeyFormat::Pem);
        let ca = key("ca", "ed25519", KeyFormat::OpenSsh);
        let unknown = key("unknown_ca", "ed25519", KeyFormat::OpenSsh);
        let users = [TestUser::plain(), TestUser::with_password()];
        let names: Vec<_> = users.iter().map(TestUser::name).collect();
        for (name, kind, ca, principals) in [
            ("certified", "ed25519", &ca, &*names),
            ("certified_rsa", "rsa", &ca, &*names),
            ("certified_other", "ed25519", &ca, &["another"]),
            ("certified_unknown", "ed25519", &unknown, &*names),
        ] {
            let _ = sign_user_certificate(ca, &key(name, kind, KeyFormat::OpenSsh), principals);
        }
        Self { dir, ca }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The lines that every server authorizes.
    pub(crate) fn authorized(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let right = |name: &String| name.starts_with("right") && name.ends_with(".pub");
        names
            .filter(right)
            .map(|name| fs::read_to_string(self.path(&name)).unwrap())
            .collect()
    }

    /// Copies a key with all that lies beside it.
    fn put(&self, to: &Path, name: &str, as_name: &str) {
        self.put_private(to, name, as_name);
        for suffix in [".pub", "-cert.pub"] {
            let from = self.path(&format!("{name}{suffix}"));
            if from.exists() {
                fs::copy(from, to.join(format!("{as_name}{suffix}"))).unwrap();
            }
        }
    }

    fn put_private(&self, to: &Path, name: &str, as_name: &str) {
        fs::copy(self.path(name), to.join(as_name)).unwrap();
    }
}

fn encrypt(file: &Path) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-p", "-P", "", "-N", "a passphrase", "-a", "2", "-f"]);
    assert!(keygen.arg(file).output().unwrap().status.success());
}

fn rewrite(file: &Path, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, change(&text)).unwrap();
}

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}
