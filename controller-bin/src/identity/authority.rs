//! Keeps what signs: the pool as its Secret has it, the bundle as the leader publishes it, the controller's own
//! certificate.
use std::{fmt, sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{certificates::v1beta1::ClusterTrustBundle, core::v1::Secret};
use kube::{Api, Client, api::PostParams};
use spiffe_id::CaPool;
use tokio::sync::watch;

use super::{
    BUNDLE, GATES, POOL_SECRET, Serving, Settings,
    bundle::{self, SignsFrom},
    pool, serving,
};
use crate::lease::Membership;

/// How often Secret and bundle are looked at again: Secrets may not be watched.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A pool whose first CA may sign.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) pool: CaPool,
    pub(super) ca_end: Timestamp,
}

/// Runs until the membership ends.
pub(super) async fn keep(
    client: Client,
    settings: Arc<Settings>,
    mut membership: watch::Receiver<Membership>,
    authority: watch::Sender<Option<Arc<Authority>>>,
    serving: watch::Sender<Option<Serving>>,
) -> anyhow::Result<()> {
    let mut keeper = Keeper {
        secrets: Api::namespaced(client.clone(), &settings.namespace),
        bundles: Api::all(client),
        settings,
        pool: None,
        damaged: None,
        known: None,
        signing: None,
        renew_at: Timestamp::MIN,
        served: true,
        said: String::new(),
    };
    loop {
        let leader = membership.borrow_and_update().leader;
        match keeper.look(leader, Timestamp::now(), &authority, &serving).await {
            Ok(()) => keeper.said.clear(),
            // Said once, however often it is met.
            Err(error) => {
                let error = format!("{error:#}");
                if keeper.said != error {
                    tracing::error!(%error, "the identity signer is not as it should be");
                    keeper.said = error;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            changed = membership.wait_for(|now| now.leader != leader) => if changed.is_err() { return Ok(()) },
        }
    }
}

struct Keeper {
    secrets: Api<Secret>,
    bundles: Api<ClusterTrustBundle>,
    settings: Arc<Settings>,
    /// The last pool that could be read, and as which version of the Secret.
    pool: Option<Read>,
    /// The version of the Secret that could not be read, and why.
    damaged: Option<(Version, String)>,
    /// What was published when last seen. A bundle that somebody deletes is published again with it.
    known: Option<SignsFrom>,
    /// What was handed on: the version of the Secret and the signing CA.
    signing: Option<(Version, String)>,
    /// When the serving certificate is to be made anew.
    renew_at: Timestamp,
    /// Whether the API server has ClusterTrustBundles.
    served: bool,
    /// The last error, which is not said twice.
    said: String,
}

/// UID and resourceVersion.
type Version = (Option<String>, Option<String>);

struct Read {
    version: Version,
    json: String,
    roots: Vec<String>,
    pool: CaPool,
}

/// What is there of a thing that may be missing.
enum Found<T> {
    There(T),
    Missing,
    /// The API server does not know the kind.
    NotServed,
}

impl Keeper {
    async fn look(
        &mut self,
        leader: bool,
        now: Timestamp,
        authority: &watch::Sender<Option<Arc<Authority>>>,
        serving: &watch::Sender<Option<Serving>>,
    ) -> anyhow::Result<()> {
        // Whatever cannot be done about the pool: the last good one goes on.
        let pool = self.look_at_pool(leader, now).await;
        let published = self.look_at_bundle(leader, now).await;
        let handed_on = match &published {
            Ok(published) => self.hand_on(published.as_ref(), now, authority, serving),
            Err(_) => Ok(()),
        };
        pool?;
        published?;
        handed_on
    }

    async fn look_at_pool(&mut self, leader: bool, now: Timestamp) -> anyhow::Result<()> {
        let what = format!("CA pool (Secret `{}/{POOL_SECRET}`)", self.settings.namespace);
        let Found::There(secret) = get(&self.secrets, POOL_SECRET).await.context(what.clone())? else {
            return self.make_pool(leader, now).await.context(what);
        };
        let version: Version = (secret.metadata.uid.clone(), secret.metadata.resource_version.clone());
        if self.pool.as_ref().is_some_and(|read| read.version == version) {
            self.damaged = None;
            return Ok(());
        }
        if let Some((of, why)) = &self.damaged
            && *of == version
        {
            anyhow::bail!("{what}: {why}");
        }
        match pool::read_pool(&secret, &self.settings.trust_domain) {
            Ok(pool) => {
                let roots = bundle::fingerprints(&pool);
                tracing::info!(cas = roots.len(), "CA pool read");
                self.pool = Some(Read { version, json: pool.to_json(), roots, pool });
                self.damaged = None;
                Ok(())
            }
            Err(why) => {
                let on =
                    if self.pool.is_some() { "the last good one is used on" } else { "nothing is signed" };
                let why = format!("{why}; {on} until it is mended");
                self.damaged = Some((version, why.clone()));
                anyhow::bail!("{what}: {why}")
            }
        }
    }

    /// Creates the Secret: as the leader, with the pool that was there while this replica runs, a new one otherwise.
    async fn make_pool(&mut self, leader: bool, now: Timestamp) -> anyhow::Result<()> {
        if !leader {
            return Ok(());
        }
        let settings = &self.settings;
        let made = match &self.pool {
            Some(read) => pool::pool_secret(&settings.namespace, &read.pool),
            None => pool::pool_secret(&settings.namespace, &pool::new_pool(&settings.trust_domain, now)?),
        };
        match self.secrets.create(&PostParams::default(), &made).await {
            Ok(secret) => {
                tracing::info!(again = self.pool.is_some(), "CA pool created");
                let pool = pool::read_pool(&secret, &settings.trust_domain).map_err(anyhow::Error::msg)?;
                let version = (secret.metadata.uid, secret.metadata.resource_version);
                let roots = bundle::fingerprints(&pool);
                self.pool = Some(Read { version, json: pool.to_json(), roots, pool });
                Ok(())
            }
            // Somebody else's: read next time.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What is published, by this replica as the leader if need be. `None` where the API server has no bundles.
    async fn look_at_bundle(&mut self, leader: bool, now: Timestamp) -> anyhow::Result<Option<SignsFrom>> {
        let trust_domain = &self.settings.trust_domain;
        let there = match get(&self.bundles, BUNDLE).await.context("ClusterTrustBundle")? {
            Found::There(bundle) => Some(bundle),
            Found::Missing => None,
            Found::NotServed => {
                if self.served {
                    tracing::error!(
                        "the API server has no ClusterTrustBundles (certificates.k8s.io/v1beta1); {GATES}"
                    );
                }
                self.served = false;
                return Ok(None);
            }
        };
        self.served = true;
        let mut published =
            there.as_ref().map(|bundle| bundle::signs_from(bundle, trust_domain)).unwrap_or_default();
        if let (true, Some(read)) = (leader, &self.pool) {
            let known = if there.is_some() { Some(&published) } else { self.known.as_ref() };
            let spread = SignedDuration::try_from(self.settings.spread).unwrap_or(SignedDuration::MAX);
            let from = bundle::schedule(&read.roots, known, now, spread);
            if let Some(bundle) = bundle::desired(there.as_ref(), &read.pool, &from, trust_domain) {
                let params = PostParams {
                    field_manager: Some("agentic-controller".to_owned()),
                    ..PostParams::default()
                };
                // Both fail when somebody else was faster: it is looked at again.
                if there.is_some() {
                    self.bundles.replace(BUNDLE, &params, &bundle).await.context("ClusterTrustBundle")?;
                } else {
                    self.bundles.create(&params, &bundle).await.context("ClusterTrustBundle")?;
                }
                tracing::info!(roots = read.roots.len(), "ClusterTrustBundle published");
                published = from;
            }
        }
        if !published.is_empty() {
            self.known = Some(published.clone());
        }
        Ok(Some(published))
    }

    /// Hands on what changed: the pool, the CA that signs, the certificate that is half over.
    fn hand_on(
        &mut self,
        published: Option<&SignsFrom>,
        now: Timestamp,
        authority: &watch::Sender<Option<Arc<Authority>>>,
        serving: &watch::Sender<Option<Serving>>,
    ) -> anyhow::Result<()> {
        let Some(read) = &self.pool else {
            return Ok(());
        };
        let at = match published {
            // No bundles, no proxies' certificates; the discovery service is up all the same.
            None => 0,
            Some(published) => match bundle::signer(&read.roots, published, now) {
                Ok(at) => at,
                // Nobody would trust what is signed now. The serving certificate stays as it was.
                Err(next) => {
                    authority.send_replace(None);
                    self.signing = None;
                    match next {
                        Some(from) => anyhow::bail!(
                            "no root of the CA pool was published before; nothing is signed until {from}, when it has spread"
                        ),
                        None => return Ok(()),
                    }
                }
            },
        };
        let id = read.pool.cas().nth(at).map(|ca| ca.id().to_owned()).context("a pool without a CA")?;
        let signing = (read.version.clone(), id);
        if self.signing.as_ref() == Some(&signing) && now < self.renew_at {
            return Ok(());
        }
        let pool =
            CaPool::from_json(read.json.as_bytes())?.signing_with(&signing.1).context("a CA is gone")?;
        let ca_end = Timestamp::try_from(pool.not_after())?;
        let (made, renew_at) = serving::serving(&pool, &self.settings, now)?;
        tracing::info!(ca = signing.1, until = %ca_end, "identities are signed with this CA");
        self.renew_at = renew_at;
        self.signing = Some(signing);
        serving.send_replace(Some(made));
        authority.send_replace(Some(Arc::new(Authority { pool, ca_end })));
        Ok(())
    }
}

/// Reads one object. Of a kind that is not served the API server says something else than of an object that is not
/// there.
async fn get<K>(api: &Api<K>, name: &str) -> kube::Result<Found<K>>
where
    K: Clone + serde::de::DeserializeOwned + fmt::Debug,
{
    match api.get(name).await {
        Ok(object) => Ok(Found::There(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let named = status.details.as_ref().is_some_and(|details| details.name == name);
            Ok(if named { Found::Missing } else { Found::NotServed })
        }
        Err(error) => Err(error),
    }
}
