//! Bodies that are MCP messages or miss it by little, each way of missing one on which JSON parsers are known to
//! disagree. About half of them are admitted.
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::strategy::Union;

type Text = BoxedStrategy<String>;

/// A key and its value, as they stand in the body.
type Member = (String, String);

/// A body: a message, or a batch.
pub(crate) fn body() -> BoxedStrategy<Vec<u8>> {
    let batch = (vec(message(), 1..4), gap()).prop_map(|(messages, gap)| array(&messages, &gap));
    let other = literal(&[
        "[]",
        "{}",
        "[[]]",
        "[{}]",
        "null",
        "1",
        "\"tools/call\"",
        "",
        r#"{"data":{"method":"tools/call"}}"#,
        r#"[1,{"a":1}]"#,
        r#"{"METHOD":"tools/call"}"#,
        r#"[{"x":1},{"param\u017f":1}]"#,
        r#"{"\u0000jsonrpc":1}"#,
        r#"{"a":1,"a":2}"#,
    ]);
    let text = prop_oneof![40 => message(), 6 => batch, 1 => other];
    let outside = || {
        let strange = &[
            "\u{feff}", "\u{a0}", "\u{b}", "\u{c}", "\0", "\u{2028}", "\u{85}", ",", "]", "}", "{}", "1",
            "//x", "/**/", "\u{1e}",
        ];
        rarely(20, &["", "", " ", "\n", "\t\r\n "], strange)
    };
    (outside(), text, outside(), damage())
        .prop_map(|(before, text, after, damage)| {
            let mut body = [before, text, after].concat().into_bytes();
            if let Some((at, what)) = damage {
                let at = at.index(body.len() + 1);
                let removed = usize::from(what.removes && at < body.len());
                body.splice(at..at + removed, what.inserts.iter().copied());
            }
            body
        })
        .boxed()
}

#[derive(Debug, Clone)]
struct Damage {
    removes: bool,
    inserts: &'static [u8],
}

/// What happens to a byte of the body; mostly nothing.
fn damage() -> impl Strategy<Value = Option<(Index, Damage)>> {
    let inserts: Vec<&[u8]> = vec![
        b"",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b",",
        b":",
        b"\\",
        b"\\u",
        b"0",
        b"1",
        b"9",
        b"e",
        b".",
        b"-",
        b" ",
        b"x",
        b"\0",
        b"\x1f",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xef\xbb\xbf",
    ];
    let damage = (any::<bool>(), select(inserts)).prop_map(|(removes, inserts)| Damage { removes, inserts });
    prop::option::weighted(0.15, (any::<Index>(), damage))
}

/// The methods, with the member of `params` that each is about.
const METHODS: &[(&str, &str)] = &[
    ("tools/call", "name"),
    ("tools/call", "name"),
    ("tools/call", "name"),
    ("tools/call", "name"),
    ("prompts/get", "name"),
    ("resources/read", "uri"),
    ("resources/subscribe", "uri"),
    ("resources/unsubscribe", "uri"),
    ("tasks/get", "taskId"),
    ("tasks/result", "taskId"),
    ("tasks/update", "taskId"),
    ("tasks/cancel", "taskId"),
    ("completion/complete", "ref"),
    ("subscriptions/listen", "notifications"),
    ("tools/list", "cursor"),
    ("initialize", "protocolVersion"),
    ("server/discover", "x"),
    ("ping", "x"),
    ("Tools/Call", "name"),
    ("tools/call ", "name"),
    ("custom/thing", "name"),
];

const NOTIFICATIONS: &[(&str, &str)] =
    &[("notifications/initialized", "x"), ("notifications/x", "name"), ("notifications/", "name")];

fn message() -> Text {
    let request = Union::new(METHODS.iter().map(|(method, about)| with_method(method, about, 98)));
    let notification = Union::new(NOTIFICATIONS.iter().map(|(method, about)| with_method(method, about, 10)));
    let response = (
        (member("jsonrpc", version()), member("id", id()), extra(), gap()),
        rarely(8, &["result"], &["error"]),
        prop_oneof![value(), object(&["code", "message", "data"])],
    )
        .prop_map(|((version, id, extra, gap), key, value)| {
            let outcome = (format!("\"{key}\""), value);
            object_of(&[Some(version), Some(id), Some(outcome), extra], &gap)
        });
    prop_oneof![20 => request, 2 => notification, 1 => response].boxed()
}

fn with_method(method: &'static str, about: &'static str, has_id: u32) -> Text {
    let method = seldom(
        40,
        ways().prop_map(move |ways| spell(method, &ways)),
        literal(&["null", "7", "[\"tools/call\"]", "\"\"", "\"tools/call\\u0000\""]),
    );
    shuffled(vec![
        perhaps(99, "jsonrpc", version()),
        perhaps(has_id, "id", id()),
        perhaps(99, "method", method),
        perhaps(97, "params", params(about)),
        extra(),
        extra(),
    ])
}

fn version() -> Text {
    seldom(60, spelled(&["2.0"]), literal(&["2.0", "\"2\"", "\"1.0\"", "null", "\"2.0\\u0000\"", "\"2.0 \""]))
}

fn id() -> Text {
    let good = prop_oneof![
        2 => any::<u16>().prop_map(|id| id.to_string()),
        1 => number(),
        1 => spelled(&["", "a", "7", "1e2", "\u{e9}\u{1f600}", "a\"\\/\n", "\u{0}"]),
    ];
    seldom(
        40,
        good,
        literal(&["null", "true", "[]", "[1]", "{}", "{\"id\":1}", "01", "1e400", "-", "\"\\ud800\""]),
    )
}

/// An object for `params`: what the method is about, and others.
fn params(about: &'static str) -> Text {
    let needed = match about {
        "ref" => seldom(10, reference(), value()),
        "notifications" => seldom(10, subscriptions(), value()),
        _ => seldom(20, target(), value()),
    };
    let mut members = vec![
        perhaps(97, about, needed),
        perhaps(60, "arguments", seldom(20, arguments(), value())),
        perhaps(20, "_meta", seldom(20, meta(), value())),
        extra(),
    ];
    let others = ["name", "uri", "taskId"].into_iter().filter(|key| *key != about);
    members.extend(others.map(|key| perhaps(15, key, seldom(4, target(), value()))));
    let object = shuffled(members);
    seldom(50, object, literal(&["null", "[]", "[{\"name\":\"x\"}]", "\"x\"", "1"]))
}

fn target() -> Text {
    let good = prop_oneof![
        6 => spelled(&["get-sum", "get-sum", "danger", "", "name ", "file:///a/b?c=d#e", "t", "\u{e9}", "\u{1f600}", "\u{fffd}",
            "a\"b", "a\\b", "a/b", "\u{2028}", "\u{feff}x", "\u{10ffff}", "\u{ffff}", "__proto__"]),
        1 => string(),
    ];
    seldom(
        30,
        good,
        literal(&[
            "\"a\\u0000\"",
            "\"\\n\"",
            "\"\\u007f\"",
            "\"\\u0085\"",
            "7",
            "null",
            "true",
            "[\"get-sum\"]",
            "{\"name\":\"x\"}",
        ]),
    )
}

fn meta() -> Text {
    let version = seldom(10, spelled(&["2026-07-28", "2025-11-25", ""]), value());
    (
        perhaps(50, "io.modelcontextprotocol/protocolVersion", version),
        perhaps(50, "progressToken", id()),
        extra(),
        gap(),
    )
        .prop_map(|(version, token, extra, gap)| object_of(&[version, token, extra], &gap))
        .boxed()
}

fn reference() -> Text {
    let kind = seldom(
        10,
        spelled(&["ref/prompt", "ref/resource"]),
        literal(&["\"ref/tool\"", "\"REF/PROMPT\"", "1"]),
    );
    (member("type", kind), perhaps(90, "name", target()), perhaps(90, "uri", target()), extra(), gap())
        .prop_map(|(kind, name, uri, extra, gap)| object_of(&[uri, Some(kind), name, extra], &gap))
        .boxed()
}

fn subscriptions() -> Text {
    let list =
        || seldom(10, (vec(target(), 0..3), gap()).prop_map(|(texts, gap)| array(&texts, &gap)), value());
    (perhaps(50, "resourceSubscriptions", list()), perhaps(50, "taskIds", list()), extra(), gap())
        .prop_map(|(resources, tasks, extra, gap)| object_of(&[resources, tasks, extra], &gap))
        .boxed()
}

/// A member that is not asked for: mostly none, mostly harmless; else a protocol key a second time, or a key that some
/// parser takes for one.
fn extra() -> BoxedStrategy<Option<Member>> {
    let keys = &[
        "x",
        "extra",
        "names",
        "idx",
        "params ",
        "__proto__",
        "constructor",
        "",
        "\u{ff4e}ame",
        "requestId",
    ];
    let harmless = (spelled(keys), value());
    let twice = (spelled(PROTOCOL), value());
    let variant =
        (select(PROTOCOL), 0..9_u8, ways()).prop_map(|(key, how, ways)| spell(&variant(key, how), &ways));
    prop_oneof![
        40 => Just(None),
        12 => harmless.prop_map(Some),
        1 => twice.prop_map(Some),
        2 => (variant, prop_oneof![target(), value()]).prop_map(Some),
    ]
    .boxed()
}

const PROTOCOL: &[&str] = &[
    "jsonrpc",
    "id",
    "method",
    "params",
    "result",
    "error",
    "name",
    "arguments",
    "uri",
    "taskId",
    "_meta",
    "ref",
    "type",
    "notifications",
    "resourceSubscriptions",
    "taskIds",
];

/// A key that one parser or another takes for `key`, or nearly.
fn variant(key: &str, how: u8) -> String {
    let (first, rest) = key.split_at_checked(1).unwrap_or_default();
    match how {
        0 => key.to_uppercase(),
        1 => key.to_lowercase(),
        2 => format!("{}{rest}", first.to_uppercase()),
        3 => format!("{key}\0"),
        4 => format!("{key}\0x"),
        5 => format!("{first}\u{200b}{rest}"),
        6 => format!("\u{feff}{key}"),
        7 => key.replace('s', "\u{17f}").replace('k', "\u{212a}").replace('i', "\u{131}"),
        _ => format!("{key} "),
    }
}

/// What a tool is called with.
fn arguments() -> Text {
    const KEYS: &[&str] = &["a", "b", "name", "Name", "method", "arguments", "0", "__proto__", "\u{e9}"];
    let many = (vec(number(), 17..24), prop::option::weighted(0.2, 0..17_usize), ways(), gap()).prop_map(
        |(values, twice, ways, gap)| {
            let key = |at: usize, ways: &[u8]| spell(&format!("key {at}"), ways);
            let mut members: Vec<Option<Member>> =
                values.into_iter().enumerate().map(|(at, value)| Some((key(at, &[]), value))).collect();
            members.extend(twice.map(|at| Some((key(at, &ways), "0".to_owned()))));
            object_of(&members, &gap)
        },
    );
    prop_oneof![20 => object(KEYS), 1 => many, 1 => deep()].boxed()
}

/// Nesting about the limit of 64, of which message, `params` and `arguments` are three.
fn deep() -> impl Strategy<Value = String> {
    (57..64_usize, any::<u64>()).prop_map(|(levels, objects)| {
        let is_object = |level: usize| objects >> (level % 64) & 1 == 1;
        let open = (0..levels).map(|level| if is_object(level) { "{\"a\":" } else { "[" });
        let close = (0..levels).rev().map(|level| if is_object(level) { "}" } else { "]" });
        format!("{{\"a\":{}1{}}}", open.collect::<String>(), close.collect::<String>())
    })
}

fn value() -> Text {
    let leaf =
        prop_oneof![3 => number(), 3 => string(), 2 => literal(&["true", "false", "null", "{}", "[]"])];
    let leaf = seldom(
        80,
        leaf,
        literal(&["True", "nul", "undefined", "'x'", "NaN", "{a:1}", "[1,]", "{\"a\":1,}", "[,]", ""]),
    );
    leaf.prop_recursive(2, 8, 3, |inner| {
        let list = (vec(inner.clone(), 0..4), gap()).prop_map(|(values, gap)| array(&values, &gap));
        prop_oneof![list, object_with(&["a", "b", "name", "id", "NAME", "\u{1f600}"], inner)]
    })
    .boxed()
}

fn object(keys: &'static [&'static str]) -> Text {
    object_with(keys, value())
}

/// An object with some of these keys, seldom one of them twice.
fn object_with(keys: &'static [&'static str], values: Text) -> Text {
    let members = (subsequence(keys, keys.len().min(4)), vec((values.clone(), ways()), 0..=4)).prop_map(
        |(keys, values)| {
            let members =
                keys.iter().zip(values).map(|(key, (value, ways))| Some((spell(key, &ways), value)));
            (keys.first().copied(), members.collect::<Vec<_>>())
        },
    );
    (members, prop::option::weighted(0.02, (values, ways())), gap())
        .prop_map(|((first, mut members), twice, gap)| {
            if let (Some(key), Some((value, ways))) = (first, twice) {
                members.push(Some((spell(key, &ways), value)));
            }
            object_of(&members, &gap)
        })
        .boxed()
}

fn string() -> Text {
    let good = prop_oneof![
        4 => spelled(&["", "a", "x y", "\u{0}", "\u{1f}\u{7f}", "\u{85}", "\u{e9}", "\u{1f600}", "\u{d7ff}\u{e000}", "\u{fffe}",
            "\"", "\\", "/", "\r\n\t\u{8}\u{c}", "0123456789012345678901234567890123456789"]),
        1 => any::<String>().prop_map(|text| spell(&text, &[])),
    ];
    let bad = literal(&[
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\u0041""#,
        r#""\udc00\ud800""#,
        r#""\uD83D\uDE0""#,
        r#""\u00g0""#,
        r#""\x41""#,
        r#""\'""#,
        r#""\"#,
        "\"\t\"",
        "\"\n\"",
        "\"\0\"",
        r#""\u{41}""#,
        r#""\U00000041""#,
    ]);
    seldom(60, good, bad)
}

fn number() -> Text {
    const GOOD: &[&str] = &[
        "0",
        "-0",
        "0.0",
        "-0.0",
        "-0e1",
        "1",
        "-1",
        "1.5",
        "1e2",
        "1E+2",
        "1E-2",
        "1.0",
        "0.1",
        "0.30000000000000004",
        "9007199254740991",
        "9007199254740992",
        "9007199254740993",
        "-9007199254740993",
        "9007199254740993.0",
        "9007199254740992.999999999999999999999999",
        "9007199254740993.000000000000000000000000000001",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "123456789012345678901234567890",
        "1e308",
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "4.9e-324",
        "2.5e-324",
        "2.4e-324",
        "2.2250738585072011e-308",
        "1e-400",
        "-1E-400",
        "0e999",
        "0e99999999999999999999",
        "1e-99999999999999999999",
        "1e0000000000000000000001",
    ];
    const BAD: &[&str] = &[
        "1e309",
        "1E400",
        "-1e400",
        "1.7976931348623159e308",
        "1e99999999999999999999",
        "01",
        "-01",
        "00",
        "+1",
        ".5",
        "1.",
        "0x10",
        "1e",
        "1e+",
        "-",
        "--1",
        "1_0",
        "1,0",
        "Infinity",
        "-Infinity",
        "1.e1",
        "\u{661}",
    ];
    // Some twenty digits from each part.
    let digits = |most: usize| {
        vec(any::<u64>(), 0..=most).prop_map(|parts| parts.iter().map(u64::to_string).collect::<String>())
    };
    let long =
        (any::<bool>(), 1..10_u8, digits(16), prop::option::of(digits(2)), prop::option::of(-330..310_i32))
            .prop_map(|(negative, first, digits, fraction, exponent)| {
                // The exponent takes back most of what the digits make of it.
                let shift = i32::try_from(digits.len()).unwrap_or_default();
                let exponent = exponent.map_or_else(String::new, |exponent| format!("e{}", exponent - shift));
                let fraction = fraction.map_or_else(String::new, |digits| format!(".{first}{digits}"));
                format!("{}{first}{digits}{fraction}{exponent}", if negative { "-" } else { "" })
            });
    let small = (0..340_usize, any::<u64>(), 0..340_i32)
        .prop_map(|(zeros, digits, exponent)| format!("0.{}{digits}e{exponent}", "0".repeat(zeros)));
    let good = prop_oneof![
        6 => literal(GOOD),
        2 => any::<i64>().prop_map(|number| number.to_string()),
        2 => any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| format!("{number:e}")),
        1 => long,
        1 => small,
    ];
    seldom(60, good, literal(BAD))
}

/// Between tokens.
fn gap() -> impl Strategy<Value = String> {
    rarely(
        150,
        &["", "", "", " ", "\n", "\r\n\t "],
        &["\u{a0}", "\u{b}", "\u{c}", "\u{2028}", "\u{feff}", "\0", "/**/", "\u{85}", "\u{3000}"],
    )
}

fn member(key: &'static str, value: Text) -> BoxedStrategy<Member> {
    (ways().prop_map(move |ways| spell(key, &ways)), value).boxed()
}

fn perhaps(percent: u32, key: &'static str, value: Text) -> BoxedStrategy<Option<Member>> {
    let (there, absent) = (member(key, value).prop_map(Some), Just(None));
    // Of a union, what comes first costs least to draw.
    if percent > 50 {
        prop_oneof![percent => there, 100 - percent => absent].boxed()
    } else {
        prop_oneof![100 - percent => absent, percent => there].boxed()
    }
}

/// An object of these members, in any order.
fn shuffled(members: Vec<BoxedStrategy<Option<Member>>>) -> Text {
    (members.prop_shuffle(), gap()).prop_map(|(members, gap)| object_of(&members, &gap)).boxed()
}

/// One of these texts, as a JSON string.
fn spelled(texts: &'static [&'static str]) -> Text {
    (select(texts), ways()).prop_map(|(text, ways)| spell(text, &ways)).boxed()
}

fn literal(texts: &'static [&'static str]) -> Text {
    select(texts).prop_map(str::to_owned).boxed()
}

/// The usual, and once in so many times what is not.
fn seldom(
    times: u32,
    usual: impl Strategy<Value = String> + 'static,
    strange: impl Strategy<Value = String> + 'static,
) -> Text {
    prop_oneof![times => usual, 1 => strange].boxed()
}

/// As [`seldom`], of texts.
fn rarely(
    times: u8,
    usual: &'static [&'static str],
    strange: &'static [&'static str],
) -> impl Strategy<Value = String> {
    // A union would seed a generator for each side: these are drawn more often than all others.
    (0..=times, any::<Index>())
        .prop_map(move |(time, at)| (*at.get(if time < times { usual } else { strange })).to_owned())
}

/// Whether and how characters are escaped, one after the other and over again: mostly those that must be.
fn ways() -> impl Strategy<Value = Vec<u8>> {
    (0..7_u8, any::<[u8; 5]>())
        .prop_map(|(time, ways)| if time < 6 { Vec::new() } else { ways.map(|way| way % 4).to_vec() })
}

/// A JSON string that decodes to `text`.
fn spell(text: &str, ways: &[u8]) -> String {
    let mut spelling = String::from("\"");
    let mut ways = ways.iter().cycle();
    for c in text.chars() {
        let units = |upper: bool| -> String {
            let hex = |unit: &u16| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
            c.encode_utf16(&mut [0; 2]).iter().map(hex).collect()
        };
        match (ways.next(), c) {
            (Some(1), _) => spelling.push_str(&units(false)),
            (Some(2), _) => spelling.push_str(&units(true)),
            (_, '"' | '\\') | (Some(3), '/') => spelling.extend(['\\', c]),
            (Some(3), '\n') => spelling.push_str("\\n"),
            (Some(3), '\u{8}') => spelling.push_str("\\b"),
            (_, '\0'..'\u{20}') => spelling.push_str(&units(false)),
            _ => spelling.push(c),
        }
    }
    spelling.push('"');
    spelling
}

fn object_of(members: &[Option<Member>], gap: &str) -> String {
    let members: Vec<String> =
        members.iter().flatten().map(|(key, value)| format!("{gap}{key}{gap}:{gap}{value}{gap}")).collect();
    format!("{{{}}}", if members.is_empty() { gap.to_owned() } else { members.join(",") })
}

fn array(elements: &[String], gap: &str) -> String {
    let elements: Vec<String> = elements.iter().map(|element| format!("{gap}{element}{gap}")).collect();
    format!("[{}]", elements.join(","))
}
