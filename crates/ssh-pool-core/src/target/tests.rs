use super::*;

fn parts(text: &str) -> (String, String, u16) {
    let target: Target = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    (
        target.user().to_owned(),
        target.host().to_owned(),
        target.port(),
    )
}

fn reason(text: &str) -> String {
    match text.parse::<Target>() {
        Err(Error::InvalidInput {
            what: "target",
            reason,
        }) => reason,
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn every_documented_form_parses() {
    for (text, host, port) in [
        ("me@web-1:2222", "web-1", 2222),
        ("me@web-1", "web-1", 22),
        ("me@WEB-1.Example.ORG", "web-1.example.org", 22),
        ("me@[::1]:2222", "::1", 2222),
        ("me@[::1]", "::1", 22),
        ("me@::1", "::1", 22),
        ("me@[0:0:0::0:1]", "::1", 22),
        ("me@fe80::1%eth0", "fe80::1%eth0", 22),
        ("me@10.0.0.1:65535", "10.0.0.1", 65535),
        ("ssh://me@web-1:2222", "web-1", 2222),
        ("SSH://me@web-1", "web-1", 22),
        ("ssh://me@[::1]:22/", "::1", 22),
        ("me@[web-1]:2222", "web-1", 2222),
    ] {
        assert_eq!(parts(text), ("me".into(), host.into(), port), "{text}");
    }
}

#[test]
fn a_user_may_contain_an_at_sign() {
    assert_eq!(parts("me@corp.example@gate:22").0, "me@corp.example");
    assert_eq!(parts("ssh://me%40corp@gate").0, "me@corp");
}

#[test]
fn a_user_name_has_at_most_1024_bytes() {
    let most = "u".repeat(1024);
    assert_eq!(Target::new(&*most, "web-1", 22).unwrap().user(), most);
    let longer = format!("{most}\u{1b}");
    for error in [
        Target::new(&*longer, "web-1", 22).unwrap_err(),
        format!("{most}u@web-1").parse::<Target>().unwrap_err(),
        format!("ssh://{most}%20@web-1")
            .parse::<Target>()
            .unwrap_err(),
        Target::new("ü".repeat(513), "web-1", 22).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("bytes, more than 1024"), "{text}");
        assert!(text.len() < 1000, "{text}"); // a text that is parsed is shown, cut
    }
}

#[test]
fn a_target_without_user_means_the_local_user() {
    let Ok(local) = local_user() else {
        assert!(reason("web-1").contains("write user@host"));
        return;
    };
    for text in ["web-1", "web-1:22", "[::1]:22", "::1", "ssh://web-1/"] {
        assert_eq!(parts(text).0, local, "{text}");
    }
}

#[test]
fn malformed_targets_are_refused() {
    for text in [
        "me@",
        "@web-1",
        "me@:22",
        "me@-oProxyCommand=x",
        "-l@web-1",
        "me@web 1",
        "me@web\0",
        "me@web\n",
        "m e@web",
        "m/e@web",
        "m\te@web",
        "ssh://m e@web",
        "ssh://m/e@web",
        "ssh://me;fingerprint=x@web",
        "ssh://me%0a@web",
        "ssh://me%ff@web",
        "me@web/1",
        "me@web-1:0",
        "me@web-1:65536",
        "me@web-1:",
        "me@web-1:+22",
        "me@web-1:22x",
        "me@[::1",
        "me@[::1]22",
        "me@[::1]:0",
        "me@::1]",
        "me@a:b:c",
        "me@fe80::1%",
        "me@*",
        "me@a,b",
        "me@|1|x",
        "ssh://me@web-1/path",
        "ssh://me@web-1?query",
        "ssh://me%4@web-1",
        "ssh://me%zz@web-1",
        "ssh://me%00@web-1",
        "ssh://",
        "",
    ] {
        assert!(!reason(text).is_empty(), "{text:?}");
    }
    assert!(Target::new("me", "web-1", 0).is_err());
    for user in ["", "-me", "me\n", "m\u{85}e", "m\0e"] {
        assert!(Target::new(user, "web-1", 22).is_err(), "{user:?}");
    }
}

#[test]
fn a_password_is_refused_and_not_repeated() {
    for text in [
        "ssh://me:hunter2@web-1",
        "me:hunter2@web-1",
        "ssh://me:hunt/er2@web-1",
        "ssh://me:hunt@er2@web-1",
        "ssh://me:hunter2",
        "me://hunter2@web-1",
        "me:hunter2://",
    ] {
        let reason = reason(text);
        assert!(
            !reason.contains("hunt") && !reason.contains("er2"),
            "{reason}"
        );
    }
}

#[test]
fn an_error_quotes_the_target_and_names_what_is_wrong_with_it() {
    for (text, expected) in [
        ("me@web-1:22x", r#""me@web-1:22x": the port must be"#),
        ("me@a_b*", r#""me@a_b*": the host name contains '*', which"#),
        (
            "ssh://root@h:22/path",
            r#""ssh://root@h:22/path": a path cannot be"#,
        ),
        ("me@h:/srv", r#""me@h:/srv": a path cannot be"#),
        (
            "me@web\n",
            r#""me@web\n": the host name contains white space"#,
        ),
        ("web-1:hunter2", r#""web-1:...": the port must be"#),
        ("ssh://me:hunt/er2", r#""ssh://me:...": a path cannot be"#),
        ("[::1]22", r#""[::1]22": after ']'"#),
        ("", r#""": the host name is empty"#),
        ("me:hunter2@web-1", "a password cannot be part"),
        ("ssh://me%3Ahunter2%zz@web-1", "a '%' escape"),
    ] {
        let reason = reason(text);
        assert!(reason.starts_with(expected), "{text:?}: {reason}");
    }
    assert!(reason(&format!("me@{}", "/".repeat(1 << 20))).len() < 700);
}

#[test]
fn display_can_be_parsed_again() {
    for text in [
        "me@web-1:22",
        "me@[::1]:2222",
        "me@[fe80::1%eth0]:22",
        "a@b@c:1",
        "a%b;c@web-1:22",
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
    }
}

#[test]
fn any_user_can_be_parsed_again() {
    for user in [
        "a:b",
        "a/b",
        "a b",
        " a",
        "a%3Ab",
        "ssh://a",
        "a@b c",
        "a\u{a0}\u{e4}",
        "a;b: -'\"\\",
    ] {
        for host in ["web-1", "fe80::1%eth0"] {
            let target = Target::new(user, host, 2222).unwrap();
            assert_eq!(target.user(), user);
            let text = target.to_string();
            assert_eq!(text.parse::<Target>().unwrap(), target, "{text}");
        }
    }
}

#[test]
fn identity_and_policy_are_part_of_equality() {
    let plain = Target::new("me", "web-1", 22).unwrap();
    assert_eq!(plain, Target::try_from("me@WEB-1").unwrap());
    assert_eq!(plain, Target::try_from(&String::from("me@web-1")).unwrap());
    assert_ne!(plain, plain.clone().identity(Identity::password("x")));
    assert_ne!(
        plain,
        plain
            .clone()
            .host_key_policy(HostKeyPolicy::dangerous_accept_any())
    );
    let both = plain.identity(Identity::password("x"));
    assert!(both.own_identity().is_some() && both.own_policy().is_none());
    assert!(!format!("{both:?}").contains('x'), "{both:?}");
}
