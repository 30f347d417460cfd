//! An SSH server that controls every byte it sends: for servers that break the protocol.
//!
//! The transport is written here from RFC 4253 and shares no code with the client under test. It
//! speaks one suite: curve25519-sha256, ssh-ed25519, aes256-gcm@openssh.com.
//!
//! | file | |
//! |---|---|
//! | `payload.rs` | messages, written and read field by field |
//! | `packet.rs` | packets: lengths, padding, encryption, each of which may be wrong |
//! | `handshake.rs` | identification and key exchange |
//! | `peer.rs` | one connection: what it does by itself, and what it was told to do instead |
//! | `server.rs` | the listener |

mod handshake;
mod packet;
mod payload;
mod peer;
mod server;

pub use handshake::KeyExchange;
pub use packet::Packet;
pub use payload::{Fields, Payload};
pub use peer::{Act, At, ChannelNumbers, Mutation, RawPeer, Trick};
pub use server::{RawServer, Script};

/// Message numbers (RFC 4250, section 4.1.2).
#[allow(missing_docs, reason = "the names are those of the RFC")]
pub mod number {
    pub const DISCONNECT: u8 = 1;
    pub const IGNORE: u8 = 2;
    pub const UNIMPLEMENTED: u8 = 3;
    pub const DEBUG: u8 = 4;
    pub const SERVICE_REQUEST: u8 = 5;
    pub const SERVICE_ACCEPT: u8 = 6;
    pub const EXT_INFO: u8 = 7;
    pub const KEXINIT: u8 = 20;
    pub const NEWKEYS: u8 = 21;
    pub const KEX_ECDH_INIT: u8 = 30;
    pub const KEX_ECDH_REPLY: u8 = 31;
    pub const USERAUTH_REQUEST: u8 = 50;
    pub const USERAUTH_FAILURE: u8 = 51;
    pub const USERAUTH_SUCCESS: u8 = 52;
    pub const USERAUTH_BANNER: u8 = 53;
    pub const USERAUTH_PK_OK: u8 = 60;
    pub const USERAUTH_PASSWD_CHANGEREQ: u8 = 60;
    pub const USERAUTH_INFO_REQUEST: u8 = 60;
    pub const USERAUTH_INFO_RESPONSE: u8 = 61;
    pub const GLOBAL_REQUEST: u8 = 80;
    pub const REQUEST_SUCCESS: u8 = 81;
    pub const REQUEST_FAILURE: u8 = 82;
    pub const CHANNEL_OPEN: u8 = 90;
    pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub const CHANNEL_DATA: u8 = 94;
    pub const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub const CHANNEL_EOF: u8 = 96;
    pub const CHANNEL_CLOSE: u8 = 97;
    pub const CHANNEL_REQUEST: u8 = 98;
    pub const CHANNEL_SUCCESS: u8 = 99;
    pub const CHANNEL_FAILURE: u8 = 100;
}
