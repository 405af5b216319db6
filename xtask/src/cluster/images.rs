//! What runs for an image: programs that were built or installed before, since nothing can be fetched inside.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    binaries::Binaries,
    node::{Image, NodeOptions},
};
use crate::{
    command::{cargo, root, run, target_folder},
    interop::peers::Peers,
};

/// The remote MCP server's name in the quickstart, and the Service that stands in for it.
const EXTERNAL: (&str, &str) = ("mcp.deepwiki.com", "deepwiki/deepwiki");

/// The Envoy that runs for any tag of its image.
const ENVOY: &str = "1.40";

/// Builds the product, and installs what other people's programs need. Needs the network the first time.
pub(crate) async fn prepare(release: bool, envoy: bool) -> anyhow::Result<()> {
    // One by one: together they would have features of dependencies that neither has alone, and all of it be built anew.
    for package in ["agentic-gateway", "agentic-controller"] {
        build(package, release)?;
    }
    let peers = Peers::new()?;
    peers.node_modules("typescript").await?;
    adk(&peers).await?;
    if envoy {
        peers.envoy(ENVOY).await?;
    }
    Ok(())
}

/// Builds a program of the workspace.
pub(crate) fn build(package: &str, release: bool) -> anyhow::Result<()> {
    let profile = if release { "release" } else { "dev" };
    run(cargo().args(["build", "--locked", "--profile", profile, "-p", package]))
}

/// A program of the workspace.
pub(crate) fn built(name: &str, release: bool) -> PathBuf {
    target_folder().join(if release { "release" } else { "debug" }).join(name)
}

/// The table of images, as the examples' manifests name them.
pub(crate) async fn options(binaries: &Binaries, release: bool, envoy: bool) -> anyhow::Result<NodeOptions> {
    let peers = Peers::new()?;
    let everything =
        peers.node_modules("typescript").await?.join("@modelcontextprotocol/server-everything/dist/index.js");
    let adk = adk(&peers).await?;
    let recorder = root().join("xtask/src/cluster/recorder.cjs");
    let xtask = std::env::current_exe().context("this program has no path")?;
    let images = [
        ("ghcr.io/agentic-access/agentic-gateway", image([built("agentic-gateway", release)])),
        ("ghcr.io/agentic-access/agentic-controller", image([built("agentic-controller", release)])),
        ("quay.io/kuadrant/authorino", image([binaries.authorino.as_path(), Path::new("server")])),
        (
            "ghcr.io/agentic-access/mcp-everything",
            Image {
                arguments: vec!["streamableHttp".to_owned()],
                env: BTreeMap::from([("PORT".to_owned(), "3001".to_owned())]),
                ..image([
                    Path::new("/usr/bin/env"),
                    Path::new("node"),
                    Path::new("--require"),
                    &recorder,
                    &everything,
                ])
            },
        ),
        (
            "ghcr.io/agentic-access/adk-agent",
            Image {
                arguments: [
                    "web",
                    "--host",
                    "0.0.0.0",
                    "--port",
                    "8081",
                    "--session_service_uri",
                    "memory://",
                    ".",
                ]
                .map(str::to_owned)
                .to_vec(),
                env: BTreeMap::from([
                    ("HOME".to_owned(), "/tmp".to_owned()),
                    ("GOOGLE_API_USE_CLIENT_CERTIFICATE".to_owned(), "false".to_owned()),
                ]),
                working_dir: Some(root().join("examples/adk-agent")),
                ..image([adk.join("adk")])
            },
        ),
        (
            "ghcr.io/agentic-access/deepwiki-stand-in",
            image([xtask.as_path(), Path::new("cluster-part"), Path::new("deepwiki")]),
        ),
    ];
    let mut images: BTreeMap<_, _> =
        images.into_iter().map(|(name, image)| (name.to_owned(), image)).collect();
    if envoy {
        images.insert("docker.io/envoyproxy/envoy".to_owned(), image([peers.envoy(ENVOY).await?]));
    }
    Ok(NodeOptions {
        images,
        external_names: BTreeMap::from([(EXTERNAL.0.to_owned(), EXTERNAL.1.to_owned())]),
    })
}

async fn adk(peers: &Peers) -> anyhow::Result<PathBuf> {
    peers.python("adk", &root().join("examples/adk-agent/requirements.txt")).await
}

fn image<P: AsRef<Path>>(entrypoint: impl IntoIterator<Item = P>) -> Image {
    Image {
        entrypoint: entrypoint.into_iter().map(|word| word.as_ref().display().to_string()).collect(),
        arguments: Vec::new(),
        env: BTreeMap::new(),
        working_dir: None,
    }
}
