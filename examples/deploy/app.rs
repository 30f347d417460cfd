//! What is deployed.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::ensure;

/// Whatever a deploy makes on a host has this label, with the name of the app: by it the next one
/// finds what is there, also what a deploy that was cut off has left.
const LABEL: &str = "ssh-pool.deploy";
const CANDIDATE: &str = "-candidate";

/// An app, and how it is known to be well.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) name: String,
    /// Where its repository is, as seen from the hosts.
    pub(crate) repo: String,
    pub(crate) revision: String,
    /// A health check that replaces the Dockerfile's own: a shell line that is run in the
    /// container.
    pub(crate) check: Option<String>,
    /// How long a new container has to become healthy.
    pub(crate) patience: Duration,
}

impl App {
    /// The name becomes part of names of containers and images, which have rules.
    pub(crate) fn new(name: &str, repo: &str, revision: &str) -> anyhow::Result<Self> {
        let simple = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        ensure!(
            name.starts_with(simple) && name.chars().all(|c| simple(c) || c == '-'),
            "\"{}\" cannot be the name of an image: use a-z, 0-9 and -, see --name",
            name.escape_debug()
        );
        Ok(Self {
            name: name.to_owned(),
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            check: None,
            patience: Duration::from_secs(60),
        })
    }

    /// The image of a commit.
    pub(crate) fn image(&self, commit: &str) -> String {
        format!("{}:{}", self.name, commit.get(..12).unwrap_or(commit))
    }

    pub(crate) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.name.clone())])
    }

    /// The labels as a query has them, in JSON. A name has nothing in it that would have to be
    /// escaped.
    pub(crate) fn label_in_query(&self) -> String {
        format!("%7B%22{LABEL}%22:%22{}%22%7D", self.name)
    }

    /// For lists of what is ours.
    pub(crate) fn filter(&self) -> HashMap<String, Vec<String>> {
        let ours = format!("{LABEL}={}", self.name);
        HashMap::from([("label".to_owned(), vec![ours])])
    }

    /// The name of a container that is live, or is to be.
    pub(crate) fn container(&self, number: u64, candidate: bool) -> String {
        let suffix = if candidate { CANDIDATE } else { "" };
        format!("{}-{number}{suffix}", self.name)
    }

    /// The number in such a name, and whether it is one of a candidate.
    pub(crate) fn parse(&self, container: &str) -> Option<(u64, bool)> {
        let rest = container.strip_prefix(&self.name)?.strip_prefix('-')?;
        match rest.strip_suffix(CANDIDATE) {
            Some(number) => Some((number.parse().ok()?, true)),
            None => Some((rest.parse().ok()?, false)),
        }
    }
}
