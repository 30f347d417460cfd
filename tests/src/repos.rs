//! Bare git repositories for a server of ours.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{run, run_with_input};
use crate::temp::TempDir;
use crate::user::TestUser;

const PACKAGE: &str = "git";

/// How many objects a commit of [`Repos::create`] is: itself, a tree and a blob.
pub const OBJECTS_PER_COMMIT: usize = 3;

/// A folder of bare repositories that belong to whoever logs in, as git insists.
#[derive(Debug)]
pub struct Repos {
    dir: TempDir,
    user: TestUser,
}

impl Repos {
    /// An empty one, for this user.
    #[must_use]
    pub fn new(user: &TestUser) -> Self {
        Self {
            dir: TempDir::new(),
            user: user.clone(),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The repository of that name.
    #[must_use]
    pub fn repo(&self, name: &str) -> PathBuf {
        self.path().join(name).with_extension("git")
    }

    /// Its URL at a server whose [`target`](crate::Sshd::target) that is.
    #[must_use]
    pub fn url(&self, target: &str, name: &str) -> String {
        format!("ssh://{target}{}", self.repo(name).display())
    }

    /// Makes a bare repository with that many commits on `main`, each of which is
    /// [`OBJECTS_PER_COMMIT`] objects.
    pub fn create(&self, name: &str, commits: usize) -> PathBuf {
        let repo = self.init(name);
        self.grow(name, commits);
        repo
    }

    /// Adds commits to `main`.
    pub fn grow(&self, name: &str, commits: usize) {
        let begun = self.git(name, &["rev-list", "--all", "--count"]);
        let begun: usize = begun.trim().parse().expect("a number of commits");
        let mut stream = String::new();
        for number in begun..begun + commits {
            let text = format!("commit {number} of {name}\n{}\n", "x".repeat(number % 200));
            let file = number % 10;
            commit(&mut stream, number == begun && begun > 0, number);
            writeln!(
                stream,
                "M 100644 inline file-{file}\ndata {}\n{text}",
                text.len()
            )
            .unwrap();
        }
        self.import(name, &stream);
    }

    /// Makes a repository with one commit of these files.
    pub fn create_with(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let repo = self.init(name);
        self.commit(name, files);
        repo
    }

    /// Adds a commit to `main` that has these files, by path and text, and no others.
    pub fn commit(&self, name: &str, files: &[(&str, &str)]) {
        let begun = self.git(name, &["rev-list", "--all", "--count"]);
        let begun: usize = begun.trim().parse().expect("a number of commits");
        let mut stream = String::new();
        commit(&mut stream, begun > 0, begun);
        writeln!(stream, "deleteall").unwrap();
        for (path, text) in files {
            let length = text.len();
            writeln!(stream, "M 100644 inline {path}\ndata {length}\n{text}").unwrap();
        }
        self.import(name, &stream);
    }

    /// Makes a repository whose submodules are repositories of this folder, at relative URLs.
    pub fn create_with_modules(&self, name: &str, modules: &[&str]) -> PathBuf {
        let mut config = String::new();
        let mut links = String::new();
        for module in modules {
            let head = self.git(module, &["rev-parse", "main"]);
            write!(
                config,
                "[submodule \"{module}\"]\n\tpath = {module}\n\turl = ../{module}.git\n"
            )
            .unwrap();
            writeln!(links, "M 160000 {} {module}", head.trim()).unwrap();
        }
        let repo = self.create_with(name, &[(".gitmodules", &config)]);
        let mut stream = String::new();
        commit(&mut stream, true, 1);
        stream += &links;
        self.import(name, &stream);
        repo
    }

    /// Runs git in a repository and gives what it prints.
    #[must_use]
    pub fn git(&self, name: &str, arguments: &[&str]) -> String {
        run(self.command(name).args(arguments), PACKAGE)
    }

    fn init(&self, name: &str) -> PathBuf {
        let repo = self.repo(name);
        let mut init = stock_git();
        init.args(["init", "--quiet", "--bare", "--initial-branch=main"]);
        run(init.arg(&repo), PACKAGE);
        // What servers that people clone from in part allow.
        for option in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"] {
            run(self.command(name).args(["config", option, "true"]), PACKAGE);
        }
        self.hand_over(&repo);
        repo
    }

    fn import(&self, name: &str, stream: &str) {
        let mut import = self.command(name);
        run_with_input(import.args(["fast-import", "--quiet"]), PACKAGE, stream);
        self.hand_over(&self.repo(name));
    }

    fn command(&self, name: &str) -> Command {
        let mut command = stock_git();
        // It belongs to somebody else.
        command
            .args(["-c", "safe.directory=*", "-C"])
            .arg(self.repo(name));
        command
    }

    fn hand_over(&self, repo: &Path) {
        if !self.user.is_current() {
            let owner = format!("{}:", self.user.name());
            run(
                Command::new("chown").arg("-R").arg(owner).arg(repo),
                "coreutils",
            );
        }
    }
}

/// git without anybody's configuration, and with a name to commit under.
#[must_use]
pub fn stock_git() -> Command {
    let mut git = Command::new("git");
    git.envs(git_env());
    git
}

/// The environment of [`stock_git`].
#[must_use]
pub fn git_env() -> [(&'static str, &'static str); 6] {
    [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "A Tester"),
        ("GIT_AUTHOR_EMAIL", "tester@example.org"),
        ("GIT_COMMITTER_NAME", "A Tester"),
        ("GIT_COMMITTER_EMAIL", "tester@example.org"),
    ]
}

/// The beginning of a commit in git-fast-import(1)'s language.
fn commit(stream: &mut String, goes_on: bool, number: usize) {
    let when = 1_700_000_000 + number;
    let message = format!("Commit {number}\n");
    let length = message.len();
    writeln!(
        stream,
        "commit refs/heads/main\ncommitter A Tester <tester@example.org> {when} +0000\n\
         data {length}\n{message}"
    )
    .unwrap();
    if goes_on {
        writeln!(stream, "from refs/heads/main^0").unwrap();
    }
}
