//! Logins that were refused.

use super::*;

#[test]
fn a_refused_login_says_for_how_long_it_is_remembered() {
    let shown = |cooldown| {
        let rejected = Error::AuthRejected {
            target: target(),
            tried: Vec::new(),
            allowed: "publickey".into(),
            accepted: Box::default(),
            messages: Box::default(),
            cooldown,
        };
        rejected.to_string()
    };
    let minute = shown(Duration::from_secs(60));
    // Of no use to a server that takes only keys.
    let takes = "(Identity::key_file, Identity::agent)";
    assert!(
        minute.contains(takes) && !minute.contains("Identity::password"),
        "{minute}"
    );
    assert!(minute.contains("has nothing for that;"), "{minute}");
    assert!(minute.ends_with("; no new attempt for 60s"), "{minute}");
    let not_at_all = shown(Duration::ZERO);
    assert!(!not_at_all.contains("no new attempt"), "{not_at_all}");
}

#[test]
fn a_login_that_was_accepted_in_part_says_what_is_missing_and_what_the_server_said() {
    let rejected = Error::AuthRejected {
        target: target(),
        tried: vec!["key A".into(), "key B".into()],
        accepted: ["key B".into()].into(),
        allowed: "keyboard-interactive".into(),
        messages: [ServerMessage {
            kind: MessageKind::Instruction,
            text: "Your password has expired.".into(),
        }]
        .into(),
        cooldown: Duration::ZERO,
    };
    assert_eq!(
        rejected.to_string(),
        "deploy@web-1:22: login incomplete: the server accepted key B and still wants \
         keyboard-interactive; offered in all: key A, key B; add an identity for what is wanted \
         (Identity::several); the server said \"Your password has expired.\""
    );
    assert_eq!(rejected.server_messages().len(), 1);
    let repeated = rejected.after(TARGET, 3);
    assert_eq!(repeated.server_messages().len(), 1);
}

#[test]
fn a_refused_login_names_what_was_not_used_beside_what_was_offered() {
    let shown = |tried: &[&str], accepted: &[&str]| {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let rejected = Error::AuthRejected {
            target: target(),
            tried: list(tried),
            accepted: list(accepted).into(),
            allowed: "publickey".into(),
            messages: Box::default(),
            cooldown: Duration::ZERO,
        };
        rejected.to_string()
    };
    let unused = not_used("key file /k/typo", "No such file or directory");
    let named = "; not used: key file /k/typo (No such file or directory)";
    assert_eq!(
        shown(&[&unused, "key A"], &[]),
        format!(
            "{TARGET}: login refused after offering key A{named}; the server allows publickey; check \
             the user name and the account's authorized keys"
        )
    );
    for accepted in [&["key A"][..], &[]] {
        let offered = accepted
            .iter()
            .copied()
            .chain([&*unused])
            .collect::<Vec<_>>();
        let text = shown(&offered, accepted);
        assert!(
            text.contains(named) && !text.contains("offering key file"),
            "{text}"
        );
    }
    assert!(not_used("key file", "/".repeat(1 << 20)).len() < 600);
}
