# A small image of hactl, compiled in a container: needs nothing but Docker, and minutes. `make image` takes the program that was
# built on this machine instead. A node in a container needs the host's Docker socket, network and process ids; see
# docker-compose.yml.
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends clang libclang-dev mold && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ENV CARGO_TARGET_DIR=/target
RUN cargo build --release --locked --package hactl

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends iptables ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /target/release/hactl /usr/local/bin/hactl
EXPOSE 6443 6444
ENTRYPOINT ["/usr/local/bin/hactl"]
CMD ["run", "--data-dir", "/var/lib/hactl"]
