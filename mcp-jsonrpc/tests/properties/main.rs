//! The reader against serde_json: what is admitted reads the same there, and what serde_json finds strict is admitted; and
//! against the rules for messages, written a second time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking, in its helpers too"
)]

mod naive;
mod near_misses;

use mcp_jsonrpc::{
    Body, Event, EventReader, FilterError, Json, Kind, Limits, MirroredHeaders, Target, parse, parse_json,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRunner};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The members that decide, as serde_json reads them.
#[derive(Deserialize)]
struct Envelope<'a> {
    method: Option<String>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    params: Option<serde_json::Value>,
}

fn agrees_with_serde_json(body: &[u8]) -> Result<(), TestCaseError> {
    let Ok(read) = parse(body, &Limits::default()) else { return Ok(()) };
    let raw: Vec<&RawValue> = match &read {
        Body::One(_) => vec![serde_json::from_slice(body).unwrap()],
        Body::Batch(_) => serde_json::from_slice(body).unwrap(),
    };
    prop_assert_eq!(raw.len(), read.messages().len());
    for (message, raw) in read.messages().iter().zip(raw) {
        let envelope: Envelope<'_> = serde_json::from_str(raw.get()).unwrap();
        prop_assert_eq!(message.method(), envelope.method.unwrap_or_default());
        prop_assert_eq!(message.id().map(mcp_jsonrpc::Id::token), envelope.id.map(RawValue::get));
        let params = envelope.params.unwrap_or_default();
        match message.target() {
            Target::Name(name) => prop_assert_eq!(params["name"].as_str(), Some(&**name)),
            Target::Uri(uri) => prop_assert_eq!(params["uri"].as_str(), Some(&**uri)),
            Target::TaskId(id) => prop_assert_eq!(params["taskId"].as_str(), Some(&**id)),
            Target::RefPrompt(name) => prop_assert_eq!(params["ref"]["name"].as_str(), Some(&**name)),
            Target::RefResource(uri) => prop_assert_eq!(params["ref"]["uri"].as_str(), Some(&**uri)),
            _ => {}
        }
        if let Some(raw) = message.params() {
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(raw).unwrap(), params.clone());
        }
        if let Some(raw) = message.arguments() {
            let arguments: serde_json::Value = serde_json::from_str(raw).unwrap();
            prop_assert_eq!(&arguments, &params["arguments"]);
        }
        prop_assert_eq!(message.kind() == Kind::Notification, message.id().is_none());
    }
    Ok(())
}

/// The number tokens of JSON text.
fn numbers(json: &str) -> impl Iterator<Item = &str> {
    // Every other part stands in a string, once the escapes that look like an end of one are out of the way.
    let plain = json.split('"').scan(false, |in_string, part| {
        let escaped = *in_string && (part.len() - part.trim_end_matches('\\').len()) % 2 == 1;
        let text = if *in_string { "" } else { part };
        *in_string = !*in_string || escaped;
        Some(text)
    });
    plain
        .flat_map(|text| text.split(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')))
        .filter(|token| token.contains(|c: char| c.is_ascii_digit()))
}

/// Whether a number is over 2^53, as doubles and, where the double is 2^53, as digits.
fn is_big(token: &str) -> bool {
    let limit = 2_f64.powi(53);
    let magnitude = token.parse::<f64>().unwrap().abs();
    magnitude > limit || (magnitude == limit && !matches!(token, "9007199254740992" | "-9007199254740992"))
}

/// Bytes that, put together at random, often make JSON and often nearly do.
fn soup() -> impl Strategy<Value = String> {
    let tokens = vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\\u0061\"",
        "\"b\"",
        "\"\"",
        "1",
        "-0",
        "1.5e3",
        "1e400",
        "01",
        "-",
        "true",
        "null",
        "nul",
        " ",
        "\n",
        "\"\\ud83d\\ude00\"",
        "\"😀\"",
        "\"\\ud800\"",
        "\"\\",
        "\"",
        "\u{feff}",
        "\"a\":",
        "\"b\":1,",
        "{}",
        "[]",
        "{\"a\":1}",
        ",\"a\":",
        "{\"a\":",
    ];
    prop::collection::vec(prop::sample::select(tokens), 0..14).prop_map(|tokens| tokens.concat())
}

/// JSON values, written with random escapes and spaces.
fn json() -> impl Strategy<Value = String> {
    let text = prop::collection::vec(
        prop::sample::select(vec![
            "a",
            "b",
            "\\u0061",
            "\\n",
            "é",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\\"",
            "0123456789",
            "jsonrpc",
        ]),
        0..4,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let leaf = prop_oneof![
        text.clone(),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        prop::sample::select(vec!["true", "false", "null", "0", "-0.0", "{}", "[]"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 64, 20, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|v| format!("[{}]", v.join(" , "))),
            prop::collection::vec((text.clone(), inner), 0..20).prop_map(|members| {
                let members: Vec<String> = members.into_iter().map(|(k, v)| format!("{k}:{v}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// Messages that are well formed or miss it by one member.
fn message() -> impl Strategy<Value = String> {
    let members = vec![
        r#""jsonrpc":"2.0""#,
        r#""jsonrpc":"2.0""#,
        r#""id":1"#,
        r#""id":"\u0041""#,
        r#""id":1e2"#,
        r#""method":"tools/call""#,
        r#""method":"tools\/call""#,
        r#""method":"resources/read""#,
        r#""method":"notifications/x""#,
        r#""m\u0065thod":"tasks/get""#,
        r#""method":"completion/complete""#,
        r#""params":{"name":"x","uri":"u","taskId":"t","ref":{"type":"ref/prompt","name":"p","uri":"u"}}"#,
        r#""params":{"n\u0061me":"\u0078","arguments":{"a":[1,{"b":2.50}]},"_meta":{}}"#,
        r#""params":{"uri":"u","ref":{"type":"ref/resource","uri":"u"}}"#,
        r#""params":[]"#,
        r#""result":{}"#,
        r#""error":{"code":1}"#,
        r#""Method":"ping""#,
        r#""x":{"method":"ping"}"#,
    ];
    prop::sample::subsequence(members, 3..7)
        .prop_shuffle()
        .prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// Ten thousand cases, unless `PROPTEST_CASES` says otherwise.
fn config() -> ProptestConfig {
    // Generators are seeded for each part of a body, which takes most of the time with the default algorithm.
    let given = ProptestConfig { rng_algorithm: RngAlgorithm::XorShift, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        given
    } else {
        ProptestConfig { cases: 10_000, ..given }
    }
}

#[test]
fn of_the_near_misses_many_are_admitted_and_many_are_refused() {
    let (bodies, mut runner) = (near_misses::body(), TestRunner::deterministic());
    let is_admitted = |body: Vec<u8>| parse(&body, &Limits::default()).is_ok();
    let admitted =
        (0..1_000).filter(|_| is_admitted(bodies.new_tree(&mut runner).unwrap().current())).count();

    assert!((350..700).contains(&admitted), "{admitted}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn strict_json_is_what_serde_json_reads_without_duplicates(text in prop_oneof![soup(), json()]) {
        let expected = serde_json::from_str::<naive::Node>(&text).is_ok_and(|read| read.depth() <= 63);
        let got = match parse_json(text.as_bytes(), &Limits::default()) {
            Ok(_) => true,
            Err(error) => error.code() == -32600,
        };
        prop_assert_eq!(got, expected, "{}", text);
    }

    #[test]
    fn bodies_are_admitted_and_read_as_the_rules_say(body in near_misses::body()) {
        let shown = String::from_utf8_lossy(&body);
        match (parse(&body, &Limits::default()), naive::read(&body)) {
            (Ok(read), Some((is_batch, messages))) => {
                prop_assert_eq!(read.is_batch(), is_batch);
                prop_assert_eq!(read.messages().len(), messages.len());
                for (read, expected) in read.messages().iter().zip(messages) {
                    prop_assert_eq!(read.kind(), expected.kind);
                    prop_assert_eq!(read.method(), expected.method);
                    prop_assert_eq!(read.target(), &expected.target);
                    prop_assert_eq!(read.arguments().is_some(), expected.has_arguments);
                    prop_assert_eq!(read.meta_protocol_version(), expected.meta_version.as_deref());
                    prop_assert_eq!(read.params_depth(), expected.params_depth);
                    let big = read.params().is_some_and(|params| numbers(params).any(is_big));
                    prop_assert_eq!(read.params_have_big_integer(), big);
                }
            }
            (Err(error), None) => prop_assert!(error.offset() <= body.len()),
            (read, expected) => prop_assert!(false, "{}: {:?}, {:?}", shown, read, expected),
        }
        agrees_with_serde_json(&body)?;
    }

    #[test]
    fn admitted_messages_read_the_same_in_serde_json(
        text in prop_oneof![
            message(),
            prop::collection::vec(message(), 1..4).prop_map(|messages| format!("[{}]", messages.join(","))),
        ],
        at in any::<prop::sample::Index>(),
        byte in prop::sample::select(b"{}[]\",:\\u0019.e- x\x00\x80\xff".to_vec()),
        what in 0..4,
    ) {
        agrees_with_serde_json(text.as_bytes())?;
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        match what {
            0 => bytes[at] = byte,
            1 => { bytes.remove(at); }
            2 => bytes.insert(at, byte),
            _ => bytes.truncate(at),
        }
        agrees_with_serde_json(&bytes)?;
    }

    #[test]
    fn services_hold_what_could_be_mcp_to_the_same_rules(
        body in prop_oneof![near_misses::body(), json().prop_map(String::into_bytes)],
    ) {
        let strict = parse(&body, &Limits::default());
        match (parse_json(&body, &Limits::default()), naive::is_mcp(&body)) {
            (Ok(Json::Mcp(read)), Some(true)) => prop_assert_eq!(Ok(read), strict),
            (Ok(Json::Other), Some(false)) => prop_assert_eq!(strict.map_err(|error| error.code()), Err(-32600)),
            (Err(error), expected) => {
                prop_assert_eq!(error.code(), if expected.is_some() { -32600 } else { -32700 });
                prop_assert!(expected != Some(false));
                prop_assert_eq!(Err(error), strict);
            }
            (read, expected) => prop_assert!(false, "{:?}, {:?}", read, expected),
        }
    }

    #[test]
    fn no_bytes_make_anything_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..3),
    ) {
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        let headers = MirroredHeaders { protocol_version: &[b"2026-07-28"], method: &lines, name: &lines };
        if let Ok(body) = parse(&bytes, &Limits::default()) {
            let _checked = headers.check(&body);
        }
        let _filtered = mcp_jsonrpc::filter_tools_list(&bytes, &mut |_| true);
    }

    #[test]
    fn streams_read_the_same_at_any_split(
        parts in prop::collection::vec(
            prop::sample::select(vec!["data", "data:", "id", ": ", "a", "\n", "\r", "\r\n", "\n\n", "\u{feff}", "é"]), 0..40),
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        /// The events up to one that is refused, and what is left; nothing after a refusal.
        fn read(chunks: &[&[u8]]) -> (Vec<Event>, Result<Vec<u8>, FilterError>) {
            let (mut reader, mut events) = (EventReader::new(1 << 16), Vec::new());
            for chunk in chunks.iter().map(Some).chain([None]) {
                match chunk {
                    Some(chunk) => reader.push(chunk),
                    None => reader.end(),
                }
                loop {
                    match reader.next_event() {
                        Ok(Some(event)) => events.push(event),
                        Ok(None) => break,
                        Err(error) => return (events, Err(error)),
                    }
                }
            }
            (events, Ok(reader.finish()))
        }
        let stream = parts.concat().into_bytes();
        let mut at: Vec<usize> = splits.iter().map(|split| split.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let whole = read(&[&stream]);
        prop_assert_eq!(&read(&chunks), &whole);
        let (events, left) = whole;
        let mut all: Vec<u8> = events.iter().flat_map(|event| event.raw.clone()).collect();
        if let Ok(left) = left {
            all.extend(left);
            prop_assert_eq!(all, stream);
        } else {
            prop_assert!(stream.starts_with(&all));
        }
    }
}
