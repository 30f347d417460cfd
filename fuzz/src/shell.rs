//! A shell that is kept running: it reads one line after the other from a file and tells what it
//! has understood.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// `show` tells its arguments and `cd` its own; nothing else is there to be run. A line that a shell
/// cannot parse ends it.
const LISTEN: &str = r#"
show() { printf '%s\0' "$#" "$@"; }
cd() { printf '%s\0' cd "$#" "$@"; }
while read -r _; do
    unset VALUE
    . "$1"
    printf '%s\0' "${VALUE-unset}" over
done
"#;

/// Who can do nothing, if a line should get out of its quotes.
const NOBODY: u32 = 65534;

pub(crate) struct Shell {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Shell {
    /// Starts one, in this locale.
    pub(crate) fn start(name: &'static str, options: &[&str], locale: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
        let mut command = Command::new(name);
        command
            .args(options)
            .args(["-c", LISTEN, name])
            .arg(folder.path().join("line"))
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", "/nonexistent")
            .env("LC_ALL", locale)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if fs::metadata(folder.path()).expect("ours").uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} is needed: {error}"));
        Self {
            name,
            stdin: child.stdin.take().expect("piped"),
            stdout: BufReader::new(child.stdout.take().expect("piped")),
            child,
            folder,
        }
    }

    /// Has it run this line, of which exactly this has to become.
    pub(crate) fn runs(&mut self, line: &[u8], expected: &[&[u8]]) {
        fs::write(self.folder.path().join("line"), line).expect("written");
        self.stdin.write_all(b"\n").expect("it listens");
        let mut said = Vec::new();
        for word in expected.iter().chain([&b"over".as_slice()]) {
            said.clear();
            self.stdout.read_until(0, &mut said).expect("it answers");
            let (name, line) = (self.name, line.escape_ascii());
            let said = said.strip_suffix(b"\0");
            assert!(said.is_some(), "{name} gave up on {line}");
            let shown = said.unwrap_or_default().escape_ascii();
            assert!(
                said == Some(*word),
                "{name} makes \"{shown}\" of what should be \"{}\" in {line}",
                word.escape_ascii()
            );
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Its input ends; if it does not, neither do the tests, but it may not be left behind.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
