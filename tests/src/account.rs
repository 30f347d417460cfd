//! An account with another login shell and another home, for one server alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use crate::temp;
use crate::user::TestUser;

/// The way in, as `sh -c ENTER sh PASSWD SHELLS COMMAND…`, in a mount namespace of its own. It
/// replaces the process, so the server has the process id that was started.
const ENTER: &str = r#"
set -e
mount --bind "$1" /etc/passwd
mount --bind "$2" /etc/shells
shift 2
exec "$@"
"#;

/// A user data base in which one account differs. The machine's own is not changed.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    passwd: PathBuf,
    shells: PathBuf,
    home: PathBuf,
}

impl Account {
    /// Gives the user this login shell, and an empty home below `dir`.
    pub(crate) fn new(dir: &Path, user: &TestUser, shell: &Path) -> Self {
        assert!(
            Uid::effective().is_root(),
            "another login shell needs a mount namespace, and root to make one"
        );
        let home = temp::folder(&dir.join("home"));
        user.own(&home);
        let base = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
        let changed = |line: &str| {
            let mut fields: Vec<_> = line.split(':').collect();
            let (home, shell) = (home.to_string_lossy(), shell.to_string_lossy());
            if fields.len() == 7 && fields[0] == user.name() {
                fields[5] = &home;
                fields[6] = &shell;
            }
            fields.join(":") + "\n"
        };
        let (passwd, shells) = (dir.join("passwd"), dir.join("shells"));
        temp::write(
            &passwd,
            &base.lines().map(changed).collect::<String>(),
            0o644,
        );
        // dropbear lets nobody in whose shell is not listed.
        temp::write(&shells, &format!("{}\n", shell.display()), 0o644);
        Self {
            passwd,
            shells,
            home,
        }
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The same program, which sees this account.
    pub(crate) fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("unshare");
        inside
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", ENTER, "sh"])
            .args([&self.passwd, &self.shells])
            .arg(command.get_program())
            .args(command.get_args());
        inside
    }
}
