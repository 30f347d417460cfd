//! A process that was stopped (SIGSTOP) for longer than its keepalives allow: nothing of its own
//! is wrong with its connections.

use std::process::Stdio;
use std::time::Duration;

use ssh_pool_tests::{Proxy, Sshd, eventually_async, procs};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{RELEASES, SOON, known, target, until, waiting_for};

/// The process that is stopped.
struct Caller {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Caller {
    /// One that has used its connection, and runs a long command, if there is one.
    async fn start(sshd: &Sshd, proxy: &Proxy, timeouts: [u64; 4], long: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ssh-pool-test-caller"))
            .arg(target(sshd, proxy))
            .arg(sshd.client_key())
            .arg(known(sshd, proxy))
            .args(timeouts.map(|number| number.to_string()))
            .arg(long)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut caller = Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        };
        assert_eq!(caller.line().await, "ready");
        caller
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(SOON, self.stdout.next_line()).await;
        line.expect("in time").unwrap().expect("it lives")
    }

    /// Stops it for that long; when it goes on, the next command is what it has to do first.
    async fn stop_for(&mut self, time: Duration) {
        let pid = self.child.id().unwrap();
        procs::pause(pid);
        tokio::time::sleep(time).await; // this is what happens to it
        self.stdin.write_all(b"go\n").await.unwrap();
        procs::resume(pid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_for_long_loses_no_command_and_runs_the_next_one() {
    for release in RELEASES {
        let sshd = Sshd::builder().release(release).start();
        let proxy = Proxy::to(sshd.addr());
        let done = sshd.dir().join("done");
        // Two intervals are the longest silence, and one is what the server has to answer
        // afterwards: more than a busy machine takes.
        let timeouts = [3_000, 1, 1_000, 15_000];
        let mut caller = Caller::start(&sshd, &proxy, timeouts, &until(&done)).await;
        let runs = || waiting_for(&done, &sshd) == 1;
        assert!(eventually_async(SOON, runs).await, "{release:?}");
        caller.stop_for(Duration::from_secs(7)).await;
        assert_eq!(caller.line().await, "first: exit status: 0", "{release:?}");
        std::fs::write(&done, "").unwrap();
        assert_eq!(caller.line().await, "long: exit status: 0", "{release:?}");
        assert_eq!(caller.line().await, "dials: 1", "{release:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_forgotten_while_it_was_stopped_runs_the_next_command_elsewhere() {
    for release in RELEASES {
        let sshd = Sshd::builder().release(release).start();
        let proxy = Proxy::to(sshd.addr());
        // Its keepalives are of no help for a minute.
        let timeouts = [15_000, 3, 1_000, 5_000];
        let mut caller = Caller::start(&sshd, &proxy, timeouts, "").await;
        proxy.forget();
        caller.stop_for(Duration::from_millis(1500)).await;
        assert_eq!(caller.line().await, "first: exit status: 0", "{release:?}");
        assert_eq!(caller.line().await, "dials: 2", "{release:?}");
    }
}
