# make cluster   build hactl, start a highly available cluster on this machine, deploy the sample application
# make test      every test of the workspace
# make setup     only install what the two need (Debian, Ubuntu; as root or with sudo)
# make image     the image `hactl` for docker-compose.yml, of the program built here
# make clean     stop the cluster, remove its data and pods

SHELL := /bin/sh
DIR ?= $(HOME)/.hactl/local
MASTERS ?= 3
NODES ?= 2

# One build cache for all checkouts: RocksDB compiles once.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/hactl/target
export PATH := $(HOME)/.cargo/bin:$(PATH)
HACTL = $(CARGO_TARGET_DIR)/release/hactl
# Whoever may not talk to Docker gets root for the cluster's processes; they write iptables rules as well.
ROOT = $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
# The tests make network namespaces and mounts, besides; what is compiled stays its user's.
AS_ROOT = $(shell [ "$$(id -u)" = 0 ] || echo "--config 'target.\"cfg(unix)\".runner=\"sudo -E\"'")

.PHONY: setup cluster test image clean

setup:
	@sh deploy/setup

cluster: setup
	cargo build --release --locked --package hactl
	$(ROOT) $(HACTL) local up --masters $(MASTERS) --nodes $(NODES) --dir $(DIR)
	@$(ROOT) sh deploy/sample $(HACTL) $(DIR)

test: setup
	cargo test --workspace --locked $(AS_ROOT)

image: setup
	cargo build --release --locked --package hactl
	tar -c -C $(CURDIR)/deploy Dockerfile.prebuilt -C $(dir $(HACTL)) hactl | $(ROOT) docker build -t hactl -f Dockerfile.prebuilt \
		--build-arg BASE=$$(. /etc/os-release && echo $$ID:$${VERSION_ID:-latest}) -

clean:
	@[ ! -x $(HACTL) ] || $(ROOT) $(HACTL) local down --delete --dir $(DIR)
