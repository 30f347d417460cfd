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

/// The server has sent a text that is not UTF-8. russh decodes texts before any callback sees them, and
/// ends the session.
pub(super) fn is_not_utf8(error: &russh::Error) -> bool {
    use russh::keys::ssh_encoding::Error::CharacterEncoding;
    matches!(error, russh::Error::SshEncoding(CharacterEncoding))
}

/// What that is in the error of a login; later it is `NotUtf8`.
pub(super) const NOT_UTF8: &str = "the server sent a text that is not UTF-8, such as a banner, a \
                                   question or its reason to disconnect";

/// The name of a signal as the server spells it.
pub(super) fn signal_name(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name,
        // The variants are spelt like the names of RFC 4254, section 6.10.
        named => format!("{named:?}"),
    }
}
