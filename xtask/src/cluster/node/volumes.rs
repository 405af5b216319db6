//! Volumes of a Pod: what is in them, kept up to date while the Pod lives.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        certificates::v1beta1::ClusterTrustBundle,
        core::v1::{
            ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec, ServiceAccount,
            ServiceAccountTokenProjection, Volume, VolumeProjection,
        },
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, ResourceExt as _,
    api::PostParams,
    core::{Selector, SelectorExt as _},
};
use tokio::process::Command;

use super::{
    certificates::Credential,
    context::Context,
    environment,
    files::{File, Files, Folder, Owner},
    sandbox::succeed,
};

/// A token is asked for anew when this part of its life has passed (as kubelets do), or after a day.
const TOKEN_LIFE_USED: (u64, u64) = (8, 10);
const TOKEN_AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// The volumes of one Pod.
#[derive(Debug)]
pub(super) struct Volumes {
    folder: PathBuf,
    /// What was written, by volume. Empty folders are in it too.
    written: BTreeMap<String, Folder>,
    tokens: BTreeMap<Place, Token>,
    credentials: BTreeMap<Place, Credential>,
}

/// A volume and the place among its sources.
type Place = (String, usize);

#[derive(Debug)]
struct Token {
    token: String,
    renew: Instant,
}

impl Volumes {
    /// None made yet; they will be in this folder.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, written: BTreeMap::new(), tokens: BTreeMap::new(), credentials: BTreeMap::new() }
    }

    /// Where a volume is.
    pub(super) fn path(&self, volume: &str) -> PathBuf {
        self.folder.join(volume)
    }

    /// Writes what can be written and is not yet. An error says what every volume that is not ready waits for; what was
    /// written before stays.
    pub(super) async fn bring_up_to_date(
        &mut self,
        context: &Context,
        pod: &Pod,
        pod_address: &str,
    ) -> anyhow::Result<()> {
        let Some(spec) = &pod.spec else { return Ok(()) };
        let mut missing = Vec::new();
        for volume in spec.volumes.iter().flatten() {
            if let Err(error) = self.one(context, pod, spec, volume, pod_address).await {
                missing.push(format!("volume `{}`: {error:#}", volume.name));
            }
        }
        if missing.is_empty() { Ok(()) } else { bail!("{}", missing.join("; ")) }
    }

    async fn one(
        &mut self,
        context: &Context,
        pod: &Pod,
        spec: &PodSpec,
        volume: &Volume,
        pod_address: &str,
    ) -> anyhow::Result<()> {
        let path = self.path(&volume.name);
        let owner = Owner::of(spec);
        if let Some(empty) = &volume.empty_dir {
            if !self.written.contains_key(&volume.name) {
                std::fs::create_dir_all(&path)?;
                if empty.medium.as_deref() == Some("Memory") {
                    let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&path).spawn();
                    anyhow::ensure!(mount?.wait().await?.success(), "no memory for it");
                }
                owner.give_empty(&path)?;
                self.written.insert(volume.name.clone(), Folder::new(path));
            }
            return Ok(());
        }
        let files = self.files(context, pod, volume, owner, pod_address).await?;
        let folder = self.written.entry(volume.name.clone()).or_insert_with(|| Folder::new(path));
        folder.write(files, owner)
    }

    async fn files(
        &mut self,
        context: &Context,
        pod: &Pod,
        volume: &Volume,
        owner: Owner,
        pod_address: &str,
    ) -> anyhow::Result<Files> {
        let namespace = pod.namespace().unwrap_or_default();
        if let Some(source) = &volume.config_map {
            let mode = mode(source.default_mode)?;
            return config_map(context, &namespace, &source.name, source.optional, &source.items, mode);
        }
        if let Some(source) = &volume.secret {
            let mode = mode(source.default_mode)?;
            let name = source.secret_name.as_deref().unwrap_or_default();
            return secret(context, &namespace, name, source.optional, &source.items, mode);
        }
        if let Some(source) = &volume.downward_api {
            return downward(&source.items, pod, pod_address, mode(source.default_mode)?);
        }
        let Some(source) = &volume.projected else {
            bail!(
                "this node knows `emptyDir`, `configMap`, `secret`, `downwardAPI` and `projected` volumes only"
            );
        };
        let mode = mode(source.default_mode)?;
        let mut all = Files::new();
        // Every source is asked for, whatever the others wait for.
        let mut missing = Vec::new();
        for (place, source) in source.sources.iter().flatten().enumerate() {
            let place = (volume.name.clone(), place);
            match self.projection(context, pod, source, place, (mode, owner), pod_address).await {
                Ok(files) => all.extend(files),
                Err(error) => missing.push(format!("{error:#}")),
            }
        }
        if missing.is_empty() { Ok(all) } else { bail!("{}", missing.join(", ")) }
    }

    async fn projection(
        &mut self,
        context: &Context,
        pod: &Pod,
        source: &VolumeProjection,
        place: Place,
        (mode, owner): (u32, Owner),
        pod_address: &str,
    ) -> anyhow::Result<Files> {
        let namespace = pod.namespace().unwrap_or_default();
        if let Some(source) = &source.config_map {
            return config_map(context, &namespace, &source.name, source.optional, &source.items, mode);
        }
        if let Some(source) = &source.secret {
            return secret(context, &namespace, &source.name, source.optional, &source.items, mode);
        }
        if let Some(source) = &source.downward_api {
            return downward(&source.items, pod, pod_address, mode);
        }
        if let Some(source) = &source.cluster_trust_bundle {
            return trust_bundle(&context.bundles.state(), source, mode);
        }
        // What is secret is for the Pod's own user alone, where the Pod says who that is.
        let private = |content: &str| {
            let (mode, owner) = owner.private(mode);
            File { content: content.as_bytes().to_vec(), mode, owner }
        };
        if let Some(source) = &source.service_account_token {
            let known = self.tokens.get(&place).filter(|known| known.renew > Instant::now());
            if known.is_none() {
                match token(context, pod, source).await {
                    Ok(new) => {
                        self.tokens.insert(place.clone(), new);
                    }
                    // The old one may still be good.
                    Err(error) if self.tokens.contains_key(&place) => {
                        eprintln!("node: {namespace}/{}: token not renewed: {error:#}", pod.name_any());
                    }
                    Err(error) => return Err(error.context("ServiceAccount token")),
                }
            }
            let token = self.tokens.get(&place).context("no token")?;
            return Ok(Files::from([(source.path.clone(), private(&token.token))]));
        }
        if let Some(source) = &source.pod_certificate {
            let credential = self.credentials.entry(place).or_default();
            let issued = credential.advance(context, pod, source).await?;
            let mut files = Files::new();
            if let Some(path) = &source.credential_bundle_path {
                files.insert(path.clone(), private(&issued.bundle()));
            }
            if let Some(path) = &source.key_path {
                files.insert(path.clone(), private(&issued.key));
            }
            if let Some(path) = &source.certificate_chain_path {
                files.insert(path.clone(), private(&issued.chain));
            }
            return Ok(files);
        }
        bail!("a source of the projected volume is of a kind that this node does not know")
    }

    /// Takes the volumes away when the Pod is gone.
    pub(super) async fn remove(&self, pod: &Pod) -> anyhow::Result<()> {
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let memory = volume.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref() == Some("Memory"));
            if memory && self.written.contains_key(&volume.name) {
                succeed(Command::new("umount").arg("-l").arg(self.path(&volume.name))).await?;
            }
        }
        remove_folder(&self.folder)
    }
}

pub(super) fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Kubernetes' default for files of volumes is 0644.
fn mode(mode: Option<i32>) -> anyhow::Result<u32> {
    u32::try_from(mode.unwrap_or(0o644)).context("a negative mode")
}

fn config_map(
    context: &Context,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
    items: &Option<Vec<KeyToPath>>,
    mode: u32,
) -> anyhow::Result<Files> {
    let data = context.config_map(namespace, name).map(|map| {
        let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        let bytes = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
        text.chain(bytes).collect()
    });
    keyed(data, items.as_deref(), mode, optional == Some(true))
        .with_context(|| format!("configmap `{namespace}/{name}`"))
}

fn secret(
    context: &Context,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
    items: &Option<Vec<KeyToPath>>,
    mode: u32,
) -> anyhow::Result<Files> {
    let data = context.secret(namespace, name).map(|secret| {
        secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
    });
    keyed(data, items.as_deref(), mode, optional == Some(true))
        .with_context(|| format!("secret `{namespace}/{name}`"))
}

/// Files of a ConfigMap or a Secret: one for each key, or the items that were picked. What is optional may be missing,
/// the object as well as a key of it.
fn keyed(
    data: Option<BTreeMap<String, Vec<u8>>>,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
) -> anyhow::Result<Files> {
    let Some(mut data) = data else {
        if optional {
            return Ok(Files::new());
        }
        bail!("not found");
    };
    let file = |content, mode| File { content, mode, owner: None };
    let Some(items) = items else {
        return Ok(data.into_iter().map(|(key, content)| (key, file(content, mode))).collect());
    };
    let mut files = Files::new();
    for item in items {
        let mode = item.mode.map_or(Ok(mode), u32::try_from).context("a negative mode")?;
        match data.remove(&item.key) {
            Some(content) => {
                files.insert(item.path.clone(), file(content, mode));
            }
            None if optional => {}
            None => bail!("no key `{}`", item.key),
        }
    }
    Ok(files)
}

fn downward(
    items: &Option<Vec<DownwardAPIVolumeFile>>,
    pod: &Pod,
    pod_address: &str,
    mode: u32,
) -> anyhow::Result<Files> {
    let mut files = Files::new();
    for item in items.iter().flatten() {
        let selector = item.field_ref.as_ref().context("this node knows `fieldRef` only")?;
        let content = environment::field(selector, pod, pod_address)?.into_bytes();
        let mode = item.mode.map_or(Ok(mode), u32::try_from).context("a negative mode")?;
        files.insert(item.path.clone(), File { content, mode, owner: None });
    }
    Ok(files)
}

/// The bundle of that name, or all of the signer that the selector picks (none selects nothing, an empty one all), each
/// certificate once (KEP-3257).
fn trust_bundle<B: std::borrow::Borrow<ClusterTrustBundle>>(
    bundles: &[B],
    source: &ClusterTrustBundleProjection,
    mode: u32,
) -> anyhow::Result<Files> {
    let bundles = bundles.iter().map(std::borrow::Borrow::borrow);
    let (picked, what): (Vec<_>, _) = match (&source.name, &source.signer_name) {
        (Some(name), _) => {
            (bundles.filter(|bundle| bundle.name_any() == *name).collect(), format!("`{name}`"))
        }
        (None, Some(signer)) => {
            let matches = |bundle: &&ClusterTrustBundle| {
                bundle.spec.signer_name.as_ref() == Some(signer)
                    && source.label_selector.as_ref().is_some_and(|s| selects(s, bundle.labels()))
            };
            (bundles.filter(matches).collect(), format!("of signer `{signer}` with these labels"))
        }
        (None, None) => bail!("a clusterTrustBundle source needs `name` or `signerName`"),
    };
    if picked.is_empty() && source.optional != Some(true) {
        bail!("no ClusterTrustBundle {what}");
    }
    let mut certificates: Vec<_> =
        picked.iter().flat_map(|bundle| certificates(&bundle.spec.trust_bundle)).collect();
    certificates.sort();
    certificates.dedup();
    let content = certificates.concat().into_bytes();
    Ok(Files::from([(source.path.clone(), File { content, mode, owner: None })]))
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    // What cannot be understood selects nothing.
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// The certificates of a bundle, without what stands between them.
fn certificates(pem: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = pem.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
    blocks.map(|(body, _)| format!("{BEGIN}{body}{END}\n")).collect()
}

/// Asks for a token that is bound to the Pod, as the node.
async fn token(
    context: &Context,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
) -> anyhow::Result<Token> {
    let namespace = pod.namespace().unwrap_or_default();
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let accounts: Api<ServiceAccount> = Api::namespaced(context.node.clone(), &namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: source.audience.clone().map(|audience| vec![audience]),
            expiration_seconds: source.expiration_seconds,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let account = account.unwrap_or_else(|| "default".to_owned());
    let answer = accounts.create_token_request(&account, &PostParams::default(), &request).await?;
    let status = answer.status.context("the API server gave no token")?;
    let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
        bail!("the API server gave no token");
    };
    let life = expires.0.duration_since(super::context::now());
    let life = Duration::try_from(life).unwrap_or_default();
    let (part, whole) = TOKEN_LIFE_USED;
    let renew = Duration::from_secs(life.as_secs() * part / whole).min(TOKEN_AT_MOST);
    Ok(Token { token, renew: Instant::now() + renew })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(keys: &[&str]) -> Option<BTreeMap<String, Vec<u8>>> {
        Some(keys.iter().map(|key| ((*key).to_owned(), key.as_bytes().to_vec())).collect())
    }

    fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath { key: key.into(), path: path.into(), mode }
    }

    #[track_caller]
    fn check_keyed(
        data: Option<BTreeMap<String, Vec<u8>>>,
        items: Option<&[KeyToPath]>,
        optional: bool,
        expected: Option<&[(&str, &str, u32)]>,
    ) {
        let files = keyed(data, items, 0o640, optional).ok();
        let files: Option<Vec<_>> = files.map(|files| {
            let shown =
                |(path, file): (String, File)| (path, String::from_utf8(file.content).unwrap(), file.mode);
            files.into_iter().map(shown).collect()
        });
        let expected = expected.map(|all| {
            all.iter().map(|(p, c, m)| ((*p).to_owned(), (*c).to_owned(), *m)).collect::<Vec<_>>()
        });
        assert_eq!(files, expected);
    }

    #[test]
    fn files_of_keys() {
        check_keyed(data(&["a", "b"]), None, false, Some(&[("a", "a", 0o640), ("b", "b", 0o640)]));
        let items = [item("b", "deep/down", Some(0o400))];
        check_keyed(data(&["a", "b"]), Some(&items), false, Some(&[("deep/down", "b", 0o400)]));
        check_keyed(data(&["a"]), Some(&items), false, None);
        check_keyed(data(&["a"]), Some(&items), true, Some(&[]));
        check_keyed(None, None, false, None);
        check_keyed(None, None, true, Some(&[]));
    }

    fn bundle(name: &str, signer: &str, live: bool, certificates: &[&str]) -> ClusterTrustBundle {
        let pem: String = certificates
            .iter()
            .map(|body| format!("# {name}\n-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"))
            .collect();
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "labels": {"live": live.to_string()}},
            "spec": {"signerName": signer, "trustBundle": pem},
        }))
        .unwrap()
    }

    #[track_caller]
    fn check_bundle(source: serde_json::Value, expected: Option<&[&str]>) {
        let bundles = [
            bundle("s:a", "s", true, &["AAA", "BBB"]),
            bundle("s:b", "s", true, &["BBB", "CCC"]),
            bundle("s:old", "s", false, &["OLD"]),
            bundle("t:a", "t", true, &["TTT"]),
        ];
        let source: ClusterTrustBundleProjection = serde_json::from_value(source).unwrap();
        let files = trust_bundle(&bundles, &source, 0o644).ok();
        let expected = expected.map(|bodies| {
            let block =
                |body: &&str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
            bodies.iter().map(block).collect::<String>()
        });
        let got =
            files.map(|mut files| String::from_utf8(files.remove("roots.pem").unwrap().content).unwrap());
        assert_eq!(got, expected);
    }

    #[test]
    fn trust_bundles() {
        use serde_json::json;
        check_bundle(json!({"path": "roots.pem", "name": "s:a"}), Some(&["AAA", "BBB"]));
        check_bundle(json!({"path": "roots.pem", "name": "none"}), None);
        check_bundle(json!({"path": "roots.pem", "name": "none", "optional": true}), Some(&[]));
        let live = json!({"matchLabels": {"live": "true"}});
        check_bundle(
            json!({"path": "roots.pem", "signerName": "s", "labelSelector": live}),
            Some(&["AAA", "BBB", "CCC"]),
        );
        check_bundle(
            json!({"path": "roots.pem", "signerName": "s", "labelSelector": {}}),
            Some(&["AAA", "BBB", "CCC", "OLD"]),
        );
        check_bundle(json!({"path": "roots.pem", "signerName": "s"}), None);
    }
}
