//! Arguments pass the remote shell unharmed.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::{Strategy, any, prop, prop_oneof};
use proptest::strategy::{Just, ValueTree};
use proptest::test_runner::TestRunner;
use ssh_pool::{Error, Host, Timeouts};
use ssh_pool_tests::{Sshd, TestUser};
use tokio::task::JoinSet;

use crate::{SOON, builder, known};

const LISTS: usize = 1_000;
/// How often a list that fails is made smaller, at most.
const STEPS: usize = 2_000;

type Words = Vec<Vec<u8>>;

/// What means something to some shell, or to a program that looks for options.
const PIECES: &[&str] = &[
    "'", "\"", "\\", "\n", "\r", "\t", " ", "$", "`", "!", "!!", "~", "~root", "*", "?", "[a-z]",
    "{a,b}", "#", "&", "&&", "|", "||", ";", ";;", "<", "<<", ">", "(", ")", "$(id)", "${HOME}",
    "$'", "`id`", "\\n", "\\0", "%s", "%", "^", "=", "A=b", "-", "--", "-n", "-e", "/*", "a", "é",
    "if", "done", ".", "..", ":",
];

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(1..=u8::MAX, 0..40),
        4 => prop::collection::vec(prop::sample::select(PIECES), 0..6)
            .prop_map(|pieces| pieces.concat().into_bytes()),
        1 => Just(Vec::new()),
        1 => (any::<char>(), 1..200_usize)
            .prop_map(|(c, n)| c.to_string().repeat(n).replace('\0', "0").into_bytes()),
    ]
}

fn words() -> impl Strategy<Value = Words> {
    prop::collection::vec(word(), 0..8)
}

/// The words as a program on the server sees them.
async fn seen(host: &Host, words: &[Vec<u8>]) -> Result<Words, Error> {
    let output = host
        .command("printf")
        // One word that is always there: without any, printf prints the format once.
        .args(["%s\\0", "first"])
        .args(words.iter().map(|word| OsStr::from_bytes(word)))
        .output()
        .await?;
    assert!(output.status.success(), "{output:?}");
    let text = output.stdout.strip_suffix(b"\0").unwrap_or(b"");
    let mut seen = text.split(|byte| *byte == 0);
    assert_eq!(seen.next(), Some(b"first".as_slice()));
    Ok(seen.map(<[u8]>::to_vec).collect())
}

async fn survives(host: &Host, words: &[Vec<u8>]) -> bool {
    seen(host, words).await.unwrap() == words
}

/// The smallest list that proptest finds to fail still.
async fn smallest(host: &Host, tree: &mut impl ValueTree<Value = Words>) -> Words {
    let mut failing = tree.current();
    for _ in 0..STEPS {
        let smaller = if survives(host, &tree.current()).await {
            tree.complicate()
        } else {
            failing = tree.current();
            tree.simplify()
        };
        if !smaller {
            break;
        }
    }
    failing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_argument_lists_come_back_byte_for_byte() {
    let sshd = Sshd::builder().user(TestUser::plain()).start();
    // All at once: most of the time is queueing.
    let timeouts = Timeouts::default().acquire(4 * SOON);
    let pool = builder(&sshd, known(&sshd))
        .timeouts(timeouts)
        .build()
        .unwrap();
    let host = pool.host(sshd.target()).unwrap();

    let mut runner = TestRunner::deterministic();
    let mut trees: Vec<_> = (0..LISTS)
        .map(|_| words().new_tree(&mut runner).unwrap())
        .collect();

    let mut running = JoinSet::new();
    for (index, tree) in trees.iter().enumerate() {
        let (host, words) = (host.clone(), tree.current());
        running.spawn(async move { (index, survives(&host, &words).await) });
    }
    let results = running.join_all().await;
    assert_eq!(results.len(), LISTS);
    if let Some((index, _)) = results.into_iter().find(|(_, good)| !good) {
        let words = smallest(&host, &mut trees[index]).await;
        let seen = seen(&host, &words).await.unwrap();
        let show = |words: &Words| {
            words
                .iter()
                .map(|word| word.escape_ascii().to_string())
                .collect::<Vec<_>>()
        };
        panic!("sent {:?}, arrived as {:?}", show(&words), show(&seen));
    }

    // The lists are what this test says they are.
    let lists: Vec<Words> = trees.iter().map(ValueTree::current).collect();
    let bytes: HashSet<u8> = lists.iter().flatten().flatten().copied().collect();
    assert_eq!(bytes.len(), 255);
    let some_word = |is: fn(&[u8]) -> bool| lists.iter().flatten().any(|word| is(word));
    assert!(some_word(<[u8]>::is_empty));
    assert!(some_word(|word| word.starts_with(b"-")));
    assert!(some_word(|word| word.starts_with(b"~")));
    assert!(some_word(|word| word == b"*"));
    assert!(some_word(|word| std::str::from_utf8(word).is_err()));
    assert!(lists.iter().any(Vec::is_empty));
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_arguments_are_expanded_and_quoted_ones_beside_them_are_not() {
    let (_sshd, _pool, host) = crate::server();
    let output = host
        .command("echo")
        .arg("$((1 + 1))")
        .raw_arg("$((1 + 1))")
        .arg("a  b")
        .raw_arg("; echo and this")
        .output()
        .await
        .unwrap();
    assert_eq!(output.stdout, b"$((1 + 1)) 2 a  b\nand this\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_name_is_one_word() {
    let (_sshd, _pool, host) = crate::server();
    let output = host.command("echo hello; true").output().await.unwrap();
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    assert!(output.stdout.is_empty());
}
