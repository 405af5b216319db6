//! A server's answer, its first byte choosing what is kept: what comes out is JSON, a list of those tools alone, and every
//! other byte is as it was.
#![no_main]

use std::fmt;

use libfuzzer_sys::fuzz_target;
use mcp_jsonrpc::filter_tools_list;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};

fuzz_target!(|bytes: &[u8]| {
    let Some((which, message)) = bytes.split_first() else { return };
    let keep = |name: &str| match which % 4 {
        0 => false,
        1 => true,
        2 => name.len() % 2 == 0,
        _ => name.starts_with('k'),
    };
    let mut asked = Vec::new();
    let filtered = filter_tools_list(message, &mut |name| {
        asked.push(name.to_owned());
        keep(name)
    });
    // Whether a list can be read is no matter of what is kept of it.
    assert_eq!(filter_tools_list(message, &mut |_| true).is_ok(), filtered.is_ok());
    let filtered = match filtered {
        Ok(filtered) => filtered,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(filter_tools_list(&filtered, &mut { keep }).as_deref(), Ok(&*filtered), "twice");

    let before: &RawValue = serde_json::from_slice(message).expect("what is passed on is JSON");
    let after: &RawValue = serde_json::from_slice(&filtered).expect("what comes out is JSON");
    let mut named = Vec::new();
    match (elements(before), elements(after)) {
        (Some(before), Some(after)) => {
            assert_eq!(before.len(), after.len());
            for (before, after) in before.into_iter().zip(after) {
                same_message(before, after, keep, &mut named);
            }
        }
        _ => same_message(before, after, keep, &mut named),
    }
    assert_eq!(asked, named, "each tool is asked about once");
    if named.iter().all(|name| keep(name))
        && !message.windows(6).any(|word| word.eq_ignore_ascii_case(b"public"))
    {
        // `public` may be written with escapes.
        assert!(filtered == message || message.contains(&b'\\'));
    }
});

/// An array's elements as they are written.
fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// An object's members in order, as they are written.
fn members(value: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(value.get()).ok()
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// One message before and after; the names of its tools go to `named`.
fn same_message(
    before: &RawValue,
    after: &RawValue,
    keep: impl Fn(&str) -> bool + Copy,
    named: &mut Vec<String>,
) {
    let (Some(before), Some(after)) = (members(before), members(after)) else {
        return assert_eq!(before.get(), after.get());
    };
    assert_eq!(before.0.len(), after.0.len());
    for ((key, before), (same, after)) in before.0.into_iter().zip(after.0) {
        assert_eq!(key, same);
        match (members(before), members(after)) {
            (Some(before), Some(after))
                if key == "result" && before.0.iter().any(|(key, _)| key == "tools") =>
            {
                same_result(before, after, keep, named);
            }
            _ => assert_eq!(before.get(), after.get(), "{key}"),
        }
    }
}

fn same_result(
    before: Members<'_>,
    after: Members<'_>,
    keep: impl Fn(&str) -> bool,
    named: &mut Vec<String>,
) {
    assert_eq!(before.0.len(), after.0.len());
    for ((key, before), (same, after)) in before.0.into_iter().zip(after.0) {
        assert_eq!(key, same);
        match key.as_str() {
            "tools" => {
                let tools = elements(before).expect("a list");
                let kept: Vec<&str> = tools
                    .into_iter()
                    .filter(|tool| {
                        let tool: Value = serde_json::from_str(tool.get()).expect("JSON");
                        let name = tool["name"].as_str().expect("a named tool").to_owned();
                        let kept = keep(&name);
                        named.push(name);
                        kept
                    })
                    .map(RawValue::get)
                    .collect();
                let found: Vec<&str> =
                    elements(after).expect("a list").into_iter().map(RawValue::get).collect();
                assert_eq!(found, kept);
            }
            "cacheScope"
                if serde_json::from_str(before.get()).is_ok_and(|scope: Value| scope == "public") =>
            {
                assert_eq!(after.get(), r#""private""#);
            }
            _ => assert_eq!(before.get(), after.get(), "{key}"),
        }
    }
}
