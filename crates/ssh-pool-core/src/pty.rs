//! A terminal for a remote command.

/// A terminal for a remote command: RFC 4254, section 6.2, ssh's `-t`.
///
/// With a terminal the command's standard error arrives on standard output, line endings are
/// `\r\n`, and the processes get `SIGHUP` when the channel closes.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// use ssh_pool::Pty;
///
/// let mut command = host.command("top");
/// let mut child = command.pty(Pty::new(120, 40).term("xterm")).spawn().await?;
/// child.resize(80, 24).await;
/// child.kill().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pty {
    /// The value of `TERM`. Default: `xterm-256color`.
    pub term: String,
    /// Width, in characters. Default: 80.
    pub columns: u32,
    /// Height, in characters. Default: 24.
    pub rows: u32,
    /// Terminal modes by their numbers in RFC 4254, section 8: `(53, 0)` turns `ECHO` off. A
    /// number without a meaning there is [`Error::InvalidInput`](crate::Error::InvalidInput).
    /// Default: none, so the server's apply.
    pub modes: Vec<(u8, u32)>,
}

impl Default for Pty {
    fn default() -> Self {
        Self {
            term: "xterm-256color".into(),
            columns: 80,
            rows: 24,
            modes: Vec::new(),
        }
    }
}

impl Pty {
    /// A terminal of this size.
    #[must_use]
    pub fn new(columns: u32, rows: u32) -> Self {
        Self {
            columns,
            rows,
            ..Self::default()
        }
    }

    /// Sets the value of `TERM`.
    #[must_use]
    pub fn term(mut self, term: impl Into<String>) -> Self {
        self.term = term.into();
        self
    }

    /// Adds a terminal mode by its number in RFC 4254, section 8.
    #[must_use]
    pub fn mode(mut self, number: u8, value: u32) -> Self {
        self.modes.push((number, value));
        self
    }
}
