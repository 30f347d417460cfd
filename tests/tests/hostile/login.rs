//! The login (RFC 4252, RFC 4256), and what a server may say beside it (RFC 8308).

use ssh_pool_tests::raw::{Act, At, number};

use crate::behaviour::{Behaviour, UGLY, long_text, message};

fn service() -> Vec<Behaviour> {
    let at = |name, acts| Behaviour::at(name, At::First(number::SERVICE_ACCEPT), acts);
    let info = |count: u32| message(number::EXT_INFO).number(count);
    vec![
        at(
            "accepts another service",
            vec![
                message(number::SERVICE_ACCEPT)
                    .string("ssh-connection")
                    .into(),
                Act::Mute,
            ],
        ),
        at(
            "accepts a service with escape codes",
            vec![
                message(number::SERVICE_ACCEPT).string(UGLY).into(),
                Act::Mute,
            ],
        ),
        at("never accepts the service", vec![Act::Mute]),
        at(
            "accepts the service twice",
            vec![Act::Original, Act::Original],
        ),
        at(
            "USERAUTH_SUCCESS before any request",
            vec![message(number::USERAUTH_SUCCESS).into(), Act::Original],
        ),
        at(
            "EXT_INFO with 4 billion entries",
            vec![info(u32::MAX).into(), Act::Original],
        ),
        at(
            "EXT_INFO with escape codes",
            vec![info(1).string(UGLY).string(UGLY).into(), Act::Original],
        ),
        at(
            "EXT_INFO with signature algorithms of 200 kB",
            vec![
                info(1).string("server-sig-algs").string(long_text()).into(),
                Act::Original,
            ],
        ),
        at(
            "EXT_INFO a hundred times",
            vec![Act::Repeat(info(0).into(), 100), Act::Original],
        ),
        at(
            "UNIMPLEMENTED in the place of every answer",
            vec![message(number::UNIMPLEMENTED).number(3).into(), Act::Mute],
        ),
        at(
            "an unknown message before the login",
            vec![message(200).string(UGLY).into(), Act::Original],
        ),
        at(
            "a message with number 0",
            vec![message(0).into(), Act::Original],
        ),
        at(
            "a global request before the login",
            vec![
                message(number::GLOBAL_REQUEST).string("x").byte(1).into(),
                Act::Original,
            ],
        ),
        at(
            "a channel open before the login",
            vec![
                message(number::CHANNEL_OPEN)
                    .string("session")
                    .number(0)
                    .number(0)
                    .number(1)
                    .into(),
                Act::Original,
            ],
        ),
    ]
}

fn answers() -> Vec<Behaviour> {
    use number::{USERAUTH_BANNER, USERAUTH_FAILURE, USERAUTH_PK_OK, USERAUTH_SUCCESS};
    let at = |name, acts| Behaviour::at(name, At::Every(USERAUTH_PK_OK), acts);
    let banner = |text: String| Vec::from(message(USERAUTH_BANNER).string(text).string(""));
    let failure =
        |methods: &str, partial| Vec::from(message(USERAUTH_FAILURE).string(methods).byte(partial));
    vec![
        at(
            "ten thousand banners",
            vec![
                Act::Repeat(banner("welcome\n".into()), 10_000),
                Act::Original,
            ],
        ),
        at(
            "banners of 200 kB without end",
            vec![Act::Flood(banner(long_text()))],
        ),
        at(
            "a banner with escape codes",
            vec![Act::Send(banner(UGLY.into())), Act::Original],
        ),
        at(
            "a banner that is not UTF-8",
            vec![
                message(USERAUTH_BANNER)
                    .string(b"\xe9t\xe9")
                    .string("")
                    .into(),
                Act::Original,
            ],
        ),
        at(
            "refuses every key",
            vec![Act::Send(failure("publickey", 0))],
        ),
        at(
            "a partial success for every key",
            vec![Act::Send(failure("publickey", 1))],
        ),
        at(
            "allows methods with escape codes",
            vec![Act::Send(failure(UGLY, 0))],
        ),
        at(
            "allows methods of 200 kB",
            vec![Act::Send(failure(&long_text(), 0))],
        ),
        at("allows no method", vec![Act::Send(failure("", 0))]),
        at(
            "a thousand failures for one offer",
            vec![Act::Repeat(failure("publickey", 0), 1000)],
        ),
        at(
            "failures without end for one offer",
            vec![Act::Flood(failure("publickey,password", 0))],
        ),
        at(
            "a failure that is cut off",
            vec![message(USERAUTH_FAILURE).number(9).into(), Act::Mute],
        ),
        at(
            "takes another key",
            vec![
                message(USERAUTH_PK_OK)
                    .string("ssh-rsa")
                    .string([1; 40])
                    .into(),
            ],
        ),
        at(
            "takes a key of a kind with escape codes",
            vec![message(USERAUTH_PK_OK).string(UGLY).string([1; 40]).into()],
        ),
        at(
            "takes the key a thousand times",
            vec![
                Act::Repeat(
                    message(USERAUTH_PK_OK)
                        .string("ssh-ed25519")
                        .string([1; 40])
                        .into(),
                    1000,
                ),
                Act::Mute,
            ],
        ),
        at(
            "asks a billion questions",
            vec![
                message(USERAUTH_PK_OK)
                    .string("")
                    .string("")
                    .string("")
                    .number(1_000_000_000)
                    .into(),
                Act::Mute,
            ],
        ),
        at(
            "asks nothing",
            vec![
                message(USERAUTH_PK_OK)
                    .string(UGLY)
                    .string(UGLY)
                    .string("")
                    .number(0)
                    .into(),
                Act::Mute,
            ],
        ),
        at(
            "success before the signature",
            vec![message(USERAUTH_SUCCESS).into()],
        ),
        at(
            "success with bytes after its end",
            vec![message(USERAUTH_SUCCESS).byte(1).into(), Act::Mute],
        ),
        at("never answers a login", vec![Act::Mute]),
        at("stops reading in the login", vec![Act::Deaf]),
        at("closes in the login", vec![Act::Close]),
        at(
            "DISCONNECT in the login, of 200 kB",
            vec![
                message(number::DISCONNECT)
                    .number(2)
                    .string(long_text())
                    .string("")
                    .into(),
                Act::Close,
            ],
        ),
        at(
            "DISCONNECT in the login, with escape codes",
            vec![
                message(number::DISCONNECT)
                    .number(14)
                    .string(UGLY)
                    .string(UGLY)
                    .into(),
                Act::Close,
            ],
        ),
        at(
            "a key exchange in the middle of the login",
            vec![Act::Rekey, Act::Original],
        ),
        at(
            "a flood of IGNORE in the login",
            vec![Act::Flood(message(number::IGNORE).string([0; 1000]).into())],
        ),
        Behaviour::at(
            "success twice",
            At::First(USERAUTH_SUCCESS),
            vec![Act::Original, Act::Original],
        ),
        Behaviour::at(
            "closes after every login",
            At::Every(USERAUTH_SUCCESS),
            vec![Act::Original, Act::Close],
        ),
        Behaviour::at(
            "fails a login that has succeeded",
            At::First(USERAUTH_SUCCESS),
            vec![Act::Original, Act::Send(failure("", 0))],
        ),
        Behaviour::at(
            "an answer to the login, one byte a second",
            At::Every(USERAUTH_SUCCESS),
            vec![Act::Drip(message(USERAUTH_SUCCESS).into())],
        ),
    ]
}

pub(crate) fn behaviours() -> Vec<Behaviour> {
    [service(), answers()].concat()
}
