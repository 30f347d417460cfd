//! After the login, about the whole connection: transport messages, global requests (RFC 4254,
//! section 4), other key exchanges (RFC 4253, section 9), and channels that the server opens
//! (RFC 4254, sections 5.1, 6.3 and 7.2).

use ssh_pool_tests::raw::{Act, At, Packet, number};

use crate::behaviour::{Behaviour, UGLY, long_text, message};

/// Right after the login.
fn after(name: &'static str, acts: Vec<Act>) -> Behaviour {
    let acts = [vec![Act::Original], acts].concat();
    Behaviour::at(name, At::First(number::USERAUTH_SUCCESS), acts)
}

fn transport() -> Vec<Behaviour> {
    use number::{DEBUG, DISCONNECT, IGNORE};
    let debug = |text: &str| message(DEBUG).byte(1).string(text).string("");
    let disconnect =
        |reason: u32, text: &[u8]| message(DISCONNECT).number(reason).string(text).string("");
    vec![
        after(
            "a flood of IGNORE",
            vec![Act::Flood(message(IGNORE).string([0; 100]).into())],
        ),
        after(
            "a flood of empty IGNOREs",
            vec![Act::Flood(message(IGNORE).string("").into())],
        ),
        after(
            "a flood of DEBUG with escape codes",
            vec![Act::Flood(debug(UGLY).into())],
        ),
        after("DEBUG of 200 kB", vec![debug(&long_text()).into()]),
        after(
            "DEBUG that is cut off",
            vec![message(DEBUG).byte(1).number(99).into()],
        ),
        after(
            "a flood of UNIMPLEMENTED",
            vec![Act::Flood(message(number::UNIMPLEMENTED).number(7).into())],
        ),
        after(
            "UNIMPLEMENTED that is cut off",
            vec![message(number::UNIMPLEMENTED).into()],
        ),
        after(
            "DISCONNECT after the login, of 200 kB",
            vec![disconnect(11, long_text().as_bytes()).into(), Act::Close],
        ),
        after(
            "DISCONNECT after the login, with escape codes",
            vec![disconnect(2, UGLY.as_bytes()).into(), Act::Close],
        ),
        after(
            "DISCONNECT after the login, not UTF-8",
            vec![disconnect(2, b"\xff\xfe\x1b[31m").into(), Act::Close],
        ),
        after(
            "DISCONNECT for an unknown reason",
            vec![disconnect(u32::MAX, b"why").into(), Act::Close],
        ),
        after(
            "DISCONNECT without fields",
            vec![message(DISCONNECT).into(), Act::Close],
        ),
        after(
            "DISCONNECT, and goes on",
            vec![disconnect(2, b"bye").into()],
        ),
        after(
            "SERVICE_ACCEPT after the login",
            vec![
                message(number::SERVICE_ACCEPT)
                    .string("ssh-userauth")
                    .into(),
            ],
        ),
        after(
            "a banner after the login",
            vec![
                message(number::USERAUTH_BANNER)
                    .string(UGLY)
                    .string("")
                    .into(),
            ],
        ),
        after(
            "questions after the login",
            vec![
                message(number::USERAUTH_INFO_REQUEST)
                    .string("")
                    .string("")
                    .string("")
                    .number(0)
                    .into(),
            ],
        ),
        after(
            "EXT_INFO after the login",
            vec![
                message(number::EXT_INFO)
                    .number(1)
                    .string("ping@openssh.com")
                    .string("0")
                    .into(),
            ],
        ),
        after(
            "every unknown message once",
            (101..=255)
                .map(|number| message(number).string(UGLY).into())
                .collect(),
        ),
        after(
            "a flood of unknown messages",
            vec![Act::Flood(message(210).string(UGLY).into())],
        ),
        after(
            "a packet without a message after the login",
            vec![Act::Packet(Packet::default())],
        ),
        after("never reads after the login", vec![Act::Deaf]),
        after("never answers after the login", vec![Act::Mute]),
        after(
            "noise after the login",
            vec![Act::FloodBytes((0..=255).rev().collect())],
        ),
        after(
            "a wrong tag after the login",
            vec![
                Act::Packet(Packet {
                    payload: message(IGNORE).string("x").into(),
                    bad_tag: true,
                    ..Packet::default()
                }),
                Act::Mute,
            ],
        ),
        after(
            "one byte a second after the login",
            vec![Act::Drip(message(IGNORE).string([0; 200]).into())],
        ),
    ]
}

fn global_requests() -> Vec<Behaviour> {
    use number::{GLOBAL_REQUEST, REQUEST_FAILURE, REQUEST_SUCCESS};
    let request = |name: &str, reply| message(GLOBAL_REQUEST).string(name).byte(reply);
    let host_keys = || request("hostkeys-00@openssh.com", 0);
    vec![
        after(
            "a flood of global requests",
            vec![Act::Flood(request("x@example.org", 0).into())],
        ),
        after(
            "a flood of global requests that want a reply",
            vec![Act::Flood(request("x@example.org", 1).into())],
        ),
        after(
            "a flood of global requests without a name",
            vec![Act::Flood(request("", 0).into())],
        ),
        after(
            "a flood of global requests with escape codes",
            vec![Act::Flood(request(UGLY, 1).into())],
        ),
        after(
            "a flood of global requests of 200 kB",
            vec![Act::Flood(request(&long_text(), 0).into())],
        ),
        after(
            "a global request that is not UTF-8",
            vec![message(GLOBAL_REQUEST).string(b"\xff\xfe").byte(1).into()],
        ),
        after(
            "a global request that is cut off",
            vec![message(GLOBAL_REQUEST).number(200).into()],
        ),
        after(
            "a flood of keepalives that want no reply",
            vec![Act::Flood(request("keepalive@openssh.com", 0).into())],
        ),
        after(
            "a flood of keepalives that want a reply",
            vec![Act::Flood(request("keepalive@openssh.com", 1).into())],
        ),
        after(
            "a keepalive with bytes after its end",
            vec![request("keepalive@openssh.com", 1).bytes([1; 9]).into()],
        ),
        after(
            "host keys that are none",
            vec![host_keys().string(UGLY).string([0; 70]).into()],
        ),
        after(
            "a flood of host keys",
            vec![Act::Flood(host_keys().string([0; 40]).into())],
        ),
        after(
            "host keys that are cut off",
            vec![host_keys().number(u32::MAX).into()],
        ),
        after(
            "host keys of 200 kB",
            vec![host_keys().string(vec![1; 200_000]).into()],
        ),
        after(
            "asks us to listen",
            vec![request("tcpip-forward", 1).string("").number(22).into()],
        ),
        after(
            "a flood of successes for no request",
            vec![Act::Flood(message(REQUEST_SUCCESS).into())],
        ),
        after(
            "a flood of failures for no request",
            vec![Act::Flood(message(REQUEST_FAILURE).into())],
        ),
        after(
            "a success with a port for no request",
            vec![message(REQUEST_SUCCESS).number(22).into()],
        ),
        Behaviour::at(
            "refuses every global request",
            At::Every(REQUEST_SUCCESS),
            vec![message(REQUEST_FAILURE).into()],
        ),
        Behaviour::at(
            "answers every global request with a port that is none",
            At::Every(REQUEST_SUCCESS),
            vec![message(REQUEST_SUCCESS).number(700_000).into()],
        ),
        Behaviour::at(
            "answers every global request with half a port",
            At::Every(REQUEST_SUCCESS),
            vec![message(REQUEST_SUCCESS).bytes([1, 2]).into()],
        ),
        Behaviour::at(
            "answers every global request twice",
            At::Every(REQUEST_SUCCESS),
            vec![Act::Original, Act::Original],
        ),
        Behaviour::at(
            "answers no global request",
            At::Every(REQUEST_SUCCESS),
            vec![],
        ),
    ]
}

fn key_exchanges() -> Vec<Behaviour> {
    let init = || Act::Send(ssh_pool_tests::raw::KeyExchange::default().init());
    let on_confirmation =
        |name, acts| Behaviour::at(name, At::First(number::CHANNEL_OPEN_CONFIRMATION), acts);
    vec![
        after("a key exchange after the login", vec![Act::Rekey]),
        after("twenty key exchanges after the login", vec![Act::Rekey; 20]),
        after("a key exchange that never ends", vec![init(), Act::Mute]),
        after(
            "a key exchange that never ends, and does not read",
            vec![init(), Act::Deaf],
        ),
        after("KEXINIT a hundred times", vec![init(); 100]),
        after(
            "a key exchange reply that nobody asked for",
            vec![
                message(number::KEX_ECDH_REPLY)
                    .string("")
                    .string("")
                    .string("")
                    .into(),
            ],
        ),
        after(
            "NEWKEYS that nobody asked for",
            vec![message(number::NEWKEYS).into()],
        ),
        after(
            "channel data in a key exchange",
            vec![
                init(),
                message(number::CHANNEL_DATA).number(2).string("x").into(),
            ],
        ),
        on_confirmation(
            "a key exchange in the place of a confirmation",
            vec![Act::Rekey, Act::Original],
        ),
        on_confirmation(
            "a key exchange that never ends, in the place of a confirmation",
            vec![init(), Act::Mute],
        ),
        Behaviour::at(
            "a key exchange before every answer to a request",
            At::Every(number::CHANNEL_SUCCESS),
            vec![Act::Rekey, Act::Original],
        ),
        Behaviour::at(
            "a key exchange before every close",
            At::Every(number::CHANNEL_CLOSE),
            vec![Act::Rekey, Act::Original],
        ),
        Behaviour::at(
            "a key exchange that never ends, after exec",
            At::First(number::CHANNEL_SUCCESS),
            vec![Act::Original, init(), Act::Mute],
        ),
    ]
}

fn opens() -> Vec<Behaviour> {
    use number::CHANNEL_OPEN;
    let open = |kind: &str| {
        message(CHANNEL_OPEN)
            .string(kind)
            .number(7)
            .number(1 << 20)
            .number(1 << 15)
    };
    let forwarded = |host: &str, port| {
        open("forwarded-tcpip")
            .string(host)
            .number(port)
            .string(UGLY)
            .number(1)
    };
    vec![
        after(
            "a flood of sessions",
            vec![Act::Flood(open("session").into())],
        ),
        after(
            "a flood of X11 channels",
            vec![Act::Flood(open("x11").string(UGLY).number(1).into())],
        ),
        after(
            "a flood of agent channels",
            vec![Act::Flood(open("auth-agent@openssh.com").into())],
        ),
        after(
            "a flood of unknown channels with escape codes",
            vec![Act::Flood(open(UGLY).into())],
        ),
        after(
            "a channel of a kind of 200 kB",
            vec![open(&long_text()).into()],
        ),
        after(
            "a flood of forwarded connections that nobody asked for",
            vec![Act::Flood(forwarded("elsewhere", 1).into())],
        ),
        after(
            "a flood of forwarded connections to a port that is none",
            vec![Act::Flood(forwarded("localhost", 70_000).into())],
        ),
        after(
            "forwarded connections to a host with escape codes",
            vec![Act::Repeat(forwarded(UGLY, 4000).into(), 100)],
        ),
        after(
            "a flood of forwarded sockets",
            vec![Act::Flood(
                open("forwarded-streamlocal@openssh.com")
                    .string(UGLY)
                    .string("")
                    .into(),
            )],
        ),
        after(
            "opens direct connections",
            vec![Act::Repeat(
                open("direct-tcpip")
                    .string("a")
                    .number(1)
                    .string("b")
                    .number(2)
                    .into(),
                100,
            )],
        ),
        after(
            "a channel with a packet size of 0",
            vec![
                message(CHANNEL_OPEN)
                    .string("session")
                    .number(7)
                    .number(0)
                    .number(0)
                    .into(),
            ],
        ),
        after(
            "a channel open that is cut off",
            vec![message(CHANNEL_OPEN).string("session").into()],
        ),
        Behaviour::at(
            "a flood of forwarded connections that we asked for",
            At::First(number::REQUEST_SUCCESS),
            vec![
                Act::Original,
                Act::Flood(forwarded("localhost", 4000).into()),
            ],
        ),
        Behaviour::at(
            "data on a forwarded connection that was not accepted",
            At::First(number::REQUEST_SUCCESS),
            vec![
                Act::Original,
                forwarded("localhost", 4000).into(),
                message(number::CHANNEL_DATA).number(3).string("x").into(),
                message(number::CHANNEL_CLOSE).number(3).into(),
            ],
        ),
    ]
}

pub(crate) fn behaviours() -> Vec<Behaviour> {
    [transport(), global_requests(), key_exchanges(), opens()].concat()
}
