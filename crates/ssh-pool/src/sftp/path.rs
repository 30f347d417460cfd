//! Remote paths, and what may be made of names that a server says.

use std::hash::{BuildHasher, RandomState};
use std::path::{Component, Path};

use sha2::{Digest, Sha256};

use super::error::Error;

/// A remote path as the protocol takes it.
pub(super) fn remote(path: &Path) -> Result<String, Error> {
    let invalid = |what| Error::InvalidPath {
        path: path.to_owned(),
        what,
    };
    let text = path.to_str().ok_or_else(|| {
        invalid("it is not UTF-8, as remote paths must be; rename the file there")
    })?;
    if text.is_empty() {
        return Err(invalid("it is empty; the login folder is \".\""));
    }
    if text.contains('\0') {
        return Err(invalid("it holds a NUL byte"));
    }
    // A server ends the session over a packet that is too long.
    if text.len() > LONGEST_PATH {
        return Err(invalid(TOO_LONG));
    }
    Ok(text.to_owned())
}

/// A remote path that names a file, not a folder.
pub(super) fn remote_file(path: &Path) -> Result<String, Error> {
    let text = remote(path)?;
    match text.rsplit('/').next() {
        Some("" | "." | "..") => Err(Error::InvalidPath {
            path: path.to_owned(),
            what: "it names a folder; add the name of the file",
        }),
        _ => Ok(text),
    }
}

/// `name` in the remote folder `dir`.
pub(super) fn join(dir: &str, name: &str) -> String {
    if dir.ends_with('/') {
        format!("{dir}{name}")
    } else {
        format!("{dir}/{name}")
    }
}

/// The folder that `path` is in.
pub(super) fn folder(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => ".",
    }
}

/// The name of a file that is not ready yet, for one call only. It is short, whatever the length
/// of the final name.
pub(super) fn fresh_name() -> String {
    // Seeded by the operating system.
    let random = RandomState::new();
    format!(".ssh-pool.{:016x}", random.hash_one(0))
}

/// The same for a partial file that a later call may find.
pub(super) fn lasting_name(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let short: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!(".ssh-pool.{short}.part")
}

/// A remote file beside `path`.
pub(super) fn beside(path: &str, name: &str) -> String {
    match path.rsplit_once('/') {
        Some((dir, _)) => format!("{dir}/{name}"),
        None => name.to_owned(),
    }
}

/// PATH_MAX is 4,096 bytes on Linux; others take 32,767 characters.
const LONGEST_PATH: usize = 64 << 10;
const TOO_LONG: &str = "it is longer than 65536 bytes (64 KiB), which is ssh-pool's limit for a remote \
    path, so that servers take every packet, and 16 times Linux's PATH_MAX; use a shorter path";
/// NAME_MAX and PATH_MAX, without its NUL, of nearly all systems.
const MOST_OF_A_NAME: usize = 255;
const MOST_OF_A_PATH: usize = 4095;

/// Whether few file systems take a path of this length, or one of its names.
pub(super) fn is_too_long(path: &str) -> bool {
    let names = || path.split('/').any(|name| name.len() > MOST_OF_A_NAME);
    path.len() > MOST_OF_A_PATH || names()
}

/// File systems take 255 characters, of up to four bytes each.
const LONGEST: usize = 1020;

/// What is to be thought of a name in a remote folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Good,
    /// It may exist, but it has no business here: control characters, or bytes that are no UTF-8.
    Unfit,
    /// No file has such a name.
    Impossible(&'static str),
}

pub(super) fn judge(name: &str) -> Name {
    if name.is_empty() {
        Name::Impossible("it is empty")
    } else if name == "." || name == ".." {
        Name::Impossible("it leads out of the folder")
    } else if name.contains('/') {
        Name::Impossible("it holds a slash")
    } else if name.contains('\0') {
        Name::Impossible("it holds a NUL byte")
    } else if name.len() > LONGEST {
        Name::Impossible("it is longer than 1020 bytes, and file systems take 255 characters")
    } else if name.chars().any(|c| c.is_control() || c == '\u{fffd}') {
        Name::Unfit
    } else {
        Name::Good
    }
}

/// Whether a symbolic link stays inside the tree that it is `depth` folders deep in. After a name
/// there may be no `..`: the name may be another link, and then `..` is not where it seems to be.
pub(super) fn stays_inside(target: &str, depth: usize) -> bool {
    let (mut up, mut down) = (0, false);
    if target.is_empty() || target.contains('\0') {
        return false;
    }
    for component in Path::new(target).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => down = true,
            Component::ParentDir if down => return false,
            Component::ParentDir => up += 1,
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    up <= depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_only_if_they_cannot_leave_by_way_of_other_links() {
        for (target, depth) in [("a", 0), ("a/b", 0), ("./a", 0), ("../a", 1), ("..", 1)] {
            assert!(stays_inside(target, depth), "{target}");
        }
        for (target, depth) in [
            ("", 0),
            ("/etc/passwd", 3),
            ("../a", 0),
            ("../../a", 1),
            ("link/..", 2),
            ("link/../../a", 5),
            ("a\0b", 1),
        ] {
            assert!(!stays_inside(target, depth), "{target}");
        }
    }

    #[test]
    fn names_that_no_file_has_are_told_from_names_that_do_not_suit() {
        for name in ["a", ".a", "...", "a b", "ä", "-rf", "a\\b"] {
            assert_eq!(judge(name), Name::Good, "{name}");
        }
        for name in ["a\nb", "\u{1b}[2J", "a\u{fffd}", "\u{7f}"] {
            assert_eq!(judge(name), Name::Unfit, "{name}");
        }
        for name in ["", ".", "..", "/", "a/b", "../a", "a\0"] {
            assert!(matches!(judge(name), Name::Impossible(_)), "{name}");
        }
        assert_eq!(judge(&"a".repeat(LONGEST)), Name::Good);
        let longer = "a".repeat(LONGEST + 1);
        assert!(matches!(judge(&longer), Name::Impossible(_)));
    }

    #[test]
    fn a_path_that_is_too_long_is_told_with_the_limit_and_whose_it_is() {
        let longest = "a".repeat(LONGEST_PATH);
        assert!(remote(Path::new(&longest)).is_ok());
        let error = remote(Path::new(&format!("{longest}b"))).unwrap_err();
        let shown = error.to_string();
        // The path itself does not bury the reason.
        assert!(shown.len() < 400, "{} bytes", shown.len());
        for part in [
            "(65537 bytes)",
            "65536 bytes",
            "64 KiB",
            "ssh-pool's limit",
            "; use a shorter",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn a_path_is_too_long_by_one_name_or_all_of_them() {
        let name = "a".repeat(255);
        let path = format!("/{}", vec![name.as_str(); 15].join("/"));
        assert!(!is_too_long(&path));
        assert!(is_too_long(&format!("{path}a")));
        assert!(is_too_long(&format!("{path}/{name}/b")));
        assert!(!is_too_long(&format!("{path}/{}", "b".repeat(254))));
    }

    #[test]
    fn unfinished_files_lie_beside_the_final_one() {
        assert_eq!(beside("/srv/app/name", "x"), "/srv/app/x");
        assert_eq!(beside("/name", "x"), "/x");
        assert_eq!(beside("name", "x"), "x");
        assert_eq!(folder("/srv/app/name"), "/srv/app");
        assert_eq!((folder("/name"), folder("name")), ("/", "."));
        assert_ne!(fresh_name(), fresh_name());
        assert_eq!(lasting_name("a"), lasting_name("a"));
        assert_ne!(lasting_name("a"), lasting_name("b"));
        assert!(remote_file(Path::new("a/")).is_err());
        assert!(remote_file(Path::new("..")).is_err());
    }
}
