//! What stands where: the rules of ARCHITECTURE.md that the compiler does not know.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LONGEST_FILE: usize = 600;

/// A source file of the published crates.
struct Source {
    /// Below `crates/`, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next();
        name.is_some_and(|name| name.ends_with("tests.rs"))
    }

    /// The lines without comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines().map(without_comment))
    }

    /// `path:line` of every line of code that names one of `words`.
    fn naming(&self, words: &[&str]) -> Vec<String> {
        self.code()
            .filter(|(_, line)| words.iter().any(|word| names(line, word)))
            .map(|(number, _)| format!("{}:{number}", self.path))
            .collect()
    }
}

/// A comment begins a line or follows a blank: `"ssh://"` is not one.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.split_once(" //").map_or(line, |(code, _)| code)
}

/// Whether `word` stands in `code` as a word, or begins or ends at a place that is not part of a
/// longer one.
fn names(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part))
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates")
}

/// Every Rust file below `crates/*/src`.
fn sources() -> Vec<Source> {
    let root = crates();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = entries(&root)
        .into_iter()
        .map(|dir| dir.join("src"))
        .collect();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(&root).unwrap();
                found.push(Source {
                    path: below.to_str().unwrap().replace('\\', "/"),
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    let has = |path: &str| found.iter().any(|source| source.path == path);
    assert!(
        has("ssh-pool/src/lib.rs") && has("ssh-pool-core/src/error.rs"),
        "sources not found"
    );
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    listed.map(|entry| entry.unwrap().path()).collect()
}

/// Where `words` are named, test files included, other than in files that `allowed` accepts.
fn strays(words: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    sources()
        .iter()
        .filter(|source| !allowed(&source.path))
        .flat_map(|source| source.naming(words))
        .collect()
}

const NONE: [&str; 0] = [];

#[test]
fn one_file_names_deadpool() {
    let home = "ssh-pool-core/src/group/channels.rs";
    let words = ["deadpool", "deadpool_runtime"];
    assert_eq!(strays(&words, |path| path == home), NONE);
    let home = sources()
        .into_iter()
        .find(|source| source.path == home)
        .unwrap();
    assert!(
        !home.naming(&words).is_empty(),
        "no file names deadpool: this test is out of date"
    );
}

#[test]
fn one_folder_names_russh() {
    let at_home = |path: &str| {
        path == "ssh-pool-core/src/transport.rs" || path.starts_with("ssh-pool-core/src/transport/")
    };
    let words = [
        "russh",
        "russh_cryptovec",
        "russh_util",
        "ssh_key",
        "ssh_encoding",
        "ssh_cipher",
    ];
    assert_eq!(strays(&words, at_home), NONE);
    let named = sources()
        .iter()
        .any(|source| at_home(&source.path) && !source.naming(&words).is_empty());
    assert!(named, "no file names russh: this test is out of date");
}

#[test]
fn the_facade_depends_on_neither() {
    let manifest = fs::read_to_string(crates().join("ssh-pool/Cargo.toml")).unwrap();
    let names: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .collect();
    assert!(names.contains(&"ssh-pool-core"), "{names:?}");
    for name in ["russh", "deadpool"] {
        assert!(!names.contains(&name), "{name}");
    }
}

/// The crates that a build of this package needs.
fn needed(package: &str, features: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        // Not `--offline`: on a fresh machine, what only a feature needs is not there yet.
        .args(["tree", "--locked", "--edges=normal", "--prefix=none"])
        .args([
            "--format={p}",
            "--no-default-features",
            "--package",
            package,
        ])
        .args(["--features", features])
        .current_dir(crates())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let listed = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split(' ').next().map(str::to_owned);
    listed.lines().filter_map(name).collect()
}

#[test]
fn without_features_the_facade_adds_nothing_to_the_core() {
    let core = needed("ssh-pool-core", "ring");
    let facade = needed("ssh-pool", "ring");
    let more: Vec<&String> = facade.difference(&core).collect();
    assert_eq!(more, ["ssh-pool"]);
    // That it looks at what it should.
    for (feature, name) in [
        ("git", "command-fds"),
        ("docker", "hyper"),
        ("metrics", "metrics"),
        ("serde", "serde"),
    ] {
        let with = needed("ssh-pool", &format!("ring,{feature}"));
        assert!(
            with.contains(name) && !core.contains(name),
            "{feature}: {with:?}"
        );
    }
}

/// The files of a package, as they would be published.
fn packaged(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["package", "--list", "--allow-dirty", "--offline"])
        .args(["--package", package])
        .current_dir(crates())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn each_package_holds_both_licences() {
    for package in ["ssh-pool-core", "ssh-pool"] {
        let files = packaged(package);
        for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
            assert!(files.contains(licence), "{package}: {files:?}");
            let copy = fs::read(crates().join(package).join(licence)).unwrap();
            assert!(copy == fs::read(crates().join("..").join(licence)).unwrap());
        }
    }
    assert!(packaged("ssh-pool").contains("README.md"));
}

/// Where `text` links to, in Markdown.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("](").skip(1);
    after.filter_map(|rest| rest.split(')').next())
}

#[test]
fn the_links_of_the_readme_lead_somewhere_on_a_registrys_page_too() {
    const REPOSITORY: &str = "https://github.com/ssh-pool/ssh-pool/";
    let root = crates().join("..");
    let text = fs::read_to_string(root.join("README.md")).unwrap();
    let mut seen = 0;
    for link in links(&text) {
        if let Some(anchor) = link.strip_prefix('#') {
            let is_it = |line: &str| line.starts_with('#') && anchor_of(line) == anchor;
            assert!(text.lines().any(is_it), "no heading for {link}");
            continue;
        }
        assert!(
            link.starts_with("https://"),
            "{link} is relative to the repository"
        );
        let Some(place) = link.strip_prefix(REPOSITORY) else {
            continue;
        };
        // blob/main/FILE, tree/main/FOLDER, raw/main/PICTURE?sanitize=true
        let path = place.splitn(3, '/').nth(2).unwrap_or_default();
        let path = path.split(['#', '?']).next().unwrap_or_default();
        assert!(root.join(path).exists(), "{link}: there is no {path}");
        seen += 1;
    }
    assert!(seen > 20, "{seen} links into the repository");
}

/// What GitHub and crates.io make of a heading.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_decisions_have_no_runtime_no_transport_and_no_clock() {
    // Plain state: that is what makes them testable by themselves.
    let words = [
        "tokio",
        "futures_util",
        "transport",
        "async",
        "await",
        "Instant::now",
        "SystemTime",
    ];
    let places = [
        "ssh-pool-core/src/group/host_state",
        "ssh-pool-core/src/group/connection_state",
    ];
    for place in places {
        let (file, folder) = (format!("{place}.rs"), format!("{place}/"));
        let sources: Vec<Source> = sources()
            .into_iter()
            .filter(|source| source.path == file || source.path.starts_with(&folder))
            .filter(|source| !source.is_test())
            .collect();
        assert!(
            !sources.is_empty(),
            "{place} has moved: tell this test where"
        );
        let strays: Vec<String> = sources
            .iter()
            .flat_map(|source| source.naming(&words))
            .collect();
        assert_eq!(strays, NONE);
    }
}

#[test]
fn nothing_is_left_to_do() {
    assert_eq!(strays(&["todo!", "unimplemented!"], |_| false), NONE);
}

#[test]
fn no_file_is_too_long_to_read() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source, source.text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(source, lines)| format!("{}: {lines} lines", source.path))
        .collect();
    assert_eq!(long, NONE);
}

#[test]
fn comments_do_not_count_and_longer_names_are_other_names() {
    assert!(names(
        without_comment("use russh::client; // russh"),
        "russh"
    ));
    assert!(!names(without_comment("    // russh does this"), "russh"));
    assert!(!names(without_comment("let a = 1; // russh"), "russh"));
    assert!(names(without_comment("f(\"ssh://\", russh::x)"), "russh"));
    assert!(!names("russh_util::x", "russh"));
    assert!(!names("transport::Russh", "russh"));
    assert!(names(concat!("todo", "!()"), "todo!"));
}
