//! `agentic-controller install` and `make-ca`.
mod ca;

use std::io::Write;

use anyhow::ensure;
use clap::Args;
use spiffe_id::TrustDomain;

pub(crate) use self::ca::{MakeCaArgs, make_ca};
use crate::{
    crd_yaml, identity,
    provision::{ENVOY_IMAGE, EnvoyImage},
};

/// Everything but the CRDs. It is text, not a program's output, for the comments beside the rights.
const MANIFESTS: &str = include_str!("install/manifests.yaml");

/// `install`
#[derive(Debug, Clone, Args)]
pub(crate) struct InstallArgs {
    /// Image of the controller
    #[arg(long, value_name = "IMAGE", env = "AGENTIC_CONTROLLER_IMAGE", value_parser = image,
          default_value = concat!("ghcr.io/agentic-access/agentic-controller:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// Image of proxies whose GatewayClass names none
    #[arg(long, value_name = "IMAGE", env = "AGENTIC_CONTROLLER_GATEWAY_IMAGE", value_parser = image,
          default_value = concat!("ghcr.io/agentic-access/agentic-gateway:", env!("CARGO_PKG_VERSION")))]
    gateway_image: String,
    /// Image of Envoy where a GatewayClass has `dataPlane: envoy` and names none; its tag tells the version
    #[arg(long, value_name = "IMAGE", env = "AGENTIC_CONTROLLER_ENVOY_IMAGE", value_parser = envoy_image,
          default_value = ENVOY_IMAGE)]
    envoy_image: String,
    /// Namespace of the controller
    #[arg(long, default_value = "agentic-net-system", env = "AGENTIC_CONTROLLER_NAMESPACE", value_parser = namespace)]
    namespace: String,
    /// Replicas of the controller
    #[arg(long, default_value_t = 2, value_name = "COUNT", env = "AGENTIC_CONTROLLER_REPLICAS",
          value_parser = clap::value_parser!(u8).range(1..=10))]
    replicas: u8,
    /// The trust domain of the identities that are signed, and of ServiceAccount sources
    #[arg(
        long,
        value_name = "DOMAIN",
        default_value = "cluster.local",
        env = "AGENTIC_CONTROLLER_TRUST_DOMAIN"
    )]
    trust_domain: TrustDomain,
    /// What happens where no policy has an Allow rule and nothing is delegated
    #[arg(long, value_parser = ["allow", "deny"], default_value = "allow", env = "AGENTIC_CONTROLLER_DEFAULT_ACTION")]
    default_action: String,
    /// Leave the CustomResourceDefinitions out
    #[arg(long, env = "AGENTIC_CONTROLLER_WITHOUT_CRDS")]
    without_crds: bool,
}

pub(crate) fn install(args: &InstallArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if !args.without_crds {
        out.write_all(crd_yaml()?.as_bytes())?;
    }
    out.write_all(manifests(args)?.as_bytes())?;
    Ok(())
}

/// The manifests with the settings in them. The settings are of forms that need no quoting in YAML.
fn manifests(args: &InstallArgs) -> anyhow::Result<String> {
    let mut text = format!("---\n{MANIFESTS}");
    for (name, value) in [
        ("namespace", args.namespace.as_str()),
        ("image", &args.image),
        ("gateway-image", &args.gateway_image),
        ("envoy-image", &args.envoy_image),
        ("replicas", &args.replicas.to_string()),
        ("trust-domain", args.trust_domain.as_str()),
        ("default-action", &args.default_action),
        ("signer", identity::SIGNER),
        ("bundle", identity::BUNDLE),
    ] {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    ensure!(!text.contains("${"), "a setting of the manifests has no value, which is a bug");
    Ok(text)
}

fn image(text: &str) -> Result<String, String> {
    if crate::provision::is_image(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not an image; write it as `registry.example/agentic-controller:0.1.0`"))
    }
}

fn envoy_image(text: &str) -> Result<String, String> {
    EnvoyImage::read(text, None).map(|image| image.image)
}

/// A DNS label (RFC 1123), as names of namespaces are. One of digits alone would be a number in YAML.
fn namespace(text: &str) -> Result<String, String> {
    let is_label = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-');
    if is_label {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a name for the namespace; use a-z, 0-9 and -, and begin with a letter"))
    }
}

#[cfg(test)]
mod tests;
