//! Keys that somebody was seen to hold. The P-384 key and what it signed, and the P-521 request, are of OpenSSL.
use rcgen::SigningKey as _;
use spiffe_id::HeldKey;

use super::*;

const P384: &str = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE3Js0uEZ/oe8LadZHQH5GXf9IO0nRIk6oklHDxcdCFR7IdN+s/0jUORxg6CkWXCEmWTGJkxtacLuyGoXyr5U7jcizBFFJG11QtfCc3vMMBHg31R6qFw1b+ZTdEkEqc91J";
/// Of `pod-uid`.
const P384_SHA256: &str = "MGYCMQCFFnAQdq4KgeAAb4rgbffud2p3oNB4yyTZ34Ru74SgDNAZVWcstvrZCIWTeLWGMroCMQDUx4q1L+vt6jenadLAYlbNFEhsbPyrGRSGPD72kctTSx3zFutD0WKAHtDqClRve9Q=";
const P384_SHA384: &str = "MGUCMHkZ702gAMuMcbM3o6Qb2WppDLPNPjO/u9pe9itTVEYHmMyT9rfgTTZnxCifxIZQtAIxALq38QQKDeJTbHW5Aw5kkQNQBKe8MgeLYesCXTQfolxs249G8HMNs/heRz5HuECGgA==";
const P521_CSR: &str = "MIIBQzCBpQIBADAAMIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAwjLZoZch0iIDToTLdQfvwyUfjttxj6lnhL0VfMJ9sQGSR0wro+a1cwdWIe7DEUkYzrFKh1sNNJ88hLd/6uThow0AhVtwzzPzD4xLGqukS+yAQuy6Vkqx50cZ8w45Dv4ZrLX9LiIki9Sy4k3ZOsqEA036N4bSaHztSD0X7xmqr2rc19ygADAKBggqhkjOPQQDAgOBjAAwgYgCQgDceXk5fx9JAgDgH7ZmmWJ3UUjpncYuS9N+w3BgDK6eCB0YPTq40hS0MB8Ptan2wFX3FkbAc4HpB66TqAua+epHdwJCAYfJL5jTwMlXi6mHFMgZYb06MWcRz0VdEhAboUiywjjOvoLbx60W264fVHx7ts1U42GeIPxC9g8CEGf8E98jg1yY";

fn decoded(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap()
}

#[track_caller]
fn of_signature(key: &[u8], message: &[u8], signature: &[u8], expected: Result<(), &str>) {
    let held = HeldKey::of_signature(key, message, signature);
    assert_eq!(held.as_ref().map(|held| held.spki_der() == key).ok(), expected.map(|()| true).ok());
    if let (Err(error), Err(part)) = (held, expected) {
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.is_bad_request());
    }
}

#[test]
fn a_signature_shows_who_holds_the_key() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let spki = key.subject_public_key_info();
        let signature = key.sign(b"pod-uid").unwrap();
        of_signature(&spki, b"pod-uid", &signature, Ok(()));
        of_signature(&spki, b"pod-uie", &signature, Err("does not verify"));
        of_signature(&spki, b"pod-uid", &[], Err("does not verify"));
        let other = KeyPair::generate_for(algorithm).unwrap().subject_public_key_info();
        of_signature(&other, b"pod-uid", &signature, Err("does not verify"));
    }
    let key = decoded(P384);
    of_signature(&key, b"pod-uid", &decoded(P384_SHA256), Ok(()));
    of_signature(&key, b"another", &decoded(P384_SHA256), Err("does not verify"));
    of_signature(&key, b"pod-uid", &decoded(P384_SHA384), Err("does not verify"));
    of_signature(b"", b"pod-uid", b"", Err("no single SubjectPublicKeyInfo"));
}

#[test]
fn keys_of_other_kinds_are_said_to_be_so() {
    for (name, unsupported) in [
        ("rsa2048", true),
        ("rsa1024", true),
        ("p521", true),
        ("secp256k1", true),
        ("x25519", true),
        ("p256", false),
    ] {
        let error = HeldKey::of_signature(&public_key(name), b"m", b"s").unwrap_err();
        assert_eq!(error.is_unsupported_key(), unsupported, "{name}: {error}");
    }
    let error = HeldKey::of_csr(&decoded(P521_CSR)).unwrap_err();
    assert!(error.is_unsupported_key(), "{error}");
    assert!(!HeldKey::of_csr(b"x").unwrap_err().is_unsupported_key());
}
