# The agent's image: one file, the static binary that `make image` has built before.
# The CA certificates for git over https are in it (cmd/agent/roots.go); mounted ones win.
FROM scratch
ARG TARGETARCH
COPY --chmod=0555 bin/linux-${TARGETARCH}/agent /agent
ARG VERSION=dev
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="gitseal agent" \
      org.opencontainers.image.description="Applies what git holds to a cluster, sealed secrets included" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/gitseal/gitseal" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# nonroot, the number that distroless images use
USER 65532:65532
ENTRYPOINT ["/agent"]
