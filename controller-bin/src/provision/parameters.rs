//! Parameters of a GatewayClass.
use std::{collections::BTreeMap, net::IpAddr};

use super::{DataPlane, Parameters};

/// The keys that are known, as messages list them.
const KNOWN: [&str; 9] = [
    "allowedOrigins",
    "authorizerTimeout",
    "dataPlane",
    "filterLists",
    "image",
    "logLevel",
    "maxBodyBytes",
    "replicas",
    "resolve",
];
/// Most replicas.
const REPLICAS: u32 = 100;
/// Largest body that may be asked for, in bytes: every request in flight may need as much memory.
const BODY_BYTES: u64 = 64 << 20;
/// Longest image reference: a name of 255 characters, a tag of 128 and a digest.
const IMAGE: usize = 512;

impl Parameters {
    /// Reads the `data` of a ConfigMap: `dataPlane` (`native`), `image`, `replicas` (1 to 100), `filterLists` (`true` or
    /// `false`), `maxBodyBytes` (1024 to 67108864), `authorizerTimeout` (as `500ms` or `2s`, at most `60s`),
    /// `allowedOrigins` (`scheme://host[:port]`, separated by commas), `resolve` (`HOST:PORT:IP` or `HOST:PORT:IP:PORT`,
    /// separated by commas), `logLevel` (`error`, `warn`, `info`, `debug` or `trace`).
    ///
    /// # Errors
    /// What is wrong and what to write instead, for the class's status: everything that is wrong at once.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut parameters = Self::default();
        let mut errors = Vec::new();
        for (key, value) in data {
            if let Err(error) = parameters.set(key, value) {
                errors.push(error);
            }
        }
        if errors.is_empty() { Ok(parameters) } else { Err(errors.join("; ")) }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wanted = |wanted: &str| format!("`{key}: {}` is not {wanted}", shown(value));
        match key {
            "dataPlane" => match value {
                "native" => self.data_plane = Some(DataPlane::Native),
                "envoy" => {
                    return Err("`dataPlane: envoy` is not supported by this version; write `native`, or leave it out"
                        .to_owned());
                }
                _ => return Err(wanted("a data plane; write `native`, or leave it out")),
            },
            "image" => {
                if !is_image(value) {
                    return Err(wanted("an image; write it as `registry.example/agentic-gateway:0.1.0`"));
                }
                self.image = Some(value.to_owned());
            }
            "replicas" => {
                let replicas = number(value).and_then(|replicas| u32::try_from(replicas).ok());
                self.replicas = Some(
                    replicas
                        .filter(|replicas| (1..=REPLICAS).contains(replicas))
                        .ok_or_else(|| wanted("a number from 1 to 100"))?,
                );
            }
            "filterLists" => match value {
                "true" => self.flags.push("--filter-lists".to_owned()),
                "false" => {}
                _ => return Err(wanted("`true` or `false`")),
            },
            "maxBodyBytes" => {
                let bytes = number(value)
                    .filter(|bytes| (1024..=BODY_BYTES).contains(bytes))
                    .ok_or_else(|| wanted("a number of bytes from 1024 to 67108864"))?;
                self.flags.push(format!("--max-body-bytes={bytes}"));
            }
            "authorizerTimeout" => {
                if !is_timeout(value) {
                    return Err(wanted("a time from `1ms` to `60s`; write `500ms` or `2s`"));
                }
                self.flags.push(format!("--authorizer-timeout={value}"));
            }
            "allowedOrigins" => {
                let wanted =
                    || wanted("a list of origins; write `https://app.example,https://other.example:8443`");
                let origins = list(value, is_origin).ok_or_else(wanted)?;
                self.flags.push(format!("--allowed-origins={origins}"));
            }
            "resolve" => {
                let wanted = || wanted("a list of HOST:PORT:IP; write `mcp.example.com:443:10.1.2.3`");
                let entries = list(value, is_resolution).ok_or_else(wanted)?;
                self.flags.push(format!("--resolve={entries}"));
            }
            "logLevel" => {
                if !["error", "warn", "info", "debug", "trace"].contains(&value) {
                    return Err(wanted("`error`, `warn`, `info`, `debug` or `trace`"));
                }
                self.flags.push(format!("--log={value}"));
            }
            _ => {
                return Err(format!(
                    "`{}` is not a parameter; the parameters are `{}`",
                    shown(key),
                    KNOWN.join("`, `")
                ));
            }
        }
        Ok(())
    }
}

/// As much of it as a condition's message needs.
fn shown(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Digits without a sign or leading zeros.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Whether it can be an image reference. The container runtime knows better; this keeps out what is surely a mistake.
pub(crate) fn is_image(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    text.len() <= IMAGE
        && text.chars().all(is_plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("//")
}

fn is_timeout(text: &str) -> bool {
    let millis = match text.strip_suffix("ms") {
        Some(millis) => number(millis),
        None => text.strip_suffix('s').and_then(number).and_then(|seconds| seconds.checked_mul(1000)),
    };
    millis.is_some_and(|millis| (1..=60_000).contains(&millis))
}

/// The items, spaces around them left out; none if there is none, or one that is not right.
fn list(text: &str, is_right: fn(&str) -> bool) -> Option<String> {
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    items.iter().all(|item| is_right(item)).then(|| items.join(","))
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    ["http", "https"].contains(&scheme) && is_host(host) && port.is_none_or(is_port)
}

fn is_resolution(text: &str) -> bool {
    let mut parts = text.splitn(3, ':');
    let (Some(host), Some(port), Some(address)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let is_address = address.parse::<IpAddr>().is_ok()
        || address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.port() != 0);
    is_host(host) && is_port(port) && is_address
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_port(text: &str) -> bool {
    number(text).is_some_and(|port| (1..=65_535).contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> Result<Parameters, String> {
        Parameters::read(&data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn nothing_is_the_default() {
        assert_eq!(read(&[]), Ok(Parameters::default()));
        assert_eq!(read(&[("filterLists", "false")]), Ok(Parameters::default()));
    }

    #[test]
    fn everything_at_once() {
        let parameters = read(&[
            ("dataPlane", "native"),
            ("image", "registry.example:5000/team/agentic-gateway:0.2.0@sha256:00ff"),
            ("replicas", "3"),
            ("filterLists", "true"),
            ("maxBodyBytes", "2097152"),
            ("authorizerTimeout", "500ms"),
            ("allowedOrigins", "https://app.example, http://localhost:3000"),
            ("resolve", "mcp.example.com:443:10.1.2.3,other.example:443:[fd00::1]:8443"),
            ("logLevel", "debug"),
        ])
        .unwrap();
        assert_eq!(parameters.data_plane, Some(DataPlane::Native));
        assert_eq!(
            parameters.image.as_deref(),
            Some("registry.example:5000/team/agentic-gateway:0.2.0@sha256:00ff")
        );
        assert_eq!(parameters.replicas, Some(3));
        assert_eq!(
            parameters.flags,
            [
                "--allowed-origins=https://app.example,http://localhost:3000",
                "--authorizer-timeout=500ms",
                "--filter-lists",
                "--log=debug",
                "--max-body-bytes=2097152",
                "--resolve=mcp.example.com:443:10.1.2.3,other.example:443:[fd00::1]:8443",
            ]
        );
    }

    #[track_caller]
    fn refused(key: &str, value: &str, expected: &str) {
        assert_eq!(read(&[(key, value)]).unwrap_err(), expected);
    }

    #[test]
    fn messages_say_what_to_write() {
        refused(
            "dataPlane",
            "envoy",
            "`dataPlane: envoy` is not supported by this version; write `native`, or leave it out",
        );
        refused(
            "dataPlane",
            "Native",
            "`dataPlane: Native` is not a data plane; write `native`, or leave it out",
        );
        refused("replicas", "0", "`replicas: 0` is not a number from 1 to 100");
        refused("filterLists", "yes", "`filterLists: yes` is not `true` or `false`");
        refused(
            "replica",
            "2",
            "`replica` is not a parameter; the parameters are `allowedOrigins`, `authorizerTimeout`, `dataPlane`, \
             `filterLists`, `image`, `logLevel`, `maxBodyBytes`, `replicas`, `resolve`",
        );
        assert_eq!(
            read(&[("replicas", "x"), ("filterLists", "")]).unwrap_err(),
            "`filterLists: ` is not `true` or `false`; `replicas: x` is not a number from 1 to 100"
        );
    }

    #[test]
    fn values_are_held_to_their_form() {
        let bad = [
            ("replicas", &["", "101", "-1", "+1", "1.0", "01", " 1", "99999999999999999999"][..]),
            ("image", &["", "a b", "a\n", "$(POD)", "-x", "a//b", "image:"][..]),
            ("maxBodyBytes", &["1023", "67108865", "1Mi", ""][..]),
            ("authorizerTimeout", &["0s", "0ms", "61s", "2", "1m", "s", "ms", "-1s", "1.5s"][..]),
            (
                "allowedOrigins",
                &[
                    "",
                    "app.example",
                    "https://",
                    "https://a/",
                    "ftp://a",
                    "https://a:0",
                    "https://a,,https://b",
                    "*",
                ][..],
            ),
            (
                "resolve",
                &[
                    "",
                    "a:443",
                    "a:443:b",
                    "a:0:10.0.0.1",
                    "a:x:10.0.0.1",
                    ":443:10.0.0.1",
                    "a:443:10.0.0.1:0",
                    "a_:1:10.0.0.1",
                ][..],
            ),
            ("logLevel", &["", "INFO", "hyper=trace"][..]),
        ];
        for (key, values) in bad {
            for value in values {
                assert!(read(&[(key, value)]).is_err(), "{key}: {value}");
            }
        }
    }

    #[test]
    fn messages_stay_short_and_printable() {
        let message = read(&[("image", &"\u{7}".repeat(10_000))]).unwrap_err();
        assert!(message.len() < 300 && !message.contains('\u{7}'), "{message}");
    }
}
