//! The words of an error underneath, for one that shows them, and what is left of it as a source.

#[cfg(unix)]
use std::io;

/// What the pool says of a failure whose target has been named.
#[cfg(any(feature = "docker", all(unix, feature = "sftp")))]
pub(crate) fn of_ssh(error: &ssh_pool_core::Error) -> String {
    let text = error.to_string();
    let prefix = error.target().map(|target| format!("{target}: "));
    let words = prefix.and_then(|prefix| text.strip_prefix(&prefix).map(str::to_owned));
    words.unwrap_or(text)
}

/// What an I/O error says, without the operating system's code.
#[cfg(unix)]
pub(crate) fn of_io(error: &io::Error) -> String {
    let text = error.to_string();
    let code = (error.raw_os_error()).map(|code| format!(" (os error {code})"));
    let words = code.and_then(|code| text.strip_suffix(&code).map(str::to_owned));
    words.unwrap_or(text)
}

/// An I/O error as a source, if it has a code: its words are in the error above it.
#[cfg(unix)]
pub(crate) fn code(error: &io::Error) -> Option<&(dyn std::error::Error + 'static)> {
    error.raw_os_error().map(|_| error as _)
}
