//! No type of another crate shows in the public API: a major release of russh or deadpool must not
//! have to be one of ours.
//!
//! rustdoc's JSON lists everything public, with the crate of everything it mentions. The format is
//! unstable, so only its shape is relied on: an object with an `id` and a `path` mentions an item.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Whose items may be mentioned. Not tokio, tracing or futures: no signature needs them.
const ALLOWED: [&str; 5] = ["std", "core", "alloc", "ssh_pool_core", "ssh_pool"];

/// How streams are read and written is for tokio to say: the traits, which are part of its stable
/// interface, and what their methods mention.
const STREAMS: &[&str] = &[
    "tokio::io::async_read::AsyncRead",
    "tokio::io::async_write::AsyncWrite",
    "tokio::io::read_buf::ReadBuf",
];

/// What the feature `serde` is for: its traits, which are part of its stable interface.
const SERIALIZATION: &[&str] = &[
    "serde_core::de::Deserialize",
    "serde_core::de::Deserializer",
    "serde_core::ser::Serialize",
    "serde_core::ser::Serializer",
];

/// What the integrations are for: a transport for HTTP clients is written in their traits, whose
/// crates are past 1.0 or, as tower-service and this part of hyper-util, what everybody builds on;
/// and a program's streams are tokio's.
const INTEGRATIONS: [(&str, &[&str]); 2] = [
    (
        "/src/docker/",
        &[
            "bytes::bytes::Bytes",
            "http::error::Error",
            "http::request::Request",
            "http::response::Response",
            "http::uri::Uri",
            "http_body::Body",
            "hyper::body::incoming::Incoming",
            "hyper::rt::io::Read",
            "hyper::rt::io::ReadBufCursor",
            "hyper::rt::io::Write",
            "hyper_util::client::legacy::connect::Connected",
            "hyper_util::client::legacy::connect::Connection",
            "tower_service::Service",
        ],
    ),
    (
        "/src/shim/",
        &[
            "tokio::process::ChildStderr",
            "tokio::process::ChildStdin",
            "tokio::process::ChildStdout",
        ],
    ),
];

/// Whether an integration may mention this.
fn belongs_to_an_integration(place: &str, path: &str) -> bool {
    let mut all = INTEGRATIONS.iter();
    all.any(|(folder, paths)| place.contains(folder) && paths.contains(&path))
}

/// The public API of one crate.
struct Api(Value);

/// `item of ours -> path of what it mentions`.
type Mentions = BTreeSet<(String, String)>;

impl Api {
    fn read(folder: &Path, name: &str) -> Self {
        let path = folder.join(name).with_extension("json");
        let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        Self(serde_json::from_slice(&text).unwrap())
    }

    fn table(&self, name: &str) -> &serde_json::Map<String, Value> {
        let table = self.0[name].as_object();
        table.unwrap_or_else(|| panic!("rustdoc's format has changed: there is no {name}"))
    }

    /// The items of this crate. Impls for every type there is, such as tracing's `Instrument`, are
    /// not ours.
    fn items(&self) -> impl Iterator<Item = &Value> {
        self.table("index").values().filter(|item| {
            let is_blanket = !item["inner"]["impl"]["blanket_impl"].is_null();
            item["crate_id"] == 0 && !is_blanket
        })
    }

    /// The full path of an item.
    fn path(&self, id: &Value) -> Vec<&str> {
        let entry = &self.table("paths").get(&id.to_string());
        let path = entry.and_then(|entry| entry["path"].as_array());
        let path = path.unwrap_or_else(|| panic!("item {id} is mentioned and has no path"));
        path.iter().filter_map(Value::as_str).collect()
    }

    /// The crate of an item.
    fn home(&self, id: &Value) -> &str {
        let number = &self.table("paths")[&id.to_string()]["crate_id"];
        if number == 0 {
            return self.path(id)[0];
        }
        let home = self.table("external_crates")[&number.to_string()]["name"].as_str();
        home.unwrap_or_else(|| panic!("crate {number} has no name"))
    }

    /// The names that the crate's root exports.
    fn exports(&self) -> BTreeSet<&str> {
        self.items()
            .map(|item| &item["inner"]["use"])
            .filter(|export| !export.is_null())
            .inspect(|export| assert_eq!(export["is_glob"], false, "{export}"))
            .filter_map(|export| export["name"].as_str())
            .collect()
    }

    /// The types that the compiler warns of when a value is not used, as it is of one that is dropped
    /// at once.
    fn must_be_used(&self) -> BTreeSet<&str> {
        let marked = |item: &&Value| {
            let is_type = !item["inner"]["struct"].is_null();
            is_type && item["attrs"].to_string().contains("must_use")
        };
        let types = self.items().filter(marked);
        types.filter_map(|item| item["name"].as_str()).collect()
    }

    /// The public types and traits without an example in their docs.
    fn without_example(&self) -> impl Iterator<Item = String> {
        let types = self.items().filter(|item| {
            let kinds = ["struct", "enum", "trait"];
            item["visibility"] == "public"
                && kinds.iter().any(|kind| !item["inner"][kind].is_null())
        });
        types
            .filter(|item| !item["docs"].as_str().unwrap_or_default().contains("```"))
            .map(|item| self.describe(item))
            .filter(|place| !place.contains("/internals"))
    }

    /// Everything that is mentioned, by crate.
    fn mentions(&self) -> BTreeMap<&str, Mentions> {
        let mut found = BTreeMap::<_, Mentions>::new();
        for item in self.items() {
            let mut ids = Vec::new();
            mentioned(&item["inner"], &mut ids);
            for id in ids {
                let mention = (self.describe(item), self.path(id).join("::"));
                found.entry(self.home(id)).or_default().insert(mention);
            }
        }
        found
    }

    /// Where a mention stands, for the one who has to find it.
    fn describe(&self, item: &Value) -> String {
        let name = item["name"].as_str().unwrap_or("impl");
        let place = &item["span"];
        let file = place["filename"].as_str().unwrap_or("?");
        format!("{name} at {file}:{}", place["begin"][0])
    }
}

/// The ids of all items that `value` mentions: types, traits, and re-exports.
fn mentioned<'a>(value: &'a Value, ids: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            let is_mention = fields.contains_key("path") || fields.contains_key("source");
            if let Some(id) = fields.get("id").filter(|id| is_mention && !id.is_null()) {
                ids.push(id);
            }
            fields.values().for_each(|field| mentioned(field, ids));
        }
        Value::Array(values) => values.iter().for_each(|value| mentioned(value, ids)),
        _ => {}
    }
}

/// Has rustdoc describe both crates.
///
/// A doctest run is what hands rustdoc the very artifacts that `cargo test --workspace` has built,
/// so nothing is compiled for this; `rustdoc.sh` makes a description of it. Cargo lets go of its
/// lock before it runs tests, so this one may call it.
fn describe() -> (Api, Api) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["test", "--doc", "--workspace", "--target-dir"])
        .arg(target)
        .current_dir(here)
        .env("RUSTDOC", here.join("tests/public_api/rustdoc.sh"))
        .env("PUBLIC_API_FOLDER", folder.path());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // What cargo tells a test about its package would have ring built again.
    for (name, _) in std::env::vars_os() {
        let told = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
            "OUT_DIR",
        ];
        if name
            .to_str()
            .is_some_and(|name| told.iter().any(|told| name.starts_with(told)))
        {
            command.env_remove(name);
        }
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    let read = |name| Api::read(folder.path(), name);
    (read("ssh_pool_core"), read("ssh_pool"))
}

#[test]
fn the_public_api_is_ours_and_the_standard_librarys() {
    let (core, facade) = describe();

    for (name, api) in [("ssh_pool_core", &core), ("ssh_pool", &facade)] {
        let mentions = api.mentions();
        let strangers: BTreeSet<_> = mentions
            .iter()
            .filter(|(home, _)| !ALLOWED.contains(home))
            .flat_map(|(_, mentions)| mentions)
            .filter(|(_, path)| !STREAMS.contains(&path.as_str()))
            .filter(|(_, path)| !SERIALIZATION.contains(&path.as_str()))
            .filter(|(place, path)| !belongs_to_an_integration(place, path))
            .collect();
        assert!(
            strangers.is_empty(),
            "{name} shows what is not ours: {strangers:#?}"
        );
    }

    let undocumented: Vec<_> = core
        .without_example()
        .chain(facade.without_example())
        .collect();
    assert!(
        undocumented.is_empty(),
        "types without an example in their docs: {undocumented:#?}"
    );

    // Dropped, they end a command or a listener, or nothing has begun.
    let (of_core, of_facade) = (core.must_be_used(), facade.must_be_used());
    let unmarked: Vec<_> = [
        ("ssh_pool_core", &of_core, "Child"),
        ("ssh_pool_core", &of_core, "Connect"),
        ("ssh_pool_core", &of_core, "Forward"),
        ("ssh_pool_core", &of_core, "Readiness"),
        ("ssh_pool", &of_facade, "Child"),
        ("ssh_pool", &of_facade, "Download"),
        ("ssh_pool", &of_facade, "Upload"),
    ]
    .into_iter()
    .filter(|(_, marked, name)| !marked.contains(name))
    .map(|(home, _, name)| (home, name))
    .collect();
    assert!(unmarked.is_empty(), "not `#[must_use]`: {unmarked:#?}");

    // What a signature mentions has to have a name for those who depend on the facade.
    let nameless: Vec<_> = core
        .exports()
        .difference(&facade.exports())
        .copied()
        .collect();
    assert!(
        nameless.is_empty(),
        "exported by the core and not by the facade: {nameless:?}"
    );

    // That this looks at what it should: a signature, a field, a bound and an impl.
    let mentions = core.mentions();
    let mentioned: BTreeSet<&str> = mentions
        .values()
        .flatten()
        .map(|(_, path)| path.as_str())
        .collect();
    for path in [
        "core::time::Duration",
        "alloc::sync::Arc",
        "core::convert::TryInto",
        "core::convert::TryFrom",
        "std::ffi::os_str::OsStr",
        "core::future::future::Future",
    ] {
        assert!(
            mentioned.contains(path),
            "{path} is not among {mentioned:#?}"
        );
    }
}
