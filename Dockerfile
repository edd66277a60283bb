# The image of a metasrv node. `docker-compose up` builds it with Docker alone: the first stage installs metasrv and what it
# needs from a package index, and the image gets the result. For machines where a build reaches no package index, `make docker`
# puts the wheels into docker/wheels first and builds from those, the compiled wheel of metasrv among them. Neither way leaves an
# index, a certificate, a pip or a compiler in the image.
#
#   BASE                an image with Python 3.11 or later and its venv module
#   INSTALL_FROM        `index`, or `wheels` for docker/wheels, which the same version of Python must have made
#   PIP_…               settings of pip with pip's own names, where the default index is not the one to use; empty means default
#   INDEX_CERTIFICATES  certificates in PEM format to trust as well while packages are fetched, as for a proxy that inspects TLS;
#                       \n may stand for the end of a line
#   METASRV_VERSION     the version that is built; a label
#   METASRV_COMMIT      the commit that is built; a label, and part of `binary_version` in every status
#
# py-spy and memray are in the image. CPU profiles over HTTP need no capability: py-spy may look at its own parent, and where
# a stricter seccomp profile or kernel forbids that, the node samples itself. Only py-spy beside a node, in another container,
# needs SYS_PTRACE; see the profile `profiling` of docker-compose.yml.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG INSTALL_FROM=index
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_TRUSTED_HOST=
ARG PIP_DEFAULT_TIMEOUT=
ARG INDEX_CERTIFICATES=
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
ARG PIP_NO_CACHE_DIR=1
# Two environments: pip stays in the first, so that the second, which is shipped, can install nothing.
RUN python3 -m venv /installer \
 && python3 -m venv --without-pip /opt/metasrv \
 && if [ -n "$(printenv INDEX_CERTIFICATES)" ]; then \
        trusted=$(/installer/bin/python -c 'from pip._vendor import certifi; print(certifi.where())') \
     && { cat "$trusted" && printf '\n%b\n' "$(printenv INDEX_CERTIFICATES)"; } >/installer/trusted.pem \
     && printf '[global]\ncert = /installer/trusted.pem\n' >/etc/pip.conf; \
    fi
# Dependencies first: a change of the source does not fetch them again. The brackets make docker/wheels optional.
# Exactly what requirements/ names, with its hashes, also of what builds the one package that comes as source.
COPY requirements/build.txt requirements/runtime.txt pyproject.toml docker/wheel[s] /source/
RUN if [ "$INSTALL_FROM" = index ]; then \
        /installer/bin/pip install --require-hashes --requirement /source/build.txt \
     && /installer/bin/pip wheel --no-build-isolation --no-deps --require-hashes --requirement /source/runtime.txt \
            --wheel-dir /wheels \
     && /installer/bin/pip --python /opt/metasrv/bin/python install --no-index --no-deps /wheels/*.whl; \
    fi
COPY README.md LICENSE THIRD-PARTY-NOTICES /source/
COPY docs/runbooks /source/docs/runbooks
COPY metasrv /source/metasrv
RUN case "$INSTALL_FROM" in \
        index) /installer/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /wheels /source \
            && set -- --no-index --no-deps /wheels/metasrv-*.whl ;; \
        wheels) set -- --no-index --find-links /source metasrv ;; \
        *) echo "INSTALL_FROM is $INSTALL_FROM, and must be index or wheels." >&2; exit 2 ;; \
    esac \
 && /installer/bin/pip --python /opt/metasrv/bin/python install "$@" \
 && if ! /opt/metasrv/bin/python -c 'import metasrv.cli.server'; then \
        echo "The compiled wheel does not run on this base: the ordinary one is installed instead." >&2 \
     && /installer/bin/pip --python /opt/metasrv/bin/python install --force-reinstall --no-index --no-deps \
            /source/metasrv-*-none-any.whl \
     && /opt/metasrv/bin/python -c 'import metasrv.cli.server'; \
    fi
# The licences of what was installed just now, in exactly these versions.
COPY scripts/third_party_notices.py scripts/bill_of_materials.py /source/
RUN /installer/bin/python /source/third_party_notices.py --environment /opt/metasrv --output /source/THIRD-PARTY-NOTICES \
 && /installer/bin/python /source/bill_of_materials.py --environment /opt/metasrv --output /source/sbom.cdx.json

FROM ${BASE}
# The owner of the data is a number, so that it is the same in every release and every base. A pip of the base goes, too.
RUN groupadd --gid 10001 metasrv \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/metasrv --shell /usr/sbin/nologin metasrv \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/metasrv /var/lib/metasrv-shared \
 && if python3 -m pip --version >/dev/null 2>&1; then python3 -m pip uninstall --quiet --yes --root-user-action=ignore pip; fi
COPY --from=build /opt/metasrv /opt/metasrv
COPY --from=build /source/LICENSE /source/THIRD-PARTY-NOTICES /source/sbom.cdx.json /usr/share/doc/metasrv/
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
ARG METASRV_VERSION=0.3.0.dev0
ARG METASRV_COMMIT=unknown
ENV METASRV_COMMIT=${METASRV_COMMIT}
LABEL org.opencontainers.image.title="metasrv" \
      org.opencontainers.image.description="A Raft meta-service cluster: a strongly consistent key-value store" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${METASRV_VERSION}" \
      org.opencontainers.image.revision="${METASRV_COMMIT}"
