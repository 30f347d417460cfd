//! Real shells make of a command line what went into it.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ssh_pool::{Host, Limits, Pool};
use ssh_pool_core::internals::{LineRecorder, push_word, recording_pool};
use tokio::runtime::{Builder, Runtime};

use crate::shell::Shell;

/// Everything that one line goes through.
struct Bench {
    runtime: Runtime,
    _pool: Pool,
    host: Host,
    recorder: LineRecorder,
    shells: Vec<Shell>,
}

impl Bench {
    fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let inside = runtime.enter();
        let (pool, recorder) = recording_pool(Limits::default()).expect("a pool");
        let host = pool.host("fuzz@test:22").expect("a host");
        drop(inside);
        let shells = vec![
            Shell::start("/bin/sh", &[], "C"),
            Shell::start("/bin/bash", &["--posix"], "C.UTF-8"),
        ];
        Self {
            runtime,
            _pool: pool,
            host,
            recorder,
            shells,
        }
    }

    /// The line that a server gets for this command.
    fn line(&self, dir: &[u8], value: &[u8], words: &[&[u8]]) -> Vec<u8> {
        let mut command = self.host.command("show");
        command.args(words.iter().map(|word| OsStr::from_bytes(word)));
        if !dir.is_empty() {
            command.current_dir(Path::new(OsStr::from_bytes(dir)));
        }
        if !value.is_empty() {
            command.env("VALUE", OsStr::from_bytes(value));
        }
        self.runtime
            .block_on(command.status())
            .expect("no NUL byte, and short");
        self.recorder.take()
    }
}

thread_local! {
    /// Kept from one input to the next. It ends with its thread, also where libFuzzer leaves by
    /// exit(3); what is `static` is never dropped, and would leave its shells' folders behind.
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

/// Words with a NUL behind each: a folder, a value, and arguments.
pub fn check(data: &[u8]) {
    if data.contains(&0) {
        let mut line = Vec::new();
        assert!(push_word(&mut line, data).is_err() && line.is_empty());
    }
    let mut words = data.split(|byte| *byte == 0);
    let (dir, value) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let words: Vec<&[u8]> = words.collect();

    let count = words.len().to_string();
    let path = match dir.starts_with(b"/") {
        true => dir.to_vec(),
        false => [b"./", dir].concat(),
    };
    let mut expected: Vec<&[u8]> = Vec::new();
    if !dir.is_empty() {
        let said: [&[u8]; 4] = [b"cd", b"2", b"--", &path];
        expected.extend(said);
    }
    expected.push(count.as_bytes());
    expected.extend(&words);
    expected.push(if value.is_empty() { b"unset" } else { value });
    BENCH.with_borrow_mut(|bench| {
        let line = bench.line(dir, value, &words);
        for shell in &mut bench.shells {
            shell.runs(&line, &expected);
        }
    });
}
