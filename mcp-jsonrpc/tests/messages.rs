//! Bodies on which parsers disagree, and the rules for messages: what is refused, with which code, and what is read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking, in its helpers too"
)]

use mcp_jsonrpc::{Body, Json, Kind, Limits, Message, Method, Target, parse, parse_json};

const PARSE: i64 = -32700;
const INVALID: i64 = -32600;

#[track_caller]
fn refused(body: impl AsRef<[u8]>, code: i64) {
    let body = body.as_ref();
    let shown = String::from_utf8_lossy(body);
    match parse(body, &Limits::default()) {
        Ok(read) => panic!("admitted {shown}: {read:?}"),
        Err(error) => {
            assert_eq!(error.code(), code, "{shown}: {error}");
            assert!(!error.is_too_large());
            assert!(error.offset() <= body.len());
        }
    }
}

/// A `tools/call` with these further members in `params`.
fn call(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
}

#[track_caller]
fn one(body: &str) -> Message<'_> {
    match parse(body.as_bytes(), &Limits::default()) {
        Ok(Body::One(message)) => message,
        other => panic!("{body}: {other:?}"),
    }
}

#[track_caller]
fn tool(body: &str, expected: &str) {
    let message = one(body);
    assert_eq!(message.known_method(), Some(Method::ToolsCall));
    assert_eq!(message.target(), &Target::Name(expected.into()));
}

#[test]
fn duplicate_keys_are_refused_at_any_depth_compared_decoded() {
    refused(call(r#"{"name":"safe","name":"danger"}"#), PARSE);
    refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{"name":"x"}}"#,
        PARSE,
    );
    refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"},"params":{"name":"y"}}"#,
        PARSE,
    );
    refused(call(r#"{"name":"safe","n\u0061me":"danger"}"#), PARSE);
    refused(call(r#"{"n\u0061me":"safe","name":"danger"}"#), PARSE);
    refused(call(r#"{"n\u0061me":"safe","\u006eame":"danger"}"#), PARSE);
    refused(call(r#"{"name":"x","arguments":{"a":{"b":1,"b":2}}}"#), PARSE);
    refused(call(r#"{"name":"x","arguments":{"a":[[{"":1,"":1}]]}}"#), PARSE);
    refused(call(r#"{"name":"x","arguments":{"\ud83d\ude00":1,"😀":2}}"#), PARSE);
    refused(call(r#"{"name":"x","_meta":{"a":1,"a":2}}"#), PARSE);
    refused(r#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}"#, PARSE);
    refused(r#"{"jsonrpc":"2.0","id":1,"method":"ping","extra":{"a":1,"a":2}}"#, PARSE);
    refused(r#"{"jsonrpc":"2.0","id":1,"method":"ping","id":1}"#, PARSE);
}

#[test]
fn duplicate_keys_are_found_among_any_number_of_keys() {
    for count in [1, 2, 7, 8, 9, 15, 16, 17, 18, 40, 300] {
        let keys: Vec<String> = (0..count).map(|n| format!("\"key {n}\":{n}")).collect();
        let all = keys.join(",");
        tool(&call(&format!(r#"{{"name":"x","arguments":{{{all}}}}}"#)), "x");
        tool(&call(&format!(r#"{{"name":"x","arguments":{{{all},"k\u0065y":0}}}}"#)), "x");
        for twice in [0, count / 2, count - 1] {
            refused(call(&format!(r#"{{"name":"x","arguments":{{{all},"key {twice}":0}}}}"#)), PARSE);
            refused(call(&format!(r#"{{"name":"x","arguments":{{{all},"k\u0065y {twice}":0}}}}"#)), PARSE);
            refused(call(&format!(r#"{{"name":"x","arguments":{{"k\u0065y {twice}":0,{all}}}}}"#)), PARSE);
        }
    }
}

#[test]
fn keys_of_an_object_are_not_those_of_the_objects_in_it() {
    // The three-letter keys look alike to what tells most keys apart.
    tool(
        &call(r#"{"name":"x","arguments":{"a1b":{"a2b":1},"a2b":2,"a3b":[{"a4b":3,"a1b":4}],"a4b":5}}"#),
        "x",
    );
    refused(call(r#"{"name":"x","arguments":{"a1b":{"a2b":1},"a2b":2,"a1b":3}}"#), PARSE);
}

#[test]
fn strings_of_any_length_end_at_their_quote() {
    for length in 0..150 {
        let text = "x".repeat(length);
        let body = call(&format!(
            r#"{{"name":"{text}","arguments":{{"{text}":"{text}\"\\","b":"","c":"{text}"}}}}"#
        ));
        tool(&body, &text);
        // Long enough that blocks are made of nothing else.
        let backslashes = "\\".repeat(64);
        tool(
            &call(&format!(r#"{{"name":"{text}{backslashes}{backslashes}"}}"#)),
            &format!("{text}{backslashes}"),
        );
        refused(call(&format!(r#"{{"name":"{text}{}"}}"#, "\"".repeat(64))), PARSE);
        for control in ["\n", "\u{1f}\0", "\t\"\"", "\\\n\\"] {
            refused(call(&format!(r#"{{"name":"x","arguments":{{"a":"{text}{control}b"}}}}"#)), PARSE);
        }
    }
}

#[test]
fn variants_of_protocol_keys_are_refused() {
    refused(r#"{"jsonrpc":"2.0","id":1,"Method":"tools/call","Params":{"name":"x"}}"#, INVALID);
    refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","Method":"tools/list","params":{"name":"x"}}"#,
        INVALID,
    );
    refused(call(r#"{"name":"x","Name":"y"}"#), INVALID);
    refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"},"paramſ":{"name":"y"}}"#,
        INVALID,
    );
    refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"},"param\u017f":{"name":"y"}}"#,
        INVALID,
    );
    refused(call(r#"{"name":"x","name\u0000":"y"}"#), INVALID);
    refused(call(r#"{"name":"x","na\u0001me":"y"}"#), INVALID);
    refused(call(r#"{"name":"x","name\u0000z":"y"}"#), INVALID);
    refused(call("{\"name\":\"x\",\"name\u{7f}\":\"y\"}"), INVALID);
    refused(call(r#"{"name":"x","Arguments":{}}"#), INVALID);
    refused(call(r#"{"name":"x","_META":{}}"#), INVALID);
    refused(call(r#"{"name":"x","_meta":{"progresstoken":1}}"#), INVALID);
    refused(
        call(r#"{"name":"x","_meta":{"io.modelcontextprotocol/PROTOCOLVERSION":"2026-07-28"}}"#),
        INVALID,
    );
    refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"x","Name":"y"}}}"#,
        INVALID,
    );
    refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"taskids":["x"]}}}"#,
        INVALID,
    );
    refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"t","tas\u212aId":"u"}}"#,
        INVALID,
    );
    refused(r#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"ping"}"#, INVALID);
    refused(r#"{"jsonrpc":"2.0","id":1,"result":{},"Error":{}}"#, INVALID);

    // What a tool takes is its own affair, as are keys that no parser could take for the protocol's.
    tool(&call(r#"{"name":"get-sum","arguments":{"name":"x","Name":"y","name\u0000":1}}"#), "get-sum");
    tool(&call(r#"{"name":"x","names":1,"_meta":{"Name":1,"com.example/X":2},"x":{"Name":1}}"#), "x");
}

#[test]
fn values_are_decided_on_decoded_and_exactly() {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"name":"d\u0061nger"}}"#;
    tool(body, "danger");
    assert_eq!(one(body).method(), "tools/call");
    tool(r#"{"\u006asonrpc":"2\u002e0","id":1,"m\u0065thod":"tools/call","params":{"n\u0061me":"x"}}"#, "x");
    tool(
        " \n\r\t{ \"jsonrpc\" : \"2.0\" , \"id\" : 1 , \"method\" : \"tools/call\" , \"params\" : { \"name\" : \"get-sum\" } }\n ",
        "get-sum",
    );
    tool(&call(r#"{"name":"name "}"#), "name ");
    tool(&call(r#"{"name":"\ud83d\ude00 é"}"#), "😀 é");

    let unknown = one(r#"{"jsonrpc":"2.0","id":1,"method":"TOOLS/CALL","params":{"name":"x"}}"#);
    assert_eq!((unknown.known_method(), unknown.kind()), (None, Kind::Request));
    assert!(!unknown.is_base_protocol());
    assert_eq!(unknown.target(), &Target::None);
}

#[test]
fn targets_that_are_missing_no_strings_or_hold_control_characters_are_refused() {
    for params in [
        r#"{}"#,
        r#"{"name":7}"#,
        r#"{"name":null}"#,
        r#"{"name":["x"]}"#,
        r#"{"uri":"x"}"#,
        r#"{"name":"x\u0000"}"#,
        r#"{"name":"\nx"}"#,
        r#"{"name":"x\u007f"}"#,
        "{\"name\":\"x\u{7f}\"}",
        "{\"name\":\"x\u{85}\"}",
        r#"{"name":"x\u009f"}"#,
    ] {
        refused(call(params), INVALID);
        refused(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{params}}}"#), INVALID);
    }
    for (method, field) in [
        ("resources/read", "uri"),
        ("resources/subscribe", "uri"),
        ("resources/unsubscribe", "uri"),
        ("tasks/get", "taskId"),
        ("tasks/result", "taskId"),
        ("tasks/update", "taskId"),
        ("tasks/cancel", "taskId"),
    ] {
        refused(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#), INVALID);
        for value in ["1", "null", "{}", "\"\\r\""] {
            refused(
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"{field}":{value}}}}}"#),
                INVALID,
            );
        }
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"{field}":"x","name":"y"}}}}"#
        );
        let expected = if field == "uri" { Target::Uri("x".into()) } else { Target::TaskId("x".into()) };
        assert_eq!(one(&body).target(), &expected);
    }
    for reference in [
        "null",
        "\"ref/prompt\"",
        "{}",
        r#"{"type":"ref/prompt"}"#,
        r#"{"type":"ref/prompt","uri":"u"}"#,
        r#"{"type":"ref/resource","name":"n"}"#,
        r#"{"type":"ref/tool","name":"n","uri":"u"}"#,
        r#"{"type":"REF/PROMPT","name":"n"}"#,
        r#"{"type":1,"name":"n"}"#,
        r#"{"type":"ref/prompt","name":"n\n"}"#,
        r#"{"name":"n"}"#,
    ] {
        refused(
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{{"ref":{reference}}}}}"#
            ),
            INVALID,
        );
    }
    for notifications in [
        "null",
        "[]",
        r#"{"resourceSubscriptions":null}"#,
        r#"{"resourceSubscriptions":"u"}"#,
        r#"{"resourceSubscriptions":[1]}"#,
        r#"{"resourceSubscriptions":["u",["v"]]}"#,
        r#"{"resourceSubscriptions":["u\u0000"]}"#,
        r#"{"taskIds":{}}"#,
        r#"{"taskIds":[null]}"#,
    ] {
        refused(
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"notifications":{notifications}}}}}"#
            ),
            INVALID,
        );
    }
    refused(r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}"#, INVALID);
}

#[test]
fn bytes_that_are_not_clean_utf8_are_refused() {
    let with = |bytes: &[u8]| {
        let mut body =
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":""#
                .to_vec();
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\"}}}");
        body
    };
    assert!(parse(&with("é".as_bytes()), &Limits::default()).is_ok());
    refused(with(b"\xff"), PARSE);
    refused(with(b"\xc0\xaf"), PARSE);
    refused(with(b"\xed\xa0\x80"), PARSE);
    refused(with(b"\xf4\x90\x80\x80"), PARSE);
    refused(with(b"\xe2\x82"), PARSE);
    for surrogate in [
        r"\ud800",
        r"\udc00",
        r"\ud800x",
        r"\ud800\n",
        r"\ud800\u0041",
        r"\ud800\ud800",
        r"\udc00\ud800",
        r"\uD83D\uDE0",
        r"\u00",
        r"\u00g0",
        r"\u+041",
        r"\x41",
        r"\a",
        r"\'",
        r"\",
    ] {
        refused(with(surrogate.as_bytes()), PARSE);
    }
    for control in 0..0x20u8 {
        refused(with(&[control]), PARSE);
    }
    let plain = call(r#"{"name":"x"}"#);
    refused([b"\xef\xbb\xbf", plain.as_bytes()].concat(), PARSE);
    refused(plain.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(), PARSE);
    refused(plain.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>(), PARSE);
    refused("\u{feff}", PARSE);
    refused(format!("{plain}\u{feff}"), PARSE);
    refused(format!("{plain}\u{a0}"), PARSE);
    refused(format!("{plain}\0"), PARSE);
}

#[test]
fn what_is_not_exactly_one_json_value_is_refused() {
    let plain = call(r#"{"name":"x"}"#);
    refused(format!("{plain}{plain}"), PARSE);
    refused(format!("{plain} {{\"x\":1}}"), PARSE);
    refused(format!("{plain},"), PARSE);
    refused(format!("{plain}]"), PARSE);
    refused(r#"{"jsonrpc":"2.0",/*x*/"id":1,"method":"tools/call","params":{"name":"x"}}"#, PARSE);
    refused("{\"jsonrpc\":\"2.0\",//x\n\"id\":1,\"method\":\"ping\"}", PARSE);
    refused("", PARSE);
    refused(" ", PARSE);
    for length in 0..plain.len() {
        refused(&plain[..length], PARSE);
    }
    for value in [
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "-",
        "1e",
        "1e+",
        "0x10",
        "1_000",
        "--1",
        "1e400",
        "-1e400",
        "1e999999999999999999999",
        "'x'",
        "True",
        "nul",
        "undefined",
        "{a:1}",
        "{\"a\":1,}",
        "[1,]",
        "[,]",
        "[1 2]",
        "{\"a\" 1}",
        "{\"a\":}",
        "{1:2}",
        "{,}",
        "[",
        "{",
        "]",
        "",
    ] {
        refused(call(&format!(r#"{{"name":"x","arguments":{{"a":{value}}}}}"#)), PARSE);
    }
    refused(call(&format!(r#"{{"name":"x","arguments":{{"a":1{}}}}}"#, "0".repeat(400))), PARSE);
    for value in [
        "0",
        "-0",
        "0.0",
        "-0.0e-0",
        "1E5",
        "1e308",
        "1e-400",
        "1e+2",
        "123456789012345678901234567890",
        "true",
    ] {
        tool(&call(&format!(r#"{{"name":"x","arguments":{{"a":{value}}}}}"#)), "x");
    }
}

#[test]
fn scalars_are_json_but_no_messages() {
    for body in
        ["\"tools/call\"", "1", "null", "true", "{}", "[1]", "[null]", "[\"x\"]", "[[]]", "[]", " [ ] "]
    {
        refused(body, INVALID);
        assert_eq!(parse_json(body.as_bytes(), &Limits::default()), Ok(Json::Other), "{body}");
    }
}

#[test]
fn the_envelope() {
    for id in ["null", "true", "false", "{}", "[1]"] {
        refused(
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"x"}}}}"#),
            INVALID,
        );
        refused(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#), INVALID);
        refused(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"notifications/initialized"}}"#), INVALID);
    }
    for id in [
        "1",
        "-1",
        "1.5",
        "0",
        "1e3",
        "12345678901234567890",
        "\"7\"",
        "\"\"",
        r#""\u0041\"""#,
        "9007199254740993",
    ] {
        for body in [
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"x"}}}}"#),
            format!(r#"{{"method":"ping" , "id" : {id} , "jsonrpc":"2.0"}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#),
        ] {
            assert_eq!(one(&body).id().map(mcp_jsonrpc::Id::token), Some(id));
        }
    }
    for method in [
        "tools/call",
        "tools/list",
        "ping",
        "custom/thing",
        "notifications",
        "Notifications/x",
        "notifications/",
        "x",
    ] {
        refused(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"name":"x"}}}}"#), INVALID);
    }
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"},"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"},"error":{}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/x","result":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":null}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"x"}}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.00","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":null,"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["x"]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":["ping"]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":""}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping\u0000"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":null,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":1,"params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"params":{},"result":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":1,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":"x"}"#,
    ] {
        refused(body, INVALID);
    }
    for meta in ["null", "[]", "1", "\"x\""] {
        refused(call(&format!(r#"{{"name":"x","_meta":{meta}}}"#)), INVALID);
    }
    refused(call(r#"{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":20260728}}"#), INVALID);
    for arguments in ["null", "[]", "[{}]", "1", "\"{}\"", "true"] {
        refused(call(&format!(r#"{{"name":"x","arguments":{arguments}}}"#)), INVALID);
    }
}

#[test]
fn error_codes_are_those_of_the_protocols() {
    use mcp_jsonrpc::error_code;
    assert_eq!(
        (error_code::PARSE_ERROR, error_code::INVALID_REQUEST, error_code::INTERNAL_ERROR),
        (PARSE, INVALID, -32603)
    );
    assert_eq!((error_code::HEADER_MISMATCH, error_code::UNSUPPORTED_VERSION), (-32020, -32022));
    assert_eq!(error_code::FORBIDDEN, 403);
}

#[test]
fn a_message_is_borrowed_whole() {
    let body = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params": {"name":"x", "arguments": {"a" : 1.0} ,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}} ,"extra":[1]}"#;
    let message = one(body);
    assert_eq!(message.kind(), Kind::Request);
    assert_eq!(
        message.params(),
        Some(
            r#"{"name":"x", "arguments": {"a" : 1.0} ,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#
        )
    );
    assert_eq!(message.arguments(), Some(r#"{"a" : 1.0}"#));
    assert_eq!(message.meta_protocol_version(), Some("2026-07-28"));

    let bare = one(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert_eq!((bare.params(), bare.arguments(), bare.meta_protocol_version()), (None, None, None));
    assert_eq!((bare.params_depth(), bare.params_have_big_integer()), (1, false));
}

#[track_caller]
fn target(method: &str, params: &str, expected: &Target<'_>, is_base: bool, is_task: bool) {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let message = one(&body);
    assert_eq!(message.target(), expected, "{body}");
    assert_eq!(message.known_method().map(Method::name), Some(method));
    assert_eq!(message.is_base_protocol(), is_base, "{body}");
    assert_eq!(message.is_task(), is_task, "{body}");
}

#[test]
fn every_request_method_has_its_target() {
    for method in ["initialize", "ping", "server/discover", "tools/list", "logging/setLevel"] {
        target(method, r#"{"name":"x","uri":"y"}"#, &Target::None, true, false);
    }
    for method in ["prompts/list", "resources/list", "resources/templates/list", "tasks/list"] {
        target(method, r#"{"cursor":"c"}"#, &Target::None, false, false);
    }
    for method in ["tools/call", "prompts/get"] {
        target(method, r#"{"uri":"y","name":"x"}"#, &Target::Name("x".into()), false, false);
    }
    for method in ["resources/read", "resources/subscribe", "resources/unsubscribe"] {
        target(method, r#"{"name":"x","uri":"file:///y"}"#, &Target::Uri("file:///y".into()), false, false);
    }
    for method in ["tasks/get", "tasks/result", "tasks/update", "tasks/cancel"] {
        target(method, r#"{"taskId":"t"}"#, &Target::TaskId("t".into()), true, true);
    }
    let reference =
        r#"{"ref":{"type":"ref/prompt","name":"p","uri":"u"},"argument":{"name":"a","value":"b"}}"#;
    target("completion/complete", reference, &Target::RefPrompt("p".into()), true, false);
    let reference = r#"{"ref":{"uri":"u","type":"ref/resource","name":"p"}}"#;
    target("completion/complete", reference, &Target::RefResource("u".into()), true, false);

    let listen = |resources: &[&'static str], tasks: &[&'static str]| Target::Subscriptions {
        resources: resources.iter().map(|r| (*r).into()).collect(),
        tasks: tasks.iter().map(|t| (*t).into()).collect(),
    };
    let method = "subscriptions/listen";
    target(method, r#"{"notifications":{}}"#, &listen(&[], &[]), true, false);
    target(method, r#"{"notifications":{"toolsListChanged":true}}"#, &listen(&[], &[]), true, false);
    target(
        method,
        r#"{"notifications":{"resourceSubscriptions":[],"taskIds":[ ]}}"#,
        &listen(&[], &[]),
        true,
        false,
    );
    target(
        method,
        r#"{"notifications":{"resourceSubscriptions":["a", "b\u0063", "]"]}}"#,
        &listen(&["a", "bc", "]"], &[]),
        false,
        false,
    );
    target(method, r#"{"notifications":{"taskIds":["t"]}}"#, &listen(&[], &["t"]), false, true);
}

#[test]
fn notifications_and_responses() {
    for method in ["initialized", "cancelled", "progress", "roots/list_changed"]
        .map(|name| format!("notifications/{name}"))
    {
        let body = format!(
            r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":1,"progressToken":2}}}}"#
        );
        let message = one(&body);
        assert_eq!((message.kind(), message.id()), (Kind::Notification, None));
        assert_eq!(message.known_method().map(Method::name), Some(&*method));
        assert!(message.is_base_protocol() && !message.is_task());

        // With an id it is a request, and of no known method.
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        let message = one(&body);
        assert_eq!((message.kind(), message.known_method()), (Kind::Request, None));
        assert!(!message.is_base_protocol());
    }
    let custom = one(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    assert_eq!((custom.kind(), custom.known_method()), (Kind::Notification, None));
    assert!(custom.is_base_protocol());

    for body in [
        r#"{"jsonrpc":"2.0","id":1,"result":{"a":[1]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":"x","error":{"code":-1,"message":"no"}}"#,
    ] {
        let message = one(body);
        assert_eq!((message.kind(), message.method(), message.known_method()), (Kind::Response, "", None));
        assert!(message.id().is_some() && message.is_base_protocol());
    }
}

#[test]
fn nesting_is_bounded_and_counted() {
    // The message is depth 1, `params` 2, `arguments` 3, then one per level.
    let nested = |levels: usize| {
        let arguments = format!("{}{{}}{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        call(&format!(r#"{{"name":"x","arguments":{arguments}}}"#))
    };
    let nested_arrays = |levels: usize| {
        call(&format!(r#"{{"name":"x","arguments":{{"a":{}{}}}}}"#, "[".repeat(levels), "]".repeat(levels)))
    };
    for levels in [0, 1, 29, 30, 61] {
        assert_eq!(one(&nested(levels)).params_depth(), 3 + levels);
        assert_eq!(one(&nested_arrays(levels.max(1))).params_depth(), 3 + levels.max(1));
    }
    refused(nested(62), PARSE);
    refused(nested_arrays(62), PARSE);
    refused(nested(200), PARSE);
    refused(nested(5_000), PARSE);
    refused("[".repeat(100_000), PARSE);
    refused("{\"a\":".repeat(100_000), PARSE);
    refused(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{}{}}}"#, "[".repeat(64), "]".repeat(64)), PARSE);

    // The same in a batch, the array not counted.
    let batch = format!("[{}]", nested(61));
    let Ok(Body::Batch(messages)) = parse(batch.as_bytes(), &Limits::default()) else { panic!("refused") };
    assert_eq!(messages[0].params_depth(), 64);
    refused(format!("[{}]", nested(62)), PARSE);

    assert!(parse(nested(7).as_bytes(), &Limits::default().with_max_depth(10)).is_ok());
    assert!(parse(nested(8).as_bytes(), &Limits::default().with_max_depth(10)).is_err());
    assert!(parse(nested(509).as_bytes(), &Limits::default().with_max_depth(usize::MAX)).is_ok());
    assert!(parse(nested(510).as_bytes(), &Limits::default().with_max_depth(usize::MAX)).is_err());

    // Only what is in `params` counts as theirs.
    let body =
        r#"{"x":[[[[1]]]],"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":[1]},"y":{"b":{"c":{}}}}"#;
    assert_eq!(one(body).params_depth(), 3);
}

#[test]
fn big_integers_in_params_are_noticed() {
    #[track_caller]
    fn check(number: &str, expected: bool) {
        let body = call(&format!(r#"{{"name":"x","arguments":{{"a":[{{"b":{number}}}]}}}}"#));
        assert_eq!(one(&body).params_have_big_integer(), expected, "{number}");
    }
    for small in [
        "0",
        "-1",
        "1.5",
        "9007199254740991",
        "9007199254740992",
        "-9007199254740992",
        "0.12345678901234567890123",
        "1e15",
        "999999999999999.99999",
        "1e-300",
        "0e999",
    ] {
        check(small, false);
    }
    for big in [
        "9007199254740993",
        "-9007199254740993",
        "9007199254740992.0",
        "9007199254740993.0",
        "1e16",
        "9007199254740993e0",
        "18446744073709551615",
        "-9223372036854775808",
        "1e300",
        "9007199254740992.5",
        "123456789012345678901234567890",
    ] {
        check(big, true);
    }
    let id = one(
        r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"x"},"z":1e300}"#,
    );
    assert!(!id.params_have_big_integer());
}

#[test]
fn sizes_are_bounded() {
    let body = call(r#"{"name":"x"}"#);
    let limits = Limits::default().with_max_bytes(body.len());
    assert!(parse(body.as_bytes(), &limits).is_ok());
    for over in [format!("{body} "), "\0".repeat(body.len() + 1)] {
        let error = parse(over.as_bytes(), &limits).unwrap_err();
        assert!(error.is_too_large());
        assert_eq!(parse_json(over.as_bytes(), &limits), Err(error));
    }
    assert_eq!(
        (Limits::default().max_bytes, Limits::default().max_depth, Limits::default().max_batch),
        (1 << 20, 64, 32)
    );
}

#[test]
fn batches() {
    let message = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
    let batch = |messages: &[String]| format!("[{}]", messages.join(","));
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#.to_owned();

    let body = batch(&[message("1"), message("\"1\""), notification.clone(), notification]);
    let Ok(read @ Body::Batch(_)) = parse(body.as_bytes(), &Limits::default()) else { panic!("refused") };
    assert!(read.is_batch());
    assert!(!parse(message("1").as_bytes(), &Limits::default()).unwrap().is_batch());
    assert_eq!(read.messages().len(), 4);
    assert_eq!(read.messages()[1].id().map(mcp_jsonrpc::Id::token), Some("\"1\""));

    for (one, other) in [
        ("1", "1"),
        ("1", "1.0"),
        ("1", "1e0"),
        ("10", "1E+1"),
        ("0", "-0"),
        ("9007199254740992", "9007199254740993"),
        ("\"a\"", "\"a\""),
        ("\"a\"", "\"\\u0061\""),
    ] {
        refused(batch(&[message(one), message("2"), message(other)]), INVALID);
    }
    refused(batch(&[message("1"), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned()]), INVALID);
    refused(batch(&[message("1"), "1".to_owned()]), INVALID);
    refused(batch(&[message("1"), batch(&[message("2")])]), INVALID);
    refused(batch(&[message("1"), "{}".to_owned()]), INVALID);
    refused(batch(&[message("1"), message("null")]), INVALID);
    refused("[", PARSE);
    refused(format!("{} 1", batch(&[message("1")])), PARSE);
    refused(format!("[{},]", message("1")), PARSE);

    let many = |count: usize| batch(&(0..count).map(|n| message(&n.to_string())).collect::<Vec<_>>());
    assert_eq!(parse(many(32).as_bytes(), &Limits::default()).unwrap().messages().len(), 32);
    refused(many(33), INVALID);
    assert!(parse(many(3).as_bytes(), &Limits::default().with_max_batch(2)).is_err());
}

#[test]
fn a_service_receives_any_strict_json_and_strict_mcp_only() {
    #[track_caller]
    fn other(body: &str) {
        assert_eq!(parse_json(body.as_bytes(), &Limits::default()), Ok(Json::Other), "{body}");
    }
    #[track_caller]
    fn refused(body: &str, code: i64) {
        let error = parse_json(body.as_bytes(), &Limits::default()).expect_err(body);
        assert_eq!(error.code(), code, "{body}");
    }
    for body in [
        "1",
        "\"jsonrpc\"",
        "{}",
        "[]",
        r#"{"id":1,"result":{}}"#,
        r#"{"Id":1,"ID":2,"result":1,"Result":null}"#,
        r#"{"data":{"jsonrpc":"2.0","method":"tools/call"}}"#,
        r#"[[{"jsonrpc":"2.0"}]]"#,
        r#"{"methods":1,"param":2,"json":3}"#,
        r#"[1,{"a":1},"x"]"#,
    ] {
        other(body);
    }
    other(&format!("[{}]", vec!["{}"; 1000].join(",")));
    for body in [
        r#"{"method":"GET"}"#,
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"params":[]}"#,
        r#"{"params":{"name":"x"}}"#,
        r#"{"METHOD":"tools/call"}"#,
        r#"{"param\u017f":1}"#,
        r#"{"method\u0000":1}"#,
        r#"{"\u0001json\u0002rpc":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},1]"#,
        r#"[1,{"method":"ping"}]"#,
        r#"[{"a":1},{"Params":1}]"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"id":2}]"#,
    ] {
        refused(body, INVALID);
    }
    let hidden = format!("[{},{}]", vec!["{}"; 100].join(","), r#"{"method":"tools/call"}"#);
    refused(&hidden, INVALID);
    for body in [r#"{"a":1,"a":2}"#, r#"["\ud800"]"#, "1e400", "[1] 2", "{\"a\":NaN}"] {
        refused(body, PARSE);
    }
    let call = call(r#"{"name":"x"}"#);
    assert!(matches!(parse_json(call.as_bytes(), &Limits::default()), Ok(Json::Mcp(Body::One(_)))));
    let batch = format!("[{call}]");
    assert!(matches!(parse_json(batch.as_bytes(), &Limits::default()), Ok(Json::Mcp(Body::Batch(_)))));
}

#[test]
fn errors_say_what_to_do_and_repeat_no_more_than_needed() {
    #[track_caller]
    fn check(body: &str, expected: &str) {
        let error = parse(body.as_bytes(), &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    check(&call(r#"{"name":"x","name":"y"}"#), "duplicate key `name`, send each key once (at byte 67)");
    check(
        &call(r#"{"name":"x","Name":"y"}"#),
        "key `Name` could be taken for `name`, spell it so or leave it out (at byte 67)",
    );
    check("{\"a\" 1}", "not strict JSON, expected `:` (at byte 5)");
    check(r#"{"jsonrpc":"2.0","method":"ping"}"#, "a request needs an `id` (at byte 0)");
    let long = format!("{{\"{0}\\n\":1,\"{0}\\n\":2}}", "k".repeat(10_000));
    assert!(parse(long.as_bytes(), &Limits::default()).unwrap_err().to_string().len() < 200);
}

#[test]
fn every_fault_is_named_with_its_place() {
    #[track_caller]
    fn check(body: impl AsRef<[u8]>, expected: &str, at: usize) {
        let limits = Limits::default().with_max_bytes(40).with_max_depth(2).with_max_batch(1);
        let error = parse(body.as_ref(), &limits).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.offset()), (expected, at));
    }
    check("1".repeat(41), "the body is over the limit of 40 bytes, send a smaller one", 40);
    check(b"{\"a\":\"\xff\"}", "invalid UTF-8, encode the body in UTF-8 (at byte 6)", 6);
    check("\u{feff}{}", "a byte-order mark, leave it out (at byte 0)", 0);
    check("{} {}", "more than one JSON value, send one only (at byte 3)", 3);
    check("\"a\n\"", "a control character in a string, escape it (at byte 2)", 2);
    check(r#""a\ud800""#, "an unpaired surrogate escape, send both halves or none (at byte 2)", 2);
    check(r#""a\udc00""#, "an unpaired surrogate escape, send both halves or none (at byte 2)", 2);
    check("[1e400]", "a number that overflows a double, send it as a string (at byte 1)", 1);
    check(r#"{"a":[[1]]}"#, "nesting over the limit of 2, flatten the value (at byte 6)", 6);
    check("[{},{}]", "a batch of more than 1 messages, split it (at byte 4)", 4);
    check("[{},1]", "a batch holds message objects only (at byte 4)", 4);
    check(" []", "an empty batch, send at least one message (at byte 0)", 0);
    check("1", "not an MCP message, send a JSON-RPC object (at byte 0)", 0);
    for (body, expected, at) in [
        ("", "a value", 0),
        ("tru", "a value", 0),
        ("{a", "a key in double quotes", 1),
        (r#"{"a" 1}"#, "`:`", 5),
        (r#"{"a":1 2}"#, "`,` or `}`", 7),
        ("[1 2]", "`,` or `]`", 3),
        ("\"a", "the end of a string", 2),
        (r#""\x""#, "a JSON escape", 1),
        (r#""\u00g0""#, r"four hexadecimal digits after `\u`", 1),
        ("-", "a digit", 1),
        ("1.e", "a digit", 2),
        ("1e+", "a digit", 3),
    ] {
        check(body, &format!("not strict JSON, expected {expected} (at byte {at})"), at);
    }
}

#[test]
fn work_is_linear_in_the_body() {
    // Each would take minutes if a step were quadratic.
    let limits = Limits::default().with_max_bytes(64 << 20);
    let keys: Vec<String> = (0..400_000).map(|n| format!("\"{n}\":0")).collect();
    tool_of(&call(&format!(r#"{{"name":"x","arguments":{{{}}}}}"#, keys.join(","))), &limits);
    let small: Vec<String> = (0..40_000).map(|n| format!("{{{}}}", keys[n..n + 20].join(","))).collect();
    tool_of(
        &call(&format!(
            r#"{{"name":"x","arguments":{{"a":[{{{}}},{}]}}}}"#,
            keys[..100_000].join(","),
            small.join(",")
        )),
        &limits,
    );
    let digits = format!(r#"{{"name":"x","arguments":{{"a":0.{}e5}}}}"#, "1".repeat(5_000_000));
    tool_of(&call(&digits), &limits);
    tool_of(&call(&format!(r#"{{"name":"x","arguments":{{"a":"{}"}}}}"#, "\\n".repeat(5_000_000))), &limits);
    let uris = vec!["\"u\""; 500_000].join(",");
    let listen = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"notifications":{{"resourceSubscriptions":[{uris}]}}}}}}"#
    );
    assert!(parse(listen.as_bytes(), &limits).is_ok());

    #[track_caller]
    fn tool_of(body: &str, limits: &Limits) {
        let read = parse(body.as_bytes(), limits);
        assert_eq!(read.map(|body| body.messages()[0].target().clone()), Ok(Target::Name("x".into())));
    }
}
