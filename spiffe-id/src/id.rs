//! SPIFFE IDs and trust domains (SPIFFE-ID specification, sections 2.1 to 2.4).
use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID specification, section 2.3: at most 2048 bytes in all.
const MAX_ID: usize = 2048;
/// SPIFFE-ID specification, section 2.1: at most 255 bytes.
const MAX_TRUST_DOMAIN: usize = 255;
/// So much of a bad text is quoted in an error.
const MAX_QUOTED: usize = 128;

/// Why a text is no SPIFFE ID or trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError {
    /// The text, escaped and shortened.
    text: String,
    what: What,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Id,
    TrustDomain,
    Segment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    TooLong,
    Scheme,
    DomainEmpty,
    DomainTooLong,
    DomainChar(char),
    NoPath,
    EmptySegment,
    DotSegment,
    PathChar(char),
}

impl IdError {
    fn new(what: What, text: &str, kind: Kind) -> Self {
        Self { text: quotable(text), what, kind }
    }

    /// The text is over a limit: 2048 bytes for an ID, 255 for a trust domain.
    pub fn is_too_long(&self) -> bool {
        matches!(self.kind, Kind::TooLong | Kind::DomainTooLong)
    }

    /// The ID has no path: it names a trust domain, not a workload.
    pub fn is_without_path(&self) -> bool {
        self.kind == Kind::NoPath
    }

    /// The trust domain is at fault, not the scheme or the path.
    pub fn is_trust_domain(&self) -> bool {
        matches!(self.kind, Kind::DomainEmpty | Kind::DomainTooLong | Kind::DomainChar(_))
    }
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Id => "SPIFFE ID",
            What::TrustDomain => "trust domain",
            What::Segment => "segment of a SPIFFE ID's path",
        };
        write!(f, "`{}` is no {what}: ", self.text)?;
        match self.kind {
            Kind::TooLong => write!(f, "it has more than {MAX_ID} bytes"),
            Kind::Scheme => write!(f, "it must begin with `{SCHEME}`, in lower case"),
            Kind::DomainEmpty => f.write_str("the name of the trust domain is missing"),
            Kind::DomainTooLong => {
                write!(f, "the name of the trust domain has more than {MAX_TRUST_DOMAIN} bytes")
            }
            Kind::DomainChar(found) => write!(
                f,
                "the name of the trust domain holds `{}`; it may hold a-z, 0-9, `.`, `-` and `_`",
                found.escape_debug()
            ),
            Kind::NoPath => f.write_str(
                "it names a trust domain and no workload; add a path, such as `/ns/NAMESPACE/sa/NAME`",
            ),
            Kind::EmptySegment => {
                f.write_str("its path has an empty segment; remove a `/` that is repeated or at the end")
            }
            Kind::DotSegment => f.write_str("its path must not have the segments `.` and `..`"),
            Kind::PathChar(found) => write!(
                f,
                "its path holds `{}`; a segment may hold A-Z, a-z, 0-9, `.`, `-` and `_`",
                found.escape_debug()
            ),
        }
    }
}
impl std::error::Error for IdError {}

/// `text` for a message: control characters and quotes escaped, at most [`MAX_QUOTED`] characters of it.
fn quotable(text: &str) -> String {
    let mut quoted: String = text.chars().take(MAX_QUOTED).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        quoted.push_str("...");
    }
    quoted
}

fn check_trust_domain(name: &str) -> Result<(), Kind> {
    if name.is_empty() {
        return Err(Kind::DomainEmpty);
    }
    if name.len() > MAX_TRUST_DOMAIN {
        return Err(Kind::DomainTooLong);
    }
    match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_')) {
        Some(found) => Err(Kind::DomainChar(found)),
        None => Ok(()),
    }
}

fn check_segment(segment: &str) -> Result<(), Kind> {
    match segment {
        "" => return Err(Kind::EmptySegment),
        "." | ".." => return Err(Kind::DotSegment),
        _ => {}
    }
    match segment.chars().find(|c| !matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '-' | '_')) {
        Some(found) => Err(Kind::PathChar(found)),
        None => Ok(()),
    }
}

/// Checks a whole ID and returns where its path begins.
fn check_id(text: &str) -> Result<usize, Kind> {
    if text.len() > MAX_ID {
        return Err(Kind::TooLong);
    }
    let rest = text.strip_prefix(SCHEME).ok_or(Kind::Scheme)?;
    let Some((domain, path)) = rest.split_once('/') else {
        check_trust_domain(rest)?;
        return Err(Kind::NoPath);
    };
    check_trust_domain(domain)?;
    path.split('/').try_for_each(check_segment)?;
    Ok(SCHEME.len() + domain.len())
}

/// A trust domain name: 1 to 255 of `a-z 0-9 . - _` (SPIFFE-ID specification, section 2.1).
///
/// The default is `cluster.local`, as Kubernetes clusters have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID of the trust domain itself, `spiffe://NAME`: what a CA certificate carries, and no
    /// workload.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }

    /// The trust domain of a URI that a CA certificate carries: `spiffe://NAME`, or an ID with a path.
    pub(crate) fn of_ca_uri(uri: &str) -> Result<Self, IdError> {
        match uri.strip_prefix(SCHEME) {
            Some(name) if !name.contains('/') => {
                check_trust_domain(name).map_err(|kind| IdError::new(What::Id, uri, kind))?;
                Ok(Self(name.to_owned()))
            }
            _ => Ok(Self(uri.parse::<SpiffeId>()?.trust_domain().to_owned())),
        }
    }
}
impl FromStr for TrustDomain {
    type Err = IdError;
    fn from_str(name: &str) -> Result<Self, IdError> {
        check_trust_domain(name).map_err(|kind| IdError::new(What::TrustDomain, name, kind))?;
        Ok(Self(name.to_owned()))
    }
}
impl Default for TrustDomain {
    /// `cluster.local`
    fn default() -> Self {
        Self("cluster.local".to_owned())
    }
}
impl AsRef<str> for TrustDomain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID of a workload: scheme `spiffe`, trust domain, a path of one or more segments.
/// At most 2048 bytes.
///
/// There is one spelling of each ID: what is not in canonical form (upper case in scheme or trust domain, a
/// slash at the end, percent-encoding) is refused, so that equal text is equal identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpiffeId {
    text: String,
    /// Where the path begins; a function of `text`.
    path_at: usize,
}

/// What a SPIFFE ID of the form `spiffe://TD/ns/NAMESPACE/sa/NAME` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceAccount<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The name of the ServiceAccount.
    pub name: &'a str,
}

impl SpiffeId {
    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..self.path_at).unwrap_or_default()
    }
    /// The path, with its leading slash.
    pub fn path(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }
    /// Whether the ID belongs to this trust domain.
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain() == trust_domain.as_str()
    }
    /// The ServiceAccount that it names, if it has exactly that form.
    ///
    /// The names are path segments; whether Kubernetes would accept them is not asked.
    pub fn service_account(&self) -> Option<ServiceAccount<'_>> {
        let (namespace, name) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !name.contains('/')).then_some(ServiceAccount { namespace, name })
    }
    /// `spiffe://TD/ns/NAMESPACE/sa/NAME`
    ///
    /// # Errors
    /// A namespace or name that is no path segment, or an ID of more than 2048 bytes.
    pub fn for_service_account(
        trust_domain: &TrustDomain,
        namespace: &str,
        name: &str,
    ) -> Result<Self, IdError> {
        for segment in [namespace, name] {
            check_segment(segment).map_err(|kind| IdError::new(What::Segment, segment, kind))?;
        }
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{name}").parse()
    }
}
impl Hash for SpiffeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl FromStr for SpiffeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let path_at = check_id(text).map_err(|kind| IdError::new(What::Id, text, kind))?;
        Ok(Self { text: text.to_owned(), path_at })
    }
}
impl AsRef<str> for SpiffeId {
    fn as_ref(&self) -> &str {
        &self.text
    }
}
impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn accepts(text: &str, trust_domain: &str, path: &str) {
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!((id.as_str(), id.trust_domain(), id.path()), (text, trust_domain, path));
        assert_eq!(id.to_string(), text);
    }

    #[track_caller]
    fn refuses(text: &str, kind: Kind) {
        let error = text.parse::<SpiffeId>().unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }

    #[test]
    fn ids_that_are_accepted() {
        accepts(
            "spiffe://cluster.local/ns/quickstart-ns/sa/adk-agent-sa",
            "cluster.local",
            "/ns/quickstart-ns/sa/adk-agent-sa",
        );
        accepts("spiffe://a/b", "a", "/b");
        accepts("spiffe://a_b-c.9/A.z_0-9/...", "a_b-c.9", "/A.z_0-9/...");
        accepts("spiffe://127.0.0.1/x", "127.0.0.1", "/x");
        accepts("spiffe://td/.hidden/..x", "td", "/.hidden/..x");
    }

    #[test]
    fn ids_that_are_refused() {
        for text in [
            "",
            "spiffe",
            "spiffe:",
            "spiffe:/td/x",
            "spiffe:td/x",
            "SPIFFE://td/x",
            "Spiffe://td/x",
            " spiffe://td/x",
            "https://td/x",
            "//td/x",
            "\u{feff}spiffe://td/x",
        ] {
            refuses(text, Kind::Scheme);
        }
        refuses("spiffe://", Kind::DomainEmpty);
        refuses("spiffe:///x", Kind::DomainEmpty);
        for (text, found) in [
            ("spiffe://TD/x", 'T'),
            ("spiffe://td:443/x", ':'),
            ("spiffe://user@td/x", '@'),
            ("spiffe://t%64/x", '%'),
            ("spiffe://td?q/x", '?'),
            ("spiffe://td#f/x", '#'),
            ("spiffe://t\u{e4}/x", '\u{e4}'),
            ("spiffe://t\u{0}d/x", '\u{0}'),
            ("spiffe://t d/x", ' '),
            ("spiffe://td\\x", '\\'),
            ("spiffe://td?query", '?'),
        ] {
            refuses(text, Kind::DomainChar(found));
        }
        refuses("spiffe://td", Kind::NoPath);
        for text in ["spiffe://td/", "spiffe://td//", "spiffe://td//x", "spiffe://td/x/", "spiffe://td/x//y"]
        {
            refuses(text, Kind::EmptySegment);
        }
        for text in ["spiffe://td/.", "spiffe://td/..", "spiffe://td/./x", "spiffe://td/x/../y"] {
            refuses(text, Kind::DotSegment);
        }
        for (text, found) in [
            ("spiffe://td/x?q=1", '?'),
            ("spiffe://td/x#f", '#'),
            ("spiffe://td/%61", '%'),
            ("spiffe://td/x:y", ':'),
            ("spiffe://td/x@y", '@'),
            ("spiffe://td/x\\y", '\\'),
            ("spiffe://td/x y", ' '),
            ("spiffe://td/x\n", '\n'),
            ("spiffe://td/x\u{0}", '\u{0}'),
            ("spiffe://td/\u{ff41}", '\u{ff41}'),
            ("spiffe://td/*", '*'),
        ] {
            refuses(text, Kind::PathChar(found));
        }
    }

    #[test]
    fn limits_are_in_bytes() {
        let id = |len: usize| format!("spiffe://td/{}", "x".repeat(len - 12));
        assert_eq!(id(2048).len(), 2048);
        assert!(id(2048).parse::<SpiffeId>().is_ok());
        assert!(id(2049).parse::<SpiffeId>().unwrap_err().is_too_long());

        assert!("d".repeat(255).parse::<TrustDomain>().is_ok());
        assert!("d".repeat(256).parse::<TrustDomain>().unwrap_err().is_too_long());
        assert!(format!("spiffe://{}/x", "d".repeat(255)).parse::<SpiffeId>().is_ok());
        refuses(&format!("spiffe://{}/x", "d".repeat(256)), Kind::DomainTooLong);
    }

    #[test]
    fn trust_domains() {
        for name in ["cluster.local", "a", "9", "_", "-", ".", "127.0.0.1", "a-b_c.d"] {
            assert_eq!(name.parse::<TrustDomain>().unwrap().as_str(), name);
        }
        for name in ["", "A", "a b", "a/b", "spiffe://a", "a:1", "a%41", "\u{e4}", "a\n"] {
            assert!(name.parse::<TrustDomain>().unwrap_err().is_trust_domain(), "{name:?}");
        }
        assert_eq!(TrustDomain::default().as_str(), "cluster.local");
        assert_eq!(TrustDomain::default().uri(), "spiffe://cluster.local");
    }

    #[test]
    fn the_uri_of_a_ca_names_its_trust_domain() {
        let td = |uri: &str| TrustDomain::of_ca_uri(uri).map(|td| td.0).map_err(|error| error.kind);
        assert_eq!(td("spiffe://td"), Ok("td".to_owned()));
        assert_eq!(td("spiffe://td/ca/1"), Ok("td".to_owned()));
        assert_eq!(td("spiffe://td/"), Err(Kind::EmptySegment));
        assert_eq!(td("spiffe://"), Err(Kind::DomainEmpty));
        assert_eq!(td("spiffe://TD"), Err(Kind::DomainChar('T')));
        assert_eq!(td("SPIFFE://td"), Err(Kind::Scheme));
    }

    #[track_caller]
    fn check_service_account(text: &str, expected: Option<(&str, &str)>) {
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.service_account().map(|account| (account.namespace, account.name)), expected);
    }

    #[test]
    fn service_accounts() {
        check_service_account("spiffe://td/ns/a/sa/b", Some(("a", "b")));
        check_service_account("spiffe://td/ns/sa/sa/sa", Some(("sa", "sa")));
        check_service_account("spiffe://td/ns/ns/sa/ns", Some(("ns", "ns")));
        check_service_account("spiffe://td/ns/a.b-c/sa/d.e", Some(("a.b-c", "d.e")));
        for text in [
            "spiffe://td/ns/a",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/x/ns/a/sa/b",
            "spiffe://td/ns/a/x/sa/b",
            "spiffe://td/ns/a/sa/b/sa/c",
            "spiffe://td/NS/a/sa/b",
            "spiffe://td/ns/a/SA/b",
            "spiffe://td/sa/a/ns/b",
        ] {
            check_service_account(text, None);
        }
    }

    #[test]
    fn service_accounts_make_ids() {
        let td: TrustDomain = "example.org".parse().unwrap();
        let id = SpiffeId::for_service_account(&td, "team-a", "agent").unwrap();
        assert_eq!(id.as_str(), "spiffe://example.org/ns/team-a/sa/agent");
        assert!(id.is_member_of(&td));
        assert!(!id.is_member_of(&TrustDomain::default()));
        for (namespace, name) in
            [("", "x"), ("x", ""), ("a/b", "x"), ("x", "a/b"), ("..", "x"), ("x", "a%2fb")]
        {
            assert!(SpiffeId::for_service_account(&td, namespace, name).is_err(), "{namespace:?} {name:?}");
        }
        assert!(SpiffeId::for_service_account(&td, "x", &"n".repeat(2048)).unwrap_err().is_too_long());
    }

    #[track_caller]
    fn check_message(text: &str, expected: &str) {
        assert_eq!(text.parse::<SpiffeId>().unwrap_err().to_string(), expected);
    }

    #[test]
    fn messages_quote_the_text_and_say_what_to_do() {
        check_message(
            "spiffe://td",
            "`spiffe://td` is no SPIFFE ID: it names a trust domain and no workload; add a path, such as \
             `/ns/NAMESPACE/sa/NAME`",
        );
        check_message(
            "x\n\u{1b}[2J",
            "`x\\n\\u{1b}[2J` is no SPIFFE ID: it must begin with `spiffe://`, in lower case",
        );
        check_message(
            "spiffe://td/a\tb",
            "`spiffe://td/a\\tb` is no SPIFFE ID: its path holds `\\t`; a segment may hold A-Z, a-z, 0-9, `.`, \
             `-` and `_`",
        );
        check_message(
            "spiffe:///a",
            "`spiffe:///a` is no SPIFFE ID: the name of the trust domain is missing",
        );
        check_message(
            "spiffe://tD/a",
            "`spiffe://tD/a` is no SPIFFE ID: the name of the trust domain holds `D`; it may hold a-z, 0-9, `.`, `-` and `_`",
        );
        check_message(
            "spiffe://td//a",
            "`spiffe://td//a` is no SPIFFE ID: its path has an empty segment; remove a `/` that is repeated or at the end",
        );
        check_message(
            "spiffe://td/../a",
            "`spiffe://td/../a` is no SPIFFE ID: its path must not have the segments `.` and `..`",
        );
        let of_domain = "".parse::<TrustDomain>().unwrap_err();
        assert_eq!(of_domain.to_string(), "`` is no trust domain: the name of the trust domain is missing");
        assert!(of_domain.is_trust_domain() && !of_domain.is_too_long() && !of_domain.is_without_path());
        let of_segment =
            SpiffeId::for_service_account(&TrustDomain::default(), "", "x").unwrap_err().to_string();
        assert!(of_segment.starts_with("`` is no segment of a SPIFFE ID's path: "), "{of_segment}");
        for (text, expected, is_trust_domain) in [
            (format!("spiffe://td/{}", "a".repeat(2048)), "it has more than 2048 bytes", false),
            (
                format!("spiffe://{}/a", "a".repeat(256)),
                "the name of the trust domain has more than 255 bytes",
                true,
            ),
        ] {
            let error = text.parse::<SpiffeId>().unwrap_err();
            assert!(error.to_string().ends_with(expected), "{error}");
            assert!(error.is_too_long() && error.is_trust_domain() == is_trust_domain);
        }
        assert!("spiffe://td".parse::<SpiffeId>().unwrap_err().is_without_path());
        let long = "y".repeat(5000).parse::<SpiffeId>().unwrap_err().to_string();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn equal_text_is_equal_identity() {
        let ids = ["spiffe://td/a", "spiffe://td/A", "spiffe://td/a.", "spiffe://td.a/a"]
            .map(|text| text.parse::<SpiffeId>().unwrap());
        let set: std::collections::HashSet<_> = ids.iter().chain(&ids).collect();
        assert_eq!(set.len(), 4);
    }

    /// The grammar once more, as a regular expression would have it, by another road than the parser's.
    fn is_id_by_the_grammar(text: &str) -> bool {
        let bytes = text.as_bytes();
        if bytes.len() > 2048 || !bytes.starts_with(b"spiffe://") {
            return false;
        }
        let mut parts = bytes[9..].split(|byte| *byte == b'/');
        let domain = parts.next().unwrap_or_default();
        let in_set = |part: &[u8], upper: bool| {
            part.iter().all(|byte| {
                byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || b".-_".contains(byte)
                    || (upper && byte.is_ascii_uppercase())
            })
        };
        let segments: Vec<&[u8]> = parts.collect();
        (1..=255).contains(&domain.len())
            && in_set(domain, false)
            && !segments.is_empty()
            && segments.iter().all(|part| {
                !part.is_empty()
                    && *part != b".".as_slice()
                    && *part != b"..".as_slice()
                    && in_set(part, true)
            })
    }

    proptest! {
        #[test]
        fn well_formed_ids_round_trip(
            domain in "[a-z0-9._-]{1,60}",
            segments in proptest::collection::vec("[A-Za-z0-9_-][A-Za-z0-9._-]{0,30}", 1..6),
        ) {
            let path = format!("/{}", segments.join("/"));
            let text = format!("spiffe://{domain}{path}");
            let id: SpiffeId = text.parse().unwrap();
            prop_assert_eq!(id.trust_domain(), domain);
            prop_assert_eq!(id.path(), path);
            prop_assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        }

        #[test]
        fn service_accounts_round_trip(namespace in "[a-z0-9-]{1,63}", name in "[a-z0-9][a-z0-9.-]{0,80}") {
            let id = SpiffeId::for_service_account(&TrustDomain::default(), &namespace, &name).unwrap();
            prop_assert_eq!(
                id.service_account(),
                Some(ServiceAccount { namespace: &namespace, name: &name })
            );
        }

        #[test]
        fn near_misses_are_decided_as_the_grammar_says(
            text in "(spiffe|SPIFFE|spiff)(://|:/|:)[a-cA.%:@_-]{0,4}(/[a-cA.%?#_/-]{0,3}){0,4}",
        ) {
            prop_assert_eq!(text.parse::<SpiffeId>().is_ok(), is_id_by_the_grammar(&text));
        }

        #[test]
        fn any_text_is_decided_without_panic(text in any::<String>()) {
            prop_assert_eq!(text.parse::<SpiffeId>().is_ok(), is_id_by_the_grammar(&text));
            if let Err(error) = text.parse::<TrustDomain>() {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
