# syntax=docker/dockerfile:1
# A static binary and nothing else. The build stage needs the module proxy only.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath \
    -ldflags "-s -w -X github.com/gitseal/gitseal/internal/version.number=${VERSION}" \
    -o /out/agent ./cmd/agent
# The system's CA certificates, for git over https; scratch has none.
RUN mkdir -p /out/etc/ssl/certs && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/

FROM scratch
COPY --from=build /out/ /
# nonroot, the number that distroless images use
USER 65532:65532
ENTRYPOINT ["/agent"]
