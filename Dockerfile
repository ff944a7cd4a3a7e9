# carbon-exporter as an image, for amd64 and arm64. Builds with docker, podman and buildah, which needs --format=docker
# for HEALTHCHECK. How to build, run and check it: docs/deploy.md, "Containers".
ARG BASE=docker.io/library/python:3.13.9-slim-bookworm

FROM ${BASE} AS build
# Another package index than pip's own, and whom to trust for it; neither is part of the image.
ARG PIP_INDEX_URL
ARG PIP_CERT
ARG PIP_NO_CACHE_DIR=1
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements requirements
RUN ["python3", "-m", "venv", "/build"]
RUN ["/build/bin/pip", "install", "--require-hashes", "--only-binary=:all:", "--requirement=requirements/build.txt"]
RUN ["/build/bin/pip", "wheel", "--require-hashes", "--only-binary=:all:", "--requirement=requirements/image.txt", \
     "--wheel-dir=/wheels"]
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY carbon_exporter carbon_exporter
RUN ["/build/bin/pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir=/wheels", "."]
# Without pip in it. Its bytecode is made here, for the root is read-only later.
RUN ["python3", "-m", "venv", "--without-pip", "/opt/carbon-exporter"]
RUN ["/build/bin/pip", "--python=/opt/carbon-exporter", "install", "--no-index", "--find-links=/wheels", \
     "carbon-exporter[auth,kubernetes,otlp]"]
RUN ["install", "--directory", "/sbom"]
RUN ["/build/bin/cyclonedx-py", "environment", "--pyproject=pyproject.toml", "--output-reproducible", \
     "--output-file=/sbom/carbon-exporter.cdx.json", "/opt/carbon-exporter"]

# What the image is made of, as CycloneDX: --target=sbom --output=DIRECTORY.
FROM scratch AS sbom
COPY --from=build /sbom /

FROM ${BASE}
ARG BASE
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="carbon-exporter" \
      org.opencontainers.image.description="Watts, kWh and CO2e of a machine, by job, for Prometheus and OpenTelemetry" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
# A volume that is mounted here takes over its owner, and its group: uid 0 without capabilities must write there too.
RUN ["install", "--directory", "--mode=0770", "--owner=65534", "--group=65534", "/var/lib/carbon-exporter"]
COPY --from=build /opt/carbon-exporter /opt/carbon-exporter
ENV PATH=/opt/carbon-exporter/bin:$PATH
USER 65534:65534
EXPOSE 12011
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["carbon-exporter", "health"]
ENTRYPOINT ["carbon-exporter"]
CMD ["serve"]
