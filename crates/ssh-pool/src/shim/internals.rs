//! The messages and the arguments, from outside.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::RawFd;

use super::error::Error;
use super::invocation::Invocation;
use super::message::{self, Frame, Request};

/// What a shim asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// `GIT_PROTOCOL`.
    pub protocol: Option<OsString>,
    /// Without the program's name.
    pub arguments: Vec<OsString>,
}

impl Question {
    /// As it is sent.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let request = Request {
            protocol: self.protocol.clone(),
            arguments: self.arguments.clone(),
        };
        request.encode()
    }
}

/// Reads what a shim asks for.
///
/// # Errors
///
/// It is not whole, too long, or none.
pub fn read_question(from: &mut impl Read) -> io::Result<Question> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let mut body = vec![0; Request::length(head)?];
    from.read_exact(&mut body)?;
    let Request {
        protocol,
        arguments,
    } = Request::decode(&body)?;
    Ok(Question {
        protocol,
        arguments,
    })
}

/// What is sent to a shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShimAnswer {
    /// For standard error.
    Text(Vec<u8>),
    /// The end, with this exit code.
    Exit(u8),
}

impl ShimAnswer {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => Frame::Text(text.clone()),
            Self::Exit(code) => Frame::Exit(*code),
        }
        .encode()
    }
}

/// Reads what is sent to a shim.
///
/// # Errors
///
/// It is not whole, too long, or none.
pub fn read_answer(from: &mut impl Read) -> io::Result<ShimAnswer> {
    Ok(match Frame::read(from)? {
        Frame::Text(text) => ShimAnswer::Text(text),
        Frame::Exit(code) => ShimAnswer::Exit(code),
    })
}

/// What tells a shim that is run as `name` where to ask.
#[must_use]
pub fn address(name: &OsStr) -> OsString {
    message::address(name)
}

/// Whether a program that is run as `name` is the shim, and if so where it asks.
#[must_use]
pub fn parse_address(value: &OsStr, name: &OsStr) -> Option<Option<RawFd>> {
    message::parse_address(value, name)
}

/// What the arguments of an ssh mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whom to log in as.
    pub user: Option<String>,
    /// Where.
    pub host: String,
    /// On which port.
    pub port: Option<u16>,
    /// Whether standard input is empty (`-n`).
    pub no_input: bool,
    /// One line for the remote shell.
    pub line: OsString,
}

/// Understands the arguments of an ssh.
///
/// # Errors
///
/// They mean more than a host and a command.
pub fn parse_arguments(arguments: &[OsString]) -> Result<Asked, Error> {
    let Invocation {
        user,
        host,
        port,
        no_input,
        line,
    } = Invocation::parse(arguments)?;
    Ok(Asked {
        user,
        host,
        port,
        no_input,
        line,
    })
}
