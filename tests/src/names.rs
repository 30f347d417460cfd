//! What host names resolve to, for one test alone.

use std::future::Future;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::run::run;
use crate::temp::{self, TempDir};

const PACKAGE: &str = "mount";

/// An `/etc/hosts` that the threads of one runtime see, and nothing else on this machine: they have
/// a mount namespace of their own (Linux, as root).
#[derive(Debug)]
pub struct Names {
    dir: TempDir,
    /// How often it was replaced.
    version: Mutex<u32>,
}

impl Names {
    /// Runs a test on a runtime of its own, which looks names up in this file first.
    ///
    /// # Panics
    ///
    /// When the test does, or when there is no namespace to be had.
    pub fn run<F>(test: impl FnOnce(Names) -> F + Send + 'static)
    where
        F: Future<Output = ()>,
    {
        // Threads inherit the namespace of the thread that starts them.
        let thread = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, which needs root");
            // Or the mounts that follow would be seen outside of it.
            run(
                Command::new("mount").args(["--make-rprivate", "/"]),
                PACKAGE,
            );
            let names = Names {
                dir: TempDir::new(),
                version: Mutex::default(),
            };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(test(names));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    /// From now on `name` resolves to these addresses, and no other name to any. Each lookup sees
    /// what was or what is now. The C library orders the addresses of a family by their nearness
    /// (RFC 6724).
    pub fn resolve(&self, name: &str, addresses: &[IpAddr]) {
        let mut version = self.version.lock().expect("no panic while it is held");
        *version += 1;
        let file = self.dir.path().join(format!("hosts.{version}"));
        let lines: String = addresses
            .iter()
            .map(|address| format!("{address} {name}\n"))
            .collect();
        temp::write(&file, &lines, 0o644);
        let mut mount = Command::new("mount");
        run(mount.arg("--bind").arg(&file).arg("/etc/hosts"), PACKAGE);
    }
}
