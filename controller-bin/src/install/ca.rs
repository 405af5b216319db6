//! `agentic-controller make-ca`.
use std::{
    io::{Read as _, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};
use spiffe_id::{CaPool, KeyKind, TrustDomain};

use super::namespace;
use crate::identity::POOL_SECRET;

/// The key of the Secret that holds the pool: upstream's.
const POOL_KEY: &str = "ca-pool.json";
/// A root is valid from a little before it is made, for clocks that run behind.
const BACKDATE: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest Secret that is read: an API server stores no larger one.
const SECRET: u64 = 2 << 20;

/// `make-ca`
#[derive(Debug, Clone, Args)]
pub(crate) struct MakeCaArgs {
    /// The trust domain of the new CA
    #[arg(
        long,
        value_name = "DOMAIN",
        default_value = "cluster.local",
        env = "AGENTIC_CONTROLLER_TRUST_DOMAIN"
    )]
    trust_domain: TrustDomain,
    /// How long the new CA is valid
    #[arg(long, default_value_t = 3650, env = "AGENTIC_CONTROLLER_CA_DAYS",
          value_parser = clap::value_parser!(u16).range(2..=18_250))]
    days: u16,
    /// Namespace of the controller
    #[arg(long, default_value = "agentic-net-system", env = "AGENTIC_CONTROLLER_NAMESPACE", value_parser = namespace)]
    namespace: String,
    /// Add the new CA to this pool: the Secret (YAML or JSON), or the pool itself; `-` is standard input
    #[arg(long, value_name = "FILE", env = "AGENTIC_CONTROLLER_ADD")]
    add: Option<String>,
    /// With --add: put the new CA behind the others, to be trusted only; in front of them, it signs as soon as it has been
    /// published for long enough
    #[arg(long, requires = "add", env = "AGENTIC_CONTROLLER_BEHIND")]
    behind: bool,
}

/// Prints the Secret. Keys go nowhere else.
pub(crate) fn make_ca(args: &MakeCaArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let existing = match args.add.as_deref() {
        None => None,
        Some("-") => Some(read(std::io::stdin().lock()).context("cannot read standard input")?),
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| format!("cannot open `{path}`"))?;
            Some(read(file).with_context(|| format!("cannot read `{path}`"))?)
        }
    };
    let secret = secret(args, existing.as_deref(), SystemTime::now())?;
    out.write_all(serde_yaml_ng::to_string(&secret)?.as_bytes())?;
    Ok(())
}

fn read(source: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(SECRET).read_to_string(&mut text)?;
    Ok(text)
}

fn secret(args: &MakeCaArgs, existing: Option<&str>, now: SystemTime) -> anyhow::Result<Value> {
    let seconds = now.duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    // Told apart by the time at which they were made; a pool refuses two of one name.
    let id = format!("identity-{seconds}");
    let not_before = now.checked_sub(BACKDATE).context("the clock is before 1970")?;
    let not_after =
        now.checked_add(DAY * u32::from(args.days)).context("the CA would outlive what a clock can tell")?;
    let new = CaPool::generate(&id, &args.trust_domain, KeyKind::Ed25519, not_before, not_after)?.to_json();
    let pool = match existing {
        None => new,
        Some(existing) => joined(&pool_of(existing)?, &new, args.behind)?,
    };
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": POOL_SECRET, "namespace": args.namespace},
        "type": "Opaque",
        "data": {POOL_KEY: STANDARD.encode(pool)},
    }))
}

/// The pool's JSON, from itself or from the Secret that holds it.
fn pool_of(text: &str) -> anyhow::Result<String> {
    let value: Value = serde_yaml_ng::from_str(text).context("neither YAML nor JSON")?;
    if value.get("kind").and_then(Value::as_str) != Some("Secret") {
        return Ok(text.to_owned());
    }
    if let Some(plain) =
        value.pointer("/stringData").and_then(|data| data.get(POOL_KEY)).and_then(Value::as_str)
    {
        return Ok(plain.to_owned());
    }
    let encoded = value.pointer("/data").and_then(|data| data.get(POOL_KEY)).and_then(Value::as_str);
    let encoded = encoded.with_context(|| format!("the Secret has no key `{POOL_KEY}`"))?;
    let pool = STANDARD.decode(encoded.trim()).with_context(|| format!("`{POOL_KEY}` is not base64"))?;
    // The error would quote the pool.
    String::from_utf8(pool).map_err(|_error| anyhow!("`{POOL_KEY}` is not text"))
}

/// Both pools in one, which reads as a pool.
fn joined(existing: &str, new: &str, behind: bool) -> anyhow::Result<String> {
    let (existing, new) = (CaPool::from_json(existing.as_bytes())?.to_json(), new);
    let (first, second) = if behind { (existing.as_str(), new) } else { (new, existing.as_str()) };
    let mut cas = Vec::new();
    for pool in [first, second] {
        let mut pool: Value = serde_json::from_str(pool)?;
        match pool.get_mut("cas").map(Value::take) {
            Some(Value::Array(of_pool)) => cas.extend(of_pool),
            _ => return Err(anyhow!("a pool without `cas`")),
        }
    }
    let count = cas.len();
    let pool = json!({"cas": cas}).to_string();
    ensure!(CaPool::from_json(pool.as_bytes())?.cas().count() == count, "the pools cannot be joined");
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn args(more: &[&str]) -> MakeCaArgs {
        let line = ["agentic-controller", "make-ca"].iter().chain(more);
        match crate::Args::try_parse_from(line).unwrap().command {
            crate::cli::Command::MakeCa(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// As the controller reads it.
    fn pool(secret: &Value) -> CaPool {
        let encoded = secret["data"]["ca-pool.json"].as_str().unwrap();
        CaPool::from_json(&STANDARD.decode(encoded).unwrap()).unwrap()
    }

    fn ids(pool: &CaPool) -> Vec<&str> {
        pool.cas().map(spiffe_id::Ca::id).collect()
    }

    #[test]
    fn a_new_pool() {
        let secret =
            secret(&args(&["--trust-domain", "example.org", "--days", "30"]), None, at(1_800_000_000))
                .unwrap();
        assert_eq!(
            secret["metadata"],
            json!({"name": "agentic-identity-ca-pool", "namespace": "agentic-net-system"})
        );
        let pool = pool(&secret);
        assert_eq!(ids(&pool), ["identity-1800000000"]);
        assert_eq!(pool.trust_domain().unwrap().as_str(), "example.org");
        assert_eq!(pool.not_after(), at(1_800_000_000 + 30 * 86_400));
    }

    #[test]
    fn a_new_ca_joins_a_pool_on_either_side() {
        let first = secret(&args(&[]), None, at(1_800_000_000)).unwrap();
        let front = secret(&args(&["--add", "x"]), Some(&first.to_string()), at(1_800_000_001)).unwrap();
        assert_eq!(ids(&pool(&front)), ["identity-1800000001", "identity-1800000000"]);
        let yaml = serde_yaml_ng::to_string(&first).unwrap();
        let back = secret(&args(&["--add", "x", "--behind"]), Some(&yaml), at(1_800_000_001)).unwrap();
        assert_eq!(ids(&pool(&back)), ["identity-1800000000", "identity-1800000001"]);
        let bare = pool(&first).to_json();
        let of_bare = secret(&args(&["--add", "x"]), Some(&bare), at(1_800_000_001)).unwrap();
        assert_eq!(ids(&pool(&of_bare)), ["identity-1800000001", "identity-1800000000"]);
        // The CA that was there keeps its key and certificate.
        assert_eq!(pool(&of_bare).cas().last().unwrap().root(), pool(&first).cas().next().unwrap().root());
    }

    #[test]
    fn pools_that_cannot_be_joined_are_refused_without_quoting_keys() {
        let other = secret(&args(&["--trust-domain", "other.example"]), None, at(1_800_000_000)).unwrap();
        for existing in [
            other.to_string(),
            json!({"kind": "Secret", "data": {}}).to_string(),
            json!({"kind": "Secret", "data": {"ca-pool.json": "?"}}).to_string(),
            json!({"cas": []}).to_string(),
            "no pool".to_owned(),
        ] {
            let error = secret(&args(&["--add", "x"]), Some(&existing), at(1_800_000_001)).unwrap_err();
            assert!(!format!("{error:#}").contains("signingKey"), "{error:#}");
        }
        // The same second gives the same name.
        let first = secret(&args(&[]), None, at(1_800_000_000)).unwrap();
        assert!(secret(&args(&["--add", "x"]), Some(&first.to_string()), at(1_800_000_000)).is_err());
    }

    #[test]
    fn the_command_prints_a_secret() {
        let mut out = Vec::new();
        make_ca(&args(&[]), &mut out).unwrap();
        let printed: Value = serde_yaml_ng::from_slice(&out).unwrap();
        assert_eq!(pool(&printed).trust_domain().unwrap().as_str(), "cluster.local");
    }
}
