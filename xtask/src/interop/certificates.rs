//! Identities for agents and the gateway, from a CA that lives as long as the run; and a server certificate from another
//! CA, as a gateway has that ordinary clients can verify.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use spiffe_id::{CaPool, KeyKind, SpiffeId, SvidRequest, TrustDomain};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// CAs and a folder for what they issue.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: PathBuf,
    workloads: CaPool,
    web: CaPool,
    now: SystemTime,
}

/// One workload's files.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// `credential-bundle.pem` and the trust bundle, as a kubelet projects them.
    pub(crate) identity_dir: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    certificate_pem: String,
    key_pem: String,
}

/// A certificate for `localhost`, in PEM.
#[derive(Debug)]
pub(crate) struct ServerCertificate {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Workload {
    /// The roots of its own trust domain.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.identity_dir.join("cluster.local.trust-bundle.pem")
    }
}

impl Certificates {
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let now = SystemTime::now();
        let year = 365 * DAY;
        let workloads =
            CaPool::generate("workloads", &TrustDomain::default(), KeyKind::EcdsaP256, now, now + year)?;
        let web = CaPool::generate("web", &"web.example".parse()?, KeyKind::EcdsaP256, now, now + year)?;
        fs::create_dir_all(folder)?;
        fs::write(folder.join("web-ca.pem"), web.roots_pem())?;
        Ok(Self { folder: folder.to_owned(), workloads, web, now })
    }

    /// The CA of [`Certificates::server`], for clients to trust.
    pub(crate) fn web_ca(&self) -> PathBuf {
        self.folder.join("web-ca.pem")
    }

    /// A certificate for `localhost`.
    pub(crate) fn server(&self) -> anyhow::Result<ServerCertificate> {
        let id = "spiffe://web.example/gateway".parse()?;
        let names = ["localhost".to_owned()];
        let issued =
            self.web.issue(&SvidRequest::new(&id, self.now, self.now + DAY).with_dns_names(&names))?;
        Ok(ServerCertificate {
            certificate_pem: issued.chain_pem(),
            key_pem: issued.key_pem.context("the key was made elsewhere")?,
        })
    }

    /// An identity with its files.
    pub(crate) fn workload(&self, namespace: &str, service_account: &str) -> anyhow::Result<Workload> {
        let id = SpiffeId::for_service_account(&TrustDomain::default(), namespace, service_account)?;
        let issued = self.workloads.issue(&SvidRequest::new(&id, self.now, self.now + DAY))?;
        let identity_dir = self.folder.join(service_account);
        fs::create_dir_all(&identity_dir)?;
        fs::write(identity_dir.join("credential-bundle.pem"), issued.credential_bundle_pem()?)?;
        fs::write(identity_dir.join("cluster.local.trust-bundle.pem"), self.workloads.roots_pem())?;
        let certificate_pem = issued.chain_pem();
        let key_pem = issued.key_pem.context("the key was made elsewhere")?;
        // Beside the folder: in it, a sidecar would take them for something to watch.
        let (certificate, key) =
            (identity_dir.with_extension("certificate.pem"), identity_dir.with_extension("key.pem"));
        fs::write(&certificate, &certificate_pem)?;
        fs::write(&key, &key_pem)?;
        Ok(Workload { identity_dir, certificate, key, certificate_pem, key_pem })
    }

    /// TLS for a client that trusts the web CA and, if it has one, shows its certificate.
    pub(crate) fn client(
        &self,
        workload: Option<&Workload>,
        alpn: &[&str],
    ) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.web.roots_pem().as_bytes()) {
            roots.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match workload {
            None => builder.with_no_client_auth(),
            Some(workload) => {
                let chain = CertificateDer::pem_slice_iter(workload.certificate_pem.as_bytes())
                    .collect::<Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(
                    chain,
                    PrivateKeyDer::from_pem_slice(workload.key_pem.as_bytes())?,
                )?
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}
