//! A private Docker daemon.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use nix::unistd::Uid;

use crate::daemon::Daemon;
use crate::procs;
use crate::run::run;
use crate::temp::{self, TempDir};
use crate::user::TestUser;
use crate::wait::eventually;

const PACKAGE: &str = "docker.io";
const PATIENCE: Duration = Duration::from_secs(60);
/// What the base image has in `/bin`, of this machine.
const PROGRAMS: [&str; 9] = [
    "sh",
    "cat",
    "dd",
    "echo",
    "head",
    "seq",
    "sha256sum",
    "sleep",
    "true",
];

/// A dockerd with a socket, data, a containerd and a log of its own, which knows nothing of others
/// on this machine. It has no network but that of the host: run containers with the network mode
/// `none`.
///
/// Dropping it ends it, with its containers and all that belongs to them.
#[derive(Debug)]
pub struct Dockerd {
    // Before the folder: the processes must be gone when that is removed.
    daemon: Daemon,
    dir: TempDir,
    _image: Arc<Image>,
}

impl Dockerd {
    /// The name of the one image that it has: a shell and a few small programs (`cat`, `dd`,
    /// `echo`, `head`, `seq`, `sha256sum`, `sleep`, `true`).
    pub const IMAGE: &'static str = "base";

    /// Starts one, and waits until it has its image.
    ///
    /// # Panics
    ///
    /// When dockerd is not there, or does not start; the message holds its log. And when the tests
    /// do not run as root, without which dockerd does not run.
    #[must_use]
    pub fn start() -> Self {
        assert!(
            Uid::effective().is_root(),
            "dockerd needs root: run the tests with it as root"
        );
        let dir = TempDir::new();
        let image = Image::shared();
        let archive = image.archive();
        let dockerd = Self {
            daemon: Daemon::new(dir.path()),
            dir,
            _image: image,
        };
        dockerd.launch();
        let mut import = dockerd.docker();
        run(import.arg("import").arg(archive).arg(Self::IMAGE), PACKAGE);
        dockerd
    }

    /// Where it listens. The test user may connect to it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        // Below 108 bytes, whatever the temporary folder is called.
        self.dir.path().join("sock")
    }

    /// The stock `docker`, about to talk to it: add a command.
    #[must_use]
    pub fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env_remove("DOCKER_CONTEXT")
            .arg(format!("--host=unix://{}", self.socket().display()));
        command
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends it. Its containers end too; its images and what it knows of containers stay.
    pub fn stop(&self) {
        // dockerd would wait for those that take no notice of SIGTERM, as the first process of a
        // container does. Without a container it cleans up and ends at once.
        let ended = eventually(PATIENCE, || {
            let running = self.containers();
            for pid in &running {
                procs::kill(*pid);
            }
            running.is_empty()
        });
        // In a drop while unwinding a second panic would abort the whole test run.
        assert!(
            ended || std::thread::panicking(),
            "containers survive SIGKILL: {:?}",
            self.containers()
        );
        self.daemon.stop();
        self.daemon.end();
        self.unmount();
        // A dead socket refuses just as well as none, but may not be waited for.
        let _ = fs::remove_file(self.socket());
    }

    /// The processes in its containers. Killed with what watches over them, they would belong to
    /// nobody.
    fn containers(&self) -> Vec<u32> {
        let mut shims = self.daemon.mark().processes();
        shims.retain(|pid| {
            procs::name(*pid).is_some_and(|name| name.starts_with("containerd-shim"))
        });
        procs::descendants(&shims)
    }

    /// Starts it again, at the same socket, and waits until it answers.
    pub fn restart(&self) {
        self.stop();
        self.launch();
    }

    fn launch(&self) {
        let dir = self.dir.path();
        let log = fs::File::create(dir.join("log")).expect("make a file for the log");
        let mut command = Command::new(dockerd());
        command
            // Of a network it needs nothing, and it is to change none on this machine.
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--ip-masq=false"])
            .arg("--userland-proxy=false")
            // Plain folders: they work everywhere and are never mounted.
            .arg("--storage-driver=vfs")
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            // It tells of each request.
            .args(["--log-level", "debug"])
            .stderr(log);
        // containerd leaves its own behind when it is killed.
        let _ = fs::remove_file(dir.join("pid"));
        self.daemon.start(&mut command, PACKAGE);
        let up = eventually(PATIENCE, || {
            if let Some(status) = self.daemon.exited() {
                panic!("dockerd does not start: {status}\n{}", self.log());
            }
            self.answers()
        });
        assert!(up, "no answer in {PATIENCE:?}\n{}", self.log());
        TestUser::plain().own(&self.socket());
    }

    /// Whether it answers a request.
    fn answers(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.socket()) else {
            return false;
        };
        let ask = b"GET /_ping HTTP/1.0\r\n\r\n";
        let mut answer = String::new();
        stream.set_read_timeout(Some(PATIENCE)).is_ok()
            && stream.write_all(ask).is_ok()
            && std::io::Read::read_to_string(&mut stream, &mut answer).is_ok()
            && answer.contains(" 200 ")
    }

    /// Takes away what a killed one has left mounted below its folder.
    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = format!("{}/", self.dir.path().display());
        let below = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|path| path.starts_with(&ours));
        // The last mounted first. One that is gone already is none to worry about.
        let below: Vec<_> = below.collect();
        for path in below.into_iter().rev() {
            let _ = Command::new("umount").args(["--lazy", path]).output();
        }
    }

    /// Takes away the control groups of containers whose shim had no time to: they are empty, and
    /// would be there until the machine is started again.
    fn forget_groups(&self) {
        let names = |folder: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let containers = names(&self.dir.path().join("data/containers"));
        for kind in names(Path::new("/sys/fs/cgroup")) {
            for id in containers.iter().filter_map(|path| path.file_name()) {
                let group = kind.join("docker").join(id);
                // A killed process may take a moment to leave it.
                let gone = eventually(PATIENCE, || {
                    !group.exists() || fs::remove_dir(&group).is_ok()
                });
                assert!(
                    gone || std::thread::panicking(),
                    "{} is in use",
                    group.display()
                );
            }
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop();
        self.forget_groups();
    }
}

/// It stands outside the PATH of an ordinary user.
fn dockerd() -> PathBuf {
    let usual = PathBuf::from("/usr/sbin/dockerd");
    if usual.exists() {
        usual
    } else {
        "dockerd".into()
    }
}

/// A tar archive with the programs and the libraries they need.
#[derive(Debug)]
struct Image(TempDir);

impl Image {
    /// That of the fixtures there are, or a new one.
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let image = Arc::new(Self::make());
            *shared = Arc::downgrade(&image);
            image
        })
    }

    fn archive(&self) -> PathBuf {
        self.0.path().join("image.tar")
    }

    fn make() -> Self {
        let image = Self(TempDir::new());
        let root = image.0.path().join("root");
        for folder in ["bin", "tmp", "root"] {
            fs::create_dir_all(root.join(folder)).expect("make a folder");
        }
        for program in PROGRAMS {
            let from = Path::new("/bin").join(program);
            copy(&from, &root.join("bin").join(program));
            let needs = run(Command::new("ldd").arg(&from), "libc-bin");
            let paths = needs.split_whitespace();
            for library in paths.filter(|word| word.starts_with('/')) {
                let to = root.join(library.trim_start_matches('/'));
                let folder = to.parent().expect("it is in a folder");
                fs::create_dir_all(folder).expect("make a folder");
                if !to.exists() {
                    copy(Path::new(library), &to);
                }
            }
        }
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(image.archive());
        run(tar.arg("."), "tar");
        image
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to)
        .unwrap_or_else(|e| panic!("copy {} for a Docker image: {e}", from.display()));
    temp::set_mode(to, 0o755);
}
