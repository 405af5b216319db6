use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn option(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderLine { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() }),
        ..Default::default()
    }
}

fn action(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption { append_action: action.into(), ..option(key, value) }
}

#[expect(deprecated, reason = "older authorizers answer with it")]
fn append(key: &str, value: &str, append: bool) -> HeaderValueOption {
    HeaderValueOption { append: Some(BoolValue { value: append }), ..option(key, value) }
}

fn response(code: i32, http_response: Option<HttpResponse>) -> CheckResponse {
    CheckResponse {
        status: Some(Status { code, message: "because".to_owned(), details: Vec::new() }),
        dynamic_metadata: None,
        http_response,
    }
}

fn ok(ok: OkHttpResponse) -> CheckResponse {
    response(0, Some(HttpResponse::OkResponse(ok)))
}

fn denied(status: i32) -> DeniedHttpResponse {
    DeniedHttpResponse { status: Some(HttpStatus { code: status }), ..Default::default() }
}

#[track_caller]
fn allowed(verdict: Verdict) -> Allowed {
    let Verdict::Allowed(allowed) = verdict else { panic!("{verdict:?}") };
    allowed
}

#[track_caller]
fn denial(verdict: Verdict) -> Denied {
    let Verdict::Denied(denied) = verdict else { panic!("{verdict:?}") };
    denied
}

fn set(name: &'static str, value: &'static str) -> HeaderChange {
    HeaderChange::Set(HeaderName::from_static(name), HeaderValue::from_static(value))
}

fn add(name: &'static str, value: &'static str) -> HeaderChange {
    HeaderChange::Append(HeaderName::from_static(name), HeaderValue::from_static(value))
}

#[test]
fn status_and_response_must_agree() {
    #[track_caller]
    fn check(response: CheckResponse, expected: Result<(), Option<u16>>) {
        let got = match to_verdict(response) {
            Verdict::Allowed(_) => Ok(()),
            Verdict::Denied(denied) => Err(Some(denied.status.as_u16())),
            Verdict::Unreachable(_) => Err(None),
        };
        assert_eq!(got, expected);
    }
    let okay = || Some(HttpResponse::OkResponse(OkHttpResponse::default()));
    let no = |status| Some(HttpResponse::DeniedResponse(denied(status)));
    check(response(0, None), Ok(()));
    check(response(0, okay()), Ok(()));
    check(response(7, None), Err(Some(403)));
    check(response(16, None), Err(Some(403)));
    check(response(7, no(401)), Err(Some(401)));
    check(response(0, no(401)), Err(Some(401)));
    check(response(7, okay()), Err(Some(403)));
    check(response(-1, okay()), Err(Some(403)));
    check(CheckResponse::default(), Err(None));
    check(CheckResponse { status: None, ..response(0, okay()) }, Err(None));
    check(CheckResponse { status: None, ..response(0, no(403)) }, Err(None));
    for code in [0, 13] {
        check(response(code, Some(HttpResponse::ErrorResponse(denied(200)))), Err(None));
    }
    check(response(7, Some(HttpResponse::DeniedResponse(DeniedHttpResponse::default()))), Err(Some(403)));
    for (status, expected) in [
        (0, 403),
        (-1, 403),
        (100, 403),
        (101, 403),
        (200, 403),
        (204, 403),
        (299, 403),
        (300, 300),
        (302, 302),
        (404, 404),
        (429, 429),
        (500, 500),
        (503, 503),
        (599, 599),
        (600, 403),
        (777, 403),
        (65_936, 403),
    ] {
        check(response(7, no(status)), Err(Some(expected)));
    }
}

#[test]
fn request_headers() {
    use HeaderAppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists, OverwriteIfExistsOrAdd};
    let answer = allowed(to_verdict(ok(OkHttpResponse {
        headers: vec![
            option("X-Default", "1"),
            append("x-append", "2", true),
            append("x-set", "3", false),
            action("x-default-action", "4", AppendIfExistsOrAdd),
            action("x-absent", "5", AddIfAbsent),
            action("x-overwrite", "6", OverwriteIfExistsOrAdd),
            action("x-exists", "7", OverwriteIfExists),
            option("authorization", "Bearer other"),
            option("host", "evil"),
            option("HOST", "evil"),
            option(":authority", "evil"),
            option(":path", "/evil"),
            option("Mcp-Session-Id", "evil"),
            option("content-length", "0"),
            append("transfer-encoding", "chunked", true),
            option("connection", "x"),
            option("x-forwarded-client-cert", "URI=spiffe://evil/x"),
        ],
        headers_to_remove: [
            "X-Gone",
            "host",
            ":path",
            "mcp-method",
            "content-type",
            "te",
            "x-forwarded-client-cert",
        ]
        .map(ToOwned::to_owned)
        .to_vec(),
        ..Default::default()
    })));
    let name = HeaderName::from_static;
    let value = HeaderValue::from_static;
    assert_eq!(
        answer.request_headers,
        [
            set("x-default", "1"),
            add("x-append", "2"),
            set("x-set", "3"),
            set("x-default-action", "4"),
            HeaderChange::AddIfAbsent(name("x-absent"), value("5")),
            set("x-overwrite", "6"),
            HeaderChange::SetIfPresent(name("x-exists"), value("7")),
            set("authorization", "Bearer other"),
            HeaderChange::Remove(name("x-gone")),
        ]
    );
}

#[test]
fn the_rest_of_an_allowing_answer() {
    let metadata = |id| Struct { fields: [("decision_id".to_owned(), json::string(id))].into() };
    let full = OkHttpResponse {
        response_headers_to_add: vec![
            option("set-cookie", "a"),
            append("x-one", "1", false),
            option("mcp-session-id", "x"),
        ],
        query_parameters_to_set: vec![QueryParameter { key: "k".to_owned(), value: "v".to_owned() }],
        query_parameters_to_remove: vec!["gone".to_owned()],
        ..Default::default()
    };
    let answer = allowed(to_verdict(CheckResponse { dynamic_metadata: Some(metadata("d-1")), ..ok(full) }));
    let expected = Allowed {
        request_headers: Vec::new(),
        response_headers: vec![add("set-cookie", "a"), set("x-one", "1")],
        query_set: vec![("k".to_owned(), "v".to_owned())],
        query_remove: vec!["gone".to_owned()],
        decision_id: Some("d-1".to_owned()),
    };
    assert_eq!(answer, expected);
    // In the older place, and without any http_response.
    #[expect(deprecated, reason = "older authorizers answer with it")]
    let older = OkHttpResponse { dynamic_metadata: Some(metadata("d-2")), ..Default::default() };
    assert_eq!(allowed(to_verdict(ok(older))).decision_id.as_deref(), Some("d-2"));
    let bare = CheckResponse { dynamic_metadata: Some(metadata("d-3")), ..response(0, None) };
    assert_eq!(allowed(to_verdict(bare)).decision_id.as_deref(), Some("d-3"));
}

#[test]
fn nonsense_in_an_answer() {
    #[track_caller]
    fn check(ok_response: OkHttpResponse) {
        let verdict = to_verdict(ok(ok_response));
        assert!(matches!(verdict, Verdict::Unreachable(Unreachable::Nonsense(_))), "{verdict:?}");
    }
    let both = HeaderValueOption {
        header: Some(HeaderLine { key: "x".to_owned(), value: "a".to_owned(), raw_value: b"b".to_vec() }),
        ..Default::default()
    };
    let unknown_action = HeaderValueOption { append_action: 9, ..option("x", "y") };
    for bad in [
        option("", "x"),
        option("a b", "x"),
        option("a\n", "x"),
        option("x", "a\r\nevil: 1"),
        option("x", "\0"),
        HeaderValueOption::default(),
        both,
        unknown_action,
    ] {
        check(OkHttpResponse { headers: vec![option("x-good", "1"), bad.clone()], ..Default::default() });
        check(OkHttpResponse { response_headers_to_add: vec![bad.clone()], ..Default::default() });
        let denied = DeniedHttpResponse { headers: vec![bad], ..denied(401) };
        let verdict = to_verdict(response(7, Some(HttpResponse::DeniedResponse(denied))));
        assert!(matches!(verdict, Verdict::Unreachable(Unreachable::Nonsense(_))), "{verdict:?}");
    }
    check(OkHttpResponse { headers_to_remove: vec!["a b".to_owned()], ..Default::default() });
    let many = || (0..257).map(|index| option(&format!("x-{index}"), "1")).collect::<Vec<_>>();
    check(OkHttpResponse { headers: many(), ..Default::default() });
    check(OkHttpResponse { response_headers_to_add: many(), ..Default::default() });
    check(OkHttpResponse { headers_to_remove: vec!["x".to_owned(); 257], ..Default::default() });
    check(OkHttpResponse { query_parameters_to_remove: vec![String::new(); 257], ..Default::default() });
    let query = vec![QueryParameter::default(); 257];
    check(OkHttpResponse { query_parameters_to_set: query, ..Default::default() });
}

#[test]
fn denials_keep_what_clients_need() {
    let full = DeniedHttpResponse {
        headers: vec![
            option("WWW-Authenticate", "Bearer realm=x"),
            option("set-cookie", "a"),
            option("set-cookie", "b"),
            option("location", "https://login.example/"),
            option("content-type", "application/json"),
            append("x-one", "1", true),
            append("x-one", "2", false),
            option("content-length", "999"),
            option("transfer-encoding", "chunked"),
            option("connection", "x-hop"),
            option("x-hop", "1"),
            option("mcp-session-id", "evil"),
            option(":status", "200"),
            option("x-ext-auth-reason", "no credentials"),
        ],
        body: "{}".to_owned(),
        ..denied(401)
    };
    let answer = denial(to_verdict(response(16, Some(HttpResponse::DeniedResponse(full)))));
    let mut headers: Vec<_> =
        answer.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            ("content-type", "application/json"),
            ("location", "https://login.example/"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("www-authenticate", "Bearer realm=x"),
            ("x-ext-auth-reason", "no credentials"),
            ("x-one", "2"),
        ]
    );
    assert_eq!((answer.status, &*answer.body), (StatusCode::UNAUTHORIZED, b"{}".as_slice()));
    assert_eq!(answer.reason.as_deref(), Some("no credentials"));
    assert!(!answer.is_plain_forbidden());

    let bare = denial(to_verdict(response(7, None)));
    assert_eq!(bare.reason.as_deref(), Some("because"));
    assert!(bare.is_plain_forbidden());
}

#[test]
fn decisions_survive_the_wire() {
    let name = HeaderName::from_static;
    let value = HeaderValue::from_static;
    let yes = Allowed {
        request_headers: vec![
            set("x-set", "1"),
            add("x-append", "2"),
            HeaderChange::AddIfAbsent(name("x-absent"), value("3")),
            HeaderChange::SetIfPresent(name("x-exists"), value("4")),
            HeaderChange::Set(name("x-raw"), HeaderValue::from_bytes(b"\xff").unwrap()),
            HeaderChange::Remove(name("x-gone")),
        ],
        response_headers: vec![add("set-cookie", "a"), set("x-one", "1")],
        query_set: vec![("k".to_owned(), "v".to_owned())],
        query_remove: vec!["gone".to_owned()],
        decision_id: Some("d".to_owned()),
    };
    assert_eq!(to_verdict(from_decision(Ok(yes.clone()))), Verdict::Allowed(yes));
    let mut headers = HeaderMap::new();
    headers.append("www-authenticate", value("Bearer"));
    headers.append("set-cookie", value("a"));
    headers.append("set-cookie", value("b"));
    for (status, code) in [(StatusCode::UNAUTHORIZED, 16), (StatusCode::FORBIDDEN, 7), (StatusCode::FOUND, 7)]
    {
        let no = Denied {
            status,
            headers: headers.clone(),
            body: "why".into(),
            reason: Some("because".to_owned()),
        };
        let response = from_decision(Err(no.clone()));
        assert_eq!(response.status.as_ref().map(|status| status.code), Some(code));
        assert_eq!(to_verdict(response), Verdict::Denied(no));
    }
}

fn any_name() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "host",
        "Host",
        ":path",
        ":authority",
        ":",
        "mcp-session-id",
        "MCP-Name",
        "content-length",
        "Content-Type",
        "connection",
        "keep-alive",
        "Proxy-Authorization",
        "te",
        "trailer",
        "Transfer-Encoding",
        "upgrade",
        "X-Forwarded-Client-Cert",
        "x-user",
        "authorization",
        "",
    ];
    prop_oneof![3 => prop::sample::select(KNOWN).prop_map(ToOwned::to_owned), 1 => "[a-z-]{1,8}", 1 => ".{0,4}"]
}

prop_compose! {
    #[expect(deprecated, reason = "older authorizers answer with it")]
    fn any_option()(
        key in any_name(),
        value in prop_oneof![3 => "[a-z]{0,3}", 1 => ".{0,3}"],
        raw_value in prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..3)],
        append in prop::option::of(any::<bool>()),
        append_action in 0..6i32,
        some in prop::bool::weighted(0.98),
    ) -> HeaderValueOption {
        HeaderValueOption {
            header: some.then_some(HeaderLine { key, value, raw_value }),
            append: append.map(|value| BoolValue { value }),
            append_action,
            keep_empty_value: false,
        }
    }
}

prop_compose! {
    fn any_response()(
        code in prop_oneof![Just(None), Just(Some(0)), any::<i32>().prop_map(Some)],
        kind in 0..4,
        headers in prop::collection::vec(any_option(), 0..4),
        added in prop::collection::vec(any_option(), 0..4),
        removed in prop::collection::vec(any_name(), 0..4),
        status in prop::option::of(prop_oneof![any::<i32>(), 0..700]),
    ) -> CheckResponse {
        let http_response = match kind {
            0 => None,
            1 => Some(HttpResponse::OkResponse(OkHttpResponse {
                headers,
                headers_to_remove: removed,
                response_headers_to_add: added,
                ..Default::default()
            })),
            kind => {
                let denied = DeniedHttpResponse {
                    status: status.map(|code| HttpStatus { code }),
                    headers,
                    body: String::new(),
                };
                Some(if kind == 2 { HttpResponse::DeniedResponse(denied) } else { HttpResponse::ErrorResponse(denied) })
            }
        };
        let status = code.map(|code| Status { code, ..Default::default() });
        CheckResponse { status, dynamic_metadata: None, http_response }
    }
}

/// Written from the rules' text, not from the code: what no answer may touch.
fn is_forbidden(name: &str) -> bool {
    let listed = [
        "host",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-client-cert",
    ];
    listed.contains(&name)
        || ["mcp-", "content-", "proxy-", ":"].iter().any(|prefix| name.starts_with(prefix))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_answer_oversteps(response in any_response()) {
        let says_ok = response.status.as_ref().is_some_and(|status| status.code == 0)
            && matches!(response.http_response, None | Some(HttpResponse::OkResponse(_)));
        match to_verdict(response) {
            Verdict::Allowed(allowed) => {
                prop_assert!(says_ok);
                for change in allowed.request_headers.iter().chain(&allowed.response_headers) {
                    prop_assert!(!is_forbidden(change.name().as_str()), "{change:?}");
                }
            }
            Verdict::Denied(denied) => {
                prop_assert!((300..=599).contains(&denied.status.as_u16()));
                for name in denied.headers.keys() {
                    prop_assert!(!is_forbidden(name.as_str()) || name == "content-type", "{name}");
                }
            }
            Verdict::Unreachable(_) => {}
        }
    }

    /// No bytes that say no status `OK` allow: seen without a decoder, field 1 (`0a`) must be there.
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(response) = CheckResponse::decode(&*bytes)
            && let Verdict::Allowed(_) = to_verdict(response)
        {
            prop_assert!(bytes.contains(&0x0a));
        }
    }
}
