# One image for all the services of docker-compose.yml; each has its own command.

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The requirements first: this layer is kept until they change.
COPY requirements/ requirements/
RUN python -m pip install --require-hashes --requirement requirements/build.txt \
 && python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install \
      --require-hashes --requirement requirements/run.txt
COPY LICENSE README.md pyproject.toml ./
COPY config/ config/
COPY modelyard/ modelyard/
COPY producer/ producer/
COPY router_worker/ router_worker/
COPY model_workers/ model_workers/
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && python -m pip --python /opt/venv/bin/python install --no-deps --no-index /dist/*.whl

FROM python:3.12-slim
RUN useradd --system --uid 10001 --user-group --no-create-home modelyard \
 && install --directory --owner=modelyard --group=modelyard /data
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER modelyard
WORKDIR /data
CMD ["modelyard", "--help"]
