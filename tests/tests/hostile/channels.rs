//! Channels (RFC 4254, section 5): opening, windows, data, ends.

use ssh_pool_tests::raw::{Act, At, number};

use crate::behaviour::{Behaviour, UGLY, long_text, message};

fn confirmation(client: u32, server: u32, window: u32, packet: u32) -> Act {
    let message = message(number::CHANNEL_OPEN_CONFIRMATION)
        .number(client)
        .number(server);
    message.number(window).number(packet).into()
}

fn openings() -> Vec<Behaviour> {
    use number::{
        CHANNEL_CLOSE, CHANNEL_DATA, CHANNEL_EOF, CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE,
    };
    const CONFIRM: At = At::Every(CHANNEL_OPEN_CONFIRMATION);
    let refuse = |reason: u32, text: String| {
        move |on: ssh_pool_tests::raw::ChannelNumbers| {
            let failure = message(CHANNEL_OPEN_FAILURE)
                .number(on.client)
                .number(reason);
            vec![failure.string(&text).string("").into()]
        }
    };
    vec![
        Behaviour::on(
            "refuses every open with escape codes",
            CONFIRM,
            refuse(1, UGLY.into()),
        ),
        Behaviour::on(
            "refuses every open in 200 kB",
            CONFIRM,
            refuse(2, long_text()),
        ),
        Behaviour::on(
            "refuses every open for an unknown reason",
            CONFIRM,
            refuse(u32::MAX, "why".into()),
        ),
        Behaviour::on(
            "refuses every open for lack of room",
            CONFIRM,
            refuse(4, "full".into()),
        ),
        Behaviour::on(
            "refuses every open in text that is not UTF-8",
            CONFIRM,
            |on| {
                vec![
                    message(CHANNEL_OPEN_FAILURE)
                        .number(on.client)
                        .number(2)
                        .string(b"\xff\xfe")
                        .string("")
                        .into(),
                ]
            },
        ),
        Behaviour::on("refuses every open without a text", CONFIRM, |on| {
            vec![
                message(CHANNEL_OPEN_FAILURE)
                    .number(on.client)
                    .number(2)
                    .into(),
            ]
        }),
        Behaviour::on("refuses what it has confirmed", CONFIRM, |on| {
            vec![
                Act::Original,
                message(CHANNEL_OPEN_FAILURE)
                    .number(on.client)
                    .number(2)
                    .string("no")
                    .string("")
                    .into(),
            ]
        }),
        Behaviour::on("confirms what it has refused", CONFIRM, |on| {
            vec![
                message(CHANNEL_OPEN_FAILURE)
                    .number(on.client)
                    .number(2)
                    .string("no")
                    .string("")
                    .into(),
                Act::Original,
            ]
        }),
        Behaviour::at(
            "confirms every open twice",
            CONFIRM,
            vec![Act::Original, Act::Original],
        ),
        Behaviour::at(
            "confirms an open a thousand times",
            At::First(CHANNEL_OPEN_CONFIRMATION),
            vec![Act::Original; 1000],
        ),
        Behaviour::at(
            "confirms what was not opened",
            CONFIRM,
            vec![confirmation(77, 1, 1, 1)],
        ),
        Behaviour::at(
            "confirms the last number there is",
            CONFIRM,
            vec![confirmation(u32::MAX, 1, 1, 1), Act::Original],
        ),
        Behaviour::at("never confirms", CONFIRM, vec![]),
        Behaviour::at(
            "never confirms, and says nothing more",
            CONFIRM,
            vec![Act::Mute],
        ),
        Behaviour::at(
            "closes the connection on every open",
            CONFIRM,
            vec![Act::Close],
        ),
        Behaviour::at(
            "a confirmation that is cut off",
            CONFIRM,
            vec![message(CHANNEL_OPEN_CONFIRMATION).number(2).into()],
        ),
        Behaviour::on("a window of 0", CONFIRM, |on| {
            vec![confirmation(on.client, on.server, 0, 1 << 15)]
        }),
        Behaviour::on("a window of 1", CONFIRM, |on| {
            vec![confirmation(on.client, on.server, 1, 1 << 15)]
        }),
        Behaviour::on("a window of 4 GB", CONFIRM, |on| {
            vec![confirmation(on.client, on.server, u32::MAX, 1 << 15)]
        }),
        Behaviour::on("packets of 0 bytes", CONFIRM, |on| {
            vec![confirmation(on.client, on.server, 1 << 20, 0)]
        }),
        Behaviour::on("packets of 1 byte", CONFIRM, |on| {
            vec![confirmation(on.client, on.server, 1 << 20, 1)]
        }),
        Behaviour::on("packets of 4 GB", CONFIRM, |on| {
            vec![confirmation(on.client, on.server, 1 << 20, u32::MAX)]
        }),
        Behaviour::on("the same number for every channel", CONFIRM, |on| {
            vec![confirmation(on.client, 1, 1 << 20, 1 << 15)]
        }),
        Behaviour::on(
            "closes every channel before it is confirmed",
            CONFIRM,
            |on| {
                vec![
                    message(CHANNEL_CLOSE).number(on.client).into(),
                    Act::Original,
                ]
            },
        ),
        Behaviour::on(
            "closes every channel after it is confirmed",
            CONFIRM,
            |on| {
                vec![
                    Act::Original,
                    message(CHANNEL_CLOSE).number(on.client).into(),
                ]
            },
        ),
        Behaviour::on("ends every channel after it is confirmed", CONFIRM, |on| {
            vec![Act::Original, message(CHANNEL_EOF).number(on.client).into()]
        }),
        Behaviour::on("data before the confirmation", CONFIRM, |on| {
            vec![
                message(CHANNEL_DATA).number(on.client).string(UGLY).into(),
                Act::Original,
            ]
        }),
        Behaviour::on("data before exec", CONFIRM, |on| {
            vec![
                Act::Original,
                message(CHANNEL_DATA).number(on.client).string(UGLY).into(),
            ]
        }),
        Behaviour::on("a flood of data before exec", CONFIRM, |on| {
            vec![
                Act::Original,
                Act::Flood(
                    message(CHANNEL_DATA)
                        .number(on.client)
                        .string([b'x'; 1000])
                        .into(),
                ),
            ]
        }),
    ]
}

fn windows() -> Vec<Behaviour> {
    use number::{CHANNEL_SUCCESS, CHANNEL_WINDOW_ADJUST};
    const STARTED: At = At::Every(CHANNEL_SUCCESS);
    let adjust =
        |client: u32, by: u32| Vec::from(message(CHANNEL_WINDOW_ADJUST).number(client).number(by));
    vec![
        Behaviour::on("adjusts the window by 4 GB, twice", STARTED, move |on| {
            vec![Act::Original, Act::Repeat(adjust(on.client, u32::MAX), 2)]
        }),
        Behaviour::on(
            "adjusts the window by nothing, without end",
            STARTED,
            move |on| vec![Act::Original, Act::Flood(adjust(on.client, 0))],
        ),
        Behaviour::on("adjusts the window without end", STARTED, move |on| {
            vec![Act::Original, Act::Flood(adjust(on.client, 1 << 30))]
        }),
        Behaviour::on(
            "adjusts the window of a channel that is not there",
            STARTED,
            move |on| vec![Act::Original, Act::Send(adjust(on.client + 5, 1))],
        ),
        Behaviour::on("a window adjustment that is cut off", STARTED, |on| {
            vec![
                Act::Original,
                message(CHANNEL_WINDOW_ADJUST).number(on.client).into(),
            ]
        }),
        Behaviour::at(
            "never adjusts a window",
            At::Every(CHANNEL_WINDOW_ADJUST),
            vec![],
        ),
    ]
}

fn data() -> Vec<Behaviour> {
    use number::{
        CHANNEL_CLOSE, CHANNEL_DATA, CHANNEL_EOF, CHANNEL_EXTENDED_DATA, CHANNEL_SUCCESS,
    };
    const STARTED: At = At::Every(CHANNEL_SUCCESS);
    let data =
        |client: u32, bytes: Vec<u8>| Vec::from(message(CHANNEL_DATA).number(client).string(bytes));
    let extended = |client: u32, kind: u32, bytes: Vec<u8>| {
        Vec::from(
            message(CHANNEL_EXTENDED_DATA)
                .number(client)
                .number(kind)
                .string(bytes),
        )
    };
    vec![
        Behaviour::on("stdout without end", STARTED, move |on| {
            vec![
                Act::Original,
                Act::Flood(data(on.client, vec![b'x'; 32_000])),
            ]
        }),
        Behaviour::on("stdout without end, a byte at a time", STARTED, move |on| {
            vec![Act::Original, Act::Flood(data(on.client, vec![b'x']))]
        }),
        Behaviour::on(
            "stdout without end, in nothing at all",
            STARTED,
            move |on| vec![Act::Original, Act::Flood(data(on.client, Vec::new()))],
        ),
        Behaviour::on("stdout beyond the window", STARTED, move |on| {
            vec![
                Act::Original,
                Act::Repeat(data(on.client, vec![b'x'; 200_000]), 100),
            ]
        }),
        Behaviour::on("stderr without end", STARTED, move |on| {
            vec![
                Act::Original,
                Act::Flood(extended(on.client, 1, vec![b'x'; 32_000])),
            ]
        }),
        Behaviour::on(
            "output of an unknown kind without end",
            STARTED,
            move |on| {
                vec![
                    Act::Original,
                    Act::Flood(extended(on.client, 99, vec![b'x'; 32_000])),
                ]
            },
        ),
        Behaviour::on("output of kind 0", STARTED, move |on| {
            vec![
                Act::Original,
                Act::Send(extended(on.client, 0, b"x".to_vec())),
            ]
        }),
        Behaviour::on("output with escape codes", STARTED, move |on| {
            vec![
                Act::Original,
                Act::Send(data(on.client, UGLY.into())),
                Act::Send(extended(on.client, 1, UGLY.into())),
            ]
        }),
        Behaviour::on("stdout, one byte a second", STARTED, move |on| {
            vec![Act::Original, Act::Drip(data(on.client, vec![b'x'; 100]))]
        }),
        Behaviour::on("data on a channel that is not there", STARTED, move |on| {
            vec![Act::Send(data(on.client + 7, UGLY.into())), Act::Original]
        }),
        Behaviour::on(
            "a flood of data on a channel that is not there",
            STARTED,
            move |on| vec![Act::Original, Act::Flood(data(on.client + 7, vec![0; 100]))],
        ),
        Behaviour::on(
            "data on a channel that is closed",
            At::Every(CHANNEL_CLOSE),
            move |on| vec![Act::Original, Act::Send(data(on.client, UGLY.into()))],
        ),
        Behaviour::on(
            "a flood of data on a channel that is closed",
            At::First(CHANNEL_CLOSE),
            move |on| vec![Act::Original, Act::Flood(data(on.client, vec![0; 100]))],
        ),
        Behaviour::on(
            "data after the end of data",
            At::Every(CHANNEL_EOF),
            move |on| vec![Act::Original, Act::Send(data(on.client, b"late".to_vec()))],
        ),
        Behaviour::on("data whose length is not there", STARTED, |on| {
            vec![
                Act::Original,
                message(CHANNEL_DATA)
                    .number(on.client)
                    .number(u32::MAX)
                    .into(),
            ]
        }),
        Behaviour::on("data without a length", STARTED, |on| {
            vec![
                Act::Original,
                message(CHANNEL_DATA).number(on.client).into(),
            ]
        }),
        Behaviour::on("data with bytes after its end", STARTED, |on| {
            vec![
                Act::Original,
                message(CHANNEL_DATA)
                    .number(on.client)
                    .string("x")
                    .byte(1)
                    .into(),
            ]
        }),
    ]
}

fn ends() -> Vec<Behaviour> {
    use number::{CHANNEL_CLOSE, CHANNEL_EOF, CHANNEL_SUCCESS};
    const STARTED: At = At::Every(CHANNEL_SUCCESS);
    let eof = |client: u32| Act::from(message(CHANNEL_EOF).number(client));
    let close = |client: u32| Act::from(message(CHANNEL_CLOSE).number(client));
    vec![
        Behaviour::at(
            "EOF twice",
            At::Every(CHANNEL_EOF),
            vec![Act::Original, Act::Original],
        ),
        Behaviour::at(
            "CLOSE twice",
            At::Every(CHANNEL_CLOSE),
            vec![Act::Original, Act::Original],
        ),
        Behaviour::at(
            "CLOSE a thousand times",
            At::First(CHANNEL_CLOSE),
            vec![Act::Original; 1000],
        ),
        Behaviour::at("never closes a channel", At::Every(CHANNEL_CLOSE), vec![]),
        Behaviour::at(
            "never ends or closes a channel",
            At::Every(CHANNEL_EOF),
            vec![Act::Mute],
        ),
        Behaviour::tricks(
            "closes without EOF",
            vec![ssh_pool_tests::raw::Trick::new(
                At::Every(CHANNEL_EOF),
                vec![],
            )],
        ),
        Behaviour::on("CLOSE before EOF", At::Every(CHANNEL_EOF), move |on| {
            vec![close(on.client), Act::Original]
        }),
        Behaviour::on("EOF after exec, and then output", STARTED, move |on| {
            vec![Act::Original, eof(on.client)]
        }),
        Behaviour::on(
            "CLOSE in the place of an answer to exec",
            STARTED,
            move |on| vec![close(on.client)],
        ),
        Behaviour::on("CLOSE after exec", STARTED, move |on| {
            vec![Act::Original, close(on.client)]
        }),
        Behaviour::on("closes another channel", STARTED, move |on| {
            vec![
                Act::Original,
                close(on.client.wrapping_sub(1)),
                close(on.client + 1),
            ]
        }),
        Behaviour::at(
            "CLOSE without a number",
            At::Every(CHANNEL_CLOSE),
            vec![message(CHANNEL_CLOSE).into()],
        ),
        Behaviour::at(
            "EOF without a number",
            At::Every(CHANNEL_EOF),
            vec![message(CHANNEL_EOF).into()],
        ),
        Behaviour::at(
            "closes the connection after the end of output",
            At::Every(CHANNEL_EOF),
            vec![Act::Original, Act::Close],
        ),
    ]
}

pub(crate) fn behaviours() -> Vec<Behaviour> {
    [openings(), windows(), data(), ends()].concat()
}
