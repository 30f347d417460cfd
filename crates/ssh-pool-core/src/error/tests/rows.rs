//! The table: every error, and what is expected of it.

use super::*;

/// An error, and what is expected of it.
pub(super) struct Row {
    pub(super) error: Error,
    pub(super) phase: Phase,
    pub(super) state: CommandState,
    pub(super) transient: bool,
    pub(super) timeout: bool,
    pub(super) source: bool,
    /// The reason is what the server said, and not the cause.
    pub(super) quoted: bool,
    /// A part of its text: what to do, or what to know before doing anything.
    pub(super) advice: &'static str,
}

impl Row {
    /// Nothing started, nothing passes by itself, no cause.
    fn new(error: Error, phase: Phase, advice: &'static str) -> Self {
        Self {
            error,
            phase,
            state: CommandState::NotStarted,
            transient: false,
            timeout: false,
            source: false,
            quoted: false,
            advice,
        }
    }

    fn unknown(mut self) -> Self {
        self.state = CommandState::Unknown;
        self
    }

    fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    fn timeout(mut self) -> Self {
        self.timeout = true;
        self.transient()
    }

    fn caused(mut self) -> Self {
        self.source = true;
        self
    }

    /// With a cause, and words of the server that say more.
    fn quoted(mut self) -> Self {
        self.quoted = true;
        self.caused()
    }
}

pub(super) fn target() -> Origin {
    TARGET.into()
}

pub(super) fn cause() -> Cause {
    Cause::new(Outer(io::Error::from_raw_os_error(RESET)))
}

/// As the transport quotes what a server sent.
pub(super) fn words(raw: &str) -> String {
    raw.escape_debug().to_string()
}

pub(super) fn timeout(phase: Phase, state: CommandState, source: Option<Cause>) -> Error {
    let (target, after) = (target(), Duration::from_secs(30));
    Error::Timeout {
        target,
        phase,
        after,
        state,
        killed: false,
        source,
    }
}

pub(super) fn lost(phase: Phase) -> Error {
    let (target, source) = (target(), cause());
    Error::ConnectionLost {
        target,
        phase,
        source,
    }
}

/// What cannot be logged in with, as errors name it.
fn identities() -> Vec<String> {
    let all = Identity::several([
        Identity::key_file_with_passphrase("/k/id", SECRET),
        Identity::key_pem(format!("-----BEGIN {SECRET}")),
        Identity::key_pem_with_passphrase(format!("-----BEGIN {SECRET}"), SECRET),
        Identity::password(SECRET),
    ]);
    all.parts().iter().map(ToString::to_string).collect()
}

pub(super) fn problems() -> Vec<(HostKeyProblem, &'static str)> {
    let (algorithm, fingerprint) = ("ssh-ed25519".to_owned(), "SHA256:abc".to_owned());
    let path = PathBuf::from("/home/deploy/.ssh/known_hosts");
    let unknown = HostKeyProblem::Unknown {
        algorithm: algorithm.clone(),
        fingerprint: fingerprint.clone(),
        searched: vec!["/a".into(), "/b".into()],
    };
    let changed = HostKeyProblem::Changed {
        algorithm,
        fingerprint: fingerprint.clone(),
        expected: vec!["SHA256:def (/a:3)".into()],
    };
    let key_length = HostKeyProblem::KeyLength {
        fingerprint: fingerprint.clone(),
        bits: 1000,
    };
    let revoked = HostKeyProblem::Revoked {
        fingerprint: fingerprint.clone(),
        location: "/a:3".into(),
    };
    let unreadable = HostKeyProblem::Unreadable {
        path: path.clone(),
        reason: "permission denied".into(),
    };
    let not_proven = HostKeyProblem::NotProven {
        reason: "its signature of the key exchange is wrong".into(),
    };
    let not_stored = HostKeyProblem::NotStored {
        fingerprint,
        path,
        reason: "read-only file system".into(),
    };
    vec![
        (unknown, "then add the key"),
        (changed, "find out which"),
        (key_length, "give the server another host key"),
        (revoked, "do not connect"),
        (unreadable, "cannot read /home/deploy/.ssh/known_hosts"),
        (not_stored, "cannot store"),
        (not_proven, "find out who answers there"),
    ]
}

/// Every variant, those with several faces more than once.
pub(super) fn table() -> Vec<Row> {
    let mut rows = before_a_session();
    rows.extend(with_a_session());
    rows.extend(of_streams());
    rows.extend(timeouts());
    for (reason, advice) in problems() {
        let target = target();
        let error = Error::HostKey { target, reason };
        rows.push(Row::new(error, Phase::HostKey, advice));
    }
    for identity in identities() {
        let (target, source) = (target(), cause());
        let error = Error::Identity {
            target,
            identity,
            source,
        };
        rows.push(Row::new(error, Phase::Auth, "log in with another identity").caused());
    }
    rows
}

pub(super) fn before_a_session() -> Vec<Row> {
    let (target, source) = (target(), cause());
    let invalid = Error::InvalidInput {
        what: "target",
        reason: "the port must be a number from 1 to 65535".into(),
    };
    let resolve = Error::Resolve {
        target: target.clone(),
        source: source.clone(),
    };
    let connect = Error::Connect {
        target: target.clone(),
        source: source.clone(),
    };
    let unidentified = Error::Connect {
        target: target.clone(),
        source: Cause::new(Unidentified {
            address: ([10, 0, 0, 1], 22).into(),
            cause: source.clone(),
        }),
    };
    let not_ssh = Error::NotSsh {
        target: target.clone(),
        received: words("HTTP/1.1 400 \"Bad\"\r\n\u{1b}[2J"),
        source: source.clone(),
    };
    let throttled = Error::Throttled {
        target: target.clone(),
        message: words("Exceeded MaxStartups\r\n"),
        source: source.clone(),
    };
    let key_exchange = |lost| Error::KeyExchange {
        target: target.clone(),
        lost,
        source: source.clone(),
    };
    let (key_exchange_lost, key_exchange) = (key_exchange(true), key_exchange(false));
    let none_usable = Error::Identity {
        target: target.clone(),
        identity: "key file /k/a".into(),
        source: Cause::new(NoneUsable {
            each: vec![
                not_used("key file /k/a", "gone"),
                not_used("key file /k/b", "gone"),
            ],
            first: source.clone(),
        }),
    };
    let rejected = Error::AuthRejected {
        target: target.clone(),
        tried: identities(),
        allowed: "publickey".into(),
        accepted: Box::default(),
        messages: Box::default(),
        cooldown: Duration::from_secs(60),
    };
    let refused_after = |tried: &[&str], allowed: &str| Error::AuthRejected {
        target: target.clone(),
        tried: tried.iter().map(|&name| name.to_owned()).collect(),
        allowed: allowed.into(),
        accepted: Box::default(),
        messages: Box::default(),
        cooldown: Duration::from_secs(60),
    };
    let password = "password (keyboard-interactive)";
    let not_asked_for = refused_after(&[], "publickey");
    let wrong_password = refused_after(&["password", password], "password, keyboard-interactive");
    let wrong_both = refused_after(&["ssh-ed25519 SHA256:x", "password"], "publickey, password");
    let unanswered = refused_after(
        &["keyboard-interactive (not answered: \"Code:\")"],
        "keyboard-interactive",
    );
    let full = Error::QueueFull {
        target: target.clone(),
        limit: 16_384,
    };
    let streams = |limit, after| Error::StreamLimit {
        target: target.clone(),
        open: 128,
        limit,
        after,
    };
    let (waited, at_once) = (
        streams("isolated_per_host", Some(Duration::from_secs(30))),
        streams("grouped_per_host", None),
    );
    let descriptors = Error::Descriptors {
        target: target.clone(),
        source: source.clone(),
    };
    let closed_after_login = |lost| Error::ClosedAfterLogin {
        target: target.clone(),
        lost,
        attempts: 3,
        retry_in: Duration::from_secs(4),
        reason: "the server closed the connection".into(),
    };
    let (cut_short, closed_after_login) = (closed_after_login(false), closed_after_login(true));
    let auth_lost = |lost| Error::AuthLost {
        target: target.clone(),
        lost,
        source: source.clone(),
        messages: Box::default(),
    };
    let (unreadable, auth_lost) = (auth_lost(false), auth_lost(true));
    vec![
        Row::new(closed_after_login, Phase::Channel, "ChrootDirectory").transient(),
        Row::new(cut_short, Phase::Channel, "in UTF-8 on the server"),
        Row::new(full, Phase::Queue, "run fewer commands at once").transient(),
        Row::new(waited, Phase::Queue, "128 streams are open")
            .transient()
            .timeout(),
        Row::new(at_once, Phase::Queue, "Limits::grouped_per_host").transient(),
        Row::new(descriptors, Phase::Connect, "ulimit -n")
            .caused()
            .transient(),
        Row::new(invalid, Phase::Input, "must be"),
        Row::new(resolve, Phase::Resolve, "check its spelling").caused(),
        Row::new(connect, Phase::Connect, "check that the server is up")
            .caused()
            .transient(),
        Row::new(
            unidentified,
            Phase::Connect,
            "10.0.0.1:22 accepted the connection and closed it before it said what it is (",
        )
        .quoted()
        .transient(),
        Row::new(not_ssh, Phase::Banner, "check the port").quoted(),
        Row::new(throttled, Phase::Banner, "try again later")
            .quoted()
            .transient(),
        Row::new(key_exchange_lost, Phase::KeyExchange, "the server's log")
            .caused()
            .transient(),
        Row::new(key_exchange, Phase::KeyExchange, "Target::algorithms").caused(),
        Row::new(
            none_usable,
            Phase::Auth,
            "key file /k/a: gone; key file /k/b: gone",
        )
        .quoted(),
        Row::new(rejected, Phase::Auth, "check the user name"),
        Row::new(not_asked_for, Phase::Auth, "allows only publickey, and"),
        Row::new(wrong_password, Phase::Auth, "user name and the password"),
        Row::new(wrong_both, Phase::Auth, "password and the account's"),
        Row::new(unanswered, Phase::Auth, "an identity that answers"),
        Row::new(unreadable, Phase::Auth, "in UTF-8 on the server").caused(),
        Row::new(auth_lost, Phase::Auth, "the server's log")
            .caused()
            .transient(),
    ]
}

fn with_a_session() -> Vec<Row> {
    let target = target();
    let session_refused = Error::SessionRefused {
        target: target.clone(),
        reason: "administratively prohibited, reason 1".into(),
    };
    let exec_refused = Error::ExecRefused {
        target: target.clone(),
    };
    let without_status = Error::ClosedWithoutStatus {
        target: target.clone(),
    };
    let too_much = Error::OutputLimit {
        target: target.clone(),
        stream: Stream::Stderr,
        limit: 1024,
    };
    let pty = Error::PtyRefused {
        target: target.clone(),
    };
    let not_killed = Error::NotKilled {
        target: target.clone(),
        after: Duration::from_secs(2),
    };
    let unproven = Error::Unproven {
        target: target.clone(),
        status: ExitStatus::from_code(1),
        said: "This account is currently not available.".into(),
    };
    let no_session = Error::Unproven {
        target: target.clone(),
        status: ExitStatus::from_code(254),
        said: "The system is going down.".into(),
    };
    let repeated = lost(Phase::Running).after(target.clone(), 3);
    let runtime_ended = Error::RuntimeEnded {
        target: target.clone(),
    };
    let closed = Error::Closed { target };
    let lost_at = |phase, advice| Row::new(lost(phase), phase, advice).caused().transient();
    vec![
        Row::new(session_refused, Phase::Channel, "check MaxSessions"),
        Row::new(exec_refused, Phase::Exec, "check what the account may run"),
        lost_at(Phase::Channel, "was not sent"),
        lost_at(Phase::Exec, "may have run").unknown(),
        lost_at(Phase::Running, "may have run").unknown(),
        Row::new(without_status, Phase::Running, "may still be running").unknown(),
        Row::new(unproven, Phase::Running, "use Command::verbatim").unknown(),
        Row::new(
            no_session,
            Phase::Running,
            "refused the session after the login",
        )
        .unknown(),
        Row::new(too_much, Phase::Running, "raise Limits::output_bytes").unknown(),
        Row::new(pty, Phase::Channel, "check PermitTTY"),
        Row::new(not_killed, Phase::Running, "may still be running").unknown(),
        Row::new(closed, Phase::Closed, "build another"),
        Row::new(
            runtime_ended,
            Phase::Closed,
            "build the pool without in_current_runtime",
        ),
        Row::new(
            repeated,
            Phase::Running,
            "after 3 attempts; the command may have run up to 3 times",
        )
        .caused()
        .transient()
        .unknown(),
    ]
}

fn of_streams() -> Vec<Row> {
    let target = target();
    let address = || Address::from(("db", 5432));
    let subsystem = Error::SubsystemRefused {
        target: target.clone(),
        name: words("sftp"),
    };
    let socket = || Address::from(PathBuf::from("/run/db"));
    let refused = |refusal, to| Error::StreamRefused {
        target: target.clone(),
        to,
        refusal,
        message: words("open failed"),
    };
    let forward = |on| Error::ForwardRefused {
        target: target.clone(),
        on,
    };
    let listen = Error::Listen {
        target: target.clone(),
        on: address(),
        source: cause(),
    };
    let mut rows = vec![
        Row::new(subsystem, Phase::Exec, "refuses it to this account"),
        Row::new(forward(address()), Phase::Channel, "PermitListen"),
        Row::new(
            forward(socket()),
            Phase::Channel,
            "AllowStreamLocalForwarding",
        ),
        Row::new(listen, Phase::Channel, "choose another address").caused(),
    ];
    for &refusal in REFUSALS {
        assert!(is_refusal(refusal));
        let (tcp, unix) = match refusal {
            Refusal::Denied => ("PermitOpen", "AllowStreamLocalForwarding"),
            Refusal::Unreachable => ("something listens", "AllowStreamLocalForwarding"),
            Refusal::Unsupported => ("another way", "another way"),
            Refusal::Overloaded => ("fewer streams", "fewer streams"),
        };
        rows.push(Row::new(refused(refusal, address()), Phase::Channel, tcp));
        rows.push(Row::new(refused(refusal, socket()), Phase::Channel, unix));
    }
    rows
}

fn timeouts() -> Vec<Row> {
    use CommandState::{NotStarted, Unknown};
    let advice = [
        (Phase::Queue, NotStarted, "raise the limits"),
        (Phase::Files, NotStarted, "check the disk"),
        (Phase::Decryption, NotStarted, "decrypting the key"),
        (Phase::Resolve, NotStarted, "check the resolver"),
        (Phase::Connect, NotStarted, "the network path"),
        (
            Phase::Banner,
            NotStarted,
            "it accepted the connection and has not identified itself",
        ),
        (Phase::KeyExchange, NotStarted, "it has identified itself"),
        (Phase::HostKey, NotStarted, "storing the host key"),
        (Phase::Agent, NotStarted, "unlock the agent"),
        (Phase::Auth, NotStarted, "raise Timeouts::connect"),
        (Phase::Channel, NotStarted, "check its load"),
        (Phase::Exec, Unknown, "may still be running"),
        (Phase::Running, Unknown, "may still be running"),
    ];
    let mut rows = Vec::new();
    for (phase, state, advice) in advice {
        let row = |source| Row {
            state,
            ..Row::new(timeout(phase, state, source), phase, advice).timeout()
        };
        rows.push(row(None));
        rows.push(row(Some(cause())).caused());
    }
    let mut killed = timeout(Phase::Running, Unknown, None);
    assert!(!killed.is_killed());
    if let Error::Timeout { killed, .. } = &mut killed {
        *killed = true;
    }
    assert!(killed.is_killed());
    let row = Row::new(killed, Phase::Running, "was ended");
    rows.push(row.timeout().unknown());
    // Whatever it was doing then, and whatever had failed before.
    for phase in [Phase::Queue, Phase::Files, Phase::Connect, Phase::Channel] {
        let mut at_once = timeout(phase, NotStarted, None);
        if let Error::Timeout { after, .. } = &mut at_once {
            *after = Duration::ZERO;
        }
        let advice = "the time-out is zero, so it was over when the call began";
        rows.push(Row::new(at_once, phase, advice).timeout());
        let mut too_short = timeout(phase, NotStarted, None);
        if let Error::Timeout { after, .. } = &mut too_short {
            *after = Duration::from_nanos(1);
        }
        let advice = "the time-out of 1ns is too short for anything";
        rows.push(Row::new(too_short, phase, advice).timeout());
    }
    rows
}
