//! Targets, status and events in the data formats of the crate `serde`.
//!
//! What is not derived: targets are their text, and errors say about themselves what their methods do.

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{self, Serialize, SerializeStruct, Serializer};

use crate::error::{Cause, CommandState, Error};
use crate::target::Target;

/// As its `Display`.
///
/// # Errors
///
/// A target with settings of its own is refused: an identity is a secret, and a target that came back
/// without its host key policy would trust other keys.
impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.has_settings() {
            return Err(ser::Error::custom(format!(
                "{self} has settings of its own (identity, host key policy, timeouts, limits), which \
                 are not serialized; store user, host and port, and set them again"
            )));
        }
        serializer.collect_str(self)
    }
}

/// From what [`Target`] parses.
impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// `message`, `target`, `phase`, `command_state`, `transient` and `timeout`: what `Display` and the
/// methods say.
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut error = serializer.serialize_struct("Error", 6)?;
        error.serialize_field("message", &self.to_string())?;
        error.serialize_field("target", &self.target())?;
        error.serialize_field("phase", &self.phase().to_string())?;
        let state = match self.command_state() {
            CommandState::NotStarted => "not_started",
            CommandState::Unknown => "unknown",
        };
        error.serialize_field("command_state", state)?;
        error.serialize_field("transient", &self.is_transient())?;
        error.serialize_field("timeout", &self.is_timeout())?;
        error.end()
    }
}

/// As its text.
impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(crate) fn text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
