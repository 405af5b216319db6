//! What proxies said, as a replica's Lease carries it.
use std::collections::{BTreeMap, BTreeSet};

use policy_model::NamespacedName;
use serde::{Deserialize, Serialize};

use crate::status::Proxies;

/// Bytes of the annotation; all annotations of an object may have 256 KiB.
const MAX: usize = 64 << 10;

/// How much is kept, from all to nearly nothing: refusals of a Gateway (the newest, which come last), bytes of each
/// message, versions that were acknowledged.
const CUTS: [(usize, usize, usize); 7] = [
    (usize::MAX, usize::MAX, usize::MAX),
    (16, 1024, usize::MAX),
    (8, 256, 64),
    (4, 256, 16),
    (1, 256, 8),
    (1, 64, 4),
    (0, 0, 2),
];

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Said {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    acknowledged: BTreeSet<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<(String, String)>,
}

/// JSON of at most 64 KiB; what does not fit is cut: refusals and messages first, Gateways (the last by name) at last.
pub(super) fn encode(proxies: &BTreeMap<NamespacedName, Proxies>) -> String {
    for cut in CUTS {
        let json =
            json(proxies.iter().map(|(gateway, proxies)| (gateway.to_string(), shortened(proxies, cut))));
        if json.len() <= MAX {
            return json;
        }
    }
    let mut length = 2;
    let least = proxies.iter().map(|(gateway, proxies)| (gateway.to_string(), shortened(proxies, (0, 0, 2))));
    let fitting = least.take_while(|one| {
        // Without its braces, with a comma.
        length += json(std::iter::once(one.clone())).len();
        length <= MAX
    });
    json(fitting)
}

/// What [`encode`] wrote; nothing of what cannot be read.
pub(super) fn decode(json: &str) -> BTreeMap<NamespacedName, Proxies> {
    let said: BTreeMap<String, Said> = match serde_json::from_str(json) {
        Ok(said) => said,
        Err(error) => {
            tracing::warn!(%error, "what another replica's proxies said cannot be read");
            return BTreeMap::new();
        }
    };
    let of = |(gateway, said): (String, Said)| {
        let (namespace, name) = gateway.split_once('/')?;
        let proxies = Proxies { acknowledged: said.acknowledged, refused: said.refused };
        Some((NamespacedName::new(namespace, name), proxies))
    };
    said.into_iter().filter_map(of).collect()
}

fn json(said: impl Iterator<Item = (String, Said)>) -> String {
    // Strings and lists of strings have a form in JSON.
    serde_json::to_string(&said.collect::<BTreeMap<_, _>>()).unwrap_or_default()
}

fn shortened(proxies: &Proxies, (refusals, bytes, versions): (usize, usize, usize)) -> Said {
    let skip = proxies.refused.len().saturating_sub(refusals);
    let refused = proxies.refused.iter().skip(skip).map(|(version, message)| {
        let mut message = message.clone();
        message.truncate(message.floor_char_boundary(bytes));
        (version.clone(), message)
    });
    Said {
        acknowledged: proxies.acknowledged.iter().take(versions).cloned().collect(),
        refused: refused.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateways(count: usize, of: &Proxies) -> BTreeMap<NamespacedName, Proxies> {
        (0..count)
            .map(|number| (NamespacedName::new("ns", format!("gateway-{number:05}")), of.clone()))
            .collect()
    }

    fn proxies(versions: usize, refusals: usize, message: &str) -> Proxies {
        Proxies {
            acknowledged: (0..versions).map(|number| format!("{number:032}")).collect(),
            refused: (0..refusals).map(|number| (format!("{number:032}"), message.to_owned())).collect(),
        }
    }

    #[test]
    fn what_fits_is_kept_whole() {
        assert_eq!(encode(&BTreeMap::new()), "{}");
        let said = BTreeMap::from([
            (
                NamespacedName::new("a", "b"),
                Proxies {
                    acknowledged: ["v1".to_owned()].into(),
                    refused: vec![("v2".to_owned(), "no \"x\"\n".to_owned())],
                },
            ),
            (NamespacedName::new("a", "c"), Proxies::default()),
        ]);
        let expected = r#"{"a/b":{"acknowledged":["v1"],"refused":[["v2","no \"x\"\n"]]},"a/c":{}}"#;
        assert_eq!(encode(&said), expected);
        assert_eq!(decode(expected), said);
        let large = gateways(10, &proxies(2, 3, &"x".repeat(1024)));
        assert_eq!(decode(&encode(&large)), large);
    }

    #[test]
    fn what_does_not_fit_is_cut_with_messages_first() {
        let read = |said: &_| {
            let json = encode(said);
            assert!(json.len() <= MAX, "{}", json.len());
            decode(&json)
        };
        // Long messages of many Gateways: all versions, and the newest refusal of each.
        let said = gateways(100, &proxies(2, 5, &"ü".repeat(500)));
        let kept = read(&said);
        assert_eq!(kept.len(), 100);
        for proxies in kept.values() {
            assert_eq!(proxies.acknowledged.len(), 2);
            assert_eq!(proxies.refused, [(format!("{:032}", 4), "ü".repeat(128))]);
        }
        // Characters that are longer in JSON than they are.
        assert_eq!(read(&gateways(50, &proxies(2, 1, &"\u{1}".repeat(1024)))).len(), 50);
        // So many Gateways that not even their versions fit.
        let kept = read(&gateways(5000, &proxies(3, 1, "no")));
        // 108 bytes for each.
        assert!((595..=606).contains(&kept.len()), "{}", kept.len());
        assert!(kept.contains_key(&NamespacedName::new("ns", "gateway-00000")));
        assert!(kept.values().all(|proxies| proxies.acknowledged.len() == 2));
        // One that has far too many versions.
        assert_eq!(read(&gateways(1, &proxies(100_000, 0, ""))).len(), 1);
        assert_eq!(read(&gateways(1, &proxies(1, 100_000, "no"))).len(), 1);
        assert_eq!(read(&gateways(1, &proxies(1, 1, &"x".repeat(10 << 20)))).len(), 1);
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for json in ["", "[]", "{\"a/b\":3}", "{\"a/b\":{\"refused\":[[\"v\"]]}}", "{\"noslash\":{}}"] {
            assert_eq!(decode(json), BTreeMap::new(), "{json}");
        }
        // Fields of a later version.
        assert_eq!(decode(r#"{"a/b":{"more":1}}"#).len(), 1);
    }
}
