//! Every error there is, held against what its documentation promises.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::host_key::HostKeyPolicy;
use crate::identity::Identity;
use crate::pool::Pool;
use crate::target::Target;
use crate::waited::Waited;

mod logins;
mod rows;

use rows::{Row, before_a_session, cause, lost, problems, table, target, timeout};

const TARGET: &str = "deploy@web-1:22";
const CAUSE: &str = "what the layer below said";
/// ECONNRESET, where the tests run.
const RESET: i32 = 104;
/// Goes in wherever a caller can put a secret, and must not come out.
const SECRET: &str = "hunter2";

/// The names of all variants of an enum, and of one value's variant. The match has no wildcard, so
/// a new variant does not compile until it is listed, and the tests below want every listed one.
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

variants!(ERRORS, error_name: Error {
    InvalidInput, Resolve, Connect, NotSsh, Throttled, KeyExchange, HostKey, Identity, AuthRejected,
    AuthLost, Timeout, SessionRefused, ExecRefused, ConnectionLost, ClosedWithoutStatus,
    OutputLimit, Closed, PtyRefused, SubsystemRefused, StreamRefused, ForwardRefused, Listen,
    NotKilled, Unproven, Repeated, QueueFull, StreamLimit, Descriptors, ClosedAfterLogin,
    RuntimeEnded,
});
variants!(PROBLEMS, problem_name: HostKeyProblem {
    Unknown, Changed, KeyLength, Revoked, Unreadable, NotStored, NotProven,
});
/// The same for enums without fields, whose values are their own table.
macro_rules! values {
    ($all:ident, $is_listed:ident: $enum:ident { $($value:ident),* $(,)? }) => {
        const $all: &[$enum] = &[$($enum::$value),*];

        fn $is_listed(value: $enum) -> bool {
            match value {
                $($enum::$value => true,)*
            }
        }
    };
}

// In the order of the declaration.
values!(PHASES, is_phase: Phase {
    Input, Queue, Files, Decryption, Resolve, Connect, Banner, KeyExchange, HostKey, Agent, Auth,
    Channel, Exec, Running, Closed,
});
values!(STREAMS, is_stream: Stream { Stdout, Stderr });
values!(REFUSALS, is_refusal: Refusal { Denied, Unreachable, Unsupported, Overloaded });

/// A cause with a cause of its own.
#[derive(Debug)]
struct Outer(io::Error);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CAUSE)
    }
}

impl StdError for Outer {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// An error and everything below it.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source()).collect()
}

/// What holds for the text of every error.
fn check_text(error: &(dyn StdError + 'static)) {
    let shown = error.to_string();
    assert!(!shown.contains(char::is_control), "one line: {shown:?}");
    assert!(shown.is_ascii(), "for any terminal and log: {shown:?}");
    assert!(!shown.contains("  "), "a space too many: {shown:?}");
    assert!(!shown.ends_with(['.', ';', ':', ' ']), "{shown:?}");
    for link in chain(error) {
        let (text, debug) = (link.to_string(), format!("{link:?}"));
        assert!(!text.contains(SECRET), "{text}");
        assert!(!debug.contains(SECRET), "{debug}");
        if let Some(below) = link.source().map(ToString::to_string) {
            assert!(
                !text.contains(&below),
                "{text:?} repeats its source {below:?}"
            );
        }
    }
}

#[test]
fn every_variant_is_in_its_table() {
    let mut seen: Vec<_> = table().iter().map(|row| error_name(&row.error)).collect();
    seen.sort_by_key(|name| ERRORS.iter().position(|other| other == name));
    seen.dedup();
    assert_eq!(seen, ERRORS);

    let seen: Vec<_> = problems()
        .iter()
        .map(|(problem, _)| problem_name(problem))
        .collect();
    assert_eq!(seen, PROBLEMS);

    assert!(PHASES.iter().copied().all(is_phase));
    assert!(STREAMS.iter().copied().all(is_stream));
}

#[test]
fn every_error_says_where_whether_and_what_to_do() {
    for row in table() {
        let Row { error, .. } = &row;
        let shown = error.to_string();
        assert_eq!(error.phase(), row.phase, "{error:?}");
        assert_eq!(error.command_state(), row.state, "{error:?}");
        assert_eq!(error.is_transient(), row.transient, "{error:?}");
        assert_eq!(error.is_timeout(), row.timeout, "{error:?}");
        assert!(shown.contains(row.advice), "{shown}");
        // What the caller passed in has no target yet.
        if error.phase() != Phase::Input {
            assert!(shown.starts_with(&format!("{TARGET}: ")), "{shown}");
        }
        check_text(error);
    }
}

#[test]
fn every_error_of_a_call_that_waited_says_where_and_for_how_long() {
    let waited = Waited {
        queue: Duration::from_millis(1),
        dial: Duration::from_millis(20),
        back_off: Duration::from_millis(300),
        channel: Duration::from_millis(4000),
    };
    assert_eq!(waited.total(), Duration::from_millis(4321));
    for row in table() {
        let Row { error, .. } = row;
        let has_target = error.phase() != Phase::Input;
        assert_eq!(error.target(), has_target.then_some(TARGET), "{error:?}");
        assert_eq!(error.waited(), Waited::default(), "{error:?}");
        let late = error.clone().having_waited(&waited);
        let expected = if has_target {
            waited
        } else {
            Waited::default()
        };
        assert_eq!(late.waited(), expected, "{error:?}");
        // Callers that share the failure have their own wait times, and all read the same.
        assert_eq!(error.waited(), Waited::default(), "{error:?}");
        assert_eq!(late.to_string(), error.to_string());
        assert_eq!(format!("{late:?}"), format!("{error:?}"));
        let again = late.having_waited(&Waited::default());
        assert_eq!(again.waited(), Waited::default(), "{error:?}");
    }
}

#[test]
fn the_target_of_an_error_reads_like_text() {
    let Error::Closed { target } = (Error::Closed { target: target() }) else {
        unreachable!()
    };
    assert_eq!(&*target, TARGET);
    assert_eq!(target.to_string(), TARGET);
    assert_eq!(format!("{target:?}"), format!("{TARGET:?}"));
    assert!(target.starts_with("deploy@"));
    for other in [
        Origin::from(TARGET.to_owned()),
        Arc::<str>::from(TARGET).into(),
    ] {
        assert_eq!(*other, *target);
    }
}

#[test]
fn every_error_with_a_cause_has_it_in_its_first_line_and_the_code_below() {
    let system = io::Error::from_raw_os_error(RESET);
    let words = words_of(&system);
    assert!(!words.contains("os error"), "{words}");
    for row in table() {
        let shown = row.error.to_string();
        let reason = row.source && !row.quoted;
        assert_eq!(
            shown.contains(&format!("{CAUSE}: {words}")),
            reason,
            "{shown}"
        );
        let source = row.error.source();
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.is_some(), row.source, "{:?}", row.error);
        assert_eq!(
            io.and_then(io::Error::raw_os_error),
            row.source.then_some(RESET),
            "{:?}",
            row.error
        );
        // A field that holds a cause and is not shown would be lost.
        let holds_one = format!("{:?}", row.error).contains("Outer");
        assert_eq!(holds_one, row.source, "{:?}", row.error);
    }
}

#[test]
fn every_first_line_says_what_to_do_after_the_reason() {
    for row in table() {
        let shown = row.error.to_string();
        let line = shown.strip_prefix(TARGET).unwrap_or(&shown);
        let advice = shown.find(row.advice).expect("its advice");
        if row.source && !row.quoted && !matches!(row.error, Error::Repeated { .. }) {
            let reason = shown.find(CAUSE).expect("its reason");
            assert!(reason < advice, "{shown}");
        }
        let to_do = row.error.phase() == Phase::Input || line.contains("; ");
        assert!(to_do, "{shown}");
    }
}

/// What would send a reader to look in the wrong place.
#[test]
fn no_error_blames_a_part_that_had_no_part_in_it() {
    let network = |error: &Error| match error {
        Error::Repeated { .. } => true,
        error => matches!(
            error.phase(),
            Phase::Connect | Phase::KeyExchange | Phase::Channel
        ),
    };
    for row in table() {
        let shown = row.error.to_string();
        let blames = |part: &str| shown.contains(part);
        if blames("resolver") {
            assert_eq!(row.error.phase(), Phase::Resolve, "{shown}");
        }
        if blames("network path") || blames("MTU") || blames("firewalls") {
            assert!(network(&row.error), "{shown}");
        }
        let here = [Phase::Input, Phase::Files, Phase::Decryption, Phase::Agent];
        if here.contains(&row.error.phase()) {
            assert!(!blames("server"), "{shown}");
        }
    }
}

#[test]
fn every_host_key_problem_shows_what_to_compare() {
    for (problem, advice) in problems() {
        let shown = problem.to_string();
        assert!(shown.contains(advice), "{shown}");
        assert!(
            problem.source().is_none(),
            "its text is all there is: {problem:?}"
        );
        check_text(&problem);
        if let HostKeyProblem::Unreadable { reason, .. } | HostKeyProblem::NotProven { reason } =
            &problem
        {
            assert!(shown.contains(reason), "{shown}");
        } else {
            assert!(shown.contains("SHA256:abc"), "{shown}");
        }
        if let HostKeyProblem::Changed { .. } = &problem {
            assert!(
                shown.contains("SHA256:def (/a:3)"),
                "both fingerprints: {shown}"
            );
        }
    }
}

#[test]
fn phases_are_ordered_as_a_command_meets_them() {
    assert!(PHASES.is_sorted_by(|a, b| a < b));
    let mut names: Vec<_> = PHASES.iter().map(ToString::to_string).collect();
    assert!(
        names
            .iter()
            .all(|name| !name.is_empty() && *name == name.to_lowercase())
    );
    names.sort();
    names.dedup();
    assert_eq!(names.len(), PHASES.len(), "each has a name of its own");
}

#[test]
fn a_command_is_in_doubt_only_after_its_line_was_sent() {
    for &phase in PHASES {
        let in_doubt = lost(phase).command_state() == CommandState::Unknown;
        assert_eq!(in_doubt, phase >= Phase::Exec, "{phase}");
    }
    for row in table() {
        if row.error.command_state() == CommandState::Unknown {
            assert!(row.error.phase() >= Phase::Exec, "{:?}", row.error);
        }
    }
}

#[test]
fn what_a_server_said_is_shown_escaped() {
    let shown: Vec<_> = before_a_session()
        .iter()
        .map(|row| row.error.to_string())
        .collect();
    let has = |text: &str| shown.iter().any(|shown| shown.contains(text));
    assert!(
        has(r#"it said "HTTP/1.1 400 \"Bad\"\r\n\u{1b}[2J"; check"#),
        "{shown:#?}"
    );
    assert!(has(r#"("Exceeded MaxStartups\r\n"); try"#), "{shown:#?}");
}

#[test]
fn a_timeout_knows_what_had_failed_before() {
    let failure = Cause::new(lost(Phase::Channel));
    let late = |source| timeout(Phase::Connect, CommandState::NotStarted, source);
    let last = late(Some(failure.clone())).last_failure();
    assert!(
        matches!(last, Some(Error::ConnectionLost { .. })),
        "{last:?}"
    );
    assert!(late(Some(cause())).last_failure().is_none());
    assert!(late(None).last_failure().is_none());
    let mut at_once = late(Some(failure));
    if let Error::Timeout { after, .. } = &mut at_once {
        *after = Duration::ZERO;
    }
    assert!(at_once.last_failure().is_none());
}

#[test]
fn a_cause_speaks_for_what_it_wraps() {
    let outer = || Outer(io::Error::from_raw_os_error(RESET));
    let cause = Cause::new(outer());
    assert_eq!(cause.to_string(), CAUSE);
    assert_eq!(format!("{cause:?}"), format!("{:?}", outer()));
    assert_eq!(format!("{cause:#?}"), format!("{:#?}", outer()));
    let below = cause
        .source()
        .and_then(|error| error.downcast_ref::<io::Error>());
    assert_eq!(below.and_then(io::Error::raw_os_error), Some(RESET));
    assert_eq!(
        cause.io_error().map(io::Error::kind),
        Some(io::ErrorKind::ConnectionReset)
    );
}

#[test]
fn a_chain_of_causes_is_read_once() {
    let error = Error::Connect {
        target: target(),
        source: cause(),
    };
    let reset = io::Error::from_raw_os_error(RESET);
    let texts: Vec<_> = chain(&error).iter().map(ToString::to_string).collect();
    assert_eq!(texts, [error.to_string(), reset.to_string()]);
    // Words of no system call are in the first line alone.
    let error = Error::Connect {
        target: target(),
        source: Cause::new(CAUSE),
    };
    assert!(error.to_string().contains(CAUSE));
    assert!(error.source().is_none());
    let early = io::Error::new(io::ErrorKind::UnexpectedEof, "early eof");
    let error = Error::Connect {
        target: target(),
        source: Cause::new(early),
    };
    assert!(error.to_string().contains("early eof"));
    assert!(error.source().is_none());
}

#[test]
fn a_text_that_is_not_utf8_may_be_a_goodbye_once() {
    let lost = |phase| Error::ConnectionLost {
        target: target(),
        phase,
        source: Cause::new(NotUtf8),
    };
    // Of the first, a request that was not sent is tried on another connection.
    for (error, passes) in [
        (lost(Phase::Running), true),
        (lost(Phase::Channel), false),
        (lost(Phase::Exec).after(target(), 3), false),
    ] {
        assert_eq!(error.is_transient(), passes, "{error}");
        let text = error.to_string();
        assert!(text.contains("in UTF-8 on the server"), "{text}");
    }
}

#[test]
fn a_timeout_tells_of_the_failure_before_it() {
    let failed = Error::Connect {
        target: target(),
        source: cause(),
    };
    let error = timeout(
        Phase::Connect,
        CommandState::NotStarted,
        Some(Cause::new(failed.clone())),
    );
    let words = failed.to_string();
    let words = words.strip_prefix(&format!("{TARGET}: ")).unwrap();
    let shown = error.to_string();
    assert!(shown.ends_with(words), "{shown}");
    assert_eq!(shown.matches(TARGET).count(), 1, "{shown}");
    assert_eq!(shown.matches(CAUSE).count(), 1, "{shown}");
    let io = error.source().and_then(|source| source.downcast_ref());
    assert_eq!(io.and_then(io::Error::raw_os_error), Some(RESET));
    check_text(&error);
}

#[test]
fn what_had_been_written_is_in_errors_of_commands_that_may_have_run() {
    let written = PartialOutput {
        status: Some(ExitStatus::from_code(3)),
        stdout: b"half".to_vec(),
        stderr: Vec::new(),
    };
    for row in table() {
        let Row { error, .. } = row;
        assert_eq!(error.partial_output(), None, "{error:?}");
        let with = error.clone().with_output(written.clone());
        let kept = match &error {
            Error::OutputLimit { .. } => false,
            // It has that of its last attempt.
            Error::Repeated { .. } => continue,
            error => error.command_state() == CommandState::Unknown,
        };
        assert_eq!(with.partial_output(), kept.then_some(&written), "{error:?}");
        assert_eq!(with.to_string(), error.to_string());
        if kept {
            let waited = Waited {
                queue: Duration::from_secs(1),
                ..Waited::default()
            };
            let repeated = with.having_waited(&waited).after(target(), 2);
            assert_eq!(repeated.partial_output(), Some(&written), "{error:?}");
        }
    }
    let shown = format!("{written:?}");
    assert!(shown.contains("stdout: \"half\""), "{shown}");
}

#[test]
fn several_attempts_fail_as_the_last_one_does_and_leave_the_command_in_doubt() {
    for row in table() {
        let Row { error, .. } = row;
        assert_eq!(
            error.clone().after(target(), 1).to_string(),
            error.to_string()
        );
        if let Error::Repeated { .. } = error {
            continue;
        }
        assert_eq!(error.attempts(), 1, "{error:?}");
        let repeated = error.clone().after(target(), 3);
        assert_eq!(repeated.attempts(), 3);
        assert_eq!(repeated.command_state(), CommandState::Unknown, "{error:?}");
        assert_eq!(repeated.phase(), error.phase(), "{error:?}");
        assert_eq!(repeated.is_transient(), error.is_transient(), "{error:?}");
        assert_eq!(repeated.is_timeout(), error.is_timeout(), "{error:?}");
        assert!(!repeated.is_killed(), "{error:?}");
        let words = error.to_string();
        let words = words.strip_prefix(&format!("{TARGET}: ")).unwrap_or(&words);
        assert!(repeated.to_string().ends_with(words), "{repeated}");
        let below = |error: &Error| error.source().map(ToString::to_string);
        assert_eq!(below(&repeated), below(&error));
        check_text(&repeated);
    }
}

#[test]
fn waiters_share_one_failure() {
    fn shareable<T: StdError + Clone + Send + Sync + 'static>() {}
    shareable::<Error>();
    shareable::<Cause>();
    shareable::<HostKeyProblem>();

    let first = cause();
    assert!(Arc::ptr_eq(&first.0, &first.clone().0));
}

#[tokio::test]
async fn no_complaint_about_input_repeats_a_secret() {
    let trust = HostKeyPolicy::dangerous_accept_any;
    let mut complaints = Vec::new();

    for text in [
        "user:hunter2@web",
        "ssh://user:hunter2@web",
        "ssh://user:hun/hunter2@web:x",
    ] {
        complaints.push(text.parse::<Target>().unwrap_err());
    }
    let pem = Identity::key_pem(format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n"));
    complaints.push(
        Pool::builder(trust())
            .identity(pem.clone())
            .build()
            .unwrap_err(),
    );

    let password = Identity::password(SECRET);
    let pool = Pool::builder(trust()).identity(password).build().unwrap();
    let elsewhere = Target::new("deploy", "web-1", 22).unwrap().identity(pem);
    complaints.push(pool.host(elsewhere).unwrap_err());
    let host = pool.host(TARGET).unwrap();
    let with_nul = format!("{SECRET}\0");
    complaints.push(
        host.command("login")
            .arg(&with_nul)
            .output()
            .await
            .unwrap_err(),
    );
    complaints.push(
        host.command("login")
            .env("KEY", &with_nul)
            .output()
            .await
            .unwrap_err(),
    );
    complaints.push(host.shell(&with_nul).output().await.unwrap_err());
    let script = host.script("cat").stdin(SECRET).output().await;
    complaints.push(script.unwrap_err());

    for error in &complaints {
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        check_text(error);
    }
}
