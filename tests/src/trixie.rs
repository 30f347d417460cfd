//! The servers of Debian trixie, in a root of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

/// Where `unshare` is, which the way into the root begins with.
pub(crate) const PACKAGE: &str = "util-linux";

/// Names the root; scripts/test exports it.
const VARIABLE: &str = "SSH_POOL_TEST_TRIXIE";

/// The way in, as `sh -c ENTER sh ROOT FOLDERS… -- COMMAND…`, in a mount namespace of its own: the
/// mounts are seen by nobody else, and gone with the last process in it, however that ends.
///
/// Every step replaces the process or waits for a small program, so the server has the process id
/// that was started.
const ENTER: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
root=$1
shift
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    shift
done
shift
# Whoever has an account here has the same one there, and the root itself need not be changed.
for file in passwd group shadow; do
    mount --bind "/etc/$file" "$root/etc/$file"
done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/sshd"
# All servers share the root; no command of one may change it under another.
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"#;

/// Its OpenSSH.
pub(crate) const SSHD: &str = "usr/sbin/sshd";
/// Its dropbear.
pub(crate) const DROPBEAR: &str = "usr/sbin/dropbear";

/// A server of the root: add its arguments. Accounts are those of this machine as they are now, and so
/// are `/tmp`, `/var/tmp`, `home` and the folder for temporary files. The rest cannot be written.
///
/// # Panics
///
/// When the tests do not run as root, or nobody has made the root.
pub(crate) fn server(program: &str, home: &Path) -> Command {
    assert!(
        Uid::effective().is_root(),
        "the servers of Debian trixie run in a chroot, which needs root: run scripts/test as root"
    );
    let root = root();
    assert!(
        has(program),
        "there is no Debian trixie with {program} in {0}; this test needs it: run scripts/test as \
         root, or debootstrap --variant=minbase --include=openssh-server,dropbear-bin trixie {0} \
         ({VARIABLE} names another folder)",
        root.display()
    );
    let mut shared: Vec<PathBuf> = ["/dev", "/proc", "/tmp", "/var/tmp"]
        .map(PathBuf::from)
        .into();
    for folder in [home.to_owned(), std::env::temp_dir()] {
        if !shared.iter().any(|above| folder.starts_with(above)) {
            shared.push(folder);
        }
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .args(["sh", "-c", ENTER, "sh"])
        .arg(root)
        .args(shared)
        .arg("--")
        .arg(Path::new("/").join(program));
    command
}

/// Whether there is a root with this program.
pub(crate) fn has(program: &str) -> bool {
    root().join(program).is_file()
}

/// Something else that scripts/test has put beside the root.
pub(crate) fn beside(name: &str) -> PathBuf {
    root().with_file_name(name)
}

/// Where scripts/test puts it, also for a test that was not started by scripts/test.
pub(crate) fn root() -> PathBuf {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return named.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = tests.parent().expect("this crate is in a workspace");
    workspace.join(target).join("trixie")
}
