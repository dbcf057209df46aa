# The container that the action runs in. Plain Dockerfile syntax: it is built
# by the runner before the first step, by act, and by engines without BuildKit.
# The layers are ordered so that a change of the code reinstalls nothing.

# What the action needs at run time, without the code.
FROM debian:trixie-slim AS runtime
LABEL hurd-qemu-action.stage=runtime
# Parts of the packages that this action never runs are not unpacked: the
# i386 binary (the other one runs 32-bit guests as well), the microvm, display
# and sound modules, firmware of other architectures, helpers and manuals.
RUN printf 'path-exclude=%s\n' \
      /usr/bin/kvm /usr/bin/qemu-system-i386 '/usr/bin/*-microvm' \
      /usr/bin/qemu-storage-daemon /usr/bin/qemu-nbd /usr/bin/qemu-pr-helper /usr/bin/qemu-vmsr-helper \
      '/usr/lib/qemu/*' '/usr/lib/*/qemu/*' '/usr/lib/systemd/*' \
      '/usr/share/qemu/skiboot*' '/usr/share/qemu/slof*' '/usr/share/qemu/openbios*' '/usr/share/qemu/u-boot*' \
      '/usr/share/qemu/hppa*' '/usr/share/qemu/palcode*' '/usr/share/qemu/s390*' '/usr/share/qemu/opensbi*' \
      '/usr/share/qemu/npcm*' '/usr/share/qemu/*.dtb' '/usr/share/qemu/pxe-*' /usr/share/qemu/trace-events-all \
      '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' '/usr/share/lintian/*' \
      >/etc/dpkg/dpkg.cfg.d/hurd-qemu-action \
 && printf 'path-include=%s\n' '/usr/share/doc/*/copyright' >>/etc/dpkg/dpkg.cfg.d/hurd-qemu-action \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ca-certificates e2fsprogs qemu-system-x86 qemu-utils xz-utils zstd \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/* /var/log/* \
 && qemu-system-x86_64 --version && qemu-img --version && qemu-io --version && debugfs -V

# The guest of `image: selftest`, which is embedded in the binary.
FROM debian:trixie-slim AS guest
LABEL hurd-qemu-action.stage=guest
RUN apt-get update \
 && apt-get install -y --no-install-recommends binutils e2fsprogs fakeroot grub-common grub-pc-bin xz-utils zstd
COPY testdata/selftest /src/testdata/selftest
RUN /src/testdata/selftest/build --out /assets/selftest.img.zst --cache /var/cache/selftest \
 && rm -rf /var/cache/selftest

# The modules alone, so that a change of the code does not download them again.
FROM golang:1.26-trixie AS modules
LABEL hurd-qemu-action.stage=modules
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download

FROM modules AS binary
LABEL hurd-qemu-action.stage=binary
COPY *.go ./
COPY internal ./internal
COPY --from=guest /assets/ ./internal/selftest/assets/
ARG VERSION=
RUN CGO_ENABLED=0 GOCACHE=/tmp/go-build go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X main.version=$VERSION" -o /out/hurd-qemu-action . \
 && rm -rf /tmp/go-build

FROM runtime
ARG VERSION=
LABEL hurd-qemu-action.stage=action \
      org.opencontainers.image.title="hurd-qemu-action" \
      org.opencontainers.image.description="Boots GNU/Hurd in QEMU and runs a script in it over SSH" \
      org.opencontainers.image.source="https://github.com/org/hurd-qemu-action" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION"
COPY --from=binary /out/hurd-qemu-action /usr/local/bin/hurd-qemu-action
# No USER: the runner wants root, whose files the workspace holds; QEMU itself
# runs as an unprivileged user. No shell in between: Debian's sh drops
# environment variables with hyphens in their names, such as INPUT_BOOT-TIMEOUT.
ENTRYPOINT ["/usr/local/bin/hurd-qemu-action"]
