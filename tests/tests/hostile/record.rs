//! What is said while a behaviour runs: log lines and panics.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::text;

/// What was logged by one thread, which is one behaviour.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) lines: usize,
    pub(crate) bytes: usize,
    pub(crate) longest: usize,
    /// Lines with a raw control character.
    pub(crate) raw: Vec<String>,
    /// The first lines, for those who look for the reason of a failure.
    pub(crate) first: Vec<String>,
}

impl Record {
    fn line(&mut self, line: &str) {
        self.lines += 1;
        self.bytes += line.len();
        self.longest = self.longest.max(line.len());
        if text::raw(line).is_some() && self.raw.len() < 3 {
            self.raw.push(text::shortened(line));
        }
        if self.first.len() < 10 {
            self.first.push(text::shortened(line));
        }
    }
}

pub(crate) type Shared = Arc<Mutex<Record>>;

thread_local! {
    static HERE: RefCell<Shared> = RefCell::default();
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A record of what this thread logs from now on.
pub(crate) fn begin() -> Shared {
    let record = Shared::default();
    HERE.set(record.clone());
    record
}

/// The panics of the whole process so far.
pub(crate) fn panics() -> Vec<String> {
    PANICS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Listens to everything that this process logs, and to its panics.
pub(crate) fn install() {
    // russh writes the protocol down at the debug level; what it tells users begins at info.
    let wanted = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("ssh_pool", LevelFilter::TRACE)
        .with_target("ssh_pool_core", LevelFilter::TRACE);
    tracing_subscriber::registry()
        .with(Recorder.with_filter(wanted))
        .init();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        panics.push(info.to_string());
        drop(panics);
        before(info);
    }));
}

struct Recorder;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !field.name().starts_with("log.") {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }
}

fn record(line: &str) {
    HERE.with_borrow(|here| {
        here.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .line(line)
    });
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut line = Line(attributes.metadata().name().to_owned());
        attributes.record(&mut line);
        if text::raw(&line.0).is_some() {
            record(&line.0);
        }
    }

    fn on_record(&self, _: &Id, values: &Values<'_>, _: Context<'_, S>) {
        let mut line = Line(String::from("span"));
        values.record(&mut line);
        record(&line.0);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(format!(
            "{} {}",
            event.metadata().level(),
            event.metadata().target()
        ));
        event.record(&mut line);
        record(&line.0);
    }
}
