//! `cargo xtask descriptors`: Envoy's definitions of the messages that the controller sends to Envoys, as one file.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use protox::prost::Message as _;
use serde_json::Value;

/// Where the controller has it, from the root of the repository.
const FILE: &str = "controller-bin/src/envoy/descriptors.binpb";

/// Folders in the `proto` folder of the `envoy-types` crate that imports start from.
const INCLUDES: [&str; 7] = [
    "data-plane-api",
    "googleapis",
    "xds",
    "protoc-gen-validate",
    "cel-spec/proto",
    "opentelemetry-proto",
    "client_model",
];

/// What has a definition of every message that a translation holds; what these import comes along.
const DEFINITIONS: [&str; 24] = [
    // Resources.
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
    // Listeners.
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto",
    // HTTP filters, and what stands in them.
    "envoy/extensions/common/matching/v3/extension_matcher.proto",
    "envoy/extensions/filters/common/matcher/action/v3/skip_action.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/ext_proc/v3/ext_proc.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/mcp/v3/mcp.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state.proto",
    "envoy/type/matcher/v3/http_inputs.proto",
    // Clusters.
    "envoy/extensions/load_balancing_policies/override_host/v3/override_host.proto",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "envoy/extensions/load_balancing_policies/subset/v3/subset.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
];

/// Writes the file.
pub(crate) fn write() -> anyhow::Result<()> {
    let at = root().join(FILE);
    let bytes = compile()?;
    fs::write(&at, &bytes).with_context(|| format!("cannot write `{}`", at.display()))?;
    println!("{FILE}: {} bytes", bytes.len());
    Ok(())
}

/// The definitions and all that they import, without comments and without options of others than protobuf's.
fn compile() -> anyhow::Result<Vec<u8>> {
    let protos = protos()?;
    let mut compiler = protox::Compiler::new(INCLUDES.map(|folder| protos.join(folder)))?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(DEFINITIONS)?;
    Ok(compiler.file_descriptor_set().encode_to_vec())
}

/// The folder with the definitions that the `envoy-types` crate is made of, of the version that is locked.
fn protos() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .context("cannot run `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata`: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages =
        metadata.get("packages").and_then(Value::as_array).context("`cargo metadata` names no packages")?;
    packages
        .iter()
        .find(|package| package.get("name").is_some_and(|name| name == "envoy-types"))
        .and_then(|package| Path::new(package.get("manifest_path")?.as_str()?).parent())
        .map(|folder| folder.join("proto"))
        .context("the crate `envoy-types` is not among the dependencies")
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_what_the_definitions_say() {
        let committed = fs::read(root().join(FILE)).unwrap();
        assert!(
            committed == compile().unwrap(),
            "`cargo xtask descriptors` writes another {FILE}; commit it"
        );
    }
}
