//! Headers that mirror the body (SEP-2243), and what each revision admits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking, in its helpers too"
)]

use mcp_jsonrpc::{Limits, MirroredHeaders, Revision, parse};

const MISMATCH: i64 = -32020;
const VERSION: i64 = -32022;
const INVALID: i64 = -32600;

/// `version`, `method`, `name`: the lines of each header.
#[track_caller]
fn check_lines(
    version: &[&str],
    method: &[&str],
    name: &[&[u8]],
    body: &str,
    expected: Result<Revision, (i64, bool)>,
) {
    let version: Vec<&[u8]> = version.iter().map(|line| line.as_bytes()).collect();
    let method: Vec<&[u8]> = method.iter().map(|line| line.as_bytes()).collect();
    let headers = MirroredHeaders { protocol_version: &version, method: &method, name };
    let body = parse(body.as_bytes(), &Limits::default()).expect("a readable body");
    let got = headers.check(&body);
    if let Err(error) = &got {
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(got.map_err(|error| (error.code(), error.has_request_id())), expected);
}

#[track_caller]
fn check(version: &str, method: &str, name: &str, body: &str, expected: Result<Revision, (i64, bool)>) {
    check_lines(&[version], &[method], &[name.as_bytes()], body, expected);
}

fn modern(method: &str, params: &str) -> String {
    let comma = if params.is_empty() { "" } else { "," };
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}{comma}"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

fn legacy(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}

const STATELESS: Result<Revision, (i64, bool)> = Ok(Revision::V2026_07_28);
const DIFFERS: Result<Revision, (i64, bool)> = Err((MISMATCH, true));

#[test]
fn revisions() {
    #[track_caller]
    fn check(lines: &[&[u8]], expected: Result<Revision, i64>) {
        let headers = MirroredHeaders { protocol_version: lines, ..MirroredHeaders::default() };
        assert_eq!(headers.revision().map_err(|error| error.code()), expected);
    }
    for (name, revision) in [
        ("2024-11-05", Revision::V2024_11_05),
        ("2025-03-26", Revision::V2025_03_26),
        ("2025-06-18", Revision::V2025_06_18),
        ("2025-11-25", Revision::V2025_11_25),
        ("2026-07-28", Revision::V2026_07_28),
    ] {
        check(&[name.as_bytes()], Ok(revision));
        check(&[format!(" \t{name}\t ").as_bytes()], Ok(revision));
        assert_eq!((revision.name(), Revision::from_name(name)), (name, Some(revision)));
        assert_eq!(revision.is_stateless(), name == "2026-07-28");
        assert_eq!(revision.has_batches(), name == "2025-03-26");
    }
    check(&[], Ok(Revision::V2025_03_26));
    for unknown in [
        "",
        " ",
        "2025-06-19",
        "2027-01-01",
        "DRAFT-2026",
        "2025-06-18 x",
        "2025-06-18,2025-11-25",
        "\u{a0}2025-06-18",
    ] {
        check(&[unknown.as_bytes()], Err(VERSION));
    }
    check(&[b"2025-06-18\xff"], Err(VERSION));
    check(&[b"\n2025-06-18"], Err(VERSION));
    check(&[b"2025-06-18", b"2025-06-18"], Err(MISMATCH));
    check(&[b"2025-06-18", b"2026-07-28"], Err(MISMATCH));
}

#[test]
fn stateless_headers_agree_with_the_body() {
    let call = modern("tools/call", r#""name":"get-sum""#);
    let version = "2026-07-28";
    check(version, "tools/call", "get-sum", &call, STATELESS);
    check(" 2026-07-28", "\ttools/call ", "  get-sum\t", &call, STATELESS);
    check(version, "tools/call", "=?base64?Z2V0LXN1bQ==?=", &call, STATELESS);

    for name in [
        "echo",
        "Get-Sum",
        "",
        "get-sum x",
        "\"get-sum\"",
        "=?BASE64?Z2V0LXN1bQ==?=",
        "=?base64?Z2V0LXN1bQ?=",
        "=?base64?Z2V0LXN1bR==?=",
        "=?base64?Z2V0LXN1bQ==",
        "=?base64? Z2V0LXN1bQ== ?=",
        "=?base64?!?=",
        "=?base64??=",
        "=?base64?=",
        "=?base64?ZWNobw==?=",
    ] {
        check(version, "tools/call", name, &call, DIFFERS);
    }
    for method in ["tools/list", "TOOLS/CALL", "", "=?base64?dG9vbHMvY2FsbA==?="] {
        check(version, method, "get-sum", &call, DIFFERS);
    }
    check_lines(&[version], &[], &[b"get-sum"], &call, DIFFERS);
    check_lines(&[version], &["tools/call"], &[], &call, DIFFERS);
    check_lines(&[version], &["tools/call", "tools/call"], &[b"get-sum"], &call, DIFFERS);
    check_lines(&[version], &["tools/call"], &[b"get-sum", b"get-sum"], &call, DIFFERS);
    check_lines(&[version], &["tools/call"], &[b"get-sum", b"echo"], &call, DIFFERS);
    check_lines(&[version, version], &["tools/call"], &[b"get-sum"], &call, DIFFERS);

    // The decoded value counts on both sides; what is not ASCII must be encoded.
    check(version, "tools/call", "danger", &modern("tools/call", r#""name":"d\u0061nger""#), STATELESS);
    let accent = modern("tools/call", "\"name\":\"é\"");
    check(version, "tools/call", "=?base64?w6k=?=", &accent, STATELESS);
    check_lines(&[version], &["tools/call"], &["é".as_bytes()], &accent, DIFFERS);
    check_lines(&[version], &["tools/call"], &[b"\xe9"], &accent, DIFFERS);
    let encoded = modern("tools/call", r#""name":"=?base64?ZWNobw==?=""#);
    check(version, "tools/call", "=?base64?ZWNobw==?=", &encoded, DIFFERS);
    check(version, "tools/call", "=?base64?PT9iYXNlNjQ/WldOb2J3PT0/PQ==?=", &encoded, STATELESS);
    let spaced = modern("tools/call", r#""name":" x ""#);
    check(version, "tools/call", " x ", &spaced, DIFFERS);
    check(version, "tools/call", "=?base64?IHgg?=", &spaced, STATELESS);
}

#[test]
fn every_method_mirrors_its_own_field() {
    let version = "2026-07-28";
    for (method, params, name) in [
        ("tools/call", r#""name":"x","uri":"other""#, "x"),
        ("prompts/get", r#""name":"x""#, "x"),
        ("resources/read", r#""uri":"file:///x","name":"other""#, "file:///x"),
        ("tasks/get", r#""taskId":"t""#, "t"),
        ("tasks/update", r#""taskId":"t""#, "t"),
        ("tasks/cancel", r#""taskId":"t""#, "t"),
    ] {
        let body = modern(method, params);
        check(version, method, name, &body, STATELESS);
        check(version, method, "other", &body, DIFFERS);
        check_lines(&[version], &[method], &[], &body, DIFFERS);
    }
    for (method, params) in [
        ("tools/list", ""),
        ("server/discover", ""),
        ("prompts/list", ""),
        ("logging/setLevel", r#""level":"info""#),
        ("completion/complete", r#""ref":{"type":"ref/prompt","name":"x"}"#),
        ("subscriptions/listen", r#""notifications":{"taskIds":["x"]}"#),
        ("custom/method", r#""name":"x""#),
    ] {
        let body = modern(method, params);
        check_lines(&[version], &[method], &[], &body, STATELESS);
        check_lines(&[version], &[], &[], &body, DIFFERS);
        check(version, method, "x", &body, DIFFERS);
        check(version, method, "", &body, DIFFERS);
        check(version, method, "=?base64?!?=", &body, DIFFERS);
        check_lines(&[version], &[method], &[b"\xff"], &body, DIFFERS);
    }
    // Not demanded by the specification, but it must not lie.
    let subscribe = modern("resources/subscribe", r#""uri":"u""#);
    check_lines(&[version], &["resources/subscribe"], &[], &subscribe, STATELESS);
    check(version, "resources/subscribe", "u", &subscribe, STATELESS);
    check(version, "resources/subscribe", "v", &subscribe, DIFFERS);
}

#[test]
fn the_version_stands_in_header_and_body_or_in_neither() {
    let version = "2026-07-28";
    let call = modern("tools/call", r#""name":"x""#);
    for legacy in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        check(legacy, "tools/call", "x", &call, DIFFERS);
        let same = call.replace(version, legacy);
        check(legacy, "tools/call", "x", &same, DIFFERS);
        check(version, "tools/call", "x", &same, DIFFERS);
    }
    check_lines(&[], &["tools/call"], &[b"x"], &call, DIFFERS);
    check(version, "tools/call", "x", &legacy("tools/call", r#""name":"x""#), DIFFERS);
    check(version, "tools/call", "x", &legacy("tools/call", r#""name":"x","_meta":{}"#), DIFFERS);
    check(version, "tools/call", "x", &call.replace(version, "2026-07-28 "), DIFFERS);
    check("1.0", "tools/call", "x", &call, Err((VERSION, true)));
    check_lines(
        &[version],
        &["tools/list"],
        &[],
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
        DIFFERS,
    );
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    check_lines(&[version], &["notifications/x"], &[], notification, DIFFERS);
    let notification = modern("notifications/x", "").replace(r#""id":1,"#, "");
    check_lines(&[version], &["notifications/x"], &[], &notification, STATELESS);
    check_lines(&[version], &["notifications/y"], &[], &notification, DIFFERS);
}

#[test]
fn older_revisions_do_not_look_at_mirrored_headers() {
    let call = legacy("tools/call", r#""name":"echo""#);
    check("2025-11-25", "tools/list", "get-sum", &call, Ok(Revision::V2025_11_25));
    check_lines(&[], &["nonsense"], &[b"\xff"], &call, Ok(Revision::V2025_03_26));
    // But twice the same header is nothing that an older client sends either.
    check_lines(&["2025-11-25"], &[], &[b"echo", b"echo"], &call, DIFFERS);
    check_lines(&["2025-11-25"], &["a", "a"], &[], &call, DIFFERS);
    check_lines(&["2025-11-25", "2025-11-25"], &[], &[], &call, DIFFERS);
}

#[test]
fn what_2026_07_28_removed() {
    let version = "2026-07-28";
    for method in ["initialize", "ping"] {
        check_lines(&[version], &[method], &[], &modern(method, ""), Err((INVALID, true)));
        for older in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
            let revision = Revision::from_name(older).unwrap();
            check_lines(&[older], &[], &[], &legacy(method, ""), Ok(revision));
        }
        check_lines(&[], &[], &[], &legacy(method, ""), Ok(Revision::V2025_03_26));
    }
    for response in [
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#,
    ] {
        check_lines(&[version], &[], &[], response, Err((INVALID, false)));
        check_lines(&["2025-11-25"], &[], &[], response, Ok(Revision::V2025_11_25));
    }
}

#[test]
fn batches_belong_to_one_revision() {
    let call = legacy("tools/call", r#""name":"x""#);
    let batch = format!("[{call}]");
    check_lines(&[], &[], &[], &batch, Ok(Revision::V2025_03_26));
    check_lines(&["2025-03-26"], &[], &[], &batch, Ok(Revision::V2025_03_26));
    for version in ["2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28"] {
        check_lines(&[version], &["tools/call"], &[b"x"], &batch, Err((INVALID, false)));
    }
    let modern = format!("[{}]", modern("tools/call", r#""name":"x""#));
    check_lines(&["2026-07-28"], &["tools/call"], &[b"x"], &modern, Err((INVALID, false)));
    check_lines(&[], &[], &[], &modern, DIFFERS);
    let second = format!("[{},{}]", call, modern.trim_matches(['[', ']']).replace("\"id\":1", "\"id\":2"));
    check_lines(&[], &[], &[], &second, DIFFERS);
    check_lines(&[], &[], &[], &format!("[{}]", legacy("initialize", "")), Err((INVALID, false)));
}
