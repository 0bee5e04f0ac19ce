# The aggregator's image for those who build with a container engine, from the top of the repository:
#   docker build -f k8s/images/aggregator.Dockerfile -t ghcr.io/acme/tollmesh/aggregator:0.1.0 .
# `cargo xtask dist` makes the same image without one.
FROM docker.io/library/rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends musl-tools ca-certificates \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN target="$(uname -m)-unknown-linux-musl" \
 && rustup target add "$target" \
 && cargo build --locked --release -p tollmesh-aggregator --target "$target" \
 && cp "target/$target/release/tollmesh" /tollmesh

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /tollmesh /tollmesh
USER 65532:65532
ENTRYPOINT ["/tollmesh"]
CMD ["serve"]
