//! A home folder of its own for the account that runs the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User, getuid};

use crate::temp::{self, TempDir};

/// The way in, as `sh -c ENTER sh PASSWD COMMAND…`, in a mount namespace of its own.
const ENTER: &str = r#"
set -e
mount --bind "$1" /etc/passwd
if [ -e "$1.nsswitch" ] && [ -e /etc/nsswitch.conf ]; then
    mount --bind "$1.nsswitch" /etc/nsswitch.conf
fi
shift
exec "$@"
"#;

/// An empty folder that programs take for the home of the user who runs the tests. ssh goes by the
/// user data base and not by `$HOME`, so that is what differs for them. Needs root.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
    passwd: PathBuf,
}

impl Home {
    /// Makes one, with an empty `.ssh` in it.
    ///
    /// # Panics
    ///
    /// When the tests do not run as root, who alone may make mount namespaces.
    #[must_use]
    pub fn new() -> Self {
        assert!(
            Uid::effective().is_root(),
            "another home needs a mount namespace, and root to make one: run scripts/test as root"
        );
        let user = User::from_uid(getuid()).expect("look up the current user");
        let user = user.expect("the current user has an account").name;
        let dir = TempDir::new();
        let home = temp::folder(&dir.path().join("home"));
        temp::set_mode(&temp::folder(&home.join(".ssh")), 0o700);
        let base = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
        let changed = |line: &str| {
            let mut fields: Vec<_> = line.split(':').collect();
            let home = home.to_string_lossy();
            if fields.len() == 7 && fields[0] == user {
                fields[5] = &home;
            }
            fields.join(":") + "\n"
        };
        let passwd = dir.path().join("passwd");
        let text: String = base.lines().map(changed).collect();
        temp::write(&passwd, &text, 0o644);
        Self { dir, passwd }
    }

    /// One of a user whom the user data base does not have.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    #[must_use]
    pub fn without_account() -> Self {
        let home = Self::new();
        let text = fs::read_to_string(&home.passwd).expect("it was written");
        let ours = getuid().to_string();
        let others = text
            .lines()
            .filter(|line| line.split(':').nth(2) != Some(&ours));
        let others: String = others.map(|line| format!("{line}\n")).collect();
        temp::write(&home.passwd, &others, 0o644);
        // systemd's module knows root without that file.
        let nsswitch = home.passwd.with_extension("nsswitch");
        temp::write(&nsswitch, "passwd: files\n", 0o644);
        home
    }

    /// Where keys and `known_hosts` are.
    #[must_use]
    pub fn ssh(&self) -> PathBuf {
        self.dir.path().join("home/.ssh")
    }

    /// A program for which this is the home. `$HOME` and `$SSH_AUTH_SOCK` are not set.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut inside = Command::new("unshare");
        inside
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", ENTER, "sh"])
            .arg(&self.passwd)
            .arg(program.as_ref())
            .env_remove("HOME")
            .env_remove("SSH_AUTH_SOCK");
        inside
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}
