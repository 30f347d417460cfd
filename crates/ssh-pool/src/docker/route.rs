//! Which requests may share a connection. By the paths of the Docker Engine API.

use http::request::Parts;
use http::{Method, header};
use hyper::body::SizeHint;

/// A request body up to this size is small.
const SMALL: u64 = 64 << 10;

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// On a shared connection: a short answer, and soon. It may be asked twice: it changes nothing.
    Look,
    /// On a shared connection: a short answer, and soon.
    Act,
    /// A short answer, some time: it is not to take a session from commands.
    Wait,
    /// On a connection of its own: much to read or to write, or for a long time.
    Stream,
}

/// What answers at once and briefly; all the rest of what is known to be below these is in
/// [`is_stream`].
const BRIEF: [&str; 16] = [
    "_ping",
    "auth",
    "configs",
    "containers",
    "distribution",
    "exec",
    "images",
    "info",
    "networks",
    "nodes",
    "plugins",
    "secrets",
    "services",
    "swarm",
    "system",
    "tasks",
];
const BRIEF_TOO: [&str; 3] = ["commit", "version", "volumes"];

pub(super) fn route(head: &Parts, body: &SizeHint) -> Route {
    let path = head.uri.path();
    let mut segments: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    if segments.first().is_some_and(|word| is_version(word)) {
        segments.remove(0);
    }
    let upgrades = head.headers.contains_key(header::UPGRADE);
    let uploads = body.upper().is_none_or(|size| size > SMALL);
    let (first, last) = match (segments.first(), segments.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ => return Route::Stream,
    };
    let query = head.uri.query().unwrap_or_default();
    let known = BRIEF.contains(&first) || BRIEF_TOO.contains(&first);
    if head.method == Method::HEAD && !upgrades && !uploads {
        Route::Look
    } else if !known || upgrades || uploads || is_stream(&head.method, first, last, query) {
        Route::Stream
    } else if head.method == Method::GET {
        Route::Look
    } else if is_slow(first, last) {
        Route::Wait
    } else {
        Route::Act
    }
}

/// `v1.41`
fn is_version(word: &str) -> bool {
    let number = word.strip_prefix('v').unwrap_or_default();
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Answers that are long, endless or no HTTP at all, and bodies that are archives.
fn is_stream(method: &Method, first: &str, last: &str, query: &str) -> bool {
    let get = method == Method::GET;
    match (first, last) {
        ("containers", "archive" | "attach" | "export" | "logs" | "ws") => true,
        // One reading, or a stream of them, which is the default.
        ("containers", "stats") => !query.split('&').any(|pair| {
            matches!(
                pair,
                "stream=false" | "stream=0" | "stream=False" | "stream=FALSE"
            )
        }),
        ("exec", "start") | ("images", "create" | "load" | "push") => true,
        ("images", "get") => get,
        ("plugins", "create" | "pull" | "push" | "upgrade") => true,
        ("services" | "tasks", "logs") => true,
        _ => false,
    }
}

/// Answers that wait for a process to end, or for much work to be done.
fn is_slow(first: &str, last: &str) -> bool {
    matches!(
        (first, last),
        ("containers", "wait" | "stop" | "restart") | ("commit", _) | (_, "prune")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, uri: &str) -> Route {
        with(method, uri, &SizeHint::with_exact(2))
    }

    fn with(method: &str, uri: &str, body: &SizeHint) -> Route {
        let request = http::Request::builder().method(method).uri(uri);
        route(&request.body(()).unwrap().into_parts().0, body)
    }

    #[test]
    fn lists_and_inspections_are_looks() {
        for uri in [
            "/_ping",
            "/v1.41/containers/json?all=1",
            "http://docker/v1.53/containers/abc/json",
            "/images/registry.example/a/b:1/json",
            "/containers/x/stats?stream=false",
            "/containers/x/top",
            "/version",
            "/system/df",
        ] {
            assert_eq!(of("GET", uri), Route::Look, "{uri}");
        }
        assert_eq!(of("HEAD", "/containers/x/archive?path=/"), Route::Look);
    }

    #[test]
    fn changes_are_acts() {
        for (method, uri) in [
            ("POST", "/v1.41/containers/create?name=x"),
            ("POST", "/containers/x/start"),
            ("POST", "/containers/x/exec"),
            ("POST", "/exec/x/resize"),
            ("DELETE", "/containers/x"),
            ("DELETE", "/images/a/b"),
        ] {
            assert_eq!(of(method, uri), Route::Act, "{uri}");
        }
        for uri in ["/v1.41/containers/x/wait", "/containers/x/stop?t=5"] {
            assert_eq!(of("POST", uri), Route::Wait, "{uri}");
        }
    }

    #[test]
    fn what_is_long_or_endless_or_hijacked_is_a_stream() {
        for (method, uri) in [
            ("GET", "/v1.41/containers/x/logs?follow=1"),
            ("POST", "/containers/x/attach?stream=1"),
            ("GET", "/containers/x/attach/ws"),
            ("GET", "/containers/x/stats"),
            ("GET", "/containers/x/export"),
            ("GET", "/containers/x/archive?path=/"),
            ("PUT", "/containers/x/archive?path=/"),
            ("POST", "/exec/x/start"),
            ("GET", "/events"),
            ("POST", "/build"),
            ("POST", "/session"),
            ("GET", "/images/get"),
            ("GET", "/images/a/b/get"),
            ("POST", "/images/load"),
            ("POST", "/images/create?fromSrc=-"),
            ("POST", "/images/a/b/push"),
            ("GET", "/services/x/logs"),
            ("POST", "/plugins/pull"),
        ] {
            assert_eq!(of(method, uri), Route::Stream, "{uri}");
        }
    }

    #[test]
    fn what_is_unknown_or_large_is_a_stream() {
        for uri in ["/", "/libpod/containers/json", "/v1.41", "/a/../events"] {
            assert_eq!(of("GET", uri), Route::Stream, "{uri}");
        }
        let endless = SizeHint::new();
        assert_eq!(with("POST", "/containers/create", &endless), Route::Stream);
        let large = SizeHint::with_exact(1 << 20);
        assert_eq!(with("POST", "/containers/create", &large), Route::Stream);
    }

    #[test]
    fn a_container_may_have_any_name() {
        assert_eq!(of("GET", "/containers/logs/json"), Route::Look);
        assert_eq!(of("POST", "/containers/wait/start"), Route::Act);
    }
}
