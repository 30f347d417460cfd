//! Whatever a target is parsed from, it is one account on one machine, and reads back as it is.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use ssh_pool::Target;

/// What a shell, a URL or a known_hosts file would take for more than a part of a name.
const NEVER_IN_A_HOST: &str = "@?*#[]|'\"\\,!/`$;&<>(){}";

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match text.parse::<Target>() {
        Ok(target) => accepted(text, &target),
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains(char::is_control), "{message:?}");
        }
    }
}

fn accepted(text: &str, target: &Target) {
    let (user, host, port) = (target.user(), target.host(), target.port());
    for part in [user, host] {
        assert!(!part.is_empty(), "{text:?} has an empty part: {target:?}");
        assert!(!part.starts_with('-'), "{text:?} is an option: {target:?}");
        assert!(!part.contains(char::is_control), "{text:?}: {target:?}");
    }
    assert!(!host.contains(char::is_whitespace), "{text:?}: {host:?}");
    assert_ne!(port, 0, "{text:?} has no port");
    // Only as escapes in a URL.
    let odd = |c: char| c.is_whitespace() || matches!(c, '/' | ':');
    let url = text.contains("://");
    assert!(url || !user.contains(odd), "{text:?}: {user:?} is no user");
    let special = |c| NEVER_IN_A_HOST.contains(c);
    assert!(!host.contains(special), "{text:?}: {host:?} is no host");
    let name = host.split('%').next().unwrap_or_default();
    if host.contains(':') {
        let address: Ipv6Addr = name.parse().expect("an address");
        assert_eq!(address.to_string(), name, "{text:?} has two spellings");
    } else {
        assert_eq!(
            host.to_ascii_lowercase(),
            host,
            "{text:?} has two spellings"
        );
    }

    let again = |text: &str| text.parse::<Target>().map_err(|error| error.to_string());
    let shown = target.to_string();
    assert_eq!(again(&shown).as_ref(), Ok(target), "shown as {shown:?}");
    let url = as_url(target);
    assert_eq!(again(&url).as_ref(), Ok(target), "as {url:?}");
    let parts = Target::new(user, host, port).expect("its own parts");
    assert_eq!(parts, *target);

    if let (Some((user, _)), None) = (text.rsplit_once('@'), text.find("://")) {
        assert_eq!(target.user(), user, "{text:?} names another user");
    }
}

/// RFC 3986, with every byte of the user's name escaped.
fn as_url(target: &Target) -> String {
    let mut url = String::from("ssh://");
    for byte in target.user().bytes() {
        write!(url, "%{byte:02x}").expect("a string takes it");
    }
    match target.host() {
        address if address.contains(':') => write!(url, "@[{address}]"),
        name => write!(url, "@{name}"),
    }
    .expect("a string takes it");
    write!(url, ":{}/", target.port()).expect("a string takes it");
    url
}
