use http::{HeaderMap, HeaderValue, header::HeaderName};
use spiffe_id::SpiffeId;

use super::{Arguments, Call, Expression, Facts, eval::Budget, value::EvalError};
use crate::Http;

/// What the expression yields for a call of `transfer`: `"true"`, `"false"`, or the error's text.
fn outcome(source: &str) -> String {
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(error) => return format!("does not compile: {error}"),
    };
    let identity: SpiffeId = "spiffe://cluster.local/ns/team-a/sa/agent".parse().unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-tenant", "a"), ("x-two", "1"), ("x-two", "2")] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.append("x-raw", HeaderValue::from_bytes(b"\xff").unwrap());
    let arguments = Arguments::new(Some(
        r#"{"amount":50,"rate":1.5,"big":18446744073709551615,"neg":-3,"who":"bob","tags":["x","y"],
            "nested":{"deep":[{"k":"v"}]},"none":null,"yes":true,"e":1e2,"esc":"a\u0062"}"#,
    ));
    let call = Call {
        http: Http {
            method: "POST",
            path_and_query: "/local/mcp?q=1",
            host: "Example.com:8443",
            headers: &headers,
        },
        mirrors_are_checked: false,
        // 2026-11-23T12:13:14Z, a Monday.
        now: 1_795_435_994_000_000_000,
        arguments: &arguments,
    };
    let facts = Facts { identity: Some(&identity), tool: "transfer", call: Some(call) };
    expression.evaluate(facts).map_or_else(|error| error.to_string(), |value| value.to_string())
}

#[track_caller]
fn check(source: &str, expected: &str) {
    let got = outcome(source);
    let matches = match expected {
        "true" | "false" => got == expected,
        part => got.contains(part) && got != "true" && got != "false",
    };
    assert!(matches, "`{source}`: expected {expected}, got {got}");
}

#[test]
fn variables() {
    for source in [
        "request.mcp.tool_name == 'transfer'",
        "request.mcp.method == 'tools/call'",
        "request.path == '/local/mcp?q=1'",
        "request.url_path == '/local/mcp'",
        "request.method == 'POST'",
        "request.host == 'Example.com:8443'",
        "request.headers['x-tenant'] == 'a' && request.headers['x-two'] == '1,2'",
        "'x-tenant' in request.headers && !('X-Tenant' in request.headers) && !('y' in request.headers)",
        "size(request.headers) == 3 && request.headers.exists(h, h == 'x-tenant')",
        "has(request.headers.host) || !has(request.headers.host)",
        "source.identity == 'spiffe://cluster.local/ns/team-a/sa/agent'",
        "source.namespace == 'team-a' && source.service_account == 'agent'",
        "has(source.identity) && has(request.path) && has(request.mcp.arguments)",
        "request.mcp.arguments.who == 'bob' && request.mcp.arguments['who'] == 'bob'",
        "has(request.mcp.arguments.who) && !has(request.mcp.arguments.whom)",
        "request.mcp.arguments.nested.deep[0].k == 'v'",
        "request.mcp.arguments.esc == 'ab'",
        "request.mcp.arguments.none == null",
        "request.mcp.arguments.yes",
    ] {
        check(source, "true");
    }
}

#[test]
fn names_that_do_not_exist_are_refused() {
    for source in [
        "foo == 1",
        "request.nope == 1",
        "request.mcp.nope == 1",
        "source.nope == 1",
        "request == 1",
        "request.mcp == 1",
        "source != 1",
        "has(request.nope)",
        "has(request.mcp.nope)",
        "has(nope.x)",
        "request['path'] == 'x'",
        "[1].exists(x, y == 1)",
        "[1].exists(x, true) && x == 1",
        "arguments.a == 1",
    ] {
        check(source, "does not compile: ");
        assert!(outcome(source).contains("request.mcp.tool_name"), "{source}: {}", outcome(source));
    }
}

#[test]
fn what_types_show_is_refused() {
    for source in [
        "1",
        "'x'",
        "request.path",
        "request.path + 'x'",
        "size(request.path)",
        "[1]",
        "request.headers",
        "request.time",
        "true ? 1 : 2",
        "!request.path",
        "request.path && true",
        "request.path > 1",
        "request.path - 'x' == 'y'",
        "request.path.foo == 1",
        "request.time.startsWith('x')",
        "'a' in 'abc'",
        "request.path[0] == 'a'",
        "request.path.exists(x, true)",
        "[1].map(x, x)",
    ] {
        check(source, "does not compile: ");
    }
}

#[test]
fn what_is_not_here_is_refused() {
    for source in [
        "",
        "true &&",
        "request.path.nope()",
        "nope(1)",
        "type(1) == int",
        "math.greatest(1, 2) == 2",
        "b'x' == b'x'",
        "Foo{a: 1} == 1",
        "request.path.matches(request.method)",
        "request.path.matches('(')",
        "request.path.matches('(?=a)')",
        "startsWith(request.path, 'x')",
        "request.path.startsWith()",
        "request.path.startsWith('a', 'b')",
        "'1'.int() == 1",
        "request.time.getHours('Europe/Berlin') == 1",
        "request.mcp.arguments.?who == 'bob'",
    ] {
        check(source, "does not compile: ");
    }
}

#[test]
fn numbers_compare_by_value() {
    for (source, expected) in [
        ("request.mcp.arguments.amount < 100", "true"),
        ("request.mcp.arguments.amount < 50.5", "true"),
        ("request.mcp.arguments.amount == 50.0 && request.mcp.arguments.amount == 50u", "true"),
        ("request.mcp.arguments.big > 9223372036854775807", "true"),
        ("request.mcp.arguments.big == 18446744073709551615u", "true"),
        // The double nearest to the largest uint is 2^64, which is more.
        ("request.mcp.arguments.big < 18446744073709551616.0", "true"),
        ("9007199254740993 == 9007199254740992.0", "false"),
        ("9007199254740993 > 9007199254740992.0", "true"),
        ("-1 < 0u && 0u > -1", "true"),
        ("-1.5 < -1 && -1 > -1.5 && 1 < 1.5 && 1.5 > 1u", "true"),
        ("request.mcp.arguments.e == 100", "true"),
        ("0.0 / 0.0 == 0.0 / 0.0", "false"),
        ("0.0 / 0.0 < 1 || 0.0 / 0.0 >= 1", "false"),
        ("request.mcp.arguments.who == 1", "false"),
        ("request.mcp.arguments.who < 1", "does not work on string and int"),
        ("request.mcp.arguments.amount + 1 == 51", "true"),
        ("request.mcp.arguments.amount + 1.0 == 51.0", "does not work on int and double"),
        ("9223372036854775807 + 1 > 0", "out of range"),
        ("-9223372036854775807 - 2 < 0", "out of range"),
        ("1 / 0 == 1", "out of range"),
        ("1 % 0 == 1", "out of range"),
        ("0u - 1u == 0u", "out of range"),
        ("7 % 3 == 1 && 7 / 2 == 3 && 2 * 3 == 6 && -(3) == -3", "true"),
    ] {
        check(source, expected);
    }
}

#[test]
fn errors_are_errors_and_logic_absorbs_them() {
    for (source, expected) in [
        ("request.mcp.arguments.whom == 'x'", "no such key: `whom`"),
        ("request.headers['nope'] == 'x'", "no such key: `nope`"),
        ("request.headers['x-raw'] == 'x'", "not text"),
        ("request.mcp.arguments.tags[2] == 'x'", "no such index: `2`"),
        ("request.mcp.arguments.tags[-1] == 'x'", "no such index: `-1`"),
        ("request.mcp.arguments.who", "the result is string, not a bool"),
        ("request.mcp.arguments.whom == 'x' || true", "true"),
        ("true || request.mcp.arguments.whom == 'x'", "true"),
        ("request.mcp.arguments.whom == 'x' && false", "false"),
        ("request.mcp.arguments.whom == 'x' || false", "no such key"),
        ("request.mcp.arguments.whom == 'x' && true", "no such key"),
        ("request.mcp.arguments.whom == 'x' ? true : true", "no such key"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].all(x, 1 / x == 2)", "false"),
        ("[0, 1].all(x, 1 / x == 1)", "out of range"),
        ("[0, 2].exists(x, 1 / x == 1)", "out of range"),
        ("[0, 1].exists_one(x, 1 / x == 1)", "out of range"),
        ("{'a': 1, 'a': 2}.size() == 2", "a key twice"),
    ] {
        check(source, expected);
    }
}

#[test]
fn functions_and_macros() {
    for (source, expected) in [
        (
            "request.path.startsWith('/local') && request.path.endsWith('q=1') && request.path.contains('mcp')",
            "true",
        ),
        ("request.mcp.tool_name.matches('^trans[a-z]+$')", "true"),
        ("matches(request.mcp.tool_name, 'ansf')", "true"),
        ("request.mcp.tool_name.matches('^ansf')", "false"),
        ("size('h\u{e9}') == 2 && 'abc'.size() == 3 && size([1, 2]) == 2 && {'a': 1}.size() == 1", "true"),
        ("request.host.lowerAscii().startsWith('example') && 'a'.upperAscii() == 'A'", "true"),
        (
            "int('42') == 42 && int(3.9) == 3 && int(-3.9) == -3 && uint(7) == 7u && double('1.5') == 1.5",
            "true",
        ),
        ("int('x') == 1", "cannot be read"),
        ("int(1e300) == 1", "out of range"),
        ("uint(-1) == 1u", "out of range"),
        ("string(42) == '42' && string(true) == 'true' && bool('true')", "true"),
        ("request.mcp.tool_name in ['a', 'transfer'] && !('b' in ['a']) && 'k' in {'k': 1}", "true"),
        (
            "request.mcp.arguments.tags.all(t, t in ['x', 'y']) && request.mcp.arguments.tags.exists(t, t == 'y')",
            "true",
        ),
        ("request.mcp.arguments.tags.exists_one(t, t == 'x') && ![1, 1].exists_one(t, t == 1)", "true"),
        ("request.mcp.arguments.tags.map(t, t + '!') == ['x!', 'y!']", "true"),
        ("[1, 2, 3].filter(x, x > 1) == [2, 3] && [1, 2, 3].map(x, x > 1, x * 2) == [4, 6]", "true"),
        ("request.mcp.arguments.nested.all(key, key == 'deep')", "true"),
        ("[[1], [2, 3]].exists(a, a.exists(b, b == 3 && size(a) == 2))", "true"),
        ("[1].exists(request, request == 1)", "true"),
        ("[] == [] && [].all(x, false) && ![].exists(x, true)", "true"),
        ("[1] + [2] == [1, 2] && {'a': [1]} == {'a': [1.0]} && {'a': 1} != {'b': 1}", "true"),
        ("dyn(1) == 1 && (true ? 'a' : 'b') == 'a'", "true"),
        ("request.time > timestamp('2026-01-01T00:00:00Z')", "true"),
        ("request.time.getHours() == 12 && request.time.getHours('+02:00') == 14", "true"),
        ("request.time.getDayOfWeek() == 1 && request.time.getFullYear() == 2026", "true"),
        ("request.time - timestamp('2026-11-23T12:13:04Z') == duration('10s')", "true"),
        ("request.time + duration('1h') < request.time", "false"),
        ("duration('90m').getHours() == 1 && duration('90m').getMinutes() == 90", "true"),
        ("timestamp(0) < request.time && int(timestamp('1970-01-01T00:00:01Z')) == 1", "true"),
    ] {
        check(source, expected);
    }
}

#[test]
fn conversions() {
    for (source, expected) in [
        ("uint(A.big) == A.big && uint(2.9) == 2u && uint('7') == 7u && uint(3) == 3u", "true"),
        ("int(A.big) == 1", "`int`: out of range"),
        ("uint(1e300) == 1u", "`uint`: out of range"),
        ("uint(A.neg) == 1u", "`uint`: out of range"),
        ("uint('x') == 1u", "`uint`: the text cannot be read"),
        ("double(2) == 2.0 && double(2u) == 2.0 && double(1.5) == 1.5", "true"),
        ("double('x') == 1.0", "`double`: the text cannot be read"),
        (
            "string('a') == 'a' && string(A.yes) == 'true' && string(false) == 'false' && string(7u) == '7'",
            "true",
        ),
        ("bool(true) && bool('true') && !bool('false')", "true"),
        ("bool('yes')", "`bool`: the text cannot be read"),
        ("timestamp(timestamp(1)) == timestamp('1970-01-01T00:00:01Z')", "true"),
        ("timestamp(9223372036854775807) > timestamp(0)", "`timestamp`: out of range"),
        ("timestamp('x') > timestamp(0)", "`timestamp`: the text cannot be read"),
        ("duration(duration('1s')) == duration('1000ms')", "true"),
        ("duration('x') > duration('1s')", "`duration`: the text cannot be read"),
        ("duration('3723s').getHours() == 1 && duration('3723s').getSeconds() == 3723", "true"),
        ("duration('1500ms').getMilliseconds() == 500", "true"),
        ("duration('1s').getFullYear() == 1", "does not work on duration"),
    ] {
        check(&source.replace("A.", "request.mcp.arguments."), expected);
    }
}

#[test]
fn what_types_show_only_with_the_request_is_an_error() {
    for (source, expected) in [
        ("size(A.amount) == 1", "`size` does not work on int"),
        ("A.amount.startsWith('x')", "`startsWith` does not work on int and string"),
        ("A.none.endsWith('x')", "`endsWith` does not work on null and string"),
        ("A.rate.contains('x')", "`contains` does not work on double and string"),
        ("A.amount.lowerAscii() == 'x'", "`lowerAscii` does not work on int"),
        ("A.big.upperAscii() == 'x'", "`upperAscii` does not work on uint"),
        ("int(A.none) == 1", "`int` does not work on null"),
        ("uint(A.yes) == 1u", "`uint` does not work on bool"),
        ("double(A.yes) == 1.0", "`double` does not work on bool"),
        ("string(A.tags) == 'x'", "`string` does not work on list"),
        ("bool(A.nested)", "`bool` does not work on map"),
        ("timestamp(A.rate) > timestamp(0)", "`timestamp` does not work on double"),
        ("duration(A.none) > duration('1s')", "`duration` does not work on null"),
        ("A.who.getHours() == 1", "does not work on string"),
        ("A.amount.matches('x')", "`matches` does not work on int"),
        ("!A.amount", "does not work on int"),
        ("A.amount && true", "does not work on int"),
        ("A.none < 1", "`<` does not work on null and int"),
        ("A.none <= 1", "`<=` does not work on null and int"),
        ("A.none > 1", "`>` does not work on null and int"),
        ("A.none >= 1", "`>=` does not work on null and int"),
        ("dyn(request.time) < A.amount", "does not work on timestamp and int"),
        ("dyn(duration('1s')) < A.amount", "does not work on duration and int"),
        ("A.none + A.none == null", "does not work on null and null"),
        ("-A.who == 1", "`-` does not work on string"),
        ("A.tags['0'] == 'x'", "does not work on list and string"),
        ("A.amount[0] == 1", "does not work on int"),
        ("has(A.amount.x)", "`has` does not work on int"),
        ("1 in A.amount", "`in` does not work on int and int"),
        ("{A.tags: 1} == {}", "does not work on list"),
        ("A.amount.exists(x, true)", "does not work on int"),
        ("request.headers == A.nested", "does not work on map and map"),
        ("{1: 'a'}[2] == 'a'", "no such index: `2`"),
        ("{true: 'a'}[false] == 'a'", "no such key: `bool`"),
    ] {
        check(&source.replace("A.", "request.mcp.arguments."), expected);
    }
}

#[test]
fn values_of_every_type() {
    for (source, expected) in [
        ("A.amount - 1 == 49 && A.amount * 2 == 100 && A.amount / 7 == 7 && A.amount % 7 == 1", "true"),
        ("1u + 2u == 3u && 3u * 2u == 6u && 7u / 2u == 3u && 7u % 2u == 1u && A.big - 1u < A.big", "true"),
        ("A.big + 1u == 0u", "out of range"),
        ("A.big * 2u == 0u", "out of range"),
        ("1u / 0u == 1u", "out of range"),
        ("1u % 0u == 1u", "out of range"),
        ("A.rate + 1.5 == 3.0 && A.rate - 0.5 == 1.0 && A.rate * 2.0 == 3.0 && A.rate / 0.5 == 3.0", "true"),
        (
            "duration('1s') + duration('2s') == duration('3s') && duration('3s') - duration('1s') == duration('2s')",
            "true",
        ),
        (
            "duration('1h') + request.time > request.time && request.time - duration('1h') < request.time",
            "true",
        ),
        ("-A.amount == -50 && -A.rate == -1.5 && -duration('1s') + duration('1s') == duration('0s')", "true"),
        ("-(-9223372036854775807 - 1) > 0", "out of range"),
        ("false < A.yes && !(A.yes < true)", "true"),
        ("'a' < A.who && A.who < 'c' && A.who <= 'bob' && A.who >= 'bob'", "true"),
        ("A.none == null && A.yes == true && A.yes != false && A.none != A.yes", "true"),
        ("[1] == [1, 2] || [1, 3] == [1, 2] || [1] == A.amount || A.tags == ['x']", "false"),
        (
            "{'a': 1} == {'a': 1, 'b': 2} || {'a': 1} == {'a': 2} || {'a': 1} == A.tags || {'a': 1} == A.who",
            "false",
        ),
        ("1 < 0.0 / 0.0 || 1u < 0.0 / 0.0 || 0.0 / 0.0 > 1u", "false"),
        ("A.neg < A.big && A.big > A.neg && A.rate < 2u && 2u > A.rate && -0.5 < 0u", "true"),
        (
            "A.amount < 1e300 && -1e300 < A.amount && A.big < 1e300 && 1e300 > A.big && A.amount > -1e300",
            "true",
        ),
        ("A.tags[0u] == 'x' && {1: 'a'}[1] == 'a' && {1u: 'b'}[1] == 'b'", "true"),
        (
            "has(source.service_account) && has(source.namespace) && has(source.identity) && has(A.none)",
            "true",
        ),
    ] {
        check(&source.replace("A.", "request.mcp.arguments."), expected);
    }
}

#[test]
fn what_is_refused_is_named() {
    for (source, expected) in [
        ("[?A.x] == []", "does not compile: "),
        ("{?'a': A.x} == {}", "does not compile: "),
        ("-request.path == 1", "`-` does not work on string"),
        ("request.path.size(1) == 1", "does not compile: "),
        ("size(1) == 1", "`size` does not work on int"),
        ("request.path.getHours() == 1", "`getHours` does not work on string"),
        ("request.time.getHours(1, 2) == 1", "does not compile: write `timestamp.getHours()`"),
        ("request.path.matches('a', 'b')", "takes one pattern"),
        ("(1).matches('a')", "`matches` does not work on int"),
        ("request == 1", "`request` is no value by itself"),
        ("source == 1", "`source` is no value by itself"),
        ("(1).exists(x, true)", "needs a list or a map, not int"),
        ("null && true", "needs a bool, not null"),
        ("1u && true", "needs a bool, not uint"),
        ("1.5 && true", "needs a bool, not double"),
        ("[1] && true", "needs a bool, not list"),
        ("{'a': 1} && true", "needs a bool, not map"),
        ("duration('1s') && true", "needs a bool, not duration"),
        ("request.time && true", "needs a bool, not timestamp"),
    ] {
        check(&source.replace("A.", "request.mcp.arguments."), expected);
    }
}

#[test]
fn evaluation_is_bounded() {
    let list = format!("[{}]", vec!["1"; 60].join(","));
    check(&format!("{list}.all(a, {list}.all(b, {list}.all(c, a == b)))"), "more than 50000 steps");
    // Doubling a string: the text that is copied counts.
    let doubling = "[1].map(x, 'abcdefgh')".to_owned() + &".map(s, s + s)".repeat(40) + "[0] == 'x'";
    check(&doubling, "more than 50000 steps");
    // A pattern whose automaton is large costs more by the byte: without that these take seconds.
    let long = "[1].map(x, 'abaabbab')".to_owned() + &".map(s, s + s)".repeat(12) + "[0]";
    check(&format!("{long}.matches('ab')"), "true");
    check(&format!("{long}.matches('[ab]*a[ab]{{1000}}c')"), "more than 50000 steps");
    // So does a long text that is looked up among the headers.
    let lookups = format!("[{long}].all(l, {list}.all(a, {list}.all(b, !(l in request.headers))))");
    check(&lookups, "more than 50000 steps");
    // Nothing that comes after makes up for it.
    check(&format!("{list}.all(a, {list}.all(b, {list}.all(c, a == b))) || true"), "more than 50000 steps");
}

#[test]
fn what_work_costs() {
    /// How often this can be done before there are no steps left; `None`: it is free.
    fn times(work: impl Fn(&Budget) -> Result<(), EvalError<'static>>) -> Option<usize> {
        let budget = Budget::new();
        (0..100_000).find(|_| work(&budget).is_err())
    }
    for (what, got, expected) in [
        ("a node", times(Budget::step), Some(50_000)),
        ("31 bytes compared", times(|budget| budget.text(31)), None),
        ("32 bytes compared", times(|budget| budget.text(32)), Some(50_000)),
        ("3,200 bytes compared", times(|budget| budget.text(3_200)), Some(500)),
        ("nothing read", times(|budget| budget.search(0)), Some(50_000)),
        ("7 bytes read", times(|budget| budget.search(7)), Some(50_000)),
        ("792 bytes read", times(|budget| budget.search(792)), Some(500)),
        ("3 elements copied", times(|budget| budget.items(3)), None),
        ("400 elements copied", times(|budget| budget.items(400)), Some(500)),
        ("all there is", times(|budget| budget.text(32 * 50_000)), Some(1)),
        ("more than there is", times(|budget| budget.text(32 * 50_001)), Some(0)),
        ("more than can be counted", times(|budget| budget.text(usize::MAX)), Some(0)),
    ] {
        assert_eq!(got, expected, "{what}");
    }
    // What was too much leaves nothing for what is less.
    let budget = Budget::new();
    assert!(budget.text(32 * 50_001).is_err() && budget.step().is_err());
}

#[test]
fn sources_are_bounded() {
    for source in [
        "true || ".repeat(1000) + "true",
        "(".repeat(2000) + "true" + &")".repeat(2000),
        "(".repeat(4000),
        "[".repeat(4000),
        "1+".repeat(2000) + "1 > 0",
        "a?b:".repeat(1000) + "c",
        "request.headers".to_owned() + &".a".repeat(2000),
        "{".repeat(2000) + &"}".repeat(2000),
        "[1].exists(x, ".repeat(250) + "true" + &")".repeat(250),
        "@#$ ".repeat(1000),
        "\u{0}".repeat(10),
    ] {
        check(&source, "does not compile: ");
        let message = outcome(&source);
        assert!(message.len() < 900 && !message.contains('\n'), "{message}");
    }
}

#[test]
fn without_the_request_only_the_tool_and_the_source_are_known() {
    let identity: SpiffeId = "spiffe://cluster.local/agent".parse().unwrap();
    for (source, expected) in [
        ("request.mcp.tool_name == 'a'", "true"),
        ("request.mcp.tool_name == 'b'", "false"),
        ("request.mcp.tool_name == 'b' && request.path == '/x'", "false"),
        ("request.mcp.tool_name == 'a' && request.path == '/x'", "not known"),
        ("request.mcp.arguments.x == 1 || request.mcp.tool_name == 'a'", "true"),
        ("has(request.mcp.arguments)", "not known"),
        ("has(request.headers.x)", "not known"),
        ("request.headers.exists(h, true)", "not known"),
        ("source.namespace == 'x'", "no such key"),
        ("source.namespace == 'x' || request.path == '/x'", "not known"),
        ("source.identity.startsWith('spiffe://cluster.local/')", "true"),
    ] {
        let expression = Expression::compile(source).unwrap();
        let result = expression.evaluate(Facts { identity: Some(&identity), tool: "a", call: None });
        let text = result.map_or_else(|error| error.to_string(), |value| value.to_string());
        assert!(text.contains(expected), "`{source}`: expected {expected}, got {text}");
    }
}

#[test]
fn the_deepest_expression_evaluates_on_a_small_stack() {
    // The stack of a worker thread is 2 MiB; this is half of it, without optimisation.
    let deepest = [
        "[1].all(x, ".repeat(88) + "true" + &")".repeat(88),
        "1+".repeat(124) + "1 > 0",
        "(true ? ".repeat(88) + "true" + &" : false)".repeat(88),
    ];
    for source in deepest {
        let evaluate = move || check(&source, "true");
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(evaluate).unwrap();
        thread.join().unwrap();
    }
}
