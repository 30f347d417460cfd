//! Requests on channels and their replies (RFC 4254, sections 5.4 and 6).

use ssh_pool_tests::raw::{Act, At, ChannelNumbers, Payload, number};

use crate::behaviour::{Behaviour, UGLY, long_text, message};

fn request(on: ChannelNumbers, kind: &str) -> Payload {
    message(number::CHANNEL_REQUEST)
        .number(on.client)
        .string(kind)
        .byte(0)
}

fn exit_signal(on: ChannelNumbers, name: impl AsRef<[u8]>, text: &str) -> Act {
    request(on, "exit-signal")
        .string(name)
        .byte(0)
        .string(text)
        .string("")
        .into()
}

fn replies() -> Vec<Behaviour> {
    use number::{CHANNEL_FAILURE, CHANNEL_OPEN_CONFIRMATION, CHANNEL_SUCCESS};
    const STARTED: At = At::Every(CHANNEL_SUCCESS);
    let failure = |on: ChannelNumbers| Act::from(message(CHANNEL_FAILURE).number(on.client));
    let success = |on: ChannelNumbers| message(CHANNEL_SUCCESS).number(on.client);
    vec![
        Behaviour::on("refuses every request", STARTED, move |on| {
            vec![failure(on)]
        }),
        Behaviour::on("refuses what it has granted", STARTED, move |on| {
            vec![Act::Original, failure(on)]
        }),
        Behaviour::on("grants what it has refused", STARTED, move |on| {
            vec![failure(on), Act::Original]
        }),
        Behaviour::at(
            "grants every request twice",
            STARTED,
            vec![Act::Original, Act::Original],
        ),
        Behaviour::at("never answers a request", STARTED, vec![]),
        Behaviour::at(
            "never answers a request, and says nothing more",
            STARTED,
            vec![Act::Mute],
        ),
        Behaviour::on("answers on another channel", STARTED, |on| {
            vec![message(CHANNEL_SUCCESS).number(on.client + 9).into()]
        }),
        Behaviour::on("a flood of successes on a channel", STARTED, move |on| {
            vec![Act::Flood(success(on).into())]
        }),
        Behaviour::on(
            "a success before any request",
            At::Every(CHANNEL_OPEN_CONFIRMATION),
            move |on| vec![Act::Original, success(on).into()],
        ),
        Behaviour::on(
            "a failure before any request",
            At::Every(CHANNEL_OPEN_CONFIRMATION),
            move |on| vec![Act::Original, failure(on)],
        ),
        Behaviour::at(
            "a success without a number",
            STARTED,
            vec![message(CHANNEL_SUCCESS).into()],
        ),
        Behaviour::on("a success with bytes after its end", STARTED, move |on| {
            vec![success(on).bytes([0; 5]).into()]
        }),
        Behaviour::at(
            "closes the connection on every request",
            STARTED,
            vec![Act::Close],
        ),
        Behaviour::at(
            "closes the connection after every exec",
            STARTED,
            vec![Act::Original, Act::Close],
        ),
        Behaviour::at(
            "stops reading after exec",
            At::First(CHANNEL_SUCCESS),
            vec![Act::Original, Act::Deaf],
        ),
    ]
}

fn exits() -> Vec<Behaviour> {
    use number::{CHANNEL_CLOSE, CHANNEL_REQUEST, CHANNEL_SUCCESS};
    const EXIT: At = At::Every(CHANNEL_REQUEST);
    let status = |on, code: u32| Act::from(request(on, "exit-status").number(code));
    let signal = |name, signal: &'static str, text: &'static str| {
        Behaviour::on(name, EXIT, move |on| vec![exit_signal(on, signal, text)])
    };
    vec![
        Behaviour::at("no exit status", EXIT, vec![]),
        Behaviour::at(
            "an exit status twice",
            EXIT,
            vec![Act::Original, Act::Original],
        ),
        Behaviour::on("two different exit statuses", EXIT, move |on| {
            vec![status(on, 1), status(on, 2)]
        }),
        Behaviour::on("an exit status of 4 billion", EXIT, move |on| {
            vec![status(on, u32::MAX)]
        }),
        Behaviour::on(
            "an exit status before the answer to exec",
            At::Every(CHANNEL_SUCCESS),
            move |on| vec![status(on, 3), Act::Original],
        ),
        Behaviour::on(
            "an exit status after the close",
            At::Every(CHANNEL_CLOSE),
            move |on| vec![Act::Original, status(on, 4)],
        ),
        Behaviour::on("an exit status without a code", EXIT, |on| {
            vec![request(on, "exit-status").into()]
        }),
        Behaviour::on("an exit status on another channel", EXIT, move |on| {
            vec![status(
                ChannelNumbers {
                    client: on.client + 3,
                    ..on
                },
                0,
            )]
        }),
        signal(
            "an exit signal with a newline and escape codes",
            "KILL\n\u{1b}[31m\u{7}",
            "",
        ),
        signal("an exit signal with a text with escape codes", "KILL", UGLY),
        signal("an exit signal without a name", "", ""),
        signal(
            "an exit signal with text from right to left",
            "\u{202e}LLIK",
            "",
        ),
        signal("an exit signal with a zero", "KI\0LL", ""),
        signal("an exit signal with a domain", "XCPU@openssh.com", ""),
        Behaviour::on("an exit signal of 240 kB", EXIT, |on| {
            vec![exit_signal(on, "A".repeat(240_000), "")]
        }),
        Behaviour::on("an exit signal of 240 kB of escape codes", EXIT, |on| {
            vec![exit_signal(on, "\u{1b}".repeat(240_000), "")]
        }),
        Behaviour::on("an exit signal with a text of 200 kB", EXIT, |on| {
            vec![exit_signal(on, "TERM", &long_text())]
        }),
        Behaviour::on("an exit signal that is not UTF-8", EXIT, |on| {
            vec![exit_signal(on, b"\xff\xfe", "")]
        }),
        Behaviour::on("an exit signal that is cut off", EXIT, |on| {
            vec![request(on, "exit-signal").string("KILL").into()]
        }),
        Behaviour::on("an exit status and an exit signal", EXIT, move |on| {
            vec![status(on, 0), exit_signal(on, "KILL", "")]
        }),
        Behaviour::on("a flood of exit signals", EXIT, |on| {
            match exit_signal(on, UGLY, UGLY) {
                Act::Send(message) => vec![Act::Flood(message)],
                other => vec![other],
            }
        }),
    ]
}

fn others() -> Vec<Behaviour> {
    const STARTED: At = At::Every(number::CHANNEL_SUCCESS);
    let wanting = |on: ChannelNumbers, kind: &str| {
        message(number::CHANNEL_REQUEST)
            .number(on.client)
            .string(kind)
            .byte(1)
    };
    vec![
        Behaviour::on(
            "a flood of unknown requests on a channel",
            STARTED,
            move |on| vec![Act::Original, Act::Flood(wanting(on, "x").into())],
        ),
        Behaviour::on(
            "a flood of unknown requests with escape codes",
            STARTED,
            move |on| vec![Act::Original, Act::Flood(wanting(on, UGLY).into())],
        ),
        Behaviour::on("an unknown request of 200 kB", STARTED, move |on| {
            vec![Act::Original, wanting(on, &long_text()).into()]
        }),
        Behaviour::on("a flood of channel keepalives", STARTED, move |on| {
            vec![
                Act::Original,
                Act::Flood(wanting(on, "keepalive@openssh.com").into()),
            ]
        }),
        Behaviour::on(
            "a flood of channel keepalives that want no reply",
            STARTED,
            move |on| {
                vec![
                    Act::Original,
                    Act::Flood(request(on, "keepalive@openssh.com").into()),
                ]
            },
        ),
        Behaviour::on("asks us to execute a command", STARTED, move |on| {
            vec![Act::Original, wanting(on, "exec").string("rm -rf /").into()]
        }),
        Behaviour::on("a request that is cut off", STARTED, |on| {
            vec![
                Act::Original,
                message(number::CHANNEL_REQUEST)
                    .number(on.client)
                    .number(99)
                    .into(),
            ]
        }),
        Behaviour::on("flow control that nobody asked for", STARTED, |on| {
            vec![Act::Original, request(on, "xon-xoff").byte(1).into()]
        }),
        Behaviour::on("the end of write at once", STARTED, |on| {
            vec![Act::Original, request(on, "eow@openssh.com").into()]
        }),
    ]
}

pub(crate) fn behaviours() -> Vec<Behaviour> {
    [replies(), exits(), others()].concat()
}
