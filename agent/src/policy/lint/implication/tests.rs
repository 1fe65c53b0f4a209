use super::*;

fn selector(text: &str) -> LabelSelector {
    text.parse().unwrap()
}

#[test]
fn selectors_include_what_says_more() {
    for (wide, narrow) in [
        ("", "a=b"),
        ("", ""),
        ("a=b", "a=b,c=d"),
        ("a in (b,c)", "a=b"),
        ("a", "a=b"),
        ("a", "a"),
        ("a!=x", "a=b"),
        ("a!=x", "!a"),
        ("a!=x", "a notin (x,y)"),
        ("!a", "!a,b"),
    ] {
        let (wide, narrow) = (selector(wide), selector(narrow));
        assert!(includes(&wide, &narrow), "{wide} includes {narrow}");
    }
    for (wide, narrow) in [
        ("a=b", ""),
        ("a=b", "a in (b,c)"),
        ("a=b", "c=d"),
        ("a", "a!=b"),
        ("a", ""),
        ("a!=x", "a"),
        ("a!=x", "a in (x,y)"),
        ("a notin (x,y)", "a!=x"),
        ("!a", "a!=b"),
        ("!a", "a=b"),
    ] {
        let (wide, narrow) = (selector(wide), selector(narrow));
        assert!(!includes(&wide, &narrow), "{wide} includes {narrow}");
    }
}

#[test]
fn selectors_are_disjoint_only_if_they_contradict() {
    for (one, other) in [
        ("a=b", "a=c"),
        ("a=b", "a!=b"),
        ("a", "!a"),
        ("a=b,c", "!a"),
    ] {
        let (one, other) = (selector(one), selector(other));
        assert!(are_disjoint(&one, &other) && are_disjoint(&other, &one));
    }
    for (one, other) in [("a=b", "c=d"), ("a=b", ""), ("a!=b", "!a"), ("a", "a!=b")] {
        let (one, other) = (selector(one), selector(other));
        assert!(!are_disjoint(&one, &other) && !are_disjoint(&other, &one));
    }
}

#[test]
fn ranges_together_cover_what_none_covers_alone() {
    let range = |first, last| PortMatch::Range {
        protocol: Protocol::Tcp,
        first,
        last,
    };
    let wide = [range(90, 99), range(80, 89), range(200, u16::MAX)];
    for good in [range(80, 99), range(85, 95), range(300, u16::MAX)] {
        assert!(covers_port(&wide, &good), "{good}");
    }
    for bad in [
        range(79, 80),
        range(95, 100),
        range(100, 200),
        PortMatch::Protocol(Protocol::Tcp),
    ] {
        assert!(!covers_port(&wide, &bad), "{bad}");
    }
    let udp = PortMatch::Range {
        protocol: Protocol::Udp,
        first: 80,
        last: 80,
    };
    assert!(!covers_port(&wide, &udp));
}

fn cidr(net: &str, except: &[&str]) -> Peer {
    Peer::Cidr {
        net: net.parse().unwrap(),
        except: except.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

#[test]
fn exceptions_count_only_where_the_narrow_range_lies() {
    let wide = cidr("203.0.113.0/24", &["203.0.113.128/25"]);
    for (narrow, expected) in [
        (cidr("203.0.113.0/25", &[]), true),
        (cidr("203.0.113.0/24", &[]), false),
        (cidr("203.0.113.0/24", &["203.0.113.128/25"]), true),
        (cidr("203.0.113.192/26", &[]), false),
        (cidr("203.0.112.0/24", &[]), false),
        (cidr("2001:db8::/32", &[]), false),
    ] {
        assert_eq!(covers_peer(&wide, &narrow, None), expected, "{narrow:?}");
    }
}

#[test]
fn windows_are_compared_from_now_on() {
    let window = |not_before, expires| Window {
        not_before: Option::map(not_before, WallTime),
        expires: Option::map(expires, WallTime),
    };
    let now = WallTime(100);
    for (wide, narrow, expected) in [
        ((None, None), (None, None), true),
        ((Some(50), None), (None, None), true),
        ((Some(150), None), (None, None), false),
        ((Some(150), None), (Some(150), None), true),
        ((None, Some(200)), (None, None), false),
        ((None, Some(200)), (None, Some(200)), true),
        ((None, Some(200)), (None, Some(201)), false),
    ] {
        let (wide, narrow) = (window(wide.0, wide.1), window(narrow.0, narrow.1));
        assert_eq!(
            outlasts(&wide, &narrow, now),
            expected,
            "{wide:?} {narrow:?}"
        );
    }
}
