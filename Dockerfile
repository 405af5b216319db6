# Both programs, each in an image with nothing else in it but the public roots:
#
#   docker build --target agentic-gateway    -t ghcr.io/agentic-access/agentic-gateway:0.1.0 .
#   docker build --target agentic-controller -t ghcr.io/agentic-access/agentic-controller:0.1.0 .
#
# `cargo xtask chroot` builds the programs the same way and runs them in an empty root directory.
FROM rust:1.95-bookworm AS build
# A C compiler for musl (ring has C and assembly), and the roots that external MCP servers are verified by.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates musl-tools \
    && rm -rf /var/lib/apt/lists/*
RUN rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY . .
# The quickstart's servers and agent stay out of the gateway (`--no-default-features`).
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(uname -m)-unknown-linux-musl" \
    && cargo build --locked --release --target "$target" -p agentic-gateway --no-default-features \
    && cargo build --locked --release --target "$target" -p agentic-controller \
    && mkdir /out \
    && cp "target/$target/release/agentic-gateway" "target/$target/release/agentic-controller" /out/

# Nothing can be written, there is no shell, and nobody is root.
FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532

FROM base AS agentic-controller
COPY --from=build /out/agentic-controller /agentic-controller
# 15010: discovery (gRPC over mTLS); 15020: probes and metrics.
EXPOSE 15010 15020
ENTRYPOINT ["/agentic-controller"]

FROM base AS agentic-gateway
COPY --from=build /out/agentic-gateway /agentic-gateway
# 15021: probes.
EXPOSE 15021
ENTRYPOINT ["/agentic-gateway"]
