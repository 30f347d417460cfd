//! The account that this process runs under.

use std::path::PathBuf;

/// Its name: as for ssh, what the user data base has for the real user id.
///
/// An id that the data base does not have, as in many containers, is named by the environment.
pub(crate) fn name() -> Option<String> {
    account()
        .map(|account| account.name)
        .or_else(|| from_environment(&["USER", "LOGNAME", "USERNAME"]))
}

/// Its home, by the same rules.
pub(crate) fn home() -> Option<PathBuf> {
    account()
        .map(|account| account.home)
        .or_else(std::env::home_dir)
}

struct Account {
    name: String,
    home: PathBuf,
}

#[cfg(unix)]
fn account() -> Option<Account> {
    use nix::unistd::{User, getuid};
    let user = User::from_uid(getuid()).ok().flatten()?;
    (!user.name.is_empty()).then_some(Account {
        name: user.name,
        home: user.dir,
    })
}

#[cfg(not(unix))]
fn account() -> Option<Account> {
    None
}

fn from_environment(names: &[&str]) -> Option<String> {
    names
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_the_one_of_the_user_data_base() {
        let id = std::process::Command::new("id").arg("-un").output();
        let expected = String::from_utf8(id.unwrap().stdout).unwrap();
        assert_eq!(name().as_deref(), Some(expected.trim()));
        assert!(home().is_some_and(|home| home.is_absolute()));
    }
}
