//! git chooses the host and the arguments of its ssh, and others choose what git reads.

use std::fs;
use std::path::Path;

use ssh_pool::git::{Command, Error, Output};
use ssh_pool_tests::{Proxy, TestUser};

use crate::{Place, SOON, plain, succeeds};

const SHIM: &str = env!("CARGO_BIN_EXE_ssh-pool-test-shim");

async fn fails(mut command: Command, code: i32) -> Output {
    let output = tokio::time::timeout(SOON, command.output()).await;
    let output = output.expect("git hangs").unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    output
}

/// Has git run this line in a shell, where it could run a hook.
fn in_git(place: &Place, line: &str) -> Command {
    let mut command = place.command();
    // Under the name that git has for it: where there is nothing to quote, the variable is it.
    let alias = format!("alias.x=!SHIM=$GIT_SSH_COMMAND; {line}");
    command.args(["-c", &alias, "x"]);
    command
}

fn dials(place: &Place) -> u64 {
    place
        .pool
        .status()
        .hosts
        .iter()
        .map(|host| host.dials + host.failed_dials)
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_in_the_place_of_a_host_runs_nothing() {
    let place = Place::new();
    let made = place.dir.path().join("made");
    // git itself looks at URLs; whoever else runs the shim may not.
    let touch = format!("-oProxyCommand=touch${{IFS}}{}", made.display());
    let mut clone = place.command();
    clone.args(["clone", &format!("ssh://{touch}/x")]);
    fails(clone, 128).await;
    for arguments in [
        format!("{touch} git-upload-pack"),
        format!("-- {touch} git-upload-pack"),
        format!("git@{touch} git-upload-pack"),
        format!("-o ProxyCommand=true {} git-upload-pack", place.sshd.user()),
        format!("-F {} web-1 git-upload-pack", made.display()),
    ] {
        let line = format!("exec $SHIM {}", arguments.replace("${IFS}", "_"));
        let output = fails(in_git(&place, &line), 255).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.starts_with("ssh-pool: "), "{told}");
        let troubles = &output.troubles[..];
        assert!(
            matches!(troubles, [Error::Arguments { .. }]),
            "{troubles:?}"
        );
    }
    assert!(!made.exists());
    assert_eq!(dials(&place), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_host_is_reached_than_was_allowed() {
    let place = Place::new();
    let elsewhere = Proxy::to(place.sshd.addr());
    place.repos.create("app", 1);
    let path = place.repos.repo("app");
    for target in [
        format!("{}@{}", place.sshd.user(), elsewhere.addr()),
        format!("root@{}", place.sshd.addr()),
        format!("{}@localhost:{}", place.sshd.user(), place.sshd.port()),
    ] {
        let mut command = place.command();
        command.args(["ls-remote", &format!("ssh://{target}{}", path.display())]);
        let output = fails(command, 128).await;
        let [Error::NotAllowed { host }] = &output.troubles[..] else {
            panic!("{:?}", output.troubles)
        };
        assert_eq!(*host, target);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("is not allowed here"), "{told}");
    }
    assert_eq!(elsewhere.connections(), 0);
    assert_eq!(dials(&place), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_does_not_lead_elsewhere() {
    let place = Place::new();
    let elsewhere = Proxy::to(place.sshd.addr());
    place.repos.create("sub", 1);
    place.repos.create_with_modules("super", &["sub"]);
    let clone = place.clone("super", &[]).await;
    let target = format!("{}@{}", place.sshd.user(), elsewhere.addr());
    let url = place.repos.url(&target, "sub");
    fs::write(
        clone.join(".gitmodules"),
        format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {url}\n"),
    )
    .unwrap();
    let mut update = place.inside("super");
    update.args(["submodule", "update", "--init"]);
    let output = fails(update, 1).await;
    let troubles = &output.troubles[..];
    let refused = |error: &Error| matches!(error, Error::NotAllowed { .. });
    assert!(
        !troubles.is_empty() && troubles.iter().all(refused),
        "{troubles:?}"
    );
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_a_path_whatever_is_in_it() {
    let place = Place::new();
    let made = place.dir.path().join("made");
    let odd = format!(
        "it's \"odd\"\n$(touch {0}) `touch {0}`;touch {0}",
        made.display()
    );
    let odd = odd.replace('/', "_");
    let app = place.repos.create("app", 3);
    fs::rename(&app, place.repos.path().join(&odd)).unwrap();
    let encoded: String = odd.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let folder = place.repos.path().display();
    let url = format!("ssh://{}{folder}/{encoded}", place.sshd.target());
    let mut clone = place.command();
    clone
        .args(["clone", &url])
        .arg(place.dir.path().join("app"));
    succeeds(clone).await;
    assert!(place.dir.path().join("app/file-2").exists());
    assert!(!made.exists());
    let home = TestUser::plain().home().to_owned();
    let strays = fs::read_dir(home)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let strays: Vec<_> = strays
        .filter(|name| name.to_string_lossy().contains("made"))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_on_the_socket_harms_nobody() {
    let place = Place::new();
    place.repos.create("app", 1);
    let line = format!(
        "export SHIM; bash -c 'printf xy >&197; $SHIM; git ls-remote {}'",
        place.url("app")
    );
    let output = fails(in_git(&place, &line), 0).await;
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.ends_with("refs/heads/main\n"), "{answer}");
    let troubles = &output.troubles[..];
    assert!(
        matches!(
            troubles,
            [
                Error::Request { .. },
                Error::Request { .. },
                Error::Arguments { .. }
            ]
        ),
        "{troubles:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_closes_descriptors_is_told_of() {
    let place = Place::new();
    place.repos.create("app", 1);
    for line in [
        format!("bash -c 'exec 197>&-; git ls-remote {}'", place.url("app")),
        format!(
            "bash -c 'exec 197</dev/null; git ls-remote {}'",
            place.url("app")
        ),
    ] {
        let output = fails(in_git(&place, &line), 128).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            told.contains("descriptor 197 did not come through"),
            "{told}"
        );
    }
    assert_eq!(dials(&place), 0);
}

#[test]
fn without_a_pool_the_shim_says_so_and_a_program_that_is_not_asked_goes_on() {
    let run = |variable: Option<&str>| {
        let mut shim = std::process::Command::new(Path::new(SHIM));
        shim.args(["web-1", "git-upload-pack"])
            .env_remove("SSH_POOL_SHIM");
        if let Some(variable) = variable {
            shim.env("SSH_POOL_SHIM", variable);
        }
        let output = shim.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    for address in ["1:197", "2:197", "x:y", "1:2"] {
        let (code, told) = run(Some(&format!("{address}:{SHIM}")));
        assert_eq!(code, Some(255), "{told}");
        assert!(
            told.starts_with("ssh-pool: ") && told.ends_with('\n'),
            "{told}"
        );
    }
    // What a hook runs has the variable too.
    for variable in [None, Some(""), Some("1:197"), Some("1:197:ssh")] {
        assert_eq!(run(variable).0, Some(2), "{variable:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_may_have_any_path() {
    let place = Place::new();
    place.repos.create("app", 1);
    let shim = place.dir.path().join("it's my $(touch made) shim");
    fs::copy(SHIM, &shim).unwrap();
    let git = place.git.clone().shim(&shim);
    let mut command = plain(&git);
    command.args(["ls-remote", &place.url("app")]);
    assert!(succeeds(command).await.ends_with("refs/heads/main\n"));
}
