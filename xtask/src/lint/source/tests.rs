//! Tests of the lexer.

use super::*;

fn words(text: &str) -> Vec<String> {
    tokens(text).into_iter().map(|token| token.text).collect()
}

#[test]
fn comments_and_contents_of_literals_are_dropped() {
    assert_eq!(
        words("a // unsafe\nb /* unsafe /* unsafe */ unsafe */ c"),
        ["a", "b", "c"]
    );
    assert_eq!(
        words(r#"x("unsafe \" unsafe", 'u', b"unsafe")"#),
        ["x", "(", LITERAL, ",", LITERAL, ",", LITERAL, ")"]
    );
    assert_eq!(words("r#\"unsafe \" unsafe\"# y"), [LITERAL, "y"]);
    assert_eq!(words("r\"unsafe \\\" z"), [LITERAL, "z"]);
    assert_eq!(words(r"'\'' w '\u{41}'"), [LITERAL, "w", LITERAL]);
}

#[test]
fn lifetimes_are_not_character_literals() {
    assert_eq!(words("&'a str 'b'"), ["&", "'", "a", "str", LITERAL]);
    assert_eq!(
        words("fn f<'a>(x: &'static str) { unsafe }")
            .last()
            .unwrap(),
        "}"
    );
    assert!(words("fn f<'a>(x: &'static str) { unsafe }").contains(&String::from("unsafe")));
}

#[test]
fn lines_are_counted_through_literals_and_comments() {
    let found = tokens("/* 1\n2 */ a\n\"x\n\" b");
    let lines: Vec<usize> = found.iter().map(|token| token.line).collect();
    assert_eq!(lines, [2, 3, 4]);
}

#[test]
fn tokens_have_their_byte_ranges() {
    let text = "/* ü */ ab::c \"ü\"\n(b'x', r#\"y\"#, 'l)";
    let found = tokens(text);
    let pieces: Vec<&str> = found
        .iter()
        .map(|token| &text[token.bytes.clone()])
        .collect();
    let expected = [
        "ab", "::", "c", "\"ü\"", "(", "b", "'x'", ",", "r#\"y\"#", ",", "'", "l", ")",
    ];
    assert_eq!(pieces, expected);
}

#[test]
fn only_test_items_are_left_out() {
    let text = "use a::b;\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests { fn f() { std::fs::read() } }\n\
                fn g() {}\n#[cfg(test)] use c::d;\n#[cfg(not(test))] use e::f;\n#[cfg(test)] mod t;\nh";
    let kept: Vec<String> = SourceFile::new("agent/src/x.rs", text)
        .product_tokens()
        .into_iter()
        .map(|token| token.text)
        .collect();
    assert!(!kept.contains(&String::from("std")) && !kept.contains(&String::from("c")));
    for word in ["a", "g", "e", "h"] {
        assert!(kept.contains(&String::from(word)), "{word} in {kept:?}");
    }
}
