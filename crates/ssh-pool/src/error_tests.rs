//! Every error of the integrations, held against what is promised of errors: what failed, the reason
//! and what to do on the first line, and below it the operating system's error or nothing.

use std::error::Error as StdError;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ssh_pool_core::{CommandState, Error as SshError, HostKeyPolicy, Pool};

use crate::docker::{self, Error as DockerError};
use crate::git::Error as GitError;
use crate::sftp::{Attribute, Error as SftpError, FileType, Reason, UnsetReason};

const TARGET: &str = "deploy@web-1:22";
/// EACCES and ECONNREFUSED, where the tests run.
const DENIED: i32 = 13;
const REFUSED: i32 = 111;

/// The name of a value's variant, and those of all. The match has no wildcard: a new variant does not
/// compile until it is listed, and the tests want every listed one.
macro_rules! variants {
    ($all:ident, $of:ident: $enum:ident { $($variant:ident),* $(,)? }) => {
        const $all: &[&str] = &[$(stringify!($variant)),*];

        fn $of(value: &$enum) -> &'static str {
            match value {
                $($enum::$variant { .. } => stringify!($variant),)*
            }
        }
    };
}

variants!(SFTP, of_sftp: SftpError {
    Session, NotSftp, Lost, Timeout, Moved, Folder, Unset, Refused, Protocol, BadName, Local,
    InvalidPath, WrongType, Changed, Mismatch, NotAtomic, TooMuch,
});
variants!(DOCKER, of_docker: DockerError {
    InvalidSocket, Stream, Unreachable, BrokenOff, CutOff, Http, InvalidRequest,
});
variants!(SHIM, of_shim: GitError {
    Start, Wait, OwnFile, Prepare, Request, Arguments, NotAllowed, Stream, Ssh,
});

/// An error, its reason and what to do as its text has them, and the code that is below it.
type Row<E> = (E, &'static str, &'static str, Option<i32>);

fn check<E: StdError>(
    table: &[Row<E>],
    all: &[&str],
    name: fn(&E) -> &'static str,
    has_target: fn(&E) -> bool,
) {
    let mut seen: Vec<_> = table.iter().map(|(error, ..)| name(error)).collect();
    seen.dedup();
    assert_eq!(seen, all);
    for (error, reason, advice, code) in table {
        let shown = error.to_string();
        assert!(!shown.contains(char::is_control), "one line: {shown:?}");
        assert!(
            !shown.contains("  ") && !shown.contains("(os error"),
            "{shown:?}"
        );
        assert!(!shown.ends_with(['.', ';', ':', ' ']), "{shown:?}");
        let at = |text: &str| {
            shown
                .find(text)
                .unwrap_or_else(|| panic!("{text}: {shown}"))
        };
        assert!(at(reason) < at(advice), "{shown}");
        assert_eq!(
            shown.matches(TARGET).count(),
            usize::from(has_target(error)),
            "{shown}"
        );
        let below = error.source();
        let system = below.and_then(|below| below.downcast_ref::<io::Error>());
        assert_eq!(below.is_some(), code.is_some(), "{error:?}");
        assert!(
            below.is_none_or(|below| below.source().is_none()),
            "{error:?}"
        );
        assert_eq!(system.and_then(io::Error::raw_os_error), *code, "{error:?}");
    }
}

fn denied() -> io::Error {
    io::Error::from_raw_os_error(DENIED)
}

/// What the pool says of a port without a listener. It has a target of its own.
async fn refused() -> SshError {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any());
    let host = pool
        .build()
        .unwrap()
        .host(format!("deploy@127.0.0.1:{port}"));
    host.unwrap().warm().await.unwrap_err()
}

fn closed() -> Box<SshError> {
    Box::new(SshError::ExecRefused {
        target: TARGET.to_owned().into(),
    })
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one row for each error")]
async fn every_sftp_error_holds_its_reason_and_what_to_do_in_its_first_line() {
    let target: Arc<str> = TARGET.into();
    let (path, operation) = ("/srv/a".to_owned(), "write");
    let (message, reason) = ("no way".to_owned(), Reason::PermissionDenied);
    let at: SocketAddr = ([10, 0, 0, 1], 22).into();
    use SftpError::*;
    let table = [
        (
            Session {
                target: target.clone(),
                path: path.clone(),
                source: Box::new(refused().await),
            },
            "no SFTP session for \"/srv/a\": cannot connect: 127.0.0.1:",
            "; check that the server is up",
            Some(REFUSED),
        ),
        (
            Session {
                target: target.clone(),
                path: path.clone(),
                source: closed(),
            },
            "no SFTP session for \"/srv/a\": the server refused to execute",
            "; ",
            None,
        ),
        (
            NotSftp {
                target: target.clone(),
                path: path.clone(),
                what: "ended",
            },
            "an SFTP server ended",
            "; check ForceCommand",
            None,
        ),
        (
            Lost {
                target: target.clone(),
                operation,
                path: path.clone(),
                source: Some(Box::new(refused().await)),
            },
            "the SFTP session ended (write \"/srv/a\"): cannot connect: 127.0.0.1:",
            "; check that the server is up",
            Some(REFUSED),
        ),
        (
            Lost {
                target: target.clone(),
                operation,
                path: path.clone(),
                source: None,
            },
            "the server's SFTP process ended",
            "; try again",
            None,
        ),
        (
            Timeout {
                target: target.clone(),
                operation,
                path: path.clone(),
                after: Duration::from_secs(60),
            },
            "within 60 s",
            "raise the request timeout",
            None,
        ),
        (
            Moved {
                target: target.clone(),
                path: path.clone(),
                from: at,
                to: at,
            },
            "another machine",
            "; copy it again",
            None,
        ),
        (
            Folder {
                target: target.clone(),
                folder: "/srv".to_owned(),
                path: path.clone(),
                reason,
                message: message.clone(),
            },
            "permission denied",
            "Replace::InPlace",
            None,
        ),
        (
            Unset {
                place: target.clone(),
                path: path.clone().into(),
                attribute: Attribute::Owner,
                reason: UnsetReason::Refused(message.clone()),
            },
            "no way",
            "; a copy that is not strict",
            None,
        ),
        (
            Refused {
                target: target.clone(),
                operation,
                path: path.clone(),
                reason,
                message,
            },
            "permission denied",
            "; check the owner",
            None,
        ),
        (
            Refused {
                target: target.clone(),
                operation: "make the folder",
                path: "/srv/a/b/".to_owned(),
                reason: Reason::NotFound,
                message: "No such file".to_owned(),
            },
            "cannot make the folder \"/srv/a/b/\": its parent \"/srv/a\" is not there (\"No such file\")",
            "; make that first",
            None,
        ),
        (
            Protocol {
                target: target.clone(),
                operation,
                path: path.clone(),
                what: "answers",
            },
            "the server answers",
            "; this is no SFTP server to trust",
            None,
        ),
        (
            BadName {
                target: target.clone(),
                folder: path.clone(),
                name: "..".to_owned(),
                what: "it leads out",
            },
            "it leads out",
            "; this is no SFTP server to trust",
            None,
        ),
        (
            Local {
                operation,
                path: path.clone().into(),
                source: denied(),
            },
            "cannot write \"/srv/a\" on this machine: Permission denied",
            "; check the path, its mode and the room on the disk",
            Some(DENIED),
        ),
        (
            Local {
                operation: "open",
                path: path.clone().into(),
                source: denied(),
            },
            "cannot open \"/srv/a\" on this machine: Permission denied",
            "; check the path and its mode",
            Some(DENIED),
        ),
        (
            Local {
                operation,
                path: path.clone().into(),
                source: io::Error::other("a task ended"),
            },
            "a task ended",
            "; check the path",
            None,
        ),
        (
            InvalidPath {
                path: path.clone().into(),
                what: "it is empty; name it",
            },
            "it is empty",
            "; name it",
            None,
        ),
        (
            WrongType {
                place: target.clone(),
                path: path.clone().into(),
                found: FileType::Dir,
                wanted: FileType::File,
            },
            "is a folder, and a regular file is needed",
            "; name another path",
            None,
        ),
        (
            Changed {
                place: target.clone(),
                path: path.clone().into(),
            },
            "changed while it was copied",
            "; copy it when",
            None,
        ),
        (
            Mismatch {
                target: target.clone(),
                path: path.clone(),
            },
            "not like the original",
            "; copy it again",
            None,
        ),
        (
            NotAtomic {
                target: target.clone(),
                path: path.clone(),
            },
            "cannot replace",
            "; remove it first",
            None,
        ),
        (
            TooMuch {
                target,
                path,
                what: "names",
                limit: 5,
            },
            "more than 5 names",
            "; copy it in parts",
            None,
        ),
    ];
    check(&table, SFTP, of_sftp, |error| {
        !matches!(error, Local { .. } | InvalidPath { .. })
    });
    for reason in [
        Reason::NotFound,
        Reason::PermissionDenied,
        Reason::NoSpace,
        Reason::NameTooLong,
        Reason::Unsupported,
        Reason::Failure,
    ] {
        assert!(reason.to_string().contains("; "), "{reason}");
    }
}

#[tokio::test]
async fn every_docker_error_holds_its_reason_and_what_to_do_in_its_first_line() {
    let (target, path) = (TARGET.to_owned(), "/run/docker.sock".to_owned());
    let (state, dial_stdio) = (CommandState::Unknown, "exit status 127".to_owned());
    use DockerError::*;
    let table = [
        (
            InvalidSocket {
                path: path.clone(),
                reason: "it must be absolute",
            },
            "invalid path of a Docker socket",
            "it must be absolute",
            None,
        ),
        (
            Stream {
                target: target.clone(),
                path: path.clone(),
                source: Box::new(refused().await),
            },
            "no stream to the Docker socket /run/docker.sock: cannot connect: 127.0.0.1:",
            "; check that the server is up",
            Some(REFUSED),
        ),
        (
            Unreachable {
                target: target.clone(),
                path: path.clone(),
                dial_stdio: dial_stdio.clone(),
                state,
                source: closed(),
            },
            "exit status 127",
            "; check that dockerd runs",
            None,
        ),
        (
            BrokenOff {
                target: target.clone(),
                path: path.clone(),
                dial_stdio,
            },
            "broke off: exit status 127",
            "; check the daemon",
            None,
        ),
        (
            CutOff {
                target: target.clone(),
                path: path.clone(),
                state,
                source: Box::new(refused().await),
            },
            "was cut off: cannot connect: 127.0.0.1:",
            "; check that the server is up",
            Some(REFUSED),
        ),
        (
            Http {
                target,
                path,
                state,
                source: docker::HttpCause::new(io::Error::other("it hung up")),
            },
            "it hung up",
            "; check that a Docker daemon listens there",
            None,
        ),
        (
            InvalidRequest,
            "not a request",
            "its URI must have a path",
            None,
        ),
    ];
    check(&table, DOCKER, of_docker, |error| {
        !matches!(error, InvalidSocket { .. } | InvalidRequest)
    });
}

#[tokio::test]
async fn every_error_around_git_holds_its_reason_and_what_to_do_in_its_first_line() {
    let program = "git".to_owned();
    use GitError::*;
    let table = [
        (
            Start {
                program: program.clone(),
                source: denied(),
            },
            "cannot run git: Permission denied",
            "; check that it is installed",
            Some(DENIED),
        ),
        (
            Wait {
                program,
                source: denied(),
            },
            "cannot follow git to its end: Permission denied",
            "; look at what it has done",
            Some(DENIED),
        ),
        (
            OwnFile { source: denied() },
            "which file this program is: Permission denied",
            "; name its shim",
            Some(DENIED),
        ),
        (
            Prepare { source: denied() },
            "cannot prepare the shim: Permission denied",
            "; check the limit of open files",
            Some(DENIED),
        ),
        (
            Request {
                source: io::Error::other("the request has no end"),
            },
            "cannot be understood: the request has no end",
            "; check that the shim",
            None,
        ),
        (
            Arguments {
                reason: "the option \"-D\"".to_owned(),
            },
            "the option \"-D\"",
            "; ",
            None,
        ),
        (
            NotAllowed {
                host: "web-2".to_owned(),
            },
            "web-2 is not allowed",
            "; allow it",
            None,
        ),
        (
            Stream {
                source: Box::new(DockerError::InvalidRequest),
            },
            "the stream to the daemon failed: not a request",
            "its URI must have a path",
            None,
        ),
        (
            Stream {
                source: Box::new(denied()),
            },
            "the stream to the daemon failed: Permission denied",
            "; check the daemon",
            Some(DENIED),
        ),
        (Ssh(*closed()), "the server refused to execute", "; ", None),
    ];
    check(&table, SHIM, of_shim, |error| matches!(error, Ssh(_)));
}
