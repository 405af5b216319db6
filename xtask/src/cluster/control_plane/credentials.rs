//! Keys, certificates, tokens and kubeconfigs of a control plane, made anew each time.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use super::{API_SERVER, NODE_NAME};
use crate::command::key;

/// Names and addresses of the API server: loopback, the bridge, the first address of the Services' range, and the Service.
const NAMES: [&str; 8] = [
    "127.0.0.1",
    "10.244.0.1",
    "10.0.0.1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Files in the control plane's folder.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) ca: PathBuf,
    pub(crate) serving_certificate: PathBuf,
    pub(crate) serving_key: PathBuf,
    /// Signs the tokens of ServiceAccounts.
    pub(crate) service_account_key: PathBuf,
    /// Verifies them.
    pub(crate) service_account_public_key: PathBuf,
    /// `--token-auth-file`
    pub(crate) tokens: PathBuf,
    /// A kubeconfig.
    pub(crate) admin: PathBuf,
    /// A kubeconfig.
    pub(crate) node: PathBuf,
}

impl Credentials {
    pub(crate) fn write(dir: &Path) -> anyhow::Result<Self> {
        let write = |name: &str, content: &str| -> anyhow::Result<PathBuf> {
            let file = dir.join(name);
            fs::write(&file, content).with_context(|| format!("`{}` cannot be written", file.display()))?;
            Ok(file)
        };
        let ca_key = KeyPair::generate()?;
        let mut params = named("agentic test cluster")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&ca_key)?;
        let ca_pem = ca.pem();

        let serving_key = KeyPair::generate()?;
        let mut serving = CertificateParams::new(NAMES.map(str::to_owned))?;
        serving.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = serving.signed_by(&serving_key, &Issuer::new(params, ca_key))?;

        let service_accounts = KeyPair::generate()?;
        let (admin_token, node_token) = (token()?, token()?);
        let node = format!("system:node:{NODE_NAME}");
        let tokens =
            format!("{admin_token},admin,admin,system:masters\n{node_token},{node},{node},system:nodes\n");
        Ok(Self {
            ca: write("ca.pem", &ca_pem)?,
            serving_certificate: write("kube-apiserver.pem", &certificate.pem())?,
            serving_key: write("kube-apiserver-key.pem", &serving_key.serialize_pem())?,
            service_account_key: write("service-accounts-key.pem", &service_accounts.serialize_pem())?,
            service_account_public_key: write("service-accounts.pem", &service_accounts.public_key_pem())?,
            tokens: write("tokens.csv", &tokens)?,
            admin: write("kubeconfig", &kubeconfig(&ca_pem, "admin", &admin_token)?)?,
            node: write("node.kubeconfig", &kubeconfig(&ca_pem, &node, &node_token)?)?,
        })
    }
}

/// Nobody can guess it: it comes from a key that was made for it.
fn token() -> anyhow::Result<String> {
    Ok(key([KeyPair::generate()?.serialized_der()]))
}

fn named(name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn kubeconfig(ca_pem: &str, user: &str, token: &str) -> anyhow::Result<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "cluster",
            "cluster": {"server": API_SERVER, "certificate-authority-data": STANDARD.encode(ca_pem)},
        }],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": user}}],
        "current-context": "cluster",
    });
    Ok(serde_yaml_ng::to_string(&config)?)
}
