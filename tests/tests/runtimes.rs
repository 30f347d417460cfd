//! One pool and many runtimes: each caller may have one of its own, that ends before the pool does,
//! or none.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::future::{Future, IntoFuture};
use std::sync::OnceLock;
use std::time::Duration;
use std::{fs, thread};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use ssh_pool::docker::{Connector, Docker};
use ssh_pool::sftp::{Sftp, SftpExt};
use ssh_pool::{CommandState, Error, Host, Phase, Pool, Stdio};
use ssh_pool_tests::{Dockerd, Ledger, Sshd, TempDir, TestUser, block_on};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

#[path = "support/mod.rs"]
mod support;

use support::{SOON, builder, known};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

static POOL: OnceLock<Pool> = OnceLock::new();

#[test]
fn a_pool_in_a_static_serves_one_runtime_after_the_other_on_one_connection() {
    let sshd = Sshd::start();
    for make in [current_thread, multi_thread, current_thread] {
        make().block_on(async {
            // Made in the first of them.
            let pool = POOL.get_or_init(|| builder(&sshd, known(&sshd)).build().unwrap());
            let host = pool.host(sshd.target()).unwrap();
            let output = tokio::time::timeout(SOON, host.command("true").output());
            assert!(output.await.expect("in time").unwrap().status.success());
            assert_eq!(host.status().dials, 1, "{:?}", host.status());
        });
    }
    let host = POOL.get().unwrap().host(sshd.target()).unwrap();
    block_on(host.command("true").output()).unwrap();
    assert_eq!(host.status().dials, 1, "{:?}", host.status());
    block_on(POOL.get().unwrap().close());
}

#[test]
fn a_runtime_that_ends_takes_no_command_of_another_one_with_it() {
    let sshd = Sshd::start();
    let ledger = Ledger::new();
    let first = current_thread();
    let host = first.block_on(async {
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        host.warm().await.unwrap();
        host
    });
    let other = thread::spawn({
        let host = host.clone();
        let line = format!("{}; sleep 1; echo done", ledger.enter("begun"));
        move || current_thread().block_on(host.shell(line).output())
    });
    assert!(ssh_pool_tests::eventually(SOON, || ledger.lines() == ["begun"]));
    drop(first);
    let output = other.join().unwrap().unwrap();
    assert_eq!(output.stdout, b"done\n");
}

#[test]
fn a_synchronous_program_needs_no_runtime_and_no_timers_of_its_own() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let without_timers = || Builder::new_current_thread().build().unwrap();
    without_timers().block_on(host.warm()).unwrap();
    let mut command = host.command("echo");
    command.arg("x").timeout(SOON);
    assert_eq!(block_on(command.output()).unwrap().stdout, b"x\n");
    let output = without_timers().block_on(command.output()).unwrap();
    assert_eq!(output.stdout, b"x\n");
    let late = block_on(
        host.shell("sleep 30")
            .timeout(Duration::from_millis(500))
            .output(),
    );
    assert!(late.unwrap_err().is_timeout());

    // What one runtime has begun another one ends.
    let mut cat = host.command("cat");
    cat.stdin(Stdio::piped());
    let mut child = current_thread().block_on(cat.spawn()).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    block_on(stdin.write_all(b"across")).unwrap();
    drop(stdin);
    let output = without_timers().block_on(child.wait_with_output()).unwrap();
    assert_eq!(output.stdout, b"across");
    let mut sleeper = host.shell("echo up; exec sleep 30");
    let mut sleeper = block_on(sleeper.stdout(Stdio::piped()).spawn()).unwrap();
    // Before that sshd may have no group to signal.
    let up = sleeper.stdout.as_mut().unwrap().read_u8();
    assert_eq!(block_on(up).unwrap(), b'u');
    block_on(sleeper.signal("USR1")).unwrap();
    let status = block_on(sleeper.wait()).unwrap();
    assert_eq!(status.signal(), Some("USR1"), "{status}");
    let mut sleeper = block_on(host.command("sleep").arg("30").spawn()).unwrap();
    block_on(sleeper.kill()).unwrap();

    let forward = block_on(host.forward_local(("127.0.0.1", 0), ("127.0.0.1", sshd.port())));
    let forward = forward.unwrap();
    let greeting = current_thread().block_on(async {
        let mut tcp = tokio::net::TcpStream::connect(forward.address().to_string())
            .await
            .unwrap();
        let mut greeting = [0; 8];
        tcp.read_exact(&mut greeting).await.unwrap();
        greeting
    });
    assert_eq!(&greeting, b"SSH-2.0-");
    drop(forward);
    block_on(pool.close());
}

#[test]
fn callers_in_many_short_runtimes_are_all_served() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let callers: Vec<_> = (0..8)
        .map(|number| {
            let host = host.clone();
            thread::spawn(move || {
                for round in 0..10 {
                    let make = if round % 2 == 0 {
                        current_thread
                    } else {
                        multi_thread
                    };
                    let output =
                        make().block_on(host.command("echo").arg(number.to_string()).output());
                    assert_eq!(output.unwrap().stdout, format!("{number}\n").into_bytes());
                }
            })
        })
        .collect();
    callers
        .into_iter()
        .for_each(|caller| caller.join().unwrap());
    let status = host.status();
    assert_eq!(status.failed_dials, 0, "{status:?}");
}

#[test]
fn a_pool_that_is_to_end_with_its_runtime_says_so_at_once() {
    let sshd = Sshd::start();
    let ledger = Ledger::new();
    let runtime = multi_thread();
    let (pool, host) = runtime.block_on(async {
        let settings = builder(&sshd, known(&sshd)).in_current_runtime();
        let pool = settings.build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        host.command("true").output().await.unwrap();
        (pool, host)
    });
    let line = format!("{}; sleep 30", ledger.enter("begun"));
    let running = thread::spawn({
        let host = host.clone();
        move || current_thread().block_on(host.shell(line).output())
    });
    assert!(ssh_pool_tests::eventually(SOON, || ledger.lines() == ["begun"]));
    drop(runtime);
    let lost = running.join().unwrap().unwrap_err();
    assert_eq!(lost.command_state(), CommandState::Unknown, "{lost}");

    let other = current_thread();
    for _ in 0..3 {
        let output = host.command("true").output();
        let output = other.block_on(async { tokio::time::timeout(SOON, output).await });
        let output = output.expect("at once");
        let error = output.unwrap_err();
        assert!(matches!(error, Error::RuntimeEnded { .. }), "{error:?}");
        assert_eq!(error.phase(), Phase::Closed);
        assert_eq!(error.command_state(), CommandState::NotStarted);
        assert!(!error.is_transient() && !error.is_timeout());
    }
    let error = pool.host(sshd.target()).unwrap_err();
    assert!(matches!(error, Error::RuntimeEnded { .. }), "{error:?}");
    block_on(pool.close());

    let nowhere = builder(&sshd, known(&sshd)).in_current_runtime().build();
    assert!(matches!(nowhere, Err(Error::InvalidInput { .. })));
}

/// In a runtime of its own on this thread. One that hangs is a failure.
fn at_once<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    let work = async { tokio::time::timeout(SOON, work).await };
    runtime.block_on(work).expect("it hangs")
}

/// A host, and a folder that its user may write to.
fn files(sshd: &Sshd) -> (Host, String, TempDir) {
    let pool = builder(sshd, known(sshd)).build().unwrap();
    let folder = TempDir::new();
    TestUser::plain().own(folder.path());
    let remote = folder.path().display().to_string();
    (pool.host(sshd.target()).unwrap(), remote, folder)
}

/// Every kind of call.
async fn all_of_sftp(sftp: &Sftp, there: &str, here: &TempDir) {
    let (local, back) = (here.path().join("local"), here.path().join("back"));
    let content = vec![7; 3 << 20];
    fs::write(&local, &content).unwrap();
    let file = format!("{there}/file");
    let up = sftp.upload(&local, &file).verify(true);
    assert_eq!(up.await.unwrap().bytes, content.len() as u64);
    sftp.download(&file, &back).await.unwrap();
    assert!(fs::read(&back).unwrap() == content);
    assert!(sftp.read(&file).await.unwrap() == content);
    sftp.write(&file, "x").await.unwrap();
    sftp.set_permissions(&file, 0o600).await.unwrap();
    assert_eq!(sftp.metadata(&file).await.unwrap().len(), 1);
    let folder = format!("{there}/folder");
    sftp.create_dir(&folder).await.unwrap();
    sftp.symlink("../file", format!("{folder}/link"))
        .await
        .unwrap();
    let link = sftp.read_link(format!("{folder}/link")).await.unwrap();
    assert_eq!(link, "../file");
    let link = sftp.symlink_metadata(format!("{folder}/link")).await;
    assert!(link.unwrap().is_symlink());
    assert_eq!(sftp.read_dir(&folder).await.unwrap().len(), 1);
    assert_eq!(sftp.canonicalize(&folder).await.unwrap(), folder);
    sftp.remove_file(format!("{folder}/link")).await.unwrap();
    sftp.remove_dir(&folder).await.unwrap();
    sftp.rename(&file, format!("{there}/moved")).await.unwrap();
    sftp.upload_dir(here.path(), format!("{there}/tree"))
        .await
        .unwrap();
    let tree = here.path().join("tree");
    sftp.download_dir(format!("{there}/tree"), &tree)
        .await
        .unwrap();
    fs::remove_dir_all(tree).unwrap();
    sftp.remove_file(format!("{there}/moved")).await.unwrap();
}

#[test]
fn files_need_no_runtime_and_outlive_that_of_their_session() {
    let sshd = Sshd::start();
    let (host, there, _there) = files(&sshd);
    let here = TempDir::new();
    let sftp = block_on(host.sftp()).unwrap();
    block_on(all_of_sftp(&sftp, &there, &here));
    // Dropped on the way, outside of any runtime, it is cleaned up all the same.
    let mut begun = sftp
        .upload(here.path().join("local"), format!("{there}/begun"))
        .into_future();
    let first = current_thread();
    first.block_on(async { drop(futures_util::poll!(&mut begun)) });
    drop((first, begun));
    let listed = || block_on(sftp.read_dir(&there)).unwrap();
    let clean = || listed().iter().all(|entry| entry.file_name() == "tree");
    assert!(ssh_pool_tests::eventually(SOON, clean), "{:?}", listed());

    // Opened in a runtime that does nothing further.
    let idle = current_thread();
    let sftp = at_once(&idle, host.sftp()).unwrap();
    at_once(
        &current_thread(),
        sftp.remove_file(format!("{there}/tree/local")),
    )
    .unwrap();
    let file = format!("{there}/tree/back");
    assert_eq!(
        at_once(&current_thread(), sftp.read(&file)).unwrap().len(),
        3 << 20
    );
    drop(idle);
    assert_eq!(block_on(sftp.metadata(&file)).unwrap().len(), 3 << 20);
    assert_eq!(host.status().failed_dials, 0, "{:?}", host.status());
}

#[test]
fn a_runtime_that_ends_takes_no_sftp_session_of_another_one_with_it() {
    let sshd = Sshd::start();
    let (host, there, _there) = files(&sshd);
    let first = multi_thread();
    let sftp = at_once(&first, host.sftp()).unwrap();
    at_once(&current_thread(), sftp.write(format!("{there}/0"), "x")).unwrap();
    let ended = thread::spawn(move || drop(first));
    // Each of them on its session: a rename is not tried again.
    for number in 0..200 {
        let (from, to) = (
            format!("{there}/{number}"),
            format!("{there}/{}", number + 1),
        );
        at_once(&current_thread(), sftp.rename(from, to)).unwrap();
    }
    ended.join().unwrap();
    at_once(
        &current_thread(),
        sftp.rename(format!("{there}/200"), format!("{there}/0")),
    )
    .unwrap();
}

async fn ping(docker: &Docker) -> Bytes {
    let request = Request::get("/_ping").body(Empty::<Bytes>::new()).unwrap();
    let response = docker.request(request).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

#[test]
fn docker_needs_no_runtime_and_keeps_connections_over_those_of_its_callers() {
    let dockerd = Dockerd::start();
    let strict = || {
        Sshd::builder()
            .option("AllowStreamLocalForwarding no")
            .start()
    };
    for sshd in [Sshd::start(), strict()] {
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        let docker = Docker::at(&host, dockerd.socket()).unwrap();
        assert_eq!(block_on(ping(&docker)), "OK");
        let (first, second) = (current_thread(), current_thread());
        for runtime in [&first, &second, &first] {
            assert_eq!(at_once(runtime, ping(&docker)), "OK");
        }
        drop(first);
        assert_eq!(at_once(&second, ping(&docker)), "OK");

        let mut connector = Connector::at(&host, dockerd.socket()).unwrap();
        let uri = Uri::from_static("http://docker");
        let stream = block_on(tower_service::Service::call(&mut connector, uri)).unwrap();
        let mut stream = TokioIo::new(stream);
        let mut answer = String::new();
        block_on(async {
            let request = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            stream.flush().await.unwrap();
            stream.read_to_string(&mut answer).await.unwrap();
        });
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert_eq!(host.status().failed_dials, 0, "{:?}", host.status());
    }
}
