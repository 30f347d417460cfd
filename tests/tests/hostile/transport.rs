//! Before the login: identification (RFC 4253, section 4.2), packets (section 6), key exchange
//! (sections 7 to 9, RFC 8731, strict key exchange), and the other messages (section 11).

use ssh_pool_tests::raw::{Act, At, KeyExchange, Packet, Payload, number};

use crate::behaviour::{Behaviour, UGLY, long_text, message};

fn identifications() -> Vec<Behaviour> {
    let at = |name, acts| Behaviour::at(name, At::Identification, acts);
    let line = |name, line: &[u8]| at(name, vec![Act::Bytes(line.to_vec()), Act::Original]);
    vec![
        at("says nothing at all", vec![Act::Deaf]),
        at("closes at once", vec![Act::Close]),
        at(
            "an identification line without an end",
            vec![Act::FloodBytes(b"SSH-2.0-".repeat(500))],
        ),
        at(
            "an identification line of zeros",
            vec![Act::FloodBytes(vec![0; 4096])],
        ),
        at(
            "lines before the identification, without end",
            vec![Act::FloodBytes(b"no entry\r\n".repeat(100))],
        ),
        at(
            "newlines before the identification, without end",
            vec![Act::FloodBytes(vec![b'\n'; 4096])],
        ),
        line("escape codes before the identification", UGLY.as_bytes()),
        at(
            "escape codes in the place of the identification",
            vec![Act::Bytes(UGLY.into()), Act::Close],
        ),
        at(
            "a long text in the place of the identification",
            vec![Act::Bytes(long_text().into()), Act::Close],
        ),
        line(
            "bytes that are not UTF-8 before the identification",
            b"\xff\xfe\xe2\x80\n",
        ),
        at(
            "an identification with escape codes",
            vec![Act::Bytes(b"SSH-2.0-\x1b[31mraw\x07\r\n".to_vec())],
        ),
        at(
            "an identification with a zero",
            vec![Act::Bytes(b"SSH-2.0-raw\0\r\n".to_vec())],
        ),
        at(
            "an identification that is not UTF-8",
            vec![Act::Bytes(b"SSH-2.0-\xff\xff\r\n".to_vec())],
        ),
        at(
            "an identification of version 1",
            vec![Act::Bytes(b"SSH-1.5-raw\r\n".to_vec())],
        ),
        at(
            "an identification without a name",
            vec![Act::Bytes(b"SSH-2.0-\r\n".to_vec())],
        ),
        at(
            "an identification that is cut off",
            vec![Act::Bytes(b"SSH-2".to_vec()), Act::Close],
        ),
        at(
            "an identification, one byte a second",
            vec![Act::Bytes(b"S".to_vec()), Act::Drip(vec![b'S'; 300])],
        ),
        at(
            "HTTP",
            vec![
                Act::Bytes(b"HTTP/1.1 400 Bad Request\r\nServer: \x1b[31m\r\n\r\n".to_vec()),
                Act::Close,
            ],
        ),
        at(
            "throttles with escape codes",
            vec![
                Act::Bytes(b"Exceeded MaxStartups\x1b[31m\x07\r\n".to_vec()),
                Act::Close,
            ],
        ),
    ]
}

/// A wrong packet in the place of the message.
fn wrong(name: &'static str, at: u8, change: impl FnOnce(&mut Packet)) -> Behaviour {
    let mut packet = Packet {
        payload: message(number::IGNORE).string("x").into(),
        ..Packet::default()
    };
    change(&mut packet);
    Behaviour::at(name, At::First(at), vec![Act::Packet(packet), Act::Mute])
}

fn packets() -> Vec<Behaviour> {
    use number::{KEXINIT, USERAUTH_SUCCESS};
    vec![
        wrong("a first packet of length 0", KEXINIT, |packet| {
            packet.length = Some(0)
        }),
        wrong("a first packet of length 1", KEXINIT, |packet| {
            packet.length = Some(1)
        }),
        wrong("a first packet of 4 GB", KEXINIT, |packet| {
            packet.length = Some(u32::MAX)
        }),
        wrong(
            "a first packet of 256 kB that does not come",
            KEXINIT,
            |packet| packet.length = Some(256 << 10),
        ),
        wrong("a first packet that is all padding", KEXINIT, |packet| {
            packet.padding = Some(255)
        }),
        wrong("a first packet without padding", KEXINIT, |packet| {
            packet.padding = Some(0)
        }),
        wrong("a first packet without a message", KEXINIT, |packet| {
            packet.payload.clear()
        }),
        wrong("a first packet that is cut off", KEXINIT, |packet| {
            packet.cut = Some(6)
        }),
        wrong(
            "an encrypted packet of length 0",
            USERAUTH_SUCCESS,
            |packet| packet.length = Some(0),
        ),
        wrong(
            "an encrypted packet of length 15",
            USERAUTH_SUCCESS,
            |packet| packet.length = Some(15),
        ),
        wrong("an encrypted packet of 4 GB", USERAUTH_SUCCESS, |packet| {
            packet.length = Some(u32::MAX)
        }),
        wrong(
            "an encrypted packet that is all padding",
            USERAUTH_SUCCESS,
            |packet| packet.padding = Some(255),
        ),
        wrong(
            "an encrypted packet with exactly as much padding as there is",
            USERAUTH_SUCCESS,
            |packet| {
                packet.payload.clear();
                packet.padding = Some(16);
            },
        ),
        wrong(
            "an encrypted packet without a message",
            USERAUTH_SUCCESS,
            |packet| packet.payload.clear(),
        ),
        wrong("a packet with a wrong tag", USERAUTH_SUCCESS, |packet| {
            packet.bad_tag = true
        }),
        wrong("a packet that is cut off", USERAUTH_SUCCESS, |packet| {
            packet.cut = Some(9)
        }),
        Behaviour::at(
            "noise in the place of packets",
            At::First(USERAUTH_SUCCESS),
            vec![Act::FloodBytes((0..=255).collect())],
        ),
    ]
}

/// A KEXINIT with wrong bytes at its end.
fn init(change: impl FnOnce(Payload) -> Payload) -> Act {
    let mut payload = message(number::KEXINIT).bytes([1; 16]);
    for list in &KeyExchange::default().lists {
        payload = payload.string(list);
    }
    change(payload.byte(0).number(0)).into()
}

fn proposals() -> Vec<Behaviour> {
    let at = |name, act| Behaviour::at(name, At::First(number::KEXINIT), vec![act, Act::Mute]);
    let list = |name, index: usize, text: String| {
        Behaviour::key_exchange(name, move |kex| kex.lists[index] = text)
    };
    // A list with other characters, or of more than 16 kB, is refused before it is compared.
    let ugly = || UGLY.replace(|c: char| !c.is_ascii(), "");
    vec![
        at("a KEXINIT without fields", message(number::KEXINIT).into()),
        at("a KEXINIT that is cut off", init(|payload| payload.cut(60))),
        at(
            "a KEXINIT with bytes after its end",
            init(|payload| payload.bytes([0; 9])),
        ),
        at(
            "a KEXINIT with a list of 4 GB",
            message(number::KEXINIT)
                .bytes([1; 16])
                .number(u32::MAX)
                .into(),
        ),
        list(
            "no key exchange in common, with escape codes",
            0,
            ugly().replace('\0', ""),
        ),
        list("no key exchange in common, of 15 kB", 0, "x".repeat(15_000)),
        list("no key exchange in common, of 200 kB", 0, long_text()),
        list("no host key in common, with escape codes", 1, ugly()),
        list("no cipher in common, with escape codes", 2, ugly()),
        list("no compression in common, with escape codes", 6, ugly()),
        list("ten thousand key exchange methods", 0, "x,".repeat(10_000)),
        list("empty names in the lists", 0, ",,,,".into()),
        list("the cipher none", 2, "none".into()),
        list(
            "the MAC none for a cipher that needs one",
            2,
            "aes128-ctr".into(),
        ),
        list(
            "compression that nobody asked for",
            6,
            "zlib,zlib@openssh.com".into(),
        ),
        Behaviour::key_exchange("a guess that does not come", |kex| {
            kex.first_kex_packet_follows = true
        }),
        Behaviour::at(
            "a first message that is not KEXINIT",
            At::First(number::KEXINIT),
            vec![
                message(number::SERVICE_ACCEPT)
                    .string("ssh-userauth")
                    .into(),
            ],
        ),
        Behaviour::at(
            "KEXINIT twice",
            At::First(number::KEXINIT),
            vec![Act::Original, Act::Original],
        ),
        Behaviour::at(
            "a KEXINIT that never comes",
            At::First(number::KEXINIT),
            vec![Act::Mute],
        ),
        Behaviour::at(
            "a flood of IGNORE before the key exchange",
            At::First(number::KEXINIT),
            vec![Act::Flood(message(number::IGNORE).string([0; 1000]).into())],
        ),
        Behaviour::at(
            "IGNORE in a strict key exchange",
            At::First(number::KEX_ECDH_REPLY),
            vec![message(number::IGNORE).string("x").into(), Act::Original],
        ),
        Behaviour::at(
            "DEBUG with escape codes before the key exchange",
            At::First(number::KEXINIT),
            vec![
                message(number::DEBUG)
                    .byte(1)
                    .string(UGLY)
                    .string("")
                    .into(),
                Act::Original,
            ],
        ),
    ]
}

fn replies() -> Vec<Behaviour> {
    use number::{KEX_ECDH_REPLY, NEWKEYS};
    let reply = |name, acts| Behaviour::at(name, At::First(KEX_ECDH_REPLY), acts);
    let strange_key = |name: &str| Payload::new(0).string(name).string([4; 32]);
    let blob = |payload: Payload| Vec::from(payload)[1..].to_vec();
    let rsa = |exponent: Vec<u8>, modulus: Vec<u8>| {
        Vec::from(
            Payload::new(0)
                .string("ssh-rsa")
                .string(exponent)
                .string(modulus),
        )[1..]
            .to_vec()
    };
    let modulus = |length: usize| [vec![0, 0x80], vec![1; length]].concat();
    let ugly = blob(strange_key(UGLY));
    let long = blob(strange_key(&long_text()));
    let domain = blob(strange_key("\u{1b}[31m@example.org"));
    let long_rsa = rsa(vec![1, 0, 1], modulus(100_000));
    let long_exponent = rsa(modulus(2_000), modulus(510));
    vec![
        Behaviour::key_exchange("a host key without bytes", |kex| {
            kex.host_key = Some(Vec::new())
        }),
        Behaviour::key_exchange("a host key of a kind with escape codes", |kex| {
            kex.host_key = Some(ugly)
        }),
        Behaviour::key_exchange("a host key of a kind with a domain", |kex| {
            kex.host_key = Some(domain)
        }),
        Behaviour::key_exchange("a host key of a kind of 200 kB", |kex| {
            kex.host_key = Some(long)
        }),
        Behaviour::key_exchange("an RSA host key of 800,000 bits", |kex| {
            kex.host_key = Some(long_rsa)
        }),
        Behaviour::key_exchange("an RSA host key with an endless exponent", |kex| {
            kex.host_key = Some(long_exponent)
        }),
        Behaviour::key_exchange("a wrong signature", |kex| {
            let signature = Payload::new(0).string("ssh-ed25519").string([5; 64]);
            kex.signature = Some(Vec::from(signature)[1..].to_vec());
        }),
        Behaviour::key_exchange("a signature of a kind with escape codes", |kex| {
            let signature = Payload::new(0).string(UGLY).string([5; 64]);
            kex.signature = Some(Vec::from(signature)[1..].to_vec());
        }),
        Behaviour::key_exchange("a signature without bytes", |kex| {
            kex.signature = Some(Vec::new())
        }),
        Behaviour::key_exchange("an ephemeral key of zeros", |kex| {
            kex.ephemeral = Some(vec![0; 32])
        }),
        Behaviour::key_exchange("an ephemeral key of 31 bytes", |kex| {
            kex.ephemeral = Some(vec![9; 31])
        }),
        Behaviour::key_exchange("an ephemeral key of 100 kB", |kex| {
            kex.ephemeral = Some(vec![9; 100_000])
        }),
        reply(
            "a key exchange reply without fields",
            vec![message(KEX_ECDH_REPLY).into(), Act::Mute],
        ),
        reply(
            "a key exchange reply that is cut off",
            vec![
                message(KEX_ECDH_REPLY).number(51).bytes([0; 20]).into(),
                Act::Mute,
            ],
        ),
        reply("no key exchange reply", vec![Act::Mute]),
        reply(
            "a key exchange reply twice",
            vec![Act::Original, Act::Original],
        ),
        reply(
            "NEWKEYS before the key exchange reply",
            vec![message(NEWKEYS).into(), Act::Original],
        ),
        reply(
            "USERAUTH_SUCCESS in the key exchange",
            vec![message(number::USERAUTH_SUCCESS).into(), Act::Original],
        ),
        reply(
            "DISCONNECT in the key exchange, with escape codes",
            vec![
                message(number::DISCONNECT)
                    .number(3)
                    .string(UGLY)
                    .string("")
                    .into(),
                Act::Close,
            ],
        ),
        Behaviour::at(
            "NEWKEYS that never comes",
            At::First(NEWKEYS),
            vec![Act::Mute],
        ),
        Behaviour::at(
            "NEWKEYS with bytes after its end",
            At::First(NEWKEYS),
            vec![message(NEWKEYS).bytes([0; 8]).into()],
        ),
        Behaviour::at(
            "NEWKEYS twice",
            At::First(NEWKEYS),
            vec![Act::Original, Act::Original],
        ),
        Behaviour::at(
            "closes after the key exchange",
            At::First(NEWKEYS),
            vec![Act::Original, Act::Close],
        ),
    ]
}

pub(crate) fn behaviours() -> Vec<Behaviour> {
    [identifications(), packets(), proposals(), replies()].concat()
}
