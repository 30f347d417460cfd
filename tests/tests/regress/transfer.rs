//! transfer: files of many sizes through `cat`, in both directions, byte for byte.

use ssh_pool::Stdio;
use tokio::io::AsyncWriteExt;

use crate::data::{Folder, assert_same, noise};
use crate::server;
use crate::way::{SPAWNED, WITH_OUTPUT};

/// Around packets (32 KiB) and windows (2 MiB), where a byte is most easily lost.
const SIZES: [usize; 17] = [
    0,
    1,
    10,
    100,
    1_000,
    4_096,
    32_767,
    32_768,
    32_769,
    65_536,
    131_072,
    262_144,
    1_000_000,
    (2 << 20) - 1,
    2 << 20,
    (2 << 20) + 1,
    10_000_000,
];

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_size_come_down_unchanged() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    for size in SIZES {
        let bytes = noise(1, size);
        let file = folder.put("data", &bytes);
        for way in WITH_OUTPUT {
            let output = way.output(host.command("cat").arg(&file)).await.unwrap();
            assert!(output.status.success(), "{:?}", output.status);
            assert_same(&output.stdout, &bytes, (way, size));
            assert_same(&output.stderr, b"", (way, size));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_size_go_up_unchanged() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    for size in SIZES {
        let bytes = noise(2, size);
        for way in WITH_OUTPUT {
            let name = format!("{way:?}-{size}");
            let mut command = host.shell(format!("cat >{}", folder.file(&name)));
            let output = way.output(command.stdin(&bytes)).await.unwrap();
            assert!(output.status.success(), "{output:?}");
            assert_same(&folder.read(&name), &bytes, &name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_written_in_blocks_of_every_size_go_up_unchanged() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    for way in SPAWNED {
        for block in [10, 100, 1_000, 32_768, 65_536, 131_072, 262_144] {
            let bytes = noise(3, 50 * block.min(65_536));
            let name = format!("{way:?}-{block}");
            let mut command = way.shell(&host, format!("cat >{}", folder.file(&name)));
            let mut child = command.stdin(Stdio::piped()).spawn().await.unwrap();
            let mut stdin = child.stdin.take().unwrap();
            for part in bytes.chunks(block) {
                stdin.write_all(part).await.unwrap();
            }
            stdin.shutdown().await.unwrap();
            assert!(child.wait().await.unwrap().success());
            assert_same(&folder.read(&name), &bytes, &name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_up_and_down_at_once_comes_back_unchanged() {
    let (_sshd, _pool, host) = server();
    let bytes = noise(4, 10_000_000);
    for way in WITH_OUTPUT {
        let output = way.output(host.command("cat").stdin(&bytes)).await.unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        assert_same(&output.stdout, &bytes, way);
    }
}
