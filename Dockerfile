# syntax=docker/dockerfile:1

# The image of the server. `make image` builds it with the labels of Cog, plain `docker build .` without them.
#
#   --build-arg DEVICE=cpu|cuda     the variant of libtorch to include
#   --build-arg WEIGHTS=none|sd2    weights to include besides the demo model; others can be fetched into the volume
#   --build-context libtorch=DIR    your own libtorch 2.11 (DIR/torch/lib/libtorch_cpu.so) instead of the pinned wheels
#
# Every step is a script that also runs without Docker, by deploy/image/clean-root.sh. See docs/deploying.md.

# Must equal rust-toolchain.toml; `make check-deploy` compares them.
ARG RUST=1.95.0
ARG DEBIAN=trixie
ARG DEVICE=cpu
ARG WEIGHTS=none

FROM rust:${RUST}-slim-${DEBIAN} AS tools
WORKDIR /src
COPY deploy/image/packages.sh deploy/image/
RUN deploy/image/packages.sh build

FROM tools AS wheels
ARG DEVICE
COPY scripts scripts
RUN scripts/libtorch.sh "$DEVICE"

FROM scratch AS libtorch
COPY --from=wheels /src/.libtorch /

FROM debian:${DEBIAN}-slim AS base
COPY deploy/image/packages.sh deploy/image/account.sh /tmp/image/
RUN /tmp/image/packages.sh run && /tmp/image/account.sh && rm -r /tmp/image

FROM tools AS build
ARG RUST
ARG DEVICE
# Use the toolchain of this image, and do not let rustup install the components of rust-toolchain.toml.
ENV RUSTUP_TOOLCHAIN=${RUST} LIBTORCH=/src/.libtorch/torch
COPY --from=libtorch / .libtorch
COPY . .
RUN make programs && deploy/image/bundle.sh "$DEVICE" /opt/syncdiffusion
COPY --from=base /var/lib/dpkg/status /tmp/status
RUN deploy/image/sbom.py "$DEVICE" /tmp/status >/opt/syncdiffusion/sbom.cdx.json

FROM base AS programs
COPY --from=build /opt/syncdiffusion /opt/syncdiffusion

FROM programs AS weights
ARG WEIGHTS
COPY deploy/image/weights.sh /tmp/
RUN --mount=type=secret,id=hf_token /tmp/weights.sh "$WEIGHTS" /opt/models

FROM programs AS with-none
ENV SYNCDIFFUSION_MODEL=demo

FROM programs AS with-sd2
COPY --from=weights /opt/models /opt/models
# The hosted model's tokens, which the name `sd2` would choose by itself and a path does not. There is no secret in it.
# hadolint ignore=DL3064
ENV SYNCDIFFUSION_MODEL=/opt/models/sd2 SYNCDIFFUSION_TOKENIZER=hosted

# hadolint ignore=DL3006
FROM with-${WEIGHTS}
# Holds fetched models and, in data/, predictions and pictures. Any user of group 0 can write to it, too.
ENV SYNCDIFFUSION_HOME=/var/lib/syncdiffusion \
    SYNCDIFFUSION_DATA_DIR=/var/lib/syncdiffusion/data \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /var/lib/syncdiffusion
VOLUME /var/lib/syncdiffusion
USER 10001:10001
EXPOSE 5000
STOPSIGNAL SIGTERM
# Large weights take minutes to load; failures do not count during the start period.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30m --retries=4 CMD ["/opt/syncdiffusion/healthcheck"]
ENTRYPOINT ["/opt/syncdiffusion/syncdiffusion"]
CMD ["serve"]
