//! Parameters of a GatewayClass.
use std::{collections::BTreeMap, net::IpAddr};

use xds_translate::envoy::Filters;

use super::{DataPlane, Envoy, EnvoyImage, EnvoyPolicy, Parameters};

/// The keys that are known, as messages list them.
const KNOWN: [&str; 12] = [
    "allowedOrigins",
    "authorizerTimeout",
    "dataPlane",
    "envoyImage",
    "envoyPolicy",
    "envoyVersion",
    "filterLists",
    "image",
    "logLevel",
    "maxBodyBytes",
    "replicas",
    "resolve",
];
/// The flag of `filterLists`.
const FILTER_LISTS: &str = "--filter-lists";
/// Most replicas.
const REPLICAS: u32 = 100;
/// Largest body that may be asked for, in bytes: every request in flight may need as much memory.
const BODY_BYTES: u64 = 64 << 20;
/// Longest image reference: a name of 255 characters, a tag of 128 and a digest.
const IMAGE: usize = 512;

impl Parameters {
    /// Reads the `data` of a ConfigMap: `dataPlane` (`native` or `envoy`), `image`, `replicas` (1 to 100), `filterLists`
    /// (`true` or `false`), `maxBodyBytes` (1024 to 67108864), `authorizerTimeout` (as `500ms` or `2s`, at most `60s`),
    /// `allowedOrigins` (`scheme://host[:port]`, separated by commas), `resolve` (`HOST:PORT:IP` or `HOST:PORT:IP:PORT`,
    /// separated by commas), `logLevel` (`error`, `warn`, `info`, `debug` or `trace`), `envoyImage`, `envoyVersion` (for an
    /// image whose tag does not tell), `envoyPolicy` (`engine` or `filters`). What is Envoy's is read with either data plane, so that
    /// `dataPlane` alone changes it.
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
        match envoy(data) {
            Ok(envoy) if data.get("dataPlane").is_some_and(|plane| plane == "envoy") => {
                if envoy.policy == EnvoyPolicy::Filters
                    && parameters.flags.iter().any(|flag| flag == FILTER_LISTS)
                {
                    errors.push(
                        "`filterLists: true` is nothing that Envoy alone can do; leave it out, or write `envoyPolicy: engine`"
                            .to_owned(),
                    );
                }
                parameters.data_plane = Some(DataPlane::Envoy(envoy));
            }
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
        if errors.is_empty() { Ok(parameters) } else { Err(errors.join("; ")) }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wanted = |wanted: &str| format!("`{key}: {}` is not {wanted}", shown(value));
        match key {
            "dataPlane" => match value {
                "native" => self.data_plane = Some(DataPlane::Native),
                // With what else there is about Envoy.
                "envoy" => {}
                _ => return Err(wanted("a data plane; write `native` or `envoy`")),
            },
            "envoyImage" | "envoyVersion" | "envoyPolicy" => {}
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
                "true" => self.flags.push(FILTER_LISTS.to_owned()),
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

/// What is said about Envoy.
fn envoy(data: &BTreeMap<String, String>) -> Result<Envoy, String> {
    let text = |key: &str| data.get(key).map(String::as_str);
    let mut errors = Vec::new();
    let image = match (text("envoyImage"), text("envoyVersion")) {
        (Some(image), version) => EnvoyImage::read(image, version).map(Some),
        (None, Some(_)) => {
            Err("`envoyVersion` tells the version of `envoyImage`; add that, or leave it out".to_owned())
        }
        (None, None) => Ok(None),
    };
    let image = image.unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    let policy = match text("envoyPolicy") {
        None | Some("engine") => EnvoyPolicy::Engine,
        Some("filters") => {
            let older = image.as_ref().filter(|image| image.version.minor() < Filters::FIRST_MINOR);
            errors.extend(older.map(|image| {
                format!(
                    "`envoyPolicy: filters` needs Envoy 1.{} or later, not {}; use a later `envoyImage`, or write `engine`",
                    Filters::FIRST_MINOR,
                    image.version
                )
            }));
            EnvoyPolicy::Filters
        }
        Some(other) => {
            errors.push(format!(
                "`envoyPolicy: {}` is not `engine` or `filters`; write one of these, or leave it out",
                shown(other)
            ));
            EnvoyPolicy::Engine
        }
    };
    if errors.is_empty() { Ok(Envoy { image, policy }) } else { Err(errors.join("; ")) }
}

impl EnvoyImage {
    /// An image with the version that its tag tells (`v1.40.0`, `distroless-v1.40-latest`), or with the given one.
    ///
    /// # Errors
    /// What is no image, a tag that does not tell, a version that is not supported; and what to write.
    pub fn read(image: &str, version: Option<&str>) -> Result<Self, String> {
        if !is_image(image) {
            return Err(format!(
                "`envoyImage: {}` is not an image; write it as `docker.io/envoyproxy/envoy:distroless-v1.40.0`",
                shown(image)
            ));
        }
        let version = match version {
            Some(version) => {
                version.parse().map_err(|error| format!("`envoyVersion: {}`: {error}", shown(version)))?
            }
            None => version_of_tag(image)
                .ok_or_else(|| {
                    format!(
                        "the tag of `envoyImage: {}` does not tell the version of Envoy; add it as `envoyVersion: 1.40.0`",
                        shown(image)
                    )
                })?
                .parse()
                .map_err(|error| format!("`envoyImage: {}`: {error}", shown(image)))?,
        };
        Ok(Self { image: image.to_owned(), version })
    }
}

/// The part of an image's tag that is a version: `1.40.0` of `envoy:distroless-v1.40.0@sha256:...`.
fn version_of_tag(image: &str) -> Option<&str> {
    let name = image.split('@').next().unwrap_or(image);
    let (_, tag) = name.rsplit('/').next()?.split_once(':')?;
    tag.split('-').map(|part| part.strip_prefix('v').unwrap_or(part)).find(|part| {
        part.contains('.') && part.split('.').all(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    })
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
        refused("dataPlane", "Native", "`dataPlane: Native` is not a data plane; write `native` or `envoy`");
        refused(
            "envoyPolicy",
            "lua",
            "`envoyPolicy: lua` is not `engine` or `filters`; write one of these, or leave it out",
        );
        refused(
            "envoyVersion",
            "1.40.0",
            "`envoyVersion` tells the version of `envoyImage`; add that, or leave it out",
        );
        refused("replicas", "0", "`replicas: 0` is not a number from 1 to 100");
        refused("filterLists", "yes", "`filterLists: yes` is not `true` or `false`");
        refused(
            "replica",
            "2",
            "`replica` is not a parameter; the parameters are `allowedOrigins`, `authorizerTimeout`, `dataPlane`, \
             `envoyImage`, `envoyPolicy`, `envoyVersion`, `filterLists`, `image`, `logLevel`, `maxBodyBytes`, `replicas`, `resolve`",
        );
        assert_eq!(
            read(&[("replicas", "x"), ("filterLists", "")]).unwrap_err(),
            "`filterLists: ` is not `true` or `false`; `replicas: x` is not a number from 1 to 100"
        );
    }

    #[test]
    fn envoy_by_its_own_name_or_by_the_controllers() {
        let plane = |data: &[(&str, &str)]| read(data).unwrap().data_plane;
        let engine = |image| Some(DataPlane::Envoy(Envoy { image, policy: EnvoyPolicy::Engine }));
        assert_eq!(plane(&[("dataPlane", "envoy")]), engine(None));
        assert_eq!(plane(&[("dataPlane", "envoy"), ("envoyPolicy", "engine")]), engine(None));
        let image = "registry.example:5000/envoy:v1.38.2";
        let read = EnvoyImage { image: image.to_owned(), version: "1.38".parse().unwrap() };
        assert_eq!(plane(&[("dataPlane", "envoy"), ("envoyImage", image)]), engine(Some(read)));
        // It waits for its day.
        assert_eq!(plane(&[("envoyImage", image)]), None);
        assert_eq!(plane(&[("dataPlane", "native"), ("envoyImage", image)]), Some(DataPlane::Native));
    }

    #[test]
    fn envoy_alone() {
        let alone = |more: &[(&str, &str)]| {
            let data = [&[("dataPlane", "envoy"), ("envoyPolicy", "filters")], more].concat();
            read(&data).map(|parameters| match parameters.data_plane {
                Some(DataPlane::Envoy(envoy)) => {
                    (envoy.policy, envoy.image.map(|image| image.version.minor()))
                }
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(alone(&[]), Ok((EnvoyPolicy::Filters, None)));
        assert_eq!(alone(&[("envoyImage", "envoy:v1.39.2")]), Ok((EnvoyPolicy::Filters, Some(39))));
        assert_eq!(
            alone(&[("envoyImage", "envoy:v1.38.3")]).unwrap_err(),
            "`envoyPolicy: filters` needs Envoy 1.39 or later, not 1.38; use a later `envoyImage`, or write `engine`"
        );
        assert!(alone(&[("envoyImage", "envoy:team-7"), ("envoyVersion", "1.36.1")]).is_err());
        assert_eq!(
            alone(&[("filterLists", "true")]).unwrap_err(),
            "`filterLists: true` is nothing that Envoy alone can do; leave it out, or write `envoyPolicy: engine`"
        );
        // It is our own gateway that filters lists meanwhile.
        let native = [("dataPlane", "native"), ("envoyPolicy", "filters"), ("filterLists", "true")];
        assert_eq!(read(&native).unwrap().data_plane, Some(DataPlane::Native));
    }

    #[track_caller]
    fn version(image: &str, given: Option<&str>, expected: Result<u8, &str>) {
        let read = EnvoyImage::read(image, given).map(|image| image.version.minor());
        match (read, expected) {
            (Ok(minor), Ok(expected)) => assert_eq!(minor, expected, "{image}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (read, _) => panic!("{image}: {read:?}"),
        }
    }

    #[test]
    fn tags_tell_versions() {
        version("docker.io/envoyproxy/envoy:distroless-v1.40.0", None, Ok(40));
        version("envoyproxy/envoy:v1.36-latest", None, Ok(36));
        version("envoy:1.39", None, Ok(39));
        version("r.example:5000/envoy:contrib-v1.38.3@sha256:00ff", None, Ok(38));
        version("envoy:v1.37.1", None, Ok(37));
        version("envoy:v1.37.0", None, Err("1.37.0 crashes"));
        version("envoy:v1.37-latest", None, Err("1.37.0 crashes"));
        version("envoy:v1.41.0", None, Err("not supported"));
        version("envoy:v1.35.9", None, Err("not supported"));
        for unreadable in
            ["envoy", "envoy:latest", "r.example:5000/envoy", "envoy@sha256:00ff", "envoy:team-7"]
        {
            version(unreadable, None, Err("add it as `envoyVersion: 1.40.0`"));
            version(unreadable, Some("1.38.3"), Ok(38));
        }
        version("envoy:v1.2", Some("1.40"), Ok(40));
        version("envoy:v1.40.0", Some("1.37.0"), Err("`envoyVersion: 1.37.0`: "));
        version("envoy:v1.40.0", Some("newest"), Err("is not supported"));
        version("a b", None, Err("is not an image"));
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
            ("dataPlane", &["", "Envoy", "both"][..]),
            ("envoyPolicy", &["", "Engine"][..]),
            ("envoyImage", &["", "envoy:", "envoy:v1.40.0 "][..]),
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
