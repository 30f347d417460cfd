//! What values of the SSH library mean here.

use russh::Sig;

/// The server has sent FIN, and no message before it.
pub(super) fn is_fin(error: &russh::Error) -> bool {
    match error {
        russh::Error::Disconnect | russh::Error::HUP => true,
        russh::Error::IO(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

/// The name of a signal as the server spells it.
pub(super) fn signal_name(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name,
        // The variants are spelt like the names of RFC 4254, section 6.10.
        named => format!("{named:?}"),
    }
}
