//! Many commands at once.

use ssh_pool::Host;
use tokio::task::JoinSet;

/// `n` commands, `c` at once; every one must come back with its own number.
pub async fn storm(host: &Host, n: usize, c: usize) {
    let mut commands = JoinSet::new();
    for number in 0..n {
        if commands.len() == c {
            let ended = commands.join_next().await.expect("one runs");
            ended.expect("no panic");
        }
        let host = host.clone();
        commands.spawn(async move {
            let output = host.command("echo").arg(number.to_string()).output().await;
            let output = output.unwrap_or_else(|error| panic!("command {number}: {error:?}"));
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                format!("{number}\n")
            );
        });
    }
    while let Some(ended) = commands.join_next().await {
        ended.expect("no panic");
    }
}
