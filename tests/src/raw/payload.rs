//! Messages, written and read field by field (RFC 4251, section 5).

/// A message that is being written. Nothing is checked: any field may be wrong.
#[derive(Clone, Debug)]
pub struct Payload(Vec<u8>);

impl Payload {
    /// A message with this number, and no fields yet.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self(vec![number])
    }

    /// A byte, or a boolean.
    #[must_use]
    pub fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// A number of 32 bits; also the length of a string that is not there.
    #[must_use]
    pub fn number(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A string or a name-list.
    #[must_use]
    pub fn string(self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let length = u32::try_from(value.len()).expect("a string fits a packet");
        self.number(length).bytes(value)
    }

    /// Bytes as they are.
    #[must_use]
    pub fn bytes(mut self, value: impl AsRef<[u8]>) -> Self {
        self.0.extend(value.as_ref());
        self
    }

    /// The first `length` bytes of it.
    #[must_use]
    pub fn cut(mut self, length: usize) -> Self {
        self.0.truncate(length);
        self
    }
}

impl From<Payload> for Vec<u8> {
    fn from(payload: Payload) -> Self {
        payload.0
    }
}

/// The fields of a message that was read. A field that is not there reads as zero or empty.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields behind the message's number.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Self {
        Self(message.get(1..).unwrap_or_default())
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next byte or boolean.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// The next number.
    pub fn number(&mut self) -> u32 {
        let bytes = self.take(4).try_into().unwrap_or_default();
        u32::from_be_bytes(bytes)
    }

    /// The next string.
    pub fn string(&mut self) -> &'a [u8] {
        let length = self.number();
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }
}
