//! One rule as conditions.
use authz_core::{Attribute, CelTest, TextTest, WrittenPolicy};
use policy_model::{Condition, HeaderMatch, HostMatch, Inline, PathMatch, Rule, StringMatch};

use super::{
    mcp::{self, Kind},
    regex::{checked, escaped},
    test::{Test, Text, header, header_present, message, method, own_flag, path, peer},
};

/// When a rule matches. Where that cannot be told, it does in an ExternalAuth policy, and does not in an Allow rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Matches {
    /// It surely does.
    pub(super) surely: Test,
    /// It does, or cannot be told.
    pub(super) perhaps: Test,
}

impl Matches {
    fn exactly(test: Test) -> Self {
        Self { surely: test.clone(), perhaps: test }
    }

    fn and(self, other: Self) -> Self {
        Self { surely: self.surely.and(other.surely), perhaps: self.perhaps.and(other.perhaps) }
    }

    fn or(self, other: Self) -> Self {
        Self { surely: self.surely.or(other.surely), perhaps: self.perhaps.or(other.perhaps) }
    }
}

/// Where a request is matched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) kind: Kind,
    /// Of the listener.
    pub(super) port: u16,
    /// Whether identities are known there.
    pub(super) identities: bool,
}

/// Who a rule is about.
pub(super) fn source(policy: WrittenPolicy<'_>, rule: usize, place: Place) -> Test {
    match policy.identity(rule) {
        None => Test::Always,
        Some(id) => identity(id, place),
    }
}

fn identity(id: &str, place: Place) -> Test {
    // A comma would stand for two names.
    if place.identities && !id.contains(',') { is_peer(Text::exact(id)) } else { Test::Never }
}

/// The one URI SAN of a client certificate that has not ended.
fn is_peer(text: Text) -> Test {
    peer(text).and(own_flag("current"))
}

/// When the rule of this index matches.
///
/// # Errors
/// What of it Envoy cannot be told exactly.
pub(super) fn matches(
    policy: WrittenPolicy<'_>,
    index: usize,
    rule: &Rule,
    place: Place,
) -> Result<Matches, String> {
    let kind = place.kind;
    let condition = match &rule.condition {
        Condition::Anything => Matches::exactly(Test::Always),
        Condition::NotToolCall => Matches::exactly(mcp::not_a_call(kind)),
        Condition::Tools(tools) => Matches::exactly(mcp::calls_one_of(kind, tools)),
        Condition::ExternalAuth(_) => Matches::exactly(mcp::is_call(kind)),
        Condition::Inline(inline) => of_inline(inline, place)?,
        Condition::Cel { inline, .. } => {
            let inline = match inline {
                Some(inline) => of_inline(inline, place)?,
                None => Matches::exactly(Test::Always),
            };
            let test = match policy.cel(index) {
                Some(test) => test.map_err(|what| {
                    format!("of CEL only tests of text can be given to Envoy: {what}; run the engine beside Envoy for more")
                })?,
                None => return Err("its CEL is not known".to_owned()),
            };
            let Truth { yes, no } = cel(&test, place)?;
            let call = mcp::is_call(kind);
            inline.and(Matches {
                surely: call.clone().and(yes),
                perhaps: call.and(no.negated()).or(mcp::is_unread(kind)),
            })
        }
    };
    Ok(Matches::exactly(source(policy, index, place)).and(condition))
}

fn of_inline(inline: &Inline, place: Place) -> Result<Matches, String> {
    let Inline { methods, paths, headers, hosts, ports, mcp } = inline;
    let mut all = Matches::exactly(Test::Always);
    if let Some(methods) = methods {
        all = all.and(Matches::exactly(Test::any(methods.iter().map(|one| method(&one.0)))));
    }
    if let Some(ports) = ports {
        all = all.and(Matches::exactly(Test::when(ports.contains(&place.port))));
    }
    if let Some(paths) = paths {
        let mut any = Matches::exactly(Test::Never);
        for one in paths {
            any = any.or(match one {
                PathMatch::Exact(exact) => Matches::exactly(path(Text::exact(exact))),
                PathMatch::Prefix(prefix) => Matches::exactly(mcp::below(prefix)),
                PathMatch::Regex(pattern) => {
                    let (holds, told) = (path(Text::regex(checked(pattern)?)), path(ascii()));
                    Matches { surely: holds.clone().and(told.clone()), perhaps: holds.or(told.negated()) }
                }
            });
        }
        all = all.and(any);
    }
    if let Some(hosts) = hosts {
        let mut any = Test::Never;
        for host in hosts {
            any = any.or(of_host(host)?);
        }
        all = all.and(Matches::exactly(any));
    }
    for one in headers.iter().flatten() {
        all = all.and(of_header(one)?);
    }
    if let Some(mcp) = mcp {
        let surely = mcp::matches(place.kind, mcp);
        let nothing = !mcp.match_base_protocol && mcp.methods.as_ref().is_some_and(Vec::is_empty);
        let unread = if nothing { Test::Never } else { mcp::is_unread(place.kind) };
        all = all.and(Matches { perhaps: surely.clone().or(unread), surely });
    }
    Ok(all)
}

/// Hosts that are unclear have been refused before.
fn of_host(host: &HostMatch) -> Result<Test, String> {
    let pattern = match host {
        HostMatch::Exact(name) => escaped(name),
        HostMatch::Wildcard(suffix) => format!(r"(?:[\w-]+\.)+{}", escaped(suffix)),
    };
    let pattern = format!(r"(?i){pattern}(?::\d{{1,5}})?");
    checked(&pattern)
        .map_err(|_too_large| "a host in `hosts` is too long for Envoy; shorten it".to_owned())?;
    Ok(header(":authority", Text::regex(&pattern)))
}

/// A text that regular expressions can be told of: Envoy's read bytes, ours read characters, and nothing that is not UTF-8.
fn ascii() -> Text {
    Text::regex(r"[\t -~]*")
}

/// Every line must match. For Envoy one that does is enough, and the lines of some headers it has joined with a comma: only
/// a single line is told.
fn of_header(of: &HeaderMatch) -> Result<Matches, String> {
    let name = of_clients(&of.name)?;
    if mirrors_the_body(name) {
        // Nothing compares it with the body here.
        return Ok(Matches { surely: Test::Never, perhaps: header_present(name) });
    }
    let joined = header(name, Text::contains(","));
    let (text, told) = match &of.value {
        StringMatch::Exact(value) if value.contains(',') => {
            return Err(format!(
                "the value of header `{name}` holds a comma, which Envoy may take for two lines; leave it out"
            ));
        }
        StringMatch::Exact(value) => (Text::exact(value), Test::Always),
        StringMatch::Regex(pattern) => (Text::regex(checked(pattern)?), header(name, ascii())),
    };
    let matches = header(name, text);
    let told = Test::all([single_lines(), joined.negated(), told]);
    Ok(Matches {
        surely: matches.clone().and(told.clone()),
        perhaps: header_present(name).and(matches.or(told.negated())),
    })
}

/// Envoy writes, joins or drops these before its filters see them.
fn of_clients(name: &str) -> Result<&str, String> {
    const ENVOYS: [&str; 12] = [
        "connection",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-forwarded-client-cert",
        "x-forwarded-proto",
        "x-request-id",
    ];
    if ENVOYS.contains(&name) || name.starts_with("x-envoy-") {
        return Err(format!("Envoy itself writes or drops the header `{name}`; use another"));
    }
    Ok(name)
}

fn mirrors_the_body(name: &str) -> bool {
    matches!(name, "mcp-method" | "mcp-name") || name.starts_with("mcp-param-")
}

/// When an expression is true, and when it is false; an error is neither.
struct Truth {
    yes: Test,
    no: Test,
}

fn cel(test: &CelTest, place: Place) -> Result<Truth, String> {
    if let CelTest::Present(Attribute::Header(name)) | CelTest::Text(Attribute::Header(name), _) = test {
        of_clients(name)?;
    }
    Ok(match test {
        CelTest::Literal(value) => Truth { yes: Test::when(*value), no: Test::when(!value) },
        CelTest::Not(inner) => {
            let Truth { yes, no } = cel(inner, place)?;
            Truth { yes: no, no: yes }
        }
        CelTest::Both(left, right) => {
            let (left, right) = (cel(left, place)?, cel(right, place)?);
            Truth { yes: left.yes.and(right.yes), no: left.no.or(right.no) }
        }
        CelTest::Either(left, right) => {
            let (left, right) = (cel(left, place)?, cel(right, place)?);
            Truth { yes: left.yes.or(right.yes), no: left.no.and(right.no) }
        }
        CelTest::Present(attribute) => match attribute {
            Attribute::Header(name) if mirrors_the_body(name) => {
                Truth { yes: Test::Never, no: header_present(name).negated() }
            }
            attribute => {
                let present = present(attribute, place);
                Truth { no: present.clone().negated(), yes: readable(attribute, present) }
            }
        },
        CelTest::Text(Attribute::Header(name), _) if mirrors_the_body(name) => {
            Truth { yes: Test::Never, no: Test::Never }
        }
        CelTest::Text(attribute, test) => {
            let mut present = readable(attribute, present(attribute, place));
            if let TextTest::Matches(_) = test {
                present = present.and(told(attribute));
            }
            let holds = compared(attribute, test, place)?;
            Truth { yes: present.clone().and(holds.clone()), no: present.and(holds.negated()) }
        }
    })
}

/// The headers that the rules of a policy look at.
pub(super) fn headers(policy: WrittenPolicy<'_>) -> Vec<String> {
    fn collect(test: &CelTest, names: &mut Vec<String>) {
        match test {
            CelTest::Literal(_) => {}
            CelTest::Not(inner) => collect(inner, names),
            CelTest::Both(left, right) | CelTest::Either(left, right) => {
                collect(left, names);
                collect(right, names);
            }
            CelTest::Present(attribute) | CelTest::Text(attribute, _) => {
                if let Attribute::Header(name) = attribute
                    && is_own_spelling(name)
                {
                    names.push(name.clone());
                }
            }
        }
    }
    let mut names = Vec::new();
    let rules = policy.policy().map_or(0, |written| written.rules.len());
    for test in (0..rules).filter_map(|rule| policy.cel(rule)?.ok()) {
        collect(&test, &mut names);
    }
    for rule in policy.policy().into_iter().flat_map(|written| &written.rules) {
        let inline = match &rule.condition {
            Condition::Inline(inline) => Some(inline),
            Condition::Cel { inline, .. } => inline.as_ref(),
            _ => None,
        };
        let headers = inline.into_iter().flat_map(|inline| inline.headers.iter().flatten());
        names.extend(headers.map(|header| header.name.clone()).filter(|name| is_own_spelling(name)));
    }
    names
}

/// Where an attribute is there at all.
fn present(attribute: &Attribute, place: Place) -> Test {
    match attribute {
        Attribute::ToolName | Attribute::Path | Attribute::UrlPath | Attribute::Method | Attribute::Host => {
            Test::Always
        }
        Attribute::Header(name) if is_own_spelling(name) => header_present(name),
        Attribute::Header(_) => Test::Never,
        // Exactly one name.
        Attribute::Identity if place.identities => is_peer(Text::regex("spiffe://[^,]+")),
        Attribute::Namespace | Attribute::ServiceAccount if place.identities => {
            is_peer(Text::regex("spiffe://[^,/]+/ns/[^,/]+/sa/[^,/]+"))
        }
        Attribute::Identity | Attribute::Namespace | Attribute::ServiceAccount => Test::Never,
    }
}

/// Whether each header that rules look at has one line at most.
fn single_lines() -> Test {
    own_flag("matched_single")
}

/// A header that is no text is an error; of several lines it is not told what they are together.
fn readable(attribute: &Attribute, present: Test) -> Test {
    match attribute {
        Attribute::Header(name) if present != Test::Never => {
            Test::all([present, single_lines(), header(name, ascii())])
        }
        _ => present,
    }
}

/// Whether regular expressions can be told of what is there, and readable.
fn told(attribute: &Attribute) -> Test {
    match attribute {
        Attribute::ToolName => message(&["params", "name"], ascii()),
        Attribute::Path => header(":path", ascii()),
        Attribute::UrlPath => path(ascii()),
        // These are ASCII.
        Attribute::Method | Attribute::Host | Attribute::Header(_) => Test::Always,
        Attribute::Identity | Attribute::Namespace | Attribute::ServiceAccount => Test::Always,
    }
}

/// Names of headers are lower case; another spelling is no key.
fn is_own_spelling(name: &str) -> bool {
    http::HeaderName::from_lowercase(name.as_bytes()).is_ok()
}

fn compared(attribute: &Attribute, test: &TextTest, place: Place) -> Result<Test, String> {
    if let Attribute::Namespace | Attribute::ServiceAccount = attribute {
        return account(attribute, test, place);
    }
    let of = |text: Text| match attribute {
        Attribute::ToolName => message(&["params", "name"], text),
        Attribute::Path => header(":path", text),
        Attribute::UrlPath => path(text),
        Attribute::Method => header(":method", text),
        Attribute::Host => header(":authority", text),
        Attribute::Header(name) => header(name, text),
        _ if place.identities => peer(text),
        _ => Test::Never,
    };
    Ok(match test {
        TextTest::OneOf(list) => Test::any(list.iter().map(|text| of(Text::exact(text)))),
        TextTest::StartsWith(part) => of(Text::prefix(part)),
        TextTest::EndsWith(part) => of(Text::suffix(part)),
        TextTest::Contains(part) => of(Text::contains(part)),
        TextTest::Matches(pattern) => {
            let anywhere = format!("(?s:.*)(?:{})(?s:.*)", checked(pattern)?);
            of(Text::regex(checked(&anywhere)?))
        }
    })
}

/// The namespace or the name in `spiffe://TD/ns/NAMESPACE/sa/NAME`.
fn account(attribute: &Attribute, test: &TextTest, place: Place) -> Result<Test, String> {
    let TextTest::OneOf(names) = test else {
        return Err(
            "source.namespace and source.service_account are only compared with whole names; use `==` or `in`"
                .to_owned(),
        );
    };
    if !place.identities {
        return Ok(Test::Never);
    }
    let mut any = Test::Never;
    for name in names {
        let name = escaped(name);
        let pattern = match attribute {
            Attribute::Namespace => format!("spiffe://[^,/]+/ns/{name}/sa/[^,/]+"),
            _ => format!("spiffe://[^,/]+/ns/[^,/]+/sa/{name}"),
        };
        any = any.or(peer(Text::regex(checked(&pattern)?)));
    }
    Ok(any)
}
