//! Logs that are followed, and what goes on beside them.

use futures_util::future::join_all;
use http_body_util::BodyExt;
use ssh_pool_tests::eventually_async;

use crate::api::{self, Said};
use crate::{SOON, TestHost};

const FOLLOWED: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn forty_logs_are_followed_at_once_and_other_requests_go_on() {
    let test_host = TestHost::direct();
    let script = "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two";
    let id = api::start(&test_host.docker, script).await;
    let follow = || async {
        let mut body = api::follow(&test_host.docker, &id).await;
        let mut said = Said::default();
        while said.stdout != b"one\n" {
            said.push(body.frame().await.unwrap().unwrap().data_ref().unwrap());
        }
        body
    };
    let bodies = join_all((0..FOLLOWED).map(|_| follow())).await;
    assert_eq!(test_host.host.status().isolated_busy, 40);

    // A list, a command in the container, an archive: each beside what is followed.
    assert_eq!(api::list(&test_host.docker).await.unwrap().len(), 1);
    let path = format!("/containers/{id}/archive?path=/tmp");
    let put = api::request(hyper::Method::PUT, &path, api::tar("go", b""));
    api::body(test_host.docker.request(put).await.unwrap()).await;
    for said in join_all(bodies.into_iter().map(api::read)).await {
        assert_eq!(said.unwrap().stdout, b"two\n");
    }
    let free = || test_host.host.status().isolated_busy == 0;
    assert!(
        eventually_async(SOON, free).await,
        "{:?}",
        test_host.host.status()
    );
}
