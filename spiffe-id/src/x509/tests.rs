use proptest::prelude::*;
use rcgen::{
    BasicConstraints as Constraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::*;

const ID: &str = "spiffe://cluster.local/ns/quickstart-ns/sa/adk-agent-sa";
const SAN: [u64; 4] = [2, 5, 29, 17];

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn with_names(names: Vec<SanType>) -> Vec<u8> {
    certificate(|params| params.subject_alt_names = names)
}

/// A certificate whose subjectAltName has exactly this value.
fn with_raw_names(value: &[u8]) -> Vec<u8> {
    certificate(|params| {
        params.custom_extensions = vec![CustomExtension::from_oid_content(&SAN, value.to_vec())];
    })
}

/// DER of one element with a short length.
fn element(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    assert!(length < 0x80);
    [&[tag, length], value].concat()
}

#[track_caller]
fn gives(der: &[u8], expected: &str) {
    assert_eq!(identity_of(der).unwrap().as_str(), expected);
}

#[track_caller]
fn refuses(der: &[u8], expected: &Kind) {
    let error = identity_of(der).unwrap_err();
    assert_eq!(error.kind, *expected, "{error}");
}

#[test]
fn one_uri_is_the_identity_whatever_stands_beside_it() {
    gives(&with_names(vec![uri(ID)]), ID);
    gives(&with_names(vec![dns("gateway.example.org"), uri(ID), dns("other.example.org")]), ID);
    gives(&with_names(vec![SanType::IpAddress([127, 0, 0, 1].into()), uri(ID)]), ID);
    let subject = certificate(|params| {
        params.subject_alt_names = vec![uri(ID)];
        params.distinguished_name.push(DnType::CommonName, "spiffe://cluster.local/ns/x/sa/y");
    });
    gives(&subject, ID);
    // Neither basicConstraints nor keyUsage: not a CA either.
    let bare = certificate(|params| {
        params.subject_alt_names = vec![uri(ID)];
        params.is_ca = IsCa::NoCa;
        params.key_usages.clear();
    });
    gives(&bare, ID);
}

#[test]
fn none_or_several_uris_are_no_identity() {
    refuses(&certificate(|_| {}), &Kind::NoUri);
    refuses(&with_names(vec![dns("gateway.example.org")]), &Kind::NoUri);
    let only_subject = certificate(|params| {
        params.distinguished_name.push(DnType::CommonName, "spiffe://cluster.local/ns/x/sa/y")
    });
    refuses(&only_subject, &Kind::NoUri);
    refuses(&with_names(vec![uri(ID), uri(ID)]), &Kind::SeveralUris(2));
    refuses(
        &with_names(vec![uri(ID), dns("a"), uri("https://example.org"), uri("x:y")]),
        &Kind::SeveralUris(3),
    );
}

#[test]
fn a_uri_that_is_no_workload_id_is_no_identity() {
    for text in [
        "",
        "https://example.org/x",
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://Cluster.local/ns/a/sa/b",
        "SPIFFE://cluster.local/ns/a/sa/b",
        "spiffe://cluster.local/ns/a/sa/b?x",
        "spiffe://cluster.local/ns/../sa/b",
    ] {
        let error = identity_of(&with_names(vec![uri(text)])).unwrap_err();
        assert!(error.id_error().is_some(), "{text:?}: {error}");
    }
    let long = format!("spiffe://td/{}", "x".repeat(2048));
    let error = identity_of(&with_names(vec![uri(&long)])).unwrap_err();
    assert!(error.id_error().is_some_and(IdError::is_too_long), "{error}");
}

#[test]
fn what_may_sign_is_no_identity() {
    let with = |change: fn(&mut CertificateParams)| {
        certificate(|params| {
            params.subject_alt_names = vec![uri(ID)];
            change(params);
        })
    };
    refuses(&with(|params| params.is_ca = IsCa::Ca(Constraints::Unconstrained)), &Kind::Ca);
    refuses(&with(|params| params.is_ca = IsCa::Ca(Constraints::Constrained(0))), &Kind::Ca);
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        let der = certificate(|params| {
            params.subject_alt_names = vec![uri(ID)];
            params.key_usages.push(usage);
        });
        refuses(&der, &Kind::SigningKey);
    }
}

#[test]
fn an_extension_that_is_there_twice_gives_no_identity() {
    let value = element(0x30, &element(0x86, b"spiffe://td/evil"));
    let names_twice = certificate(|params| {
        params.subject_alt_names = vec![uri(ID)];
        params.custom_extensions = vec![CustomExtension::from_oid_content(&SAN, value)];
    });
    refuses(&names_twice, &Kind::Malformed(Malformed::Twice("2.5.29.17".to_owned())));
    let unknown_twice = certificate(|params| {
        params.subject_alt_names = vec![uri(ID)];
        let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        params.custom_extensions = vec![extension.clone(), extension];
    });
    refuses(&unknown_twice, &Kind::Malformed(Malformed::Twice("1.2.3.4".to_owned())));
}

#[test]
fn names_that_another_parser_could_read_otherwise_give_no_identity() {
    let good = element(0x86, b"spiffe://td/a");
    gives(&with_raw_names(&element(0x30, &good)), "spiffe://td/a");
    let unreadable = Kind::Malformed(Malformed::Extension("subjectAltName"));
    // Bytes after the sequence, an entry cut short, no sequence, UTF-8 broken, an unknown kind of name.
    refuses(&with_raw_names(&[element(0x30, &good), vec![0]].concat()), &unreadable);
    refuses(&with_raw_names(&element(0x30, &[good.clone(), vec![0x86, 9, b'x']].concat())), &unreadable);
    refuses(&with_raw_names(&good), &unreadable);
    refuses(&with_raw_names(&element(0x30, &element(0x86, b"spiffe://td/\xff"))), &unreadable);
    refuses(&with_raw_names(&element(0x30, &[good.clone(), element(0x89, b"x")].concat())), &unreadable);
    refuses(&with_raw_names(&element(0x30, &[good.clone(), element(0x16, b"x")].concat())), &unreadable);
    // The number of a URI's tag in a tag of another class, or in one whose contents are elements: to others no URI.
    for tag in [0x06, 0x26, 0x46, 0x66, 0xa6, 0xc6, 0xe6] {
        let name = element(tag, b"spiffe://td/a");
        refuses(&with_raw_names(&element(0x30, &name)), &unreadable);
        refuses(&with_raw_names(&element(0x30, &[good.clone(), name].concat())), &unreadable);
    }
    // A length that is written longer than it has to be, or that only the end of the contents tells.
    let uri = [&[0x86, 0x81, 13], b"spiffe://td/a".as_slice()].concat();
    refuses(&with_raw_names(&element(0x30, &uri)), &unreadable);
    let uri = [&[0x86, 0x82, 0, 13], b"spiffe://td/a".as_slice()].concat();
    refuses(&with_raw_names(&element(0x30, &uri)), &unreadable);
    refuses(&with_raw_names(&[&[0x30, 0x81, 15], good.as_slice()].concat()), &unreadable);
    refuses(&with_raw_names(&[&[0x30, 0x80], good.as_slice(), &[0, 0]].concat()), &unreadable);
    // Of other kinds too, whatever they stand beside.
    for tag in [0x80, 0x01, 0xa1, 0x02, 0xa2, 0x83, 0x84, 0x85, 0xa7, 0x47, 0xa8] {
        refuses(&with_raw_names(&element(0x30, &[good.clone(), element(tag, b"")].concat())), &unreadable);
    }
    for (tag, contents) in [
        (0x81, b"a@b".as_slice()),
        (0x82, b"a.example"),
        (0xa4, b"\x30\0"),
        (0x87, b"\x7f\0\0\x01"),
        (0x88, b"\x2a\x03"),
    ] {
        gives(
            &with_raw_names(&element(0x30, &[element(tag, contents), good.clone()].concat())),
            "spiffe://td/a",
        );
    }
    // Texts with a NUL, a line end or non-ASCII are read, and are no ID.
    for text in [b"spiffe://td/a\0.b".as_slice(), b"spiffe://td/a\n", "spiffe://td/\u{e4}".as_bytes()] {
        let error = identity_of(&with_raw_names(&element(0x30, &element(0x86, text)))).unwrap_err();
        assert!(error.id_error().is_some(), "{error}");
    }
    refuses(&with_raw_names(&element(0x30, b"")), &Kind::NoUri);
}

#[test]
fn der_that_is_no_single_certificate_gives_no_identity() {
    let good = with_names(vec![uri(ID)]);
    refuses(&[], &Kind::Malformed(Malformed::Der));
    refuses(&[good.clone(), vec![0]].concat(), &Kind::Malformed(Malformed::Der));
    refuses(&[good.clone(), good.clone()].concat(), &Kind::Malformed(Malformed::Der));
    for length in 0..good.len() {
        refuses(&good[..length], &Kind::Malformed(Malformed::Der));
    }
    // No extensions at all, and version 1: rcgen writes version 3, at bytes [0] 03 02 01 02.
    let at = good.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap();
    let mut version_2 = good;
    version_2[at + 4] = 1;
    refuses(&version_2, &Kind::Malformed(Malformed::Version));
}

#[test]
fn messages_say_what_to_do() {
    assert_eq!(
        identity_of(&certificate(|_| {})).unwrap_err().to_string(),
        "the certificate has no URI SAN; issue it with the workload's SPIFFE ID as URI SAN"
    );
    assert_eq!(
        identity_of(&with_names(vec![uri("spiffe://td")])).unwrap_err().to_string(),
        "the certificate's URI SAN `spiffe://td` is no SPIFFE ID: it names a trust domain and no workload; add a \
         path, such as `/ns/NAMESPACE/sa/NAME`"
    );
}

#[test]
fn every_reason_is_named() {
    use std::error::Error as _;
    for (kind, expected) in [
        (Kind::Malformed(Malformed::Der), "the certificate is no single X.509 certificate in DER"),
        (Kind::Malformed(Malformed::Version), "the certificate is not of X.509 version 3"),
        (
            Kind::Malformed(Malformed::Twice("2.5.29.17".to_owned())),
            "the certificate has the extension `2.5.29.17` more than once",
        ),
        (
            Kind::Malformed(Malformed::Extension("keyUsage")),
            "the certificate's extension `keyUsage` cannot be read",
        ),
        (Kind::Ca, "a CA certificate is no identity; present the workload's own certificate"),
        (
            Kind::SigningKey,
            "the key usage keyCertSign or cRLSign does not belong in a workload's certificate; issue it with digitalSignature",
        ),
        (Kind::SeveralUris(2), "the certificate has 2 URI SANs; an identity is exactly one"),
    ] {
        let error = IdentityError { kind };
        assert_eq!(error.to_string(), expected);
        assert!(error.source().is_none() && error.id_error().is_none() && !error.is_without_uri());
    }
    let error = identity_of(&with_names(vec![uri("spiffe://td")])).unwrap_err();
    assert!(error.id_error().unwrap().is_without_path());
    assert!(error.source().unwrap().to_string().starts_with("`spiffe://td` is no SPIFFE ID: "));
    assert!(identity_of(&certificate(|_| {})).unwrap_err().is_without_uri());
}

proptest! {
    #[test]
    fn any_bytes_are_decided_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(identity_of(&bytes).is_err());
    }

    /// A certificate with a few bytes changed: whatever comes out is a valid ID, and nothing panics.
    #[test]
    fn damaged_certificates_are_decided_without_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        static GOOD: std::sync::LazyLock<Vec<u8>> =
            std::sync::LazyLock::new(|| with_names(vec![uri(ID), dns("gateway.example.org")]));
        let mut der = GOOD.clone();
        for (at, value) in changes {
            let at = at.index(der.len());
            der[at] = value;
        }
        if let Ok(id) = identity_of(&der) {
            prop_assert_eq!(&id.to_string().parse::<SpiffeId>().unwrap(), &id);
        }
    }
}
