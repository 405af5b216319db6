//! Values of flags that need more than `FromStr` of the standard library.
use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use authz_core::DefaultAction;
use policy_model::NamespacedName;
use spiffe_id::TrustDomain;

/// `--resolve HOST:PORT:ADDR`: connections to `HOST:PORT` go to this address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveTo {
    /// Lower case.
    pub host: String,
    /// The port that the backend names.
    pub port: u16,
    /// Where to connect. ADDR is an IP address, or `IP:PORT` for another port.
    pub address: SocketAddr,
}

impl FromStr for ResolveTo {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!("`{text}` is not HOST:PORT:ADDR, as `example.com:443:127.0.0.1` or `...:127.0.0.1:8443`")
        };
        let (host, rest) = text.split_once(':').ok_or_else(wanted)?;
        let (port, address) = rest.split_once(':').ok_or_else(wanted)?;
        let port = port.parse().map_err(|_error| wanted())?;
        let address = match address.parse::<SocketAddr>() {
            Ok(address) => address,
            Err(_) => SocketAddr::new(
                address.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_error| wanted())?,
                port,
            ),
        };
        if host.is_empty() {
            return Err(wanted());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port, address })
    }
}

/// `--listen PORT=ADDR:PORT`: the listeners of a port are served at this address instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAt {
    /// The port in the Gateway.
    pub port: u16,
    /// Where to listen; port 0 picks a free one.
    pub address: SocketAddr,
}

impl FromStr for ListenAt {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("`{text}` is not PORT=ADDR:PORT, as `443=127.0.0.1:8443`");
        let (port, address) = text.split_once('=').ok_or_else(wanted)?;
        Ok(Self {
            port: port.parse().map_err(|_error| wanted())?,
            address: address.parse().map_err(|_error| wanted())?,
        })
    }
}

/// `--trust-bundle DOMAIN=FILE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFile {
    /// Whose roots.
    pub trust_domain: TrustDomain,
    /// PEM.
    pub path: PathBuf,
}

impl FromStr for BundleFile {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (domain, path) = text
            .split_once('=')
            .filter(|(_, path)| !path.is_empty())
            .ok_or_else(|| format!("`{text}` is not DOMAIN=FILE, as `example.org=/etc/roots.pem`"))?;
        let trust_domain = domain.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { trust_domain, path: path.into() })
    }
}

/// `500ms`, `2s`, `5m`, `1h`; no fractions.
///
/// # Errors
/// Anything else.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("`{text}` is not a time; write `500ms`, `2s`, `5m` or `1h`");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wanted)?;
    let number: u64 = number.parse().map_err(|_error| wanted())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    // A year: deadlines beyond it overflow clocks and are a mistake anyway.
    millis.filter(|millis| *millis <= 31_536_000_000).map(Duration::from_millis).ok_or_else(wanted)
}

/// `allow` or `deny`.
///
/// # Errors
/// Anything else.
pub fn default_action(text: &str) -> Result<DefaultAction, String> {
    match text {
        "allow" => Ok(DefaultAction::Allow),
        "deny" => Ok(DefaultAction::Deny),
        _ => Err(format!("`{text}` is neither `allow` nor `deny`")),
    }
}

/// `NAMESPACE/NAME`.
///
/// # Errors
/// Anything else.
pub fn namespaced_name(text: &str) -> Result<NamespacedName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(NamespacedName::new(namespace, name))
        }
        _ => Err(format!("`{text}` is not NAMESPACE/NAME")),
    }
}

/// `NAME:VALUE`, a header.
///
/// # Errors
/// Anything else.
pub fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("`{text}` is not NAME:VALUE"))?;
    let name = name.trim().parse().map_err(|_error| format!("`{name}` is not a header name"))?;
    let value = http::HeaderValue::from_bytes(value.trim().as_bytes())
        .map_err(|_error| format!("`{value}` is not a header value"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn resolves(text: &str, expected: Option<(&str, u16, &str)>) {
        let expected = expected.map(|(host, port, address)| ResolveTo {
            host: host.to_owned(),
            port,
            address: address.parse().unwrap(),
        });
        assert_eq!(text.parse::<ResolveTo>().ok(), expected, "{text}");
    }

    #[test]
    fn resolve_entries() {
        resolves("Example.com:443:127.0.0.1", Some(("example.com", 443, "127.0.0.1:443")));
        resolves("example.com:443:127.0.0.1:8443", Some(("example.com", 443, "127.0.0.1:8443")));
        resolves("example.com:443:::1", Some(("example.com", 443, "[::1]:443")));
        resolves("example.com:443:[::1]:8443", Some(("example.com", 443, "[::1]:8443")));
        resolves("example.com:443", None);
        resolves(":443:127.0.0.1", None);
        resolves("example.com:x:127.0.0.1", None);
        resolves("example.com:443:other.example", None);
    }

    #[test]
    fn durations() {
        for (text, millis) in [("500ms", 500), ("2s", 2_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "5", "s", "1.5s", "-1s", "5 s", "99999999999999999999s", "18446744073709551615h", "10000h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn other_values() {
        assert_eq!(
            "443=127.0.0.1:0".parse::<ListenAt>(),
            Ok(ListenAt { port: 443, address: "127.0.0.1:0".parse().unwrap() })
        );
        assert!("443:127.0.0.1:0".parse::<ListenAt>().is_err());
        assert!("70000=127.0.0.1:0".parse::<ListenAt>().is_err());
        assert!("example.org=".parse::<BundleFile>().is_err());
        assert!("EXAMPLE=/x".parse::<BundleFile>().is_err());
        assert!(namespaced_name("a/b").is_ok());
        for text in ["a", "a/", "/b", "a/b/c"] {
            assert!(namespaced_name(text).is_err(), "{text}");
        }
        assert_eq!(header("X-A: b:c").unwrap(), ("x-a".parse().unwrap(), "b:c".parse().unwrap()));
        assert!(header("no colon").is_err());
    }
}
