//! Developer commands: `cargo xtask --help`.
mod bench;
mod chroot;
mod cluster;
mod command;
mod descriptors;
mod documents;
mod e2e;
mod fuzz;
mod interop;
mod lint;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The vocabulary of this repository. CI says nothing that these commands do not.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Formatting, clippy, rustdoc, licences and sources of dependencies, packaging, what documents name
    Lint,
    /// Every fuzz target for a share of the given time
    FuzzSmoke(fuzz::Smoke),
    /// One fuzz target for as long as you like
    Fuzz(fuzz::One),
    /// How much of its subject the committed inputs of each fuzz target reach (needs the component llvm-tools)
    FuzzCoverage(fuzz::Coverage),
    /// Real MCP servers, clients and agents, and a real authorizer, with the gateway between them
    Interop(interop::Interop),
    /// A part of `interop` that is a process of its own
    #[command(hide = true)]
    InteropPart {
        #[command(subcommand)]
        part: interop::Part,
    },
    /// A real Kubernetes control plane without containers, and a shell in it
    Cluster(cluster::ClusterArgs),
    /// A part of a cluster that is a process of its own
    #[command(hide = true)]
    ClusterPart {
        #[command(subcommand)]
        part: cluster::Part,
    },
    /// The product in a cluster: provisioning, identities, policies, both tables of the quickstart, faults
    E2e(e2e::E2eArgs),
    /// Writes what of Envoy's protobuf definitions the controller needs, from those that the `envoy-types` crate ships
    Descriptors,
    /// Both programs linked statically and run in an empty root directory, as the images have it
    Chroot(chroot::ChrootArgs),
    /// The gateway beside a bare hyper proxy: CPU per request and latency, in the same run
    BenchProxy(bench::BenchProxy),
    /// Envoy with the engine beside it, and Envoy alone: CPU per request and latency, in the same run
    BenchEnvoy(bench::envoy::BenchEnvoy),
    /// A part of a measurement that is a process of its own
    #[command(hide = true)]
    BenchPart {
        #[command(subcommand)]
        part: bench::Part,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Lint => lint::run_all(),
        Task::FuzzSmoke(smoke) => fuzz::smoke(&smoke),
        Task::Fuzz(one) => fuzz::one(&one),
        Task::FuzzCoverage(coverage) => fuzz::coverage(&coverage),
        Task::Interop(interop) => interop::interop(&interop),
        Task::InteropPart { part } => interop::part(&part),
        Task::Cluster(args) => cluster::cluster(&args),
        Task::ClusterPart { part } => cluster::part(&part),
        Task::E2e(args) => e2e::e2e(&args),
        Task::Descriptors => descriptors::write(),
        Task::Chroot(args) => chroot::chroot(&args),
        Task::BenchProxy(bench) => bench::bench_proxy(&bench),
        Task::BenchEnvoy(bench) => bench::envoy::bench_envoy(&bench),
        Task::BenchPart { part } => bench::part(&part),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
