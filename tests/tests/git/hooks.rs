//! Programs that need another stream while they hold one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use futures_util::future::join_all;
use ssh_pool::Limits;
use ssh_pool_tests::Sshd;

use crate::{Place, succeeds};

/// How many pushes at once.
const PUSHES: usize = 40;

/// A clone whose pushes ask the server for its refs before they send anything, as LFS does for its
/// locks, while the push itself holds its connection.
async fn clone_with_hook(place: &Place) {
    place.repos.create("app", 1);
    let clone = place.clone("app", &[]).await;
    let hook = clone.join(".git/hooks/pre-push");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\nexec git ls-remote origin >/dev/null\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
}

async fn push_at_once(place: &Place, count: usize) {
    let pushes = (0..count).map(|number| {
        let mut push = place.inside("app");
        push.args(["push", "origin", &format!("HEAD:refs/heads/b-{number}")]);
        succeeds(push)
    });
    join_all(pushes).await;
    let refs = place.repos.git("app", &["for-each-ref", "refs/heads/b-*"]);
    assert_eq!(refs.lines().count(), count, "{refs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_pushes_at_once_whose_hooks_ask_the_server_all_succeed() {
    let place = Place::new();
    clone_with_hook(&place).await;
    push_at_once(&place, PUSHES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_fill_the_limit_of_isolated_connections_do_not_keep_their_hooks_waiting() {
    let place = Place::limited(Sshd::start(), Limits::default().isolated_per_host(2));
    clone_with_hook(&place).await;
    push_at_once(&place, 6).await;
    let status = &place.pool.status().hosts[0];
    assert!(status.grouped > 0, "{status:?}");
}
