//! The environment and the folder that a command runs in.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ssh_pool::Error;
use ssh_pool_tests::{Sshd, TempDir, TestUser};

use crate::{Ledger, dials, on, server};

/// What looks harmless to nobody.
fn weird() -> Vec<OsString> {
    let mut all: Vec<OsString> = [
        "it's",
        "two  spaces",
        "\"quoted\"",
        "line\nline",
        "ends with newline\n",
        "$HOME $(id) `id`",
        "~",
        "*",
        "-",
        "--",
        "-P",
        "a\\b",
        "!",
        "#",
        "&& exit 9",
    ]
    .map(OsString::from)
    .to_vec();
    all.push(OsString::from_vec(vec![0xff, 0xfe, b'x', 0x81, 0x88]));
    all
}

/// The shell's own idea of where it is, without trailing newlines being lost.
const WHERE: &str = "pwd -P; echo .";

fn place(stdout: &[u8]) -> &OsStr {
    OsStr::from_bytes(stdout.strip_suffix(b"\n.\n").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_variables_reach_the_program_byte_for_byte() {
    let (_sshd, _pool, host) = server();
    let mut values = weird();
    values.push(OsString::new());
    values.push(OsString::from_vec((1..=u8::MAX).collect()));
    for value in values {
        // A program of its own: the variable must be exported, not only set.
        let mut command = host.command("printenv");
        let output = command.arg("_NAME_1").env("_NAME_1", &value).output().await;
        let output = output.unwrap();
        assert!(output.status.success(), "{value:?}: {output:?}");
        let seen = output.stdout.strip_suffix(b"\n").unwrap();
        assert_eq!(OsStr::from_bytes(seen), value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_two_values_wins_and_scripts_and_shell_lines_see_them_too() {
    let (_sshd, _pool, host) = server();
    let text = "echo $A $B";
    for mut command in [host.shell(text), host.script(text)] {
        let output = command.env("A", "1").env("B", "2").env("A", "3").output();
        assert_eq!(output.await.unwrap().stdout, b"3 2\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_weird_name_is_entered() {
    let (_sshd, _pool, host) = server();
    let dir = TempDir::new();
    let root = fs::canonicalize(dir.path()).unwrap();
    for name in weird() {
        let folder = root.join(&name);
        fs::create_dir(&folder).unwrap();
        let output = host.shell(WHERE).current_dir(&folder).output().await;
        let output = output.unwrap();
        assert!(output.status.success(), "{folder:?}: {output:?}");
        assert_eq!(place(&output.stdout), folder.as_os_str());
        assert!(output.stderr.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_folder_is_below_the_login_folder_whatever_cdpath_says() {
    let user = TestUser::plain();
    let (_sshd, _pool, host) = on(Sshd::builder().user(user.clone()).start());
    let login = host.shell(WHERE).output().await.unwrap().stdout;
    let login = Path::new(place(&login));
    // Its name begins with a dash.
    let inside = tempfile::Builder::new().prefix("-P").tempdir_in(login);
    let inside = inside.unwrap();
    fs::set_permissions(inside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let name = inside.path().file_name().unwrap();
    let decoy = TempDir::new();
    fs::create_dir(decoy.path().join(name)).unwrap();
    fs::create_dir(decoy.path().join("only-there")).unwrap();

    let mut command = host.shell(WHERE);
    let output = command
        .env("CDPATH", decoy.path())
        .current_dir(name)
        .output();
    let output = output.await.unwrap();
    // With CDPATH in play, cd would also print where it went.
    assert_eq!(
        place(&output.stdout),
        inside.path().as_os_str(),
        "{output:?}"
    );

    let mut command = host.shell("echo ran");
    let output = command
        .env("CDPATH", decoy.path())
        .current_dir("only-there")
        .output();
    let output = output.await.unwrap();
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_named_dash_is_not_the_previous_folder() {
    let (_sshd, _pool, host) = server();
    let previous = TempDir::new();
    let mut command = host.shell("echo ran");
    let output = command
        .env("OLDPWD", previous.path())
        .current_dir("-")
        .output();
    let output = output.await.unwrap();
    // The login folder has no such folder.
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_folder_cannot_be_entered_the_command_does_not_run() {
    let (_sshd, _pool, host) = server();
    let (dir, ledger) = (TempDir::new(), Ledger::new());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let entry = ledger.enter("ran");
    for folder in [dir.path().join("missing"), file.clone(), file.join("below")] {
        let mut sequence = host.shell(format!("{entry}; {entry}"));
        let mut piped = host.shell(format!("true && {entry} || {entry} | {entry} & {entry}"));
        for command in [&mut sequence, &mut piped] {
            let output = command.current_dir(&folder).output().await.unwrap();
            assert!(!output.status.success(), "{folder:?}: {output:?}");
            assert!(output.stdout.is_empty() && !output.stderr.is_empty());
        }
        let mut script = host.script(&*entry);
        assert!(
            !script
                .current_dir(&folder)
                .status()
                .await
                .unwrap()
                .success()
        );
    }
    assert!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    // And an empty one is the login folder or an error, but nothing in between.
    let mut empty = host.shell(WHERE);
    let output = empty.current_dir("").output().await.unwrap();
    let login = host.shell(WHERE).output().await.unwrap();
    assert!(
        output.stdout == login.stdout || !output.status.success(),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verbatim_line_reaches_a_forced_command_as_it_is() {
    // For root a line of another kind would begin with a mark, and with an export.
    let look = "printf %s \"$SSH_ORIGINAL_COMMAND|$TAKEN|$LEFT_OUT\"";
    let sshd = Sshd::builder()
        .option(format!("ForceCommand {look}"))
        .option("AcceptEnv TAKEN")
        .user(TestUser::root_or_current())
        .start();
    let (_sshd, _pool, host) = on(sshd);
    let mut command = host.shell("git-upload-pack  '/srv/it'\\''s.git'");
    command.env("TAKEN", "version=2").env("LEFT_OUT", "x");
    for _ in 0..2 {
        let output = command.verbatim().output().await.unwrap();
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(seen, "git-upload-pack  '/srv/it'\\''s.git'|version=2|");
    }
}

#[tokio::test]
async fn what_a_verbatim_line_cannot_carry_is_refused() {
    let (_sshd, pool, host) = server();
    let mut elsewhere = host.shell("pwd");
    elsewhere.verbatim().current_dir("/");
    let mut bytes = host.shell("env");
    bytes.verbatim().env("NAME", OsStr::from_bytes(&[0xff]));
    for mut command in [elsewhere, bytes] {
        let error = command.output().await.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
    }
    assert_eq!(dials(&pool), 0);
}
