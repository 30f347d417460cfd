//! What a server says to people during a login: in the error, and as an event.

use std::fs;
use std::time::Duration;

use ssh_pool::{
    CommandState, Error, EventKind, Events, HostKeyPolicy, Identity, MessageKind, Phase, Pool,
    Timeouts,
};
use ssh_pool_tests::raw::{
    Act, At, ChannelNumbers, KeyExchange, Payload, RawServer, Trick, number,
};
use ssh_pool_tests::{Sshd, TestUser};

use crate::{builder, known, new_key};

/// The messages among the events so far.
fn told(events: &mut Events) -> Vec<(MessageKind, String)> {
    std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event.kind {
            EventKind::ServerMessage { message } => Some((message.kind, message.text)),
            _ => None,
        })
        .collect()
}

/// The error of a login, and what was told of it.
async fn refused(sshd: &Sshd, identity: Identity) -> (Error, Vec<(MessageKind, String)>) {
    let pool = builder(sshd, known(sshd))
        .identity(identity)
        .build()
        .unwrap();
    let mut events = pool.events();
    let host = pool.host(sshd.target()).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    pool.close().await;
    (error, told(&mut events))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banner_is_an_event_of_each_login_and_part_of_a_refusal() {
    let dir = ssh_pool_tests::TempDir::new();
    let banner = dir.path().join("banner");
    fs::write(&banner, "Authorized use only.\n\u{1b}[31mOr else.\n").unwrap();
    let sshd = Sshd::builder()
        .option(format!("Banner {}", banner.display()))
        .start();
    let shown = r"Authorized use only.\n\u{1b}[31mOr else.".to_owned();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let mut events = pool.events();
    let host = pool.host(sshd.target()).unwrap();
    assert!(host.command("true").status().await.unwrap().success());
    pool.close().await;
    assert_eq!(told(&mut events), [(MessageKind::Banner, shown.clone())]);

    let (_dir, key) = new_key();
    let (error, told) = refused(&sshd, Identity::key_file(key.private())).await;
    assert_eq!(told, [(MessageKind::Banner, shown.clone())]);
    assert_eq!(error.server_messages()[0].text, shown);
    assert!(
        error
            .to_string()
            .contains(&format!("the server said \"{shown}\"")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banner_that_is_not_utf8_is_an_error_that_says_so_and_does_not_pass() {
    let dir = ssh_pool_tests::TempDir::new();
    let banner = dir.path().join("banner");
    fs::write(&banner, b"Acc\xe8s r\xe9serv\xe9\n").unwrap();
    let sshd = Sshd::builder()
        .option(format!("Banner {}", banner.display()))
        .start();
    let (error, told) = refused(&sshd, Identity::key_file(sshd.client_key())).await;
    assert!(
        matches!(error, Error::AuthLost { lost: false, .. }),
        "{error:?}"
    );
    assert!(!error.is_transient(), "{error:?}");
    for part in ["text that is not UTF-8", "the file that Banner names"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(told, []);
    // It is not tried again by itself, as a connection that was lost is.
    assert_eq!(sshd.connections(), 1, "{}", sshd.log());
    fs::write(&banner, "Acc\u{e8}s r\u{e9}serv\u{e9}\n").unwrap();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    assert!(host.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pam_says_of_an_account_that_may_not_log_in_is_in_the_error() {
    let sshd = Sshd::builder()
        .pam(
            "auth required pam_permit.so\n\
             account optional pam_echo.so Your account has expired; please contact your administrator.\n\
             account required pam_deny.so\nsession required pam_permit.so\n",
        )
        .start();
    let (error, told) = refused(&sshd, Identity::key_file(sshd.client_key())).await;
    let said = "Your account has expired; please contact your administrator.";
    assert!(error.to_string().contains(said), "{error}\n{}", sshd.log());
    assert!(
        told.iter()
            .any(|(kind, text)| (*kind, &**text) == (MessageKind::Banner, said))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pam_says_above_a_prompt_is_in_the_error() {
    let sshd = Sshd::builder()
        .user(TestUser::with_password())
        .pam(
            "auth optional pam_echo.so Your password has expired.\nauth required pam_unix.so\n\
             account required pam_permit.so\nsession required pam_permit.so\n",
        )
        .option("AuthenticationMethods keyboard-interactive")
        .option("KbdInteractiveAuthentication yes")
        .start();
    let (error, told) = refused(&sshd, Identity::password("wrong")).await;
    let said = (
        MessageKind::Instruction,
        "Your password has expired.".to_owned(),
    );
    assert!(told.contains(&said), "{told:?}");
    assert!(error.to_string().contains(&said.1), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_server_disconnects_is_in_the_error() {
    let sshd = Sshd::builder().option("MaxAuthTries 2").start();
    let keys = [new_key(), new_key(), new_key()];
    let all = keys
        .iter()
        .map(|(_, key)| Identity::key_file(key.private()));
    let (error, told) = refused(&sshd, Identity::several(all)).await;
    assert!(matches!(error, Error::AuthRejected { .. }), "{error:?}");
    let said = "Too many authentication failures";
    assert!(
        error
            .to_string()
            .contains(&format!("the server said \"{said}\"")),
        "{error}"
    );
    assert_eq!(told, [(MessageKind::Disconnect, said.to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_demands_a_new_password_is_named_in_the_error() {
    let demand = Payload::new(number::USERAUTH_PASSWD_CHANGEREQ)
        .string("Your password has expired.")
        .string("");
    let banner = Payload::new(number::USERAUTH_BANNER)
        .string("Change it at the front desk.")
        .string("");
    let acts = vec![banner.into(), demand.into()];
    let trick = Trick::new(At::First(number::USERAUTH_SUCCESS), acts);
    let server = RawServer::with_tricks(KeyExchange::default(), vec![trick]);
    let policy = HostKeyPolicy::known_hosts_file(server.known_hosts());
    let pool = Pool::builder(policy)
        .identity(Identity::password("x"))
        .timeouts(Timeouts::default().connect(Duration::from_secs(2)))
        .build()
        .unwrap();
    let host = pool.host(server.target()).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.phase(), Phase::Auth);
    let said = "the server had said \"Change it at the front desk.\"";
    for part in [
        said,
        "neither yes nor no to the password, and may demand a new one",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// A pool for a server that plays this trick.
fn pool_of(trick: Trick) -> (RawServer, Pool) {
    let server = RawServer::with_tricks(KeyExchange::default(), vec![trick]);
    let policy = HostKeyPolicy::known_hosts_file(server.known_hosts());
    let builder = Pool::builder(policy).identity(Identity::password("x"));
    (server, builder.build().unwrap())
}

const LATIN1: &[u8] = b"nicht m\xf6glich";

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_not_utf8_after_the_login_is_named_and_does_not_pass() {
    let goodbye = || Payload::new(number::DISCONNECT).number(11).string(LATIN1);
    let request = Payload::new(number::GLOBAL_REQUEST).string(LATIN1).byte(0);
    let refusal = |channel: ChannelNumbers| {
        let failure = Payload::new(number::CHANNEL_OPEN_FAILURE).number(channel.client);
        vec![failure.number(1).string(LATIN1).string("").into()]
    };
    let opened = At::Every(number::CHANNEL_OPEN_CONFIRMATION);
    for (what, trick) in [
        (
            "disconnect",
            Trick::new(opened, vec![goodbye().string("").into(), Act::Close]),
        ),
        ("refused channel", Trick::on_channel(opened, refusal)),
        (
            "global request",
            Trick::new(
                At::First(number::USERAUTH_SUCCESS),
                vec![Act::Original, request.into()],
            ),
        ),
    ] {
        let (server, pool) = pool_of(trick);
        let host = pool.host(server.target()).unwrap();
        let error = host.command("true").output().await.unwrap_err();
        let is_closed = matches!(error, Error::ClosedAfterLogin { lost: false, .. });
        assert!(is_closed, "{what}: {error:?}");
        assert!(!error.is_transient(), "{what}: {error:?}");
        assert_eq!(error.phase(), Phase::Channel, "{what}");
        let text = error.to_string();
        for part in ["text that is not UTF-8", "in UTF-8 on the server"] {
            assert!(text.contains(part), "{what}: {text}");
        }
        assert!(!text.contains("Chroot"), "{what}: {text}");
        assert_eq!(
            server.logins(),
            1,
            "{what}: it is not tried again by itself"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_command_ended_in_text_that_is_not_utf8_is_a_loss_that_is_named() {
    let exit_signal = |channel: ChannelNumbers| {
        let signal = Payload::new(number::CHANNEL_REQUEST).number(channel.client);
        let signal = signal.string("exit-signal").byte(0).string("TERM").byte(0);
        vec![signal.string(LATIN1).string("").into()]
    };
    let (server, pool) = pool_of(Trick::on_channel(
        At::Every(number::CHANNEL_REQUEST),
        exit_signal,
    ));
    let host = pool.host(server.target()).unwrap();
    let once = host.command("true").output().await.unwrap_err();
    // It may have been a goodbye.
    assert!(matches!(once, Error::ConnectionLost { .. }), "{once:?}");
    assert!(once.is_transient(), "{once:?}");
    let often = host.command("true").idempotent().output().await;
    let often = often.unwrap_err();
    assert!(!often.is_transient(), "{often:?}");
    assert_eq!((once.attempts(), often.attempts()), (1, 3));
    for error in [once, often] {
        let text = error.to_string();
        for part in ["text that is not UTF-8", "in UTF-8 on the server"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(error.command_state(), CommandState::Unknown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debug_message_may_be_in_any_encoding() {
    let debug = Payload::new(number::DEBUG)
        .byte(1)
        .string(LATIN1)
        .string("");
    let (server, pool) = pool_of(Trick::new(
        At::Every(number::CHANNEL_OPEN_CONFIRMATION),
        vec![debug.into(), Act::Original],
    ));
    let host = pool.host(server.target()).unwrap();
    assert!(host.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_banners_are_eight_events_and_a_short_error() {
    let banner = Payload::new(number::USERAUTH_BANNER)
        .string("hello")
        .string("");
    let failure = Payload::new(number::USERAUTH_FAILURE)
        .string("publickey")
        .byte(0);
    let acts = vec![Act::Repeat(banner.into(), 10_000), failure.into()];
    let server = RawServer::with_tricks(
        KeyExchange::default(),
        vec![Trick::new(At::Every(number::USERAUTH_FAILURE), acts)],
    );
    let policy = HostKeyPolicy::known_hosts_file(server.known_hosts());
    let pool = Pool::builder(policy)
        .identity(Identity::password("x"))
        .build()
        .unwrap();
    let mut events = pool.events();
    let host = pool.host(server.target()).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    assert!(matches!(error, Error::AuthRejected { .. }), "{error:?}");
    assert_eq!(error.server_messages().len(), 8);
    assert_eq!(told(&mut events).len(), 8);
}
