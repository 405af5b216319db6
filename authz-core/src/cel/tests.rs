use http::{HeaderMap, HeaderValue, header::HeaderName};
use spiffe_id::SpiffeId;

use super::{Arguments, Call, Expression, Facts, eval::Budget, value::EvalError};
use crate::Http;

const AGENT: &str = "spiffe://cluster.local/ns/team-a/sa/agent";
const ARGUMENTS: &str = r#"{"amount":50,"rate":1.5,"big":18446744073709551615,"neg":-3,"who":"bob","tags":["x","y"],
    "nested":{"deep":[{"k":"v"}]},"none":null,"yes":true,"e":1e2,"esc":"a\u0062"}"#;

/// What the expression yields for a call of `transfer`: `"true"`, `"false"`, or the error's text.
fn outcome_of(source: &str, identity: Option<&str>, arguments: Option<&str>) -> String {
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(error) => return format!("does not compile: {error}"),
    };
    let identity: Option<SpiffeId> = identity.map(|id| id.parse().unwrap());
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-tenant", "a"), ("x-two", "1"), ("x-two", "2")] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.append("x-raw", HeaderValue::from_bytes(b"\xff").unwrap());
    let arguments = Arguments::new(arguments);
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
    let facts = Facts { identity: identity.as_ref(), tool: "transfer", call: Some(call) };
    expression.evaluate(facts).map_or_else(|error| error.to_string(), |value| value.to_string())
}

fn outcome(source: &str) -> String {
    outcome_of(source, Some(AGENT), Some(ARGUMENTS))
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
fn what_is_missing() {
    let plain = Some("spiffe://cluster.local/agent");
    for (source, identity, expected) in [
        ("has(source.identity)", Some(AGENT), "true"),
        ("has(source.identity)", plain, "true"),
        ("has(source.identity)", None, "false"),
        ("has(source.namespace) && has(source.service_account)", Some(AGENT), "true"),
        ("has(source.namespace) || has(source.service_account)", plain, "false"),
        ("has(source.namespace) || has(source.service_account)", None, "false"),
        ("source.identity == 'spiffe://cluster.local/agent'", plain, "true"),
        ("source.identity != 'x'", None, "no such key: `identity`"),
        ("source.namespace != 'x'", plain, "no such key: `namespace`"),
        ("source.service_account != 'x'", plain, "no such key: `service_account`"),
    ] {
        assert_eq!(outcome_of(source, identity, Some("{}")), expected, "`{source}` of {identity:?}");
    }
    for (source, arguments, expected) in [
        ("has(request.mcp.arguments)", Some("{}"), "true"),
        ("has(request.mcp.arguments)", None, "false"),
        ("has(request.mcp.arguments.x)", Some("{}"), "false"),
        ("has(request.mcp.arguments.x)", None, "no such key: `arguments`"),
        ("request.mcp.arguments.size() == 0", Some("{}"), "true"),
        ("request.mcp.arguments != {}", None, "no such key: `arguments`"),
    ] {
        assert_eq!(outcome_of(source, Some(AGENT), arguments), expected, "`{source}` of {arguments:?}");
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
        // At the edges of each type, where a double is not the integer next to it.
        (
            "9223372036854775807 < 9223372036854775808.0 && 9223372036854775808.0 > 9223372036854775807",
            "true",
        ),
        ("9223372036854775807 == 9223372036854775808.0", "false"),
        ("-9223372036854775808 == -9223372036854775808.0", "true"),
        ("-9223372036854775808 > -9223372036854777856.0", "true"),
        ("18446744073709551615u == 18446744073709551616.0", "false"),
        ("0u == 0.0 && 0u == -0.0 && 0 == -0.0 && 0u > -0.5 && 0 > -0.5", "true"),
        ("9223372036854775808u > 9223372036854775807 && 9223372036854775807 < 9223372036854775808u", "true"),
        ("3 == 3u && 3u == 3 && 3 <= 3u && 3u >= 3 && 3 != 4u && 3.0 == 3u && 3u == 3.0", "true"),
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
        ("request.mcp.arguments.nested.exists(key, key == 'deep')", "true"),
        ("request.mcp.arguments.nested == {'deep': [{'k': 'v'}]}", "true"),
        ("{'deep': [{'k': 'v'}]} == request.mcp.arguments.nested", "true"),
        ("request.mcp.arguments.nested == {'deep': [{'k': 'w'}]}", "false"),
        ("request.mcp.arguments.nested == {'deeper': [{'k': 'v'}]}", "false"),
        ("[[1], [2, 3]].exists(a, a.exists(b, b == 3 && size(a) == 2))", "true"),
        ("[1].exists(request, request == 1)", "true"),
        ("[] == [] && [].all(x, false) && ![].exists(x, true)", "true"),
        ("[1] + [2] == [1, 2] && {'a': [1]} == {'a': [1.0]} && {'a': 1} != {'b': 1}", "true"),
        ("dyn(1) == 1 && (true ? 'a' : 'b') == 'a'", "true"),
        ("request.time > timestamp('2026-01-01T00:00:00Z')", "true"),
        ("request.time.getHours() == 12 && request.time.getHours('+02:00') == 14", "true"),
        ("request.time.getDayOfWeek() == 1 && request.time.getFullYear() == 2026", "true"),
        ("request.time.getMonth() == 10 && request.time.getDate() == 23", "true"),
        ("request.time.getDayOfMonth() == 22 && request.time.getDayOfYear() == 326", "true"),
        ("request.time.getMinutes() == 13 && request.time.getSeconds() == 14", "true"),
        (
            "request.time.getMilliseconds() == 0 && timestamp('2026-01-01T00:00:00.5Z').getMilliseconds() == 500",
            "true",
        ),
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
        ("int(-1e300) == 1", "`int`: out of range"),
        // The bounds themselves are out, as the specification has it.
        ("int(9223372036854775808.0) == 1", "`int`: out of range"),
        ("int(-9223372036854775808.0) == 1", "`int`: out of range"),
        ("int(9223372036854774784.0) == 9223372036854774784", "true"),
        ("int(-9223372036854774784.0) == -9223372036854774784", "true"),
        ("int(0.0 / 0.0) == 0", "`int`: out of range"),
        ("uint(18446744073709551616.0) == 1u", "`uint`: out of range"),
        ("uint(18446744073709549568.0) == 18446744073709549568u", "true"),
        ("uint(-0.5) == 0u", "`uint`: out of range"),
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
        ("A.tags + A.who == A.tags", "does not work on list and string"),
        ("A.who + A.tags == A.tags", "does not work on string and list"),
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
        ("-(-9223372036854775808) > 0", "out of range"),
        ("-(3) < 0 && -(1.5) < 0.0 && -(-1.5) > 0.0 && -duration('1s') < duration('0s')", "true"),
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
        // What a sum is of shows only with the request.
        ("(A.who + A.who).startsWith('bobb') && (A.tags + A.tags).exists(t, t == 'y')", "true"),
        (
            "has(source.service_account) && has(source.namespace) && has(source.identity) && has(A.none)",
            "true",
        ),
    ] {
        check(&source.replace("A.", "request.mcp.arguments."), expected);
    }
}

#[track_caller]
fn check_refused(source: &str, expected: &str) {
    let got = outcome(source);
    assert!(
        got.starts_with(&format!("does not compile: {expected}")),
        "`{source}`: expected {expected}, got {got}"
    );
}

#[test]
fn what_types_show_is_refused() {
    for (source, what) in [
        ("1", "int"),
        ("1u", "uint"),
        ("1.5", "double"),
        ("'x'", "string"),
        ("null", "null"),
        ("[1]", "list"),
        ("{'a': 1}", "map"),
        ("request.time", "timestamp"),
        ("request.time - request.time", "duration"),
        ("request.time + duration('1s')", "timestamp"),
        ("request.path", "string"),
        ("request.path + 'x'", "string"),
        ("request.headers", "map"),
        ("request.headers.x", "string"),
        ("request.headers['x']", "string"),
        ("size(request.path)", "int"),
        ("true ? 1 : 2", "int"),
        ("-(1.5)", "double"),
        ("[1].map(x, x)", "list"),
        ("[1].filter(x, true)", "list"),
        ("request.time.getHours()", "int"),
    ] {
        check_refused(source, &format!("the result is {what}; write a condition that yields a bool"));
        check_refused(&format!("{source} && true"), &format!("`&&` needs a bool, not {what}"));
    }
    for (source, expected) in [
        ("!request.path", "`!` needs a bool, not string"),
        ("true || 1", "`||` needs a bool, not int"),
        ("1 ? true : false", "`?:` needs a bool, not int"),
        ("[1].all(x, 1)", "`all` needs a bool, not int"),
        ("[1].exists(x, 1)", "`exists` needs a bool, not int"),
        ("[1].exists_one(x, 1)", "`exists_one` needs a bool, not int"),
        ("[1].filter(x, 1) == []", "`filter` needs a bool, not int"),
        ("[1].map(x, 1, x) == []", "`filter` needs a bool, not int"),
        ("(1).exists(x, true)", "a macro needs a list or a map, not int"),
        ("request.path.exists(x, true)", "a macro needs a list or a map, not string"),
        ("request.path.foo == 1", "a string has no field `foo`"),
        ("has(request.path.foo)", "a string has no field `foo`"),
        ("-request.path == 1", "`-` does not work on string"),
        ("-(1u) == 1", "`-` does not work on uint"),
        ("'a' in 'abc'", "`in` does not work on string and string"),
        ("[1] in 'abc'", "`in` does not work on list and string"),
        ("request.path[0] == 'a'", "`[]` does not work on string and int"),
        ("request.path < 1", "`<` does not work on string and int"),
        ("1 <= request.path", "`<=` does not work on int and string"),
        ("request.path > 1.5", "`>` does not work on string and double"),
        ("request.path >= 1u", "`>=` does not work on string and uint"),
        ("null < null", "`<` does not work on null and null"),
        ("[1] < [2]", "`<` does not work on list and list"),
        ("{'a': 1} < {'a': 2}", "`<` does not work on map and map"),
        ("true < 1", "`<` does not work on bool and int"),
        ("request.time < duration('1s')", "`<` does not work on timestamp and duration"),
        ("1 + 1.0 == 2.0", "`+` does not work on int and double"),
        ("request.time + request.time == request.time", "`+` does not work on timestamp and timestamp"),
        ("request.path - 'x' == 'y'", "`-` does not work on string and string"),
        ("duration('1s') - request.time == request.time", "`-` does not work on duration and timestamp"),
        ("[1] - [1] == []", "`-` does not work on list and list"),
        ("'a' * 2 == 'aa'", "`*` does not work on string and int"),
        ("true / true == true", "`/` does not work on bool and bool"),
        ("1.5 % 2.0 == 0.0", "`%` does not work on double and double"),
        // The keys of headers and arguments are strings.
        ("request.headers.exists(h, h > 1)", "`>` does not work on string and int"),
        ("request.mcp.arguments.exists(key, key > 1)", "`>` does not work on string and int"),
        ("size(1) == 1", "`size` does not work on int"),
        ("(1).startsWith('a')", "`startsWith` does not work on int"),
        ("request.path.startsWith(1)", "`startsWith` does not work on int"),
        ("request.path.endsWith(true)", "`endsWith` does not work on bool"),
        ("request.time.contains('x')", "`contains` does not work on timestamp"),
        ("(1).matches('a')", "`matches` does not work on int"),
        ("lowerAscii(1) == 'a'", "write `value.lowerAscii()`"),
        ("(1).lowerAscii() == 'a'", "`lowerAscii` does not work on int"),
        ("(1).upperAscii() == 'a'", "`upperAscii` does not work on int"),
        ("int(true) == 1", "`int` does not work on bool"),
        ("uint(request.time) == 1u", "`uint` does not work on timestamp"),
        ("double(true) == 1.0", "`double` does not work on bool"),
        ("string(1.5) == '1.5'", "`string` does not work on double"),
        ("bool(1)", "`bool` does not work on int"),
        ("timestamp(1.5) == request.time", "`timestamp` does not work on double"),
        ("duration(1) == duration('1s')", "`duration` does not work on int"),
        ("request.path.getHours() == 1", "`getHours` does not work on string"),
    ] {
        check_refused(source, expected);
    }
}

#[test]
fn what_is_refused_is_named() {
    for (source, expected) in [
        ("[?request.path] == []", "it is not CEL at line 1, column "),
        ("{?'a': request.path} == {}", "it is not CEL at line 1, column "),
        ("true &&\n  && true", "it is not CEL at line 2, column "),
        ("nope(1)", "there is no function or macro `nope`"),
        ("nope(true, true, true)", "there is no function or macro `nope`"),
        ("request.path.nope()", "there is no function or macro `nope`"),
        ("type(1) == 1", "there is no function or macro `type`"),
        ("b'x' == b'x'", "bytes are not supported; write a string"),
        ("Foo{a: 1} == 1", "there is no type `Foo`"),
        ("request == 1", "`request` is no value by itself; there is "),
        ("request.mcp == 1", "`request.mcp` is no value by itself; there is "),
        ("source == 1", "`source` is no value by itself; there is "),
        ("foo == 1", "there is no variable `foo`; there is "),
        ("request.nope == 1", "there is no variable `request.nope`; there is "),
        ("request.mcp.nope == 1", "there is no variable `request.mcp.nope`; there is "),
        ("has(source.nope)", "there is no variable `source.nope`; there is "),
        ("size() == 1", "write `size(value)`"),
        ("request.path.size(1) == 1", "write `size(value)`"),
        ("size(request.path, 1) == 1", "write `size(value)`"),
        ("'1'.int() == 1", "write `int(value)`"),
        ("startsWith(request.path, 'x')", "write `value.startsWith(argument)`"),
        ("request.path.startsWith()", "write `value.startsWith(argument)`"),
        ("request.path.startsWith('a', 'b')", "write `value.startsWith(argument)`"),
        (
            "request.time.getHours(1, 2) == 1",
            "write `timestamp.getHours()` or `timestamp.getHours('+02:00')`",
        ),
        ("getHours(request.time) == 1", "write `timestamp.getHours()` or `timestamp.getHours('+02:00')`"),
        ("request.time.getHours('Europe/Berlin') == 1", "the time zone `Europe/Berlin` is not known"),
        ("request.path.matches('a', 'b')", "`matches` takes one pattern"),
        ("request.path.matches(request.method)", "`matches` takes one pattern"),
        ("request.path.matches('(')", "the pattern `(` does not compile: "),
    ] {
        check_refused(source, expected);
    }
}

#[test]
fn evaluation_is_bounded() {
    let list = format!("[{}]", vec!["1"; 60].join(","));
    check(&format!("{list}.all(a, {list}.all(b, {list}.all(c, a == b)))"), "more than 50000 steps");
    // Doubling a string: the text that is copied counts.
    let doubling = "[1].map(x, 'abcdefgh')".to_owned() + &".map(s, s + s)".repeat(40) + "[0] == 'x'";
    check(&doubling, "more than 50000 steps");
    // Doubling a list: the elements that are copied count.
    let doubled = |times| format!("[{list}]{}[0].size() == {}", ".map(l, l + l)".repeat(times), 60 << times);
    check(&doubled(8), "true");
    check(&doubled(12), "more than 50000 steps");
    // A pattern whose automaton is large costs more by the byte: without that these take seconds.
    let long = "[1].map(x, 'abaabbab')".to_owned() + &".map(s, s + s)".repeat(12) + "[0]";
    check(&format!("{long}.matches('ab')"), "true");
    check(&format!("{long}.matches('[ab]*a[ab]{{1000}}c')"), "more than 50000 steps");
    // So does a long text that is looked up among the headers.
    let lookups = format!("[{long}].all(l, {list}.all(a, {list}.all(b, !(l in request.headers))))");
    check(&lookups, "more than 50000 steps");
    // Texts of the same length are compared whole; of others the length says enough, or as much as both have.
    check(&format!("[{long}].all(l, {list}.all(a, l == l))"), "more than 50000 steps");
    check(&format!("[{long}].all(l, {list}.all(a, l != 'x'))"), "true");
    check(&format!("[{long}].all(l, {list}.all(a, l <= l))"), "more than 50000 steps");
    check(&format!("[{long}].all(l, {list}.all(a, l > 'a'))"), "true");
    // A text that is searched for a text costs as both together do.
    check(&format!("{long}.contains({long})"), "true");
    check("'a'.contains('abc')", "false");
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
fn the_longest_and_the_deepest_source() {
    let of_bytes = |bytes: usize| format!("'{}' != ''", "x".repeat(bytes - "'' != ''".len()));
    check(&of_bytes(4_096), "true");
    check(&of_bytes(4_097), "does not compile: the expression has 4097 bytes; at most 4096 are accepted");
    // The comparison is one level, each sum one, and its innermost number one.
    let of_depth = |levels: usize| "1+".repeat(levels - 2) + "1 > 0";
    check(&of_depth(128), "true");
    check(&of_depth(129), "does not compile: it nests deeper than 128");
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
