//! The v1alpha1 shape.
use authz_core::{
    BackendKind::Service,
    DefaultAction,
    Effect::{self, Allow, Delegate, Deny},
    Engine, Reason,
};
use policy_model::{
    Condition, HeaderMatch, HostMatch, HttpMethod, Inline, McpMatch, McpMethodMatch, PathMatch, Source,
    StringMatch,
};

use crate::common::*;

fn inline(inline: Inline) -> Condition {
    Condition::Inline(Box::new(inline))
}

/// `methods` as `name` or `name=param,param`.
fn mcp(base: bool, methods: Option<&[&str]>) -> Condition {
    let method = |text: &&str| match text.split_once('=') {
        Some((name, params)) => {
            McpMethodMatch { name: name.into(), params: Some(params.split(',').map(str::to_owned).collect()) }
        }
        None => McpMethodMatch { name: (*text).into(), params: None },
    };
    let methods = methods.map(|methods| methods.iter().map(method).collect());
    inline(Inline { mcp: Some(McpMatch { match_base_protocol: base, methods }), ..Inline::default() })
}

fn allowing(condition: Condition) -> Engine {
    compiled([v1("p", 1, on_gateway(), vec![rule("r", Source::Anyone, condition)])]).engine
}

#[test]
fn mcp_methods() {
    let category = mcp(false, Some(&["prompts", "resources/read=file:///a", "tools/call=echo"]));
    for (condition, method, params, expected) in [
        (&category, "prompts/get", r#"{"name":"x"}"#, Allow),
        (&category, "prompts/list", "{}", Allow),
        (&category, "promptsx/get", r#"{"name":"x"}"#, Deny),
        (&category, "prompts", "{}", Deny),
        (&category, "prompts/", "{}", Deny),
        (&category, "resources/read", r#"{"uri":"file:///a"}"#, Allow),
        (&category, "resources/read", r#"{"uri":"file:///b"}"#, Deny),
        (&category, "resources/read", r#"{"uri":"file:///b","name":"file:///a"}"#, Deny),
        (&category, "resources/list", "{}", Deny),
        (&category, "tools/call", r#"{"name":"echo"}"#, Allow),
        (&category, "tools/call", r#"{"name":"echo2"}"#, Deny),
        (&category, "ping", "{}", Deny),
        (&mcp(true, None), "ping", "{}", Allow),
        (&mcp(true, None), "tools/list", "{}", Allow),
        (&mcp(true, None), "tasks/get", r#"{"taskId":"t"}"#, Allow),
        (&mcp(true, None), "tools/call", r#"{"name":"echo"}"#, Deny),
        (&mcp(true, Some(&[])), "ping", "{}", Allow),
        (&mcp(true, Some(&[])), "prompts/list", "{}", Deny),
        (&mcp(false, Some(&[])), "ping", "{}", Deny),
        (&mcp(false, None), "anything/else", "{}", Allow),
        (&mcp(false, Some(&["tools"])), "tools/list", "{}", Allow),
        (&mcp(false, Some(&["tools/call"])), "tools/list", "{}", Deny),
        (&mcp(true, Some(&["tools/call"])), "tools/list", "{}", Allow),
        (&mcp(false, Some(&["resources/subscribe=a,b"])), "resources/subscribe", r#"{"uri":"b"}"#, Allow),
        (&mcp(false, Some(&["resources/subscribe=a,b"])), "resources/unsubscribe", r#"{"uri":"b"}"#, Deny),
    ] {
        let ask = Ask::mcp(Some(AGENT), method, params);
        check(&allowing(condition.clone()), &ask, expected);
        check(&allowing(condition.clone()), &ask.to(Service), expected);
    }
}

#[test]
fn what_is_no_mcp_message() {
    for (carries, any_mcp, base, anything) in [
        (Carries::EventStream, Allow, Allow, Allow),
        (Carries::EndSession, Allow, Allow, Allow),
        (Carries::OtherJson, Deny, Deny, Allow),
        (Carries::NoBody, Deny, Deny, Allow),
        (Carries::Unparsed, Deny, Deny, Allow),
    ] {
        let ask = Ask::new(Some(AGENT), carries);
        check(&allowing(mcp(false, None)), &ask, any_mcp);
        check(&allowing(mcp(true, None)), &ask, base);
        check(&allowing(Condition::Anything), &ask, anything);
    }
    // Never MCP traffic on a Service.
    check(&allowing(mcp(true, None)), &Ask::new(Some(AGENT), Carries::EventStream).to(Service), Deny);
}

#[test]
fn subscriptions_need_every_resource() {
    let listen = |uris: &str| {
        let params = format!(r#"{{"notifications":{{"resourceSubscriptions":[{uris}]}}}}"#);
        Ask::mcp(Some(AGENT), "subscriptions/listen", &params)
    };
    let rules = vec![
        rule("a", Source::Anyone, mcp(false, Some(&["resources/subscribe=a"]))),
        rule("b", Source::Anyone, mcp(false, Some(&["resources/subscribe=b"]))),
    ];
    let engine = compiled([v1("p", 1, on_gateway(), rules)]).engine;
    check(&engine, &listen(r#""a""#), Allow);
    check_by(&engine, &listen(r#""b","a""#), (Allow, Reason::Allowed, Some(("p", Some("b")))));
    check_by(&engine, &listen(r#""a","c""#), (Deny, Reason::NoRuleMatches, None));
    let many: Vec<String> = vec![r#""a""#.to_owned(); 257];
    check(&engine, &listen(&many[..256].join(",")), Allow);
    check(&engine, &listen(&many.join(",")), Deny);
    // In an ExternalAuth policy one is enough.
    let rules = vec![rule("a", Source::Anyone, mcp(false, Some(&["resources/subscribe=a"])))];
    let engine = compiled([ext("e", 1, on_gateway(), rules)]).engine;
    check(&engine, &listen(r#""x","a""#), Delegate);
    check(&engine, &listen(r#""x""#), Allow);
}

#[test]
fn http_parts() {
    let l7 = |part: &dyn Fn(&mut Inline)| {
        let mut all = Inline::default();
        part(&mut all);
        allowing(inline(all))
    };
    let get = Ask { method: "GET".into(), ..Ask::new(Some(AGENT), Carries::NoBody) };
    let at = |path: &str| Ask { path: path.into(), ..get.clone() };
    let methods = l7(&|i| i.methods = Some(vec![HttpMethod("GET".into())]));
    check(&methods, &get, Allow);
    check(&methods, &Ask { method: "HEAD".into(), ..get.clone() }, Deny);
    check(&l7(&|i| i.methods = Some(vec![])), &get, Deny);

    let paths = l7(&|i| {
        i.paths = Some(vec![
            PathMatch::Exact("/svc/a".into()),
            PathMatch::Regex("/svc/[0-9]+|/x".into()),
            PathMatch::Prefix("/svc/p".into()),
            PathMatch::Prefix("/slash/".into()),
        ]);
    });
    for (path, expected) in [
        ("/svc/a", Allow),
        ("/svc/a?q=1", Allow),
        ("/svc/a/b", Deny),
        ("/svc/42", Allow),
        ("/svc/42x", Deny),
        ("/y/svc/42", Deny),
        ("/x", Allow),
        ("/svc/p", Allow),
        ("/svc/p/z", Allow),
        ("/svc/pz", Deny),
        ("/slash", Allow),
        ("/slash/x", Allow),
        ("/slashx", Deny),
        ("/q?/svc/a", Deny),
    ] {
        check(&paths, &at(path), expected);
    }
    let root = l7(&|i| i.paths = Some(vec![PathMatch::Prefix("/".into())]));
    check(&root, &at("/anything"), Allow);
    check(&root, &at("*"), Deny);

    let headers = l7(&|i| {
        i.headers = Some(vec![
            HeaderMatch { name: "x-tenant".into(), value: StringMatch::Exact("a".into()) },
            HeaderMatch { name: "x-env".into(), value: StringMatch::Regex("dev|test".into()) },
        ]);
    });
    let both = get.clone().header("x-tenant", b"a").header("x-env", b"dev");
    check(&headers, &both, Allow);
    check(&headers, &both.clone().header("x-tenant", b"b"), Deny);
    check(&headers, &both.header("x-env", b"test"), Allow);
    check(&headers, &get.clone().header("x-tenant", b"a"), Deny);
    check(&headers, &get.clone().header("x-tenant", b"a").header("x-env", b"devx"), Deny);
    check(&headers, &get.clone().header("x-tenant", b"a").header("x-env", b"\xff"), Deny);

    let hosts = l7(&|i| {
        i.hosts = Some(vec![
            HostMatch::Wildcard("example.com".into()),
            HostMatch::Exact("exact.org".into()),
            HostMatch::Exact("[2001:db8::1]".into()),
        ]);
        i.ports = Some(vec![10001]);
    });
    for (host, port, expected) in [
        ("a.b.example.com:8080", 10001, Allow),
        ("A.EXAMPLE.com", 10001, Allow),
        ("example.com", 10001, Deny),
        (".example.com", 10001, Deny),
        ("xexample.com", 10001, Deny),
        ("a.example.org", 10001, Deny),
        ("a.example.com.evil.org", 10001, Deny),
        ("EXACT.org", 10001, Allow),
        ("exact.org.", 10001, Deny),
        ("user@exact.org", 10001, Deny),
        ("exact.org:x", 10001, Deny),
        ("[::1]:443", 10001, Deny),
        ("[2001:db8::1]:443", 10001, Allow),
        ("[2001:DB8::1]", 10001, Allow),
        ("[2001:db8::1", 10001, Deny),
        ("[2001:db8::1]x", 10001, Deny),
        ("[2001:db8::1]:x", 10001, Deny),
        ("", 10001, Deny),
        ("exact.org", 10003, Deny),
    ] {
        check(&hosts, &Ask { host: host.into(), port, ..get.clone() }, expected);
    }
}

/// `Mcp-Name` and its like say what they like under a revision that does not compare them with the body.
#[test]
fn headers_that_mirror_the_body() {
    let with_revision = |method: &str, params: &str| {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        Ask::mcp(Some(AGENT), method, &format!("{{{params},{meta}}}"))
    };
    let compared = with_revision("tools/call", r#""name":"t""#);
    let not_compared = Ask::call(AGENT, "t");
    for name in ["mcp-name", "mcp-method", "mcp-param-x"] {
        let value = StringMatch::Exact("a".into());
        let conditions = [
            inline(Inline {
                headers: Some(vec![HeaderMatch { name: name.into(), value }]),
                ..Inline::default()
            }),
            cel(&format!("request.headers['{name}'] == 'a'")),
        ];
        for condition in conditions {
            let allowing = allowing(condition.clone());
            let delegating =
                compiled([ext("e", 1, on_gateway(), vec![rule("r", Source::Anyone, condition)])]).engine;
            for (ask, value, allows, delegates) in [
                (&compared, b"a", Allow, Delegate),
                (&compared, b"b", Deny, Allow),
                (&not_compared, b"a", Deny, Delegate),
                (&not_compared, b"b", Deny, Delegate),
            ] {
                let ask = ask.clone().header(name, value);
                check(&allowing, &ask, allows);
                check(&delegating, &ask, delegates);
            }
        }
    }
    // A header of another name is what it is, and one that is missing says nothing.
    let other = |name: &str| {
        let value = StringMatch::Exact("a".into());
        inline(Inline { headers: Some(vec![HeaderMatch { name: name.into(), value }]), ..Inline::default() })
    };
    check(&allowing(other("mcp-other")), &not_compared.clone().header("mcp-other", b"a"), Allow);
    let missing =
        compiled([ext("e", 1, on_gateway(), vec![rule("r", Source::Anyone, other("mcp-name"))])]).engine;
    check(&missing, &not_compared, Allow);
}

#[test]
fn external_auth_counts_what_it_cannot_tell_as_matching() {
    let delegating = |condition| {
        compiled([ext("e", 1, on_gateway(), vec![rule("r", account("agent"), condition)])]).engine
    };
    let call = Ask::call(AGENT, "get-sum");
    let unparsed = Ask::new(Some(AGENT), Carries::Unparsed);
    let listed = mcp(false, Some(&["tools/call=get-sum"]));
    let on_header = inline(Inline {
        headers: Some(vec![HeaderMatch { name: "x".into(), value: StringMatch::Regex("a".into()) }]),
        ..Inline::default()
    });
    let on_host =
        inline(Inline { hosts: Some(vec![HostMatch::Exact("h.example".into())]), ..Inline::default() });
    // Its automaton is so large that a search of a long text is not worth its time.
    let large = "[ab]*a[ab]{1000}c";
    let on_long_header = inline(Inline {
        headers: Some(vec![HeaderMatch { name: "x".into(), value: StringMatch::Regex(large.into()) }]),
        ..Inline::default()
    });
    let on_path = inline(Inline { paths: Some(vec![PathMatch::Regex(large.into())]), ..Inline::default() });
    let long = "ab".repeat(30_000);
    let line = "ab".repeat(500);
    let many_lines = (0..60).fold(call.clone(), |ask, _| ask.header("x", line.as_bytes()));
    for (condition, ask, expected) in [
        (on_long_header.clone(), call.clone().header("x", b"ab"), Allow),
        (on_long_header.clone(), call.clone().header("x", long.as_bytes()), Delegate),
        (on_long_header, many_lines, Delegate),
        (on_path.clone(), Ask { path: "ab".into(), ..call.clone() }, Allow),
        (on_path.clone(), Ask { path: long, ..call.clone() }, Delegate),
        (listed.clone(), call.clone(), Delegate),
        (listed.clone(), Ask::call(AGENT, "echo"), Allow),
        (listed.clone(), Ask::call(OTHER, "get-sum"), Allow),
        (listed.clone(), unparsed.clone(), Delegate),
        (listed, Ask { identity: Some(OTHER.into()), ..unparsed.clone() }, Allow),
        (mcp(false, Some(&[])), unparsed.clone(), Allow),
        (cel("request.mcp.tool_name == 'echo'"), call.clone(), Allow),
        (cel("request.mcp.tool_name == 'get-sum'"), call.clone(), Delegate),
        (cel("request.mcp.arguments.missing == 1"), call.clone(), Delegate),
        (cel("request.headers['missing'] == 'x'"), call.clone(), Delegate),
        (cel("false"), unparsed, Delegate),
        (cel("true"), Ask::mcp(Some(AGENT), "prompts/list", "{}"), Allow),
        (on_header.clone(), call.clone().header("x", b"a"), Delegate),
        (on_header.clone(), call.clone().header("x", b"b"), Allow),
        (on_header, call.clone().header("x", b"\xff"), Delegate),
        (on_host.clone(), Ask { host: "h.example.".into(), ..call.clone() }, Delegate),
        (on_host.clone(), Ask { host: "a..b".into(), ..call.clone() }, Delegate),
        (on_host.clone(), Ask { host: "user@other".into(), ..call.clone() }, Delegate),
        (on_host.clone(), Ask { host: "other:x".into(), ..call.clone() }, Delegate),
        (on_host.clone(), Ask { host: "[::z]".into(), ..call.clone() }, Delegate),
        (on_host.clone(), Ask { host: "[::1]x".into(), ..call.clone() }, Delegate),
        (on_host.clone(), Ask { host: "[::1]:443".into(), ..call.clone() }, Allow),
        (on_host, Ask { host: "other:443".into(), ..call }, Allow),
    ] {
        check(&delegating(condition), &ask, expected);
    }
    // The same is false in an Allow rule.
    let path = format!("{}ac", "ab".repeat(30_000));
    check(&allowing(on_path), &Ask { path, ..Ask::call(AGENT, "get-sum") }, Deny);
    let everything = compiled([ext("e", 1, on_gateway(), vec![])]).engine;
    for carries in [Carries::NoBody, Carries::EventStream, Carries::Unparsed] {
        let ask = Ask::new(None, carries);
        check_by(&everything, &ask, (Delegate, Reason::Delegated, Some(("e", None))));
    }
}

#[test]
fn levels_and_teams() {
    let allow = |name, created, target, who, tool| {
        v1(name, created, target, vec![rule("same-name", account(who), tools(&[tool]))])
    };
    // Two teams on one target.
    let teams = compiled([
        allow("a", 2, on_backend(), "agent", "get-sum"),
        allow("b", 1, on_backend(), "other", "echo"),
    ]);
    for (identity, tool, expected) in
        [(AGENT, "get-sum", Allow), (AGENT, "echo", Deny), (OTHER, "echo", Allow), (OTHER, "get-sum", Deny)]
    {
        check(&teams.engine, &Ask::call(identity, tool), expected);
    }
    // Both levels must allow; local rules deny before anyone is asked.
    let two = vec![
        allow("gw", 1, on_gateway(), "agent", "get-sum"),
        allow("be", 1, on_backend(), "agent", "get-sum"),
        ext("ask-gw", 1, on_gateway(), vec![]),
        ext("ask-be", 1, on_backend(), vec![]),
    ];
    let engine = compiled(two).engine;
    let decision = Ask::call(AGENT, "get-sum").decide(&engine);
    let asked: Vec<_> =
        decision.authorizers().map(|id| engine.authorizer(id).unwrap().backend.object.name.clone()).collect();
    assert_eq!((decision.effect, asked), (Delegate, vec!["ask-gw".into(), "ask-be".into()]));
    let denied = Ask::call(AGENT, "echo").decide(&engine);
    assert_eq!((denied.effect, denied.authorizers().count()), (Deny, 0));
    check_by(
        &engine,
        &Ask::call(AGENT, "get-sum").to(Service),
        (Delegate, Reason::Delegated, Some(("ask-gw", None))),
    );
}

#[test]
fn default_action() {
    let entries = |policies: Vec<policy_model::Policy>| policies.into_iter().map(entry).collect::<Vec<_>>();
    let ask = Ask::call(AGENT, "get-sum");
    let one_ext = |target| ext("e", 1, target, vec![rule("r", account("other"), Condition::Anything)]);
    for (policies, ask, allow, deny) in [
        (vec![], ask.clone(), Allow, Deny),
        (vec![v1("p", 1, on_gateway(), vec![])], ask.clone(), Allow, Allow),
        (vec![one_ext(on_gateway())], ask.clone(), Allow, Deny),
        (vec![one_ext(on_gateway())], Ask::call(OTHER, "x"), Delegate, Delegate),
        (vec![one_ext(on_gateway()), v1("p", 1, on_backend(), vec![])], ask, Allow, Allow),
    ] {
        let check_with = |action, expected: Effect| {
            let engine = of_entries(entries(policies.clone()), action).engine;
            check(&engine, &ask, expected);
        };
        check_with(DefaultAction::Allow, allow);
        check_with(DefaultAction::Deny, deny);
    }
}

#[test]
fn which_bodies_are_read() {
    let needs = |policy| {
        let engine = compiled([policy]).engine;
        engine.needs_body(engine.levels(&gateway(), None), "https")
    };
    let one = |condition| v1("p", 1, on_gateway(), vec![rule("r", Source::Anyone, condition)]);
    assert!(!needs(one(Condition::Anything)));
    assert!(!needs(one(inline(Inline { ports: Some(vec![1]), ..Inline::default() }))));
    assert!(needs(one(mcp(true, None))));
    assert!(needs(one(cel("true"))));
    assert!(needs(v0("p", 1, on_gateway(), vec![])));
    assert!(!needs(v0("p", 1, on_listener("other"), vec![])));
    assert!(needs(ext("p", 1, on_gateway(), vec![])));
}
