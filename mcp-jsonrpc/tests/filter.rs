//! Filtered lists: what goes, and that nothing else changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::error::Error as _;

use mcp_jsonrpc::filter_tools_list;
use proptest::prelude::*;

/// Keeps what begins with `k`.
#[track_caller]
fn check(message: &str, expected: &str) {
    let filtered =
        filter_tools_list(message.as_bytes(), &mut |name| name.starts_with('k')).expect("a readable list");
    assert_eq!(String::from_utf8_lossy(&filtered), expected);
    let again = filter_tools_list(&filtered, &mut |name| name.starts_with('k')).expect("still readable");
    assert_eq!(String::from_utf8_lossy(&again), expected);
}

#[track_caller]
fn unchanged(message: &str) {
    check(message, message);
}

#[track_caller]
fn refused(message: impl AsRef<[u8]>) {
    let message = message.as_ref();
    let got = filter_tools_list(message, &mut |_| true);
    let error = got.expect_err(&String::from_utf8_lossy(message));
    assert!(error.to_string().starts_with("the server's "));
}

#[test]
fn refused_tools_go_and_nothing_else_changes() {
    check(
        r#"{"jsonrpc":"2.0","id":12345678901234567890,"result":{"tools":[{"name":"k1","x":1.50},{"name":"r1"},{"name":"k2"}],"nextCursor":"c\u0061","_meta":{"a":1e2},"unknown":[ 1 ]}}"#,
        r#"{"jsonrpc":"2.0","id":12345678901234567890,"result":{"tools":[{"name":"k1","x":1.50},{"name":"k2"}],"nextCursor":"c\u0061","_meta":{"a":1e2},"unknown":[ 1 ]}}"#,
    );
    for (tools, expected) in [
        ("[]", "[]"),
        ("[ ]", "[ ]"),
        (r#"[{"name":"r"}]"#, "[]"),
        (r#"[ {"name":"r"} ]"#, "[  ]"),
        (r#"[{"name":"r"},{"name":"r"}]"#, "[]"),
        (r#"[ {"name":"r"} , {"name":"r"} ]"#, "[  ]"),
        (r#"[ {"name":"k"} , {"name":"r"}, {"name":"r"} ]"#, r#"[ {"name":"k"} ]"#),
        (r#"[ {"name":"r"} , {"name":"r"}, {"name":"k"} ]"#, r#"[ {"name":"k"} ]"#),
        (
            r#"[{"name":"r"},{"name":"k"},{"name":"r"},{"name":"k"},{"name":"r"}]"#,
            r#"[{"name":"k"},{"name":"k"}]"#,
        ),
        (r#"[{"name":"\u006b"},{"name":"\u0072"}]"#, r#"[{"name":"\u006b"}]"#),
        (r#"[{"a":{"name":"r"},"name":"k"},{"name":"r","a":"]"}]"#, r#"[{"a":{"name":"r"},"name":"k"}]"#),
    ] {
        check(
            &format!(r#"{{"id":1,"result":{{"tools":{tools}}}}}"#),
            &format!(r#"{{"id":1,"result":{{"tools":{expected}}}}}"#),
        );
    }
    check(
        r#"[{"id":1,"result":{"tools":[{"name":"r"}]}}, {"method":"notifications/x"} ,{"id":2,"result":{"tools":[{"name":"k"},{"name":"r"}]}}]"#,
        r#"[{"id":1,"result":{"tools":[]}}, {"method":"notifications/x"} ,{"id":2,"result":{"tools":[{"name":"k"}]}}]"#,
    );
}

#[test]
fn a_filtered_list_is_private() {
    check(
        r#"{"id":1,"result":{"cacheScope": "public" ,"tools":[{"name":"k"}],"ttlMs":5}}"#,
        r#"{"id":1,"result":{"cacheScope": "private" ,"tools":[{"name":"k"}],"ttlMs":5}}"#,
    );
    check(
        r#"{"id":1,"result":{"tools":[{"name":"r"}],"cacheScope":"p\u0075blic"}}"#,
        r#"{"id":1,"result":{"tools":[],"cacheScope":"private"}}"#,
    );
    unchanged(r#"{"id":1,"result":{"cacheScope":"private","tools":[]}}"#);
    unchanged(r#"{"id":1,"result":{"cacheScope":"","tools":[]}}"#);
    unchanged(r#"{"id":1,"result":{"cacheScope":"public","resources":[]}}"#);
    unchanged(r#"{"id":1,"result":{"tools":[{"name":"k","cacheScope":"public"}]}}"#);
}

#[test]
fn what_is_no_list_stays_as_it_is() {
    for message in [
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"tools"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"tools":[{"name":"r"}]}}"#,
        r#" { "jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"result":{"tools":[1]}}} "#,
        r#"{"id":1,"result":{"content":[{"type":"text","text":"{\"tools\":[{\"name\":\"r\"}]}"}],"structuredContent":{"tools":1}}}"#,
        r#"{"id":1,"result":null}"#,
        r#"{"id":1,"result":[{"tools":[1]}]}"#,
        r#"{"id":1,"result":{"x":1,"CacheScope":"public"}}"#,
        "1",
        "[]",
    ] {
        unchanged(message);
    }
}

#[test]
fn lists_that_cannot_be_read_are_errors() {
    for tools in [
        "null",
        "{}",
        "\"x\"",
        "1",
        "[1]",
        "[null]",
        "[[]]",
        "[{}]",
        r#"[{"name":1}]"#,
        r#"[{"name":null}]"#,
        r#"[{"name":"a"},{"title":"b"}]"#,
        r#"[{"name":"a","Name":"b"}]"#,
        r#"[{"name":"a","name\u0000":"b"}]"#,
        r#"[{"name":"a","name":"b"}]"#,
        r#"[{"name":"a","x":{"y":1,"y":2}}]"#,
        r#"[{"name":"\ud800"}]"#,
        r#"[{"name":"a"}"#,
        r#"[{"name":"a"},]"#,
        r#"[{"name":"a"} {"name":"b"}]"#,
        r#"[{"name":"a","x":1e999}]"#,
    ] {
        refused(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":{tools}}}}}"#));
    }
    for message in [
        "",
        "{",
        "{} {}",
        "\u{feff}{}",
        r#"{"id":1,"result":{"Tools":[{"name":"a"}]}}"#,
        r#"{"id":1,"result":{"tool\u017f":[{"name":"a"}]}}"#,
        r#"{"id":1,"Result":{"tools":[{"name":"a"}]}}"#,
        r#"{"id":1,"result":{"tools":[],"tools":[{"name":"a"}]}}"#,
        r#"{"id":1,"result":{"tools":[],"CacheScope":"public"}}"#,
        r#"{"id":1,"result":{"tools":[]},"result":{"tools":[{"name":"a"}]}}"#,
    ] {
        refused(message);
    }
    refused(b"{\"id\":1,\"result\":{\"tools\":[{\"name\":\"\xff\"}]}}");
    refused("[".repeat(100_000));
}

#[test]
fn nesting_is_followed_to_a_limit() {
    // The message is depth 1, `result` 2, `tools` 3, the tool 4.
    let list = |levels: usize, before: &str| {
        let schema = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"id":1,"result":{{{before}"tools":[{{"name":"k","inputSchema":{schema}}}]}}}}"#)
    };
    unchanged(&list(124, ""));
    refused(list(125, ""));
    let beside = |levels: usize| format!(r#""x":{}{},"#, "[".repeat(levels), "]".repeat(levels));
    unchanged(&list(1, &beside(126)));
    refused(list(1, &beside(127)));
}

#[test]
fn errors_say_where_and_why() {
    #[track_caller]
    fn check(message: &str, expected: &str, source: Option<&str>) {
        let error = filter_tools_list(message.as_bytes(), &mut |_| true).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.source().map(ToString::to_string).as_deref(), source);
        assert!(!error.is_too_large());
    }
    check(
        r#"{"id":1,"result":{"tools":null}}"#,
        "the server's `result.tools` is no list of tools with a `name` each (at byte 26)",
        None,
    );
    check(
        r#"{"id":1,"result":{"tools":[{"name":"a","Name":"b"}]}}"#,
        "the server's list has a key that could be taken for `name` (at byte 39)",
        None,
    );
    check(
        r#"{"a" 1}"#,
        "the server's list cannot be read: not strict JSON, expected `:` (at byte 5)",
        Some("not strict JSON, expected `:` (at byte 5)"),
    );
}

/// Whitespace, an array of tools with more members, and members around it.
fn list() -> impl Strategy<Value = (String, Vec<String>)> {
    let space = prop::sample::select(vec!["", " ", "\n", " \t "]);
    let tool = ("[kr][a-c]{0,2}", space.clone(), space.clone(), any::<bool>());
    (prop::collection::vec(tool, 0..12), space).prop_map(|(tools, outer)| {
        let mut text = format!("{{\"id\":7,\"result\":{{\"a\":[1,{{}}],{outer}\"tools\":[{outer}");
        for (n, (name, before, after, first)) in tools.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let members = if *first {
                format!("\"name\":\"{name}\",\"n\":{n}")
            } else {
                format!("\"n\":{n},\"s\":{{\"tools\":[]}},\"name\":\"{name}\"")
            };
            text.push_str(&format!("{comma}{before}{{{members}}}{after}"));
        }
        text.push_str(&format!("],\"nextCursor\":\"x\"}}{outer}}}"));
        (text, tools.into_iter().map(|(name, ..)| name).collect())
    })
}

proptest! {
    #[test]
    fn filtering_is_idempotent_and_equals_filtering_values((text, names) in list()) {
        let mut seen = Vec::new();
        let mut keep = |name: &str| { seen.push(name.to_owned()); name.starts_with('k') };
        let once = filter_tools_list(text.as_bytes(), &mut keep).unwrap();
        prop_assert_eq!(seen, names);
        let twice = filter_tools_list(&once, &mut |name| name.starts_with('k')).unwrap();
        prop_assert_eq!(&once, &twice);

        let mut expected: serde_json::Value = serde_json::from_str(&text).unwrap();
        expected["result"]["tools"].as_array_mut().unwrap().retain(|tool| tool["name"].as_str().unwrap().starts_with('k'));
        let got: serde_json::Value = serde_json::from_slice(&once).unwrap();
        prop_assert_eq!(got, expected);

        let all = filter_tools_list(text.as_bytes(), &mut |_| true).unwrap();
        prop_assert_eq!(all, text.into_bytes());
    }
}
