//! An agent with a habit.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::agent::Agent;
use crate::temp::TempDir;

/// Messages of the agent protocol (draft-ietf-sshm-ssh-agent).
const FAILURE: &[u8] = &[5];
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;

/// How long a read waits before it looks whether everything is over.
const LOOK: Duration = Duration::from_millis(50);

/// What is odd about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// It holds keys of types that are not known, before and after the others.
    UnknownTypes,
    /// Each signature takes so long.
    SignsAfter(Duration),
    /// It never answers when it is asked for its keys.
    NeverLists,
    /// It never answers when it is asked for a signature.
    NeverSigns,
    /// It refuses every signature, as an owner does who does not confirm.
    RefusesToSign,
    /// It closes the connection when it is asked for a signature.
    HangsUp,
}

/// Stands before an [`Agent`], and serves one connection at a time.
#[derive(Debug)]
pub struct OddAgent {
    dir: TempDir,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    habit: Habit,
    agent: PathBuf,
    over: AtomicBool,
    signatures: AtomicUsize,
}

impl OddAgent {
    /// Starts one before `agent`, which has to outlive it.
    ///
    /// # Panics
    ///
    /// When there is no socket to be had.
    #[must_use]
    pub fn start(agent: &Agent, habit: Habit) -> Self {
        let dir = TempDir::new();
        let listener = UnixListener::bind(dir.path().join("socket")).expect("bind a socket");
        let state = Arc::new(State {
            habit,
            agent: agent.socket(),
            over: AtomicBool::new(false),
            signatures: AtomicUsize::new(0),
        });
        let serving = state.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.is_over() {
                    return;
                }
                // A client that goes away is none of its business.
                let _ = stream.and_then(|stream| serving.serve(stream));
            }
        });
        Self {
            dir,
            state,
            thread: Some(thread),
        }
    }

    /// Its socket, as for `SSH_AUTH_SOCK`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// How many signatures it has been asked for.
    #[must_use]
    pub fn signatures(&self) -> usize {
        self.state.signatures.load(Ordering::SeqCst)
    }
}

impl Drop for OddAgent {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(self.socket());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn serve(&self, mut client: UnixStream) -> io::Result<()> {
        client.set_read_timeout(Some(LOOK))?;
        let mut agent = UnixStream::connect(&self.agent)?;
        while let Some(request) = self.request(&mut client)? {
            let kind = request.first().copied();
            if kind == Some(SIGN_REQUEST) {
                self.signatures.fetch_add(1, Ordering::SeqCst);
            }
            let mut answer = None;
            match (self.habit, kind) {
                (Habit::NeverLists, Some(REQUEST_IDENTITIES))
                | (Habit::NeverSigns, Some(SIGN_REQUEST)) => continue,
                (Habit::RefusesToSign, Some(SIGN_REQUEST)) => answer = Some(FAILURE.to_vec()),
                (Habit::HangsUp, Some(SIGN_REQUEST)) => return Ok(()),
                (Habit::SignsAfter(time), Some(SIGN_REQUEST)) => std::thread::sleep(time),
                _ => {}
            }
            let mut answer = match answer {
                Some(answer) => answer,
                None => {
                    write_frame(&mut agent, &request)?;
                    read_frame(&mut agent)?
                }
            };
            if self.habit == Habit::UnknownTypes && answer.first() == Some(&IDENTITIES_ANSWER) {
                answer = with_unknown_types(&answer);
            }
            write_frame(&mut client, &answer)?;
        }
        Ok(())
    }

    /// The next request; `None` when there will be no other.
    fn request(&self, client: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
        let mut first = [0];
        loop {
            match client.read(&mut first) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.is_over() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let mut whole = io::Cursor::new(first).chain(client);
        read_frame(&mut whole).map(Some)
    }
}

fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let mut whole = string(frame);
    whole.shrink_to_fit();
    stream.write_all(&whole)
}

fn string(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("short");
    [&length.to_be_bytes(), text].concat()
}

/// A listing with a key of an unknown type before and after its own.
fn with_unknown_types(answer: &[u8]) -> Vec<u8> {
    let key = |kind: &str, length: usize| {
        let blob = [string(kind.as_bytes()), string(&vec![7; length])].concat();
        [string(&blob), string(b"of an unknown type")].concat()
    };
    let count: [u8; 4] = answer[1..5].try_into().expect("a number");
    let count = u32::from_be_bytes(count) + 2;
    [
        &[IDENTITIES_ANSWER][..],
        &count.to_be_bytes(),
        &key("ssh-ed448", 57),
        &answer[5..],
        &key("ssh-mldsa-44", 1312),
    ]
    .concat()
}
