//! The certificates that a client has shown, as Envoy passes them on.
use rustls::pki_types::CertificateDer;

use crate::tls::certificates;

/// More certificates than this lead nowhere that a trust bundle is.
const MOST: usize = 8;

/// The client's certificate, and behind it the others of `forwarded` (`x-forwarded-client-cert`), which only lead to a root.
///
/// # Errors
/// Why there is no such chain.
pub(super) fn chain(escaped: &str, forwarded: Option<&[u8]>) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = decoded(escaped)?;
    let [leaf] = chain.as_slice() else {
        return Err("there is more than one certificate".to_owned());
    };
    let others = match forwarded.and_then(shown) {
        None => Vec::new(),
        Some(escaped) => decoded(escaped)?,
    };
    if others.len() > MOST {
        return Err(format!("the client has shown more than {MOST} certificates"));
    }
    let others: Vec<_> = others.into_iter().filter(|other| other != leaf).collect();
    chain.extend(others);
    Ok(chain)
}

/// The value of the last `Chain`: that is the one of the proxy which is asking.
fn shown(forwarded: &[u8]) -> Option<&str> {
    let (_, chain) = std::str::from_utf8(forwarded).ok()?.rsplit_once("Chain=\"")?;
    Some(chain.split_once('"')?.0)
}

fn decoded(escaped: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates(&unescaped(escaped).ok_or("the certificate is not URL-encoded")?)
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        rest = tail;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown() {
        let check =
            |header: &str, expected: Option<&str>| assert_eq!(shown(header.as_bytes()), expected, "{header}");
        check("", None);
        check("Hash=a", None);
        check("Hash=a;Chain=b", None);
        check(r#"Hash=a;Chain="b"#, None);
        check(r#"Hash=a;Chain="b""#, Some("b"));
        check(r#"By=spiffe://a/b;Hash=a;Chain="b%0A";URI=spiffe://c/d"#, Some("b%0A"));
        check(r#"Hash=a;Chain="of another",Hash=b;Chain="b""#, Some("b"));
    }
}
