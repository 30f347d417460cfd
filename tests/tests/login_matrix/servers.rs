//! Who is logged in to, and what they want.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ssh_pool_tests::{Dropbear, Release, Sshd, SshdBuilder, TempDir, TestUser};

use crate::keys::Stock;

/// PAM asks nothing.
const ASKS_NOTHING: &str = "auth required pam_permit.so\naccount required pam_permit.so\n\
                            session required pam_permit.so\n";

pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) user: String,
    pub(crate) port: u16,
    /// Only rows with common keys and a common agent.
    pub(crate) is_for_few: bool,
}

pub(crate) struct Servers {
    dir: TempDir,
    password: String,
    sshds: Vec<Sshd>,
    dropbear: Dropbear,
    all: Vec<Server>,
}

impl Servers {
    pub(crate) fn start(stock: &Stock) -> Self {
        let with_password = TestUser::with_password();
        let password = with_password.password().unwrap().to_owned();
        let dir = TempDir::new();
        fs::write(dir.path().join("password"), &password).unwrap();
        // ssh asks for passphrases in the same way.
        let script = format!(
            "#!/bin/sh\ncase $1 in *assphrase*) echo;; *) cat {0}/password; echo;; esac\n",
            dir.path().display()
        );
        let askpass = dir.path().join("askpass");
        fs::write(&askpass, script).unwrap();
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o755)).unwrap();

        let plain = || Sshd::builder();
        let asks = |methods: &str| {
            let methods = format!("AuthenticationMethods {methods}");
            Sshd::builder().user(with_password.clone()).option(methods)
        };
        let builders: Vec<(&'static str, bool, SshdBuilder)> = vec![
            (
                "publickey",
                false,
                plain().option("AuthenticationMethods publickey"),
            ),
            ("two attempts", false, plain().option("MaxAuthTries 2")),
            ("publickey or password", true, asks("any")),
            ("password", true, asks("password")),
            (
                "keyboard-interactive",
                true,
                asks("keyboard-interactive").option("UsePAM yes"),
            ),
            ("publickey, then password", true, asks("publickey,password")),
            (
                "none",
                true,
                asks("none")
                    .pam(ASKS_NOTHING)
                    .option("PermitEmptyPasswords yes"),
            ),
            (
                "OpenSSH 10.0",
                true,
                plain()
                    .release(Release::Trixie)
                    .option("PerSourcePenalties no"),
            ),
        ];
        let (mut sshds, mut all) = (Vec::new(), Vec::new());
        for (name, is_for_few, builder) in builders {
            let trusted = format!("TrustedUserCAKeys {}", stock.ca.public().display());
            let sshd = builder.option(trusted).option("MaxStartups 200").start();
            stock
                .authorized()
                .iter()
                .for_each(|line| sshd.authorize(line));
            all.push(Server {
                name,
                user: sshd.user().to_owned(),
                port: sshd.addr().port(),
                is_for_few,
            });
            sshds.push(sshd);
        }
        let dropbear = Dropbear::start();
        stock
            .authorized()
            .iter()
            .for_each(|line| dropbear.authorize(line));
        all.push(Server {
            name: "dropbear",
            user: dropbear.user().to_owned(),
            port: dropbear.port(),
            is_for_few: true,
        });
        Self {
            dir,
            password,
            sshds,
            dropbear,
            all,
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Server> {
        self.all.iter()
    }

    pub(crate) fn write_known_hosts(&self, folder: &Path) {
        let files = self.sshds.iter().map(Sshd::known_hosts);
        let files = files.chain([self.dropbear.known_hosts()]);
        let text: String = files
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        fs::write(folder.join("known_hosts"), text).unwrap();
    }

    pub(crate) fn askpass(&self) -> PathBuf {
        self.dir.path().join("askpass")
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}
