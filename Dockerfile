# The image of a metasrv node. `make docker` builds it: it first puts the wheels of metasrv and of everything it needs into
# build/wheels on this machine, so that this build needs no package index, no proxy and no certificate, and keeps none.
#
#   BASE             an image with Python 3.11 or later and its venv module; the wheels must be made by the same version
#   METASRV_VERSION  the version that was built; a label
#   METASRV_COMMIT   the commit that was built; a label, and part of `binary_version` in every status
#
# py-spy and memray are in the image. CPU profiles over HTTP need no capability: py-spy may look at its own parent, and where
# a stricter seccomp profile or kernel forbids that, the node samples itself. Only py-spy beside a node, in another container,
# needs SYS_PTRACE; see the profile `profiling` of docker-compose.yml.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
COPY build/wheels /wheels
# Two environments: pip stays in the first, so that the second, which is shipped, can install nothing.
RUN python3 -m venv /installer \
 && python3 -m venv --without-pip /opt/metasrv \
 && /installer/bin/pip --python /opt/metasrv/bin/python install \
        --no-index --find-links /wheels --no-cache-dir --disable-pip-version-check metasrv

FROM ${BASE}
# The owner of the data is a number, so that it is the same in every release and every base. A pip of the base goes, too.
RUN groupadd --gid 10001 metasrv \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/metasrv --shell /usr/sbin/nologin metasrv \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/metasrv /var/lib/metasrv-shared \
 && if python3 -m pip --version >/dev/null 2>&1; then python3 -m pip uninstall --quiet --yes --root-user-action=ignore pip; fi
COPY --from=build /opt/metasrv /opt/metasrv
COPY docker/entrypoint.sh /usr/local/bin/metasrv-entrypoint
COPY docker/healthcheck.py /usr/local/bin/metasrv-healthcheck
COPY docker/stateful.py /usr/local/bin/metasrv-stateful
RUN chmod 0755 /usr/local/bin/metasrv-entrypoint /usr/local/bin/metasrv-healthcheck /usr/local/bin/metasrv-stateful

# A container is reached over its own address; what it says goes to `docker logs`.
ENV PATH=/opt/metasrv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    METASRV_ADMIN_API_ADDRESS=0.0.0.0:28101 \
    METASRV_GRPC_API_ADDRESS=0.0.0.0:9191 \
    METASRV_RAFT_LISTEN_HOST=0.0.0.0 \
    METASRV_RAFT_API_PORT=28103 \
    METASRV_RAFT_DIR=/var/lib/metasrv \
    METASRV_LOG_FILE_ON=false \
    METASRV_LOG_STDERR_ON=true

USER 10001:10001
WORKDIR /var/lib/metasrv
VOLUME /var/lib/metasrv
EXPOSE 28101 28103 9191
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/metasrv/bin/python", "-I", "-S", "/usr/local/bin/metasrv-healthcheck"]
ENTRYPOINT ["/usr/local/bin/metasrv-entrypoint"]
CMD ["metasrv"]

# Last, so that a new commit does not build the layers above again.
ARG METASRV_VERSION=unknown
ARG METASRV_COMMIT=unknown
ENV METASRV_COMMIT=${METASRV_COMMIT}
LABEL org.opencontainers.image.title="metasrv" \
      org.opencontainers.image.description="A Raft meta-service cluster: a strongly consistent key-value store" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${METASRV_VERSION}" \
      org.opencontainers.image.revision="${METASRV_COMMIT}"
