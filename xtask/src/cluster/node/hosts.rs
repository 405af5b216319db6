//! The hosts file that stands in for DNS.
//!
//! A Service's names lead to its ready endpoints themselves, since there are no ClusterIPs: a port of the Service that is
//! asked for by name must be the port that its Pods listen on.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write as _,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Service;

use super::{
    context::Key,
    services::{Slices, key, ready},
};

/// What is above this line is not ours.
const MARK: &str = "# Services of the cluster. Written anew when they change.";

/// The hosts file of the cluster.
#[derive(Debug)]
pub(super) struct Hosts {
    path: PathBuf,
    above: String,
    written: String,
}

impl Hosts {
    /// Keeps what is in it.
    pub(super) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let found = fs::read_to_string(&path)?;
        let above = found.split_once(MARK).map_or(found.as_str(), |(above, _)| above).trim_end().to_owned();
        Ok(Self { path, above, written: found })
    }

    /// Writes the file if it is another one.
    ///
    /// In place, since containers have it mounted; by a single write, never shorter than before, so that whoever reads it at
    /// that moment finds no file that is cut off.
    pub(super) fn write(
        &mut self,
        services: &[Arc<Service>],
        slices: &Slices<'_>,
        external: &BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        let mut content = format!("{}\n{MARK}\n", self.above);
        for (address, names) in entries(services, slices, external) {
            let names = names.into_iter().collect::<Vec<_>>().join(" ");
            content.push_str(&format!("{address} {names}\n"));
        }
        if content.trim_end() == self.written.trim_end() {
            return Ok(());
        }
        let padding = self.written.len().saturating_sub(content.len());
        content.push_str(&"\n".repeat(padding));
        OpenOptions::new().write(true).open(&self.path)?.write_all(content.as_bytes())?;
        self.written = content;
        Ok(())
    }
}

/// All names of each address.
fn entries(
    services: &[Arc<Service>],
    slices: &Slices<'_>,
    external: &BTreeMap<String, String>,
) -> BTreeMap<IpAddr, BTreeSet<String>> {
    let addresses = |key: &Key| {
        let slices = slices.get(key).into_iter().flatten();
        slices.flat_map(|slice| ready(slice)).collect::<BTreeSet<_>>()
    };
    let mut all: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for service in services {
        let key = key(service);
        let (namespace, name) = &key;
        for address in addresses(&key) {
            all.entry(address).or_default().extend([
                format!("{name}.{namespace}"),
                format!("{name}.{namespace}.svc"),
                format!("{name}.{namespace}.svc.cluster.local"),
            ]);
        }
    }
    for (name, service) in external {
        let Some((namespace, service)) = service.split_once('/') else { continue };
        for address in addresses(&(namespace.to_owned(), service.to_owned())) {
            all.entry(address).or_default().insert(name.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node::services::by_service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    fn service(namespace: &str, name: &str) -> Arc<Service> {
        let value = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn slice(namespace: &str, service: &str, addresses: &[(&str, bool)]) -> Arc<EndpointSlice> {
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|(address, ready)| json!({"addresses": [address], "conditions": {"ready": ready}}))
            .collect();
        let labels = json!({"kubernetes.io/service-name": service});
        let value = json!({
            "metadata": {"namespace": namespace, "name": format!("{service}-x"), "labels": labels},
            "addressType": "IPv4", "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[track_caller]
    fn check(slices: &[Arc<EndpointSlice>], expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        let services = [service("shop", "web"), service("shop", "db")];
        let external = BTreeMap::from([("mcp.example.com".to_owned(), "shop/db".to_owned())]);
        let mut hosts = Hosts::open(path.clone()).unwrap();
        // More than is expected first: nothing of it may stay.
        let many: Vec<_> = (1..9).map(|n| format!("10.244.9.{n}")).collect();
        let many: Vec<_> = many.iter().map(|address| (address.as_str(), true)).collect();
        let longer = [slice("shop", "web", &many)];
        hosts.write(&services, &by_service(&longer), &external).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("10.244.9.8 web.shop"));
        let mut hosts = Hosts::open(path.clone()).unwrap();
        hosts.write(&services, &by_service(slices), &external).unwrap();
        let got = fs::read_to_string(&path).unwrap();
        assert_eq!(got.trim_end(), format!("127.0.0.1 localhost\n{MARK}{expected}"));
    }

    #[test]
    fn names_lead_to_ready_endpoints() {
        check(&[], "");
        check(
            &[slice("shop", "web", &[("10.244.1.1", false)]), slice("shop", "x", &[("10.244.1.2", true)])],
            "",
        );
        check(
            &[
                slice("shop", "web", &[("10.244.1.2", true), ("10.244.1.1", true)]),
                slice("shop", "web", &[("10.244.1.2", true)]),
                slice("shop", "db", &[("10.244.1.2", true)]),
            ],
            "\n10.244.1.1 web.shop web.shop.svc web.shop.svc.cluster.local\
             \n10.244.1.2 db.shop db.shop.svc db.shop.svc.cluster.local mcp.example.com \
             web.shop web.shop.svc web.shop.svc.cluster.local",
        );
    }

    #[test]
    fn the_file_stays_the_same_file_and_is_never_shorter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        let id = |path: &PathBuf| {
            let found = fs::metadata(path).unwrap();
            (std::os::unix::fs::MetadataExt::ino(&found), found.len())
        };
        let services = [service("shop", "web")];
        let mut hosts = Hosts::open(path.clone()).unwrap();
        let one = [slice("shop", "web", &[("10.244.1.1", true)])];
        hosts.write(&services, &by_service(&one), &BTreeMap::new()).unwrap();
        let long = id(&path);
        hosts.write(&services, &by_service(&[]), &BTreeMap::new()).unwrap();
        assert_eq!(id(&path), long);
        assert!(!fs::read_to_string(&path).unwrap().contains("web"));
    }
}
