//! Certificates: nothing panics, and a certificate that gives an identity has exactly that URI as its only one, is no CA, and
//! says the same to webpki and to a reader of DER that knows nothing but lengths.
//!
//! The first byte says what follows: a certificate, or a part that is put into one: the value of its subjectAltName, the names
//! in that, all of its extensions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use spiffe_id::identity_of;

const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const URI: u8 = 0x86;

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else { return };
    let der = match what % 4 {
        0 => rest.to_vec(),
        1 => with_names(rest),
        2 => with_names(&element(SEQUENCE, rest)),
        _ => certificate(rest),
    };
    let id = match identity_of(&der) {
        Ok(id) => id,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(id.as_str().parse(), Ok(id.clone()));

    // What no verifier reads is never asked for its identity.
    let der = CertificateDer::from(der);
    let Ok(theirs) = webpki::EndEntityCert::try_from(&der) else { return };
    assert_eq!(theirs.valid_uri_names().collect::<Vec<_>>(), [id.as_str()]);
    let certificate = Certificate::read(&der).expect("what webpki reads is DER");
    assert_eq!(certificate.uris, [id.as_str().as_bytes()]);
    assert!(!certificate.is_ca);
});

/// What of a certificate matters for who it names.
struct Certificate<'a> {
    uris: Vec<&'a [u8]>,
    is_ca: bool,
}

impl<'a> Certificate<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let certificate = elements(only(der, SEQUENCE)?)?;
        let (SEQUENCE, to_be_signed) = *certificate.first()? else { return None };
        let mut found = Self { uris: Vec::new(), is_ca: false };
        for (_, part) in elements(to_be_signed)?.into_iter().filter(|(tag, _)| *tag == 0xa3) {
            for (_, extension) in elements(only(part, SEQUENCE)?)? {
                let fields = elements(extension)?;
                let ((OID, oid), (OCTETS, value)) = (*fields.first()?, *fields.last()?) else { return None };
                if oid == SUBJECT_ALT_NAME {
                    let names = elements(only(value, SEQUENCE)?)?;
                    found.uris.extend(names.into_iter().filter(|(tag, _)| *tag == URI).map(|(_, uri)| uri));
                } else if oid == BASIC_CONSTRAINTS {
                    let fields = elements(only(value, SEQUENCE)?)?;
                    found.is_ca |= fields.iter().any(|(tag, value)| *tag == 1 && *value != [0]);
                }
            }
        }
        Some(found)
    }
}

/// The contents of the one element of this kind that is there.
fn only(bytes: &[u8], expected: u8) -> Option<&[u8]> {
    match elements(bytes)?.as_slice() {
        [(tag, contents)] if *tag == expected => Some(contents),
        _ => None,
    }
}

/// Tags and contents, one after the other.
fn elements(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut found = Vec::new();
    while let [tag, length, rest @ ..] = bytes {
        let (length, rest) = match *length {
            length @ 0..=0x7f => (usize::from(length), rest),
            long => {
                let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                (
                    digits
                        .iter()
                        .try_fold(0_usize, |sum, digit| Some(sum.checked_mul(256)? | usize::from(*digit)))?,
                    rest,
                )
            }
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        found.push((*tag, contents));
        bytes = rest;
    }
    bytes.is_empty().then_some(found)
}

fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut written = vec![tag];
    match length {
        0..=0x7f => written.push(length as u8),
        0x80..=0xff => written.extend([0x81, length as u8]),
        0x100..=0xffff => written.extend([0x82, (length >> 8) as u8, length as u8]),
        _ => written.extend([0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8]),
    }
    written.extend_from_slice(contents);
    written
}

fn with_names(value: &[u8]) -> Vec<u8> {
    let extension = [element(OID, SUBJECT_ALT_NAME), element(OCTETS, value)].concat();
    certificate(&element(SEQUENCE, &extension))
}

/// A certificate of version 3 with these extensions; nobody has signed it.
fn certificate(extensions: &[u8]) -> Vec<u8> {
    let ecdsa_with_sha256 = element(SEQUENCE, &element(OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]));
    let p256 = [
        element(OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]),
        element(OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]),
    ];
    let point = [&[0, 4][..], &[0x11; 64]].concat();
    let to_be_signed = [
        element(0xa0, &element(2, &[2])),
        element(2, &[1]),
        ecdsa_with_sha256.clone(),
        element(SEQUENCE, b""),
        element(SEQUENCE, &[element(0x17, b"260101000000Z"), element(0x17, b"360101000000Z")].concat()),
        element(SEQUENCE, b""),
        element(SEQUENCE, &[element(SEQUENCE, &p256.concat()), element(3, &point)].concat()),
        element(0xa3, &element(SEQUENCE, extensions)),
    ];
    let signature = element(3, &[0, SEQUENCE, 6, 2, 1, 1, 2, 1, 1]);
    element(SEQUENCE, &[element(SEQUENCE, &to_be_signed.concat()), ecdsa_with_sha256, signature].concat())
}
