//! How commands end by themselves.

use tokio::task::JoinSet;

use crate::server;

#[tokio::test(flavor = "multi_thread")]
async fn every_exit_code_comes_back() {
    let (_sshd, _pool, host) = server();
    let mut running = JoinSet::new();
    for code in 0..=255 {
        let output = host.shell(format!("exit {code}")).output();
        running.spawn(async move { (code, output.await.unwrap().status) });
    }
    while let Some(ended) = running.join_next().await {
        let (code, status) = ended.unwrap();
        assert_eq!(status.code(), Some(code));
        assert_eq!(status.signal(), None);
        assert_eq!(status.success(), code == 0);
        assert_eq!(status.to_string(), format!("exit status: {code}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_without_a_name_in_the_rfc_is_no_success_either() {
    let (_sshd, _pool, host) = server();
    let output = host.shell("ulimit -c 0; kill -XCPU $$").output().await;
    let status = output.unwrap().status;
    assert!(!status.success());
    assert_eq!(status.code(), None);
    assert!(
        status.signal().is_some_and(|name| name.contains('@')),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_reports_a_signal_of_its_child_reports_a_code() {
    let (_sshd, _pool, host) = server();
    let output = host.shell("sh -c 'kill -9 $$'; exit $?").output().await;
    assert_eq!(output.unwrap().status.code(), Some(128 + 9));
}
