//! `~` at the beginning of a path, where ssh expands it: in the names of known_hosts files, keys,
//! certificates and agents (misc.c, `tilde_expand_filename`).

use std::path::{Component, Path, PathBuf};

use crate::error::Error;
use crate::local_user;

/// `~` becomes the home of the account that this process runs under, and `~user` that of another one.
/// Where there is no such home the path stays as it is: see [`check`].
pub(crate) fn expand(path: impl Into<PathBuf>) -> PathBuf {
    let path = path.into();
    let Some(user) = user(&path) else {
        return path;
    };
    let home = match user {
        "" => local_user::home(),
        user => of(user),
    };
    let mut rest = path.components();
    rest.next();
    match home {
        Some(home) => home.components().chain(rest).collect(),
        None => path,
    }
}

/// Refuses a path that is not expanded. A folder called `~` would not be meant.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    let Some(user) = user(path) else {
        return Ok(());
    };
    Err(Error::InvalidInput {
        what: "path",
        reason: format!(
            "{} has no home that is known, so {} cannot be expanded; write the path in full, or ./~ \
             for a file of that name",
            match user {
                "" => "this account".to_owned(),
                user => format!("the user \"{}\"", user.escape_debug()),
            },
            path.display(),
        ),
    })
}

#[cfg(unix)]
fn of(user: &str) -> Option<PathBuf> {
    let user = nix::unistd::User::from_name(user).ok().flatten()?;
    Some(user.dir)
}

#[cfg(not(unix))]
fn of(_: &str) -> Option<PathBuf> {
    None
}

/// The user after a `~`: empty, if it is this one. `None`: the path does not begin like this.
fn user(path: &Path) -> Option<&str> {
    match path.components().next()? {
        Component::Normal(first) => first.to_str()?.strip_prefix('~'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_is_the_home_of_this_account_or_of_the_one_it_names() {
        let home = local_user::home().expect("this account has a home");
        for (path, expanded) in [
            ("~", home.clone()),
            ("~/", home.clone()),
            ("~/.ssh/known_hosts", home.join(".ssh/known_hosts")),
            ("/a/~/b", PathBuf::from("/a/~/b")),
            ("a/~", PathBuf::from("a/~")),
            ("./~", PathBuf::from("./~")),
            ("./~/b", PathBuf::from("./~/b")),
            ("", PathBuf::new()),
        ] {
            let got = expand(path);
            assert_eq!(got, expanded, "{path}");
            assert!(check(&got).is_ok(), "{path}");
        }
        #[cfg(unix)]
        assert_eq!(expand("~root/x"), of("root").expect("root").join("x"));
    }

    #[test]
    fn a_user_who_is_not_there_is_named() {
        let path = expand("~nobody-of-that-name/.ssh/id");
        assert_eq!(path, Path::new("~nobody-of-that-name/.ssh/id"));
        let error = check(&path).unwrap_err().to_string();
        assert!(error.contains("\"nobody-of-that-name\""), "{error}");
        assert!(error.contains("in full"), "{error}");
    }
}
