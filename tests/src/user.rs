//! Who logs in.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

use crate::run::{run, run_with_input};
use crate::temp;

const PACKAGE: &str = "passwd";

/// An account on this machine that a test may log in to.
#[derive(Clone, Debug)]
pub struct TestUser {
    name: String,
    home: PathBuf,
    uid: u32,
    gid: u32,
    password: Option<String>,
}

impl TestUser {
    /// An ordinary user with a plain `/bin/sh` and an empty home, reached by key.
    ///
    /// As root that is the system user `sshpooltest`, made on first use and left behind; otherwise
    /// it is the current user, whose shell and start-up files are what they are.
    #[must_use]
    pub fn plain() -> Self {
        if Uid::effective().is_root() {
            Self::provide("sshpooltest")
        } else {
            Self::current()
        }
    }

    /// Root when the tests run as root, otherwise the current user.
    #[must_use]
    pub fn root_or_current() -> Self {
        Self::current()
    }

    /// The system user `sshpooltestpw`, who has a password. It is made once, at random, so that no
    /// machine is left with an account that can be guessed; [`password`](Self::password) tells it.
    ///
    /// # Panics
    ///
    /// When the tests do not run as root, who alone can set a password.
    #[must_use]
    pub fn with_password() -> Self {
        assert!(
            Uid::effective().is_root(),
            "logging in by password needs an account with a known password: run as root"
        );
        let mut user = Self::provide("sshpooltestpw");
        let _lock = lock();
        let file = user.home.join("password");
        let password = fs::read_to_string(&file).unwrap_or_else(|_| {
            let fresh = random_word();
            let input = format!("{}:{fresh}\n", user.name);
            run_with_input(&mut Command::new("chpasswd"), PACKAGE, &input);
            temp::write(&file, "", 0o600);
            temp::write(&file, &fresh, 0o600);
            fresh
        });
        user.password = Some(password);
        user
    }

    /// The name to log in with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The home folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The password, where one is known.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The numbers of the user and of the group.
    pub(crate) fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Gives a file or a folder to this user. Needs root unless it is theirs already.
    pub fn own(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid))
            .unwrap_or_else(|e| panic!("chown {} to {}: {e}", path.display(), self.name));
    }

    /// Whether the tests run as this very user.
    #[must_use]
    pub fn is_current(&self) -> bool {
        Uid::effective().as_raw() == self.uid
    }

    fn current() -> Self {
        let user = User::from_uid(Uid::effective())
            .expect("look up the current user")
            .expect("the current user has an account");
        Self::from_account(user)
    }

    fn from_account(user: User) -> Self {
        Self {
            name: user.name,
            home: user.dir,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            password: None,
        }
    }

    /// Finds the system user, or makes it; several processes may try at once.
    fn provide(name: &str) -> Self {
        let _lock = lock();
        let home = Path::new("/var/tmp").join(name);
        let user = find(name).unwrap_or_else(|| {
            // A password field of `*` matches no password; one with `!`, which useradd would
            // set, is a locked account to sshd without PAM.
            let mut command = Command::new("useradd");
            command
                .args(["--system", "--user-group", "--no-create-home"])
                .args(["--shell", "/bin/sh", "--password", "*", "--home-dir"])
                .arg(&home)
                .arg(name);
            run(&mut command, PACKAGE);
            find(name).expect("useradd has made the user")
        });
        let user = Self::from_account(user);
        match fs::create_dir(&user.home) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                panic!("make {}: {e}", user.home.display());
            }
            Err(_) => {}
            Ok(()) => {
                temp::set_mode(&user.home, 0o755);
                user.own(&user.home);
            }
        }
        user
    }
}

/// Keeps other processes of the same user from changing accounts and `authorized_keys` until it
/// is dropped.
pub(crate) fn lock() -> File {
    let path = std::env::temp_dir().join(format!("ssh-pool-tests-{}.lock", Uid::effective()));
    let file = File::create(&path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
    file.lock()
        .unwrap_or_else(|e| panic!("lock {}: {e}", path.display()));
    file
}

fn find(name: &str) -> Option<User> {
    User::from_name(name).expect("look up a user")
}

fn random_word() -> String {
    use std::io::Read;
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("read /dev/urandom");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
