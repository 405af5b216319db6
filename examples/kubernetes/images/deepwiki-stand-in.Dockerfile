# docker build -t ghcr.io/agentic-access/deepwiki-stand-in:0.1.0 -f examples/kubernetes/images/deepwiki-stand-in.Dockerfile .
# For `cargo xtask e2e` in a cluster with containers (docs/kubernetes.md).
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p xtask

FROM debian:bookworm-slim
COPY --from=build /src/target/release/xtask /usr/local/bin/xtask
# The port is 443, and the manifest names no user.
EXPOSE 443
ENTRYPOINT ["xtask", "cluster-part", "deepwiki"]
