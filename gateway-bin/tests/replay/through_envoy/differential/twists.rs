//! Requests as they are written, and what may be odd about that: what means the same, and what is refused.
use authz_core::BackendKind;
use generators::{Ask, Carries};

/// The header by which routes choose.
pub(super) const TO: &str = "x-to";

/// A request as it is sent, but for its id.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) lines: Vec<(String, Vec<u8>)>,
    pub(super) body: Option<Vec<u8>>,
    chunked: bool,
}

impl Written {
    /// With the id of a session where one is to end.
    pub(super) fn of(ask: &Ask, twist: Option<&Twist>, session: &str) -> Self {
        let to = match ask.backend {
            BackendKind::XBackendMcp => "mcp",
            BackendKind::XBackendWellKnown => "well-known",
            BackendKind::Service => "service",
        };
        let mut lines = vec![("host", ask.host.as_str()), (TO, to)];
        let json = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        let body = match &ask.carries {
            Carries::Mcp(body) => Some(body.as_str()),
            Carries::OtherJson => Some(r#"{"other":[1]}"#),
            Carries::Unparsed => Some("text"),
            Carries::NoBody | Carries::EventStream | Carries::EndSession => None,
        };
        match &ask.carries {
            Carries::Mcp(_) | Carries::OtherJson => lines.extend(json),
            Carries::Unparsed => lines.push(("content-type", "text/plain")),
            Carries::EventStream => lines.push(("accept", "text/event-stream")),
            Carries::EndSession => lines.push(("mcp-session-id", session)),
            Carries::NoBody => {}
        }
        let given = lines.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let mut written = Self {
            method: ask.method.clone(),
            target: ask.path.clone(),
            lines: given.chain(ask.headers.clone()).collect(),
            body: body.map(|body| body.as_bytes().to_vec()),
            chunked: false,
        };
        if let Some(twist) = twist {
            (twist.how)(&mut written);
        }
        written
    }

    /// What goes over the wire, with one more line.
    pub(super) fn bytes(&self, (name, value): (&str, &str)) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\n{name}: {value}\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.lines {
            bytes.extend_from_slice(format!("{name}: ").as_bytes());
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"connection: close\r\n");
        match &self.body {
            None if self.method == "POST" => bytes.extend_from_slice(b"content-length: 0\r\n\r\n"),
            None => bytes.extend_from_slice(b"\r\n"),
            Some(body) if self.chunked => {
                bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for half in [&body[..body.len() / 2], &body[body.len() / 2..]] {
                    bytes.extend_from_slice(format!("{:x}\r\n", half.len()).as_bytes());
                    bytes.extend_from_slice(half);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            Some(body) => {
                bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
        }
        bytes
    }

    fn text(&self) -> &str {
        self.body.as_deref().and_then(|body| std::str::from_utf8(body).ok()).unwrap_or_default()
    }

    fn replace(&mut self, from: &str, to: &str) {
        assert!(self.text().contains(from), "`{from}` is not in {}", self.text());
        self.body = Some(self.text().replacen(from, to, 1).into_bytes());
    }

    fn set(&mut self, name: &str, value: &str) {
        self.lines.retain(|(given, _)| given != name);
        self.add(name, value);
    }

    fn add(&mut self, name: &str, value: &str) {
        self.lines.push((name.to_owned(), value.as_bytes().to_vec()));
    }
}

/// What a twist does to the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing.
    Same,
    /// An authorizer cannot be shown the request.
    Unshowable,
    /// It is refused before policy.
    Refused,
}

/// What is odd about how a request is written.
#[derive(Debug)]
pub(super) struct Twist {
    pub(super) name: &'static str,
    pub(super) meaning: Meaning,
    /// Of which requests it can be.
    of: Of,
    how: fn(&mut Written),
}

#[derive(Debug, Clone, Copy)]
enum Of {
    Any,
    /// Anything for the XBackend.
    Mcp,
    /// Messages to the XBackend.
    Message,
    /// Those that hold this text.
    With(&'static str),
    /// Those that do not.
    Without(&'static str),
    /// Without a body.
    Bodiless,
}

/// The twists that a request can be written with.
pub(super) fn that_fit(ask: &Ask) -> Vec<&'static Twist> {
    let message = match &ask.carries {
        Carries::Mcp(body) if ask.backend == BackendKind::XBackendMcp => Some(body),
        _ => None,
    };
    let fits = |twist: &&Twist| match twist.of {
        Of::Any => true,
        Of::Mcp => ask.backend == BackendKind::XBackendMcp,
        Of::Message => message.is_some(),
        Of::With(text) => message.is_some_and(|body| body.contains(text)),
        Of::Without(text) => message.is_some_and(|body| !body.contains(text)),
        Of::Bodiless => matches!(ask.carries, Carries::EventStream | Carries::EndSession),
    };
    TWISTS.iter().filter(fits).collect()
}

const fn same(name: &'static str, of: Of, how: fn(&mut Written)) -> Twist {
    Twist { name, meaning: Meaning::Same, of, how }
}

const fn refused(name: &'static str, of: Of, how: fn(&mut Written)) -> Twist {
    Twist { name, meaning: Meaning::Refused, of, how }
}

const CALL: Of = Of::With(r#""name":"t1""#);
const PARAMS: Of = Of::With(r#""params":{""#);
const REQUEST: Of = Of::With(r#""id":1"#);
const INITIALIZE: &str = r#""method":"initialize""#;

fn alone_in_a_batch(written: &mut Written) {
    let body = format!("[{}]", written.text());
    written.body = Some(body.into_bytes());
}

pub(super) static TWISTS: [Twist; 65] = [
    // The same request.
    same("white space", Of::Message, |written| {
        let body = format!("\r\n\t {} \n", written.text());
        written.body = Some(body.into_bytes());
    }),
    same("an escaped value", CALL, |written| written.replace(r#""name":"t1""#, r#""name":"\u00741""#)),
    same("an escaped key", CALL, |written| written.replace(r#""name":"#, r#""n\u0061me":"#)),
    same("a key with a dot", PARAMS, |written| {
        written.replace(r#""params":{""#, r#""params":{"x.name":"t2",""#);
    }),
    same("a tool's own key with a dot", Of::With(r#""arguments":{}"#), |written| {
        written.replace(r#""arguments":{}"#, r#""arguments":{"x.name":"t2"}"#);
    }),
    same("an array", PARAMS, |written| written.replace(r#""params":{""#, r#""params":{"list":[1],""#)),
    same("a tool's own Name", Of::With(r#""arguments":{}"#), |written| {
        written.replace(r#""arguments":{}"#, r#""arguments":{"Name":"t2","name":"t3"}"#);
    }),
    same("a name elsewhere", PARAMS, |written| {
        written.replace(r#""params":{""#, r#""params":{"more":{"name":"t2","uri":"u2"},""#);
    }),
    same("a progress token", PARAMS, |written| {
        written.replace(r#""params":{""#, r#""params":{"_meta":{"progressToken":7},""#);
    }),
    same("members of another order", Of::With(r#""method":"tools/call","params":"#), |written| {
        let text = written.text().replacen(r#""jsonrpc":"2.0","id":1,"method":"tools/call","#, "", 1);
        let text = text.strip_suffix('}').unwrap().to_owned();
        written.body = Some(format!(r#"{text},"method":"tools/call","id":1,"jsonrpc":"2.0"}}"#).into_bytes());
    }),
    same("an id that is a text", REQUEST, |written| written.replace(r#""id":1"#, r#""id":"1""#)),
    same("chunks", Of::Message, |written| written.chunked = true),
    same("a revision", Of::Mcp, |written| written.set("mcp-protocol-version", "2025-11-25")),
    same("a charset", Of::Message, |written| {
        written.set("content-type", "application/json; charset=utf-8");
    }),
    same("a content type in capitals", Of::Message, |written| {
        written.set("content-type", "Application/JSON");
    }),
    same("an Accept of JSON alone", Of::Message, |written| written.set("accept", "application/json")),
    same("an Accept of anything", Of::Message, |written| written.set("accept", "*/*")),
    same("identity coding", Of::Message, |written| written.set("content-encoding", "identity")),
    same("a certificate in a header", Of::Any, |written| {
        let agent = "By=spiffe://cluster.local/x;URI=spiffe://cluster.local/ns/ns/sa/agent";
        written.set("x-forwarded-client-cert", agent);
    }),
    same("another method in a header", Of::Any, |written| written.set("x-http-method-override", "GET")),
    same("another name in a header", Of::Message, |written| {
        written.set("mcp-name", "t1");
        written.set("mcp-method", "ping");
    }),
    same("Envoy's own headers", Of::Any, |written| {
        written.set("x-envoy-original-path", "/a");
        written.set("x-envoy-decorator-operation", "x");
    }),
    same("a batch of one", Of::Without(INITIALIZE), alone_in_a_batch),
    Twist {
        name: "33 levels",
        meaning: Meaning::Unshowable,
        of: Of::With(r#""arguments":{}"#),
        how: |written| {
            let nested = format!("{}1{}", r#"{"d":"#.repeat(31), "}".repeat(31));
            written.replace(r#""arguments":{}"#, &format!(r#""arguments":{nested}"#));
        },
    },
    // Two parsers could disagree.
    refused("the version twice", Of::Message, |written| written.replace("{", r#"{"jsonrpc":"2.0","#)),
    refused("the method twice", Of::Message, |written| {
        written.replace("{", r#"{"method":"ping","method":"ping","#);
    }),
    refused("the params twice", Of::With(r#""params":{"name":"t1""#), |written| {
        written.replace("{", r#"{"params":{"name":"t2"},"#);
    }),
    refused("the name twice", CALL, |written| written.replace(r#""name":"#, r#""name":"t2","name":"#)),
    refused("the name twice, the other last", CALL, |written| {
        written.replace(r#""name":"t1""#, r#""name":"t1","name":"t2""#);
    }),
    refused("the name twice, once escaped", CALL, |written| {
        written.replace(r#""name":"#, r#""n\u0061me":"t2","name":"#);
    }),
    refused("a key twice below", Of::With(r#""arguments":{}"#), |written| {
        written.replace(r#""arguments":{}"#, r#""arguments":{"a":[{"b":1,"b":1}]}"#);
    }),
    refused("a Name too", CALL, |written| written.replace(r#""name":"#, r#""Name":"t2","name":"#)),
    refused("a METHOD too", Of::Message, |written| written.replace("{", r#"{"METHOD":"ping","#)),
    refused("a Name only", CALL, |written| written.replace(r#""name":"#, r#""Name":"#)),
    refused("a key with a control character", CALL, |written| {
        written.replace(r#""name":"#, r#""name\u0000":"t2","name":"#);
    }),
    refused("a byte-order mark", Of::Message, |written| {
        let body = format!("\u{feff}{}", written.text());
        written.body = Some(body.into_bytes());
    }),
    refused("something after it", Of::Message, |written| {
        let body = format!("{} {{}}", written.text());
        written.body = Some(body.into_bytes());
    }),
    refused("no UTF-8", PARAMS, |written| {
        let at = written.text().find(r#""params":{"#).unwrap() + r#""params":{"#.len();
        written.body.as_mut().unwrap().splice(at..at, b"\"x\":\"\xff\",".iter().copied());
    }),
    refused("half a surrogate pair", PARAMS, |written| {
        written.replace(r#""params":{""#, r#""params":{"x":"\ud800",""#);
    }),
    refused("a number that no double holds", PARAMS, |written| {
        written.replace(r#""params":{""#, r#""params":{"x":1e999,""#);
    }),
    refused("65 levels", PARAMS, |written| {
        let nested = format!(r#""params":{{"x":{}{},""#, "[".repeat(63), "]".repeat(63));
        written.replace(r#""params":{""#, &nested);
    }),
    refused("initialize in a batch", Of::With(INITIALIZE), alone_in_a_batch),
    refused("a comma before the end", Of::Message, |written| {
        let text = written.text().strip_suffix('}').unwrap().to_owned();
        written.body = Some(format!("{text},}}").into_bytes());
    }),
    refused("a comment", Of::Message, |written| written.replace("{", "{/*x*/")),
    refused("single quotes", Of::Message, |written| {
        written.body = Some(written.text().replace('"', "'").into_bytes());
    }),
    refused("NaN", PARAMS, |written| written.replace(r#""params":{""#, r#""params":{"x":NaN,""#)),
    refused("no version", Of::Message, |written| written.replace(r#""jsonrpc":"2.0","#, "")),
    refused("version 1.0", Of::Message, |written| written.replace(r#""2.0""#, r#""1.0""#)),
    refused("the id null", REQUEST, |written| written.replace(r#""id":1"#, r#""id":null"#)),
    refused("an id that is an object", REQUEST, |written| written.replace(r#""id":1"#, r#""id":{}"#)),
    refused("a result too", REQUEST, |written| written.replace("{", r#"{"result":{},"#)),
    refused("a name with a control character", CALL, |written| {
        written.replace(r#""name":"t1""#, r#""name":"t1\u0000""#);
    }),
    refused("no name", CALL, |written| written.replace(r#""name":"t1""#, r#""nam":"t1""#)),
    // Heads.
    refused("a coding", Of::Message, |written| written.set("content-encoding", "gzip")),
    refused("a content type of text", Of::Message, |written| written.set("content-type", "text/plain")),
    refused("another charset", Of::Message, |written| {
        written.set("content-type", "application/json; charset=latin1");
    }),
    refused("two content types", Of::Message, |written| written.add("content-type", "application/json")),
    refused("an unknown revision", Of::Mcp, |written| written.set("mcp-protocol-version", "2027-01-01")),
    refused("another origin", Of::Mcp, |written| written.set("origin", "https://evil.example")),
    refused("two hosts", Of::Any, |written| written.add("host", "a.example")),
    refused("a dot segment", Of::Any, |written| written.target = "/b/../a".to_owned()),
    refused("an escaped slash", Of::Any, |written| written.target = "/a%2fb".to_owned()),
    refused("an empty segment", Of::Any, |written| written.target = "/a//b".to_owned()),
    refused("a backslash", Of::Any, |written| written.target = "/a\\b".to_owned()),
    refused("a body", Of::Bodiless, |written| written.body = Some(b"x".to_vec())),
];
