//! yes-head: output without end, of which somebody wants a part.

use ssh_pool_tests::{eventually, eventually_async};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::data::Folder;
use crate::way::{SPAWNED, WITH_OUTPUT, Way};
use crate::{SOON, server};

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_lines_of_yes_are_two_thousand_lines() {
    let (_sshd, _pool, host) = server();
    for way in WITH_OUTPUT {
        let mut command = host.shell("yes | head -n 2000");
        let output = way.output(&mut command).await.unwrap();
        assert_eq!(output.stdout, b"y\n".repeat(2000), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_there_for_a_reader_who_comes_after_the_command_has_ended() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    for way in SPAWNED {
        let name = format!("{way:?}");
        let line = format!("yes | head -n 2000; touch {}", folder.file(&name));
        let mut child = way.shell(&host, line).spawn().await.unwrap();
        let written = || folder.path(&name).exists();
        assert!(eventually_async(SOON, written).await);
        let mut stdout = child.stdout.take().unwrap();
        assert!(
            timeout(SOON, child.wait())
                .await
                .unwrap()
                .unwrap()
                .success()
        );
        let mut lines = Vec::new();
        stdout.read_to_end(&mut lines).await.unwrap();
        assert_eq!(lines, b"y\n".repeat(2000), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_window_of_lines_waits_for_a_reader_who_comes_late() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let (begun, ended) = (folder.file("begun"), folder.file("ended"));
    // 40 MB: no window and no kernel holds that for us.
    let line = format!("touch {begun}; yes | head -n 20000000; touch {ended}");
    let mut child = host.shell(line).spawn().await.unwrap();
    assert!(eventually_async(SOON, || folder.path("begun").exists()).await);
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 2];
    stdout.read_exact(&mut first).await.unwrap();
    // While others have as much from beginning to end.
    for _ in 0..2 {
        let status = host.shell("yes | head -n 20000000").status();
        assert!(timeout(SOON, status).await.unwrap().unwrap().success());
    }
    assert!(!folder.path("ended").exists(), "nobody holds it back");
    let mut count = 2;
    let mut part = vec![0; 1 << 16];
    loop {
        let length = timeout(SOON, stdout.read(&mut part))
            .await
            .unwrap()
            .unwrap();
        if length == 0 {
            break;
        }
        let even = part[..length]
            .iter()
            .step_by(2)
            .all(|byte| *byte == part[0]);
        assert!(even, "not lines of y");
        count += length;
    }
    assert_eq!(count, 40_000_000);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn yes_ends_when_its_reader_has_had_enough() {
    let (sshd, pool, host) = server();
    let yes = || {
        let all = sshd.session_processes();
        all.iter().filter(|(_, line)| line.ends_with("yes")).count()
    };
    for way in SPAWNED {
        for round in 0..3 {
            let mut child = way.shell(&host, "yes").spawn().await.unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let mut some = vec![0; 4_000];
            stdout.read_exact(&mut some).await.unwrap();
            assert_eq!(some, b"y\n".repeat(2_000));
            if way == Way::Isolated {
                // One that shares has had its end by now, perhaps: it may not wait for a reader.
                assert!(eventually_async(SOON, || yes() >= 1).await);
            }
            // The child with its stream, or one after the other.
            if round == 1 {
                drop(child);
                drop(stdout);
            } else {
                drop(stdout);
                drop(child);
            }
            let gone = eventually_async(SOON, || yes() == 0).await;
            assert!(gone, "{way:?}: {:?}", sshd.session_processes());
        }
    }
    assert!(host.command("true").status().await.unwrap().success());
    pool.close().await;
    assert!(eventually(SOON, || sshd.open_connections() == 0));
}
