# The filter's image for those who build with a container engine, from the top of the repository:
#   docker build -f k8s/images/filter.Dockerfile -t ghcr.io/acme/tollmesh/filter:0.1.0 .
# One layer with plugin.wasm, as Istio and Envoy Gateway take it. `cargo xtask dist` makes the same image
# without an engine.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN rustup target add wasm32-wasip1 \
 && cargo build --locked --release -p tollmesh-filter --target wasm32-wasip1

FROM scratch
COPY --from=build /src/target/wasm32-wasip1/release/tollmesh_filter.wasm ./plugin.wasm
