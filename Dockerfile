# em-bench in a container: docs/install.md. For GPUs: --build-arg TORCH=torch==2.13.0
FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
ARG TORCH="torch==2.13.0+cpu --index-url https://download.pytorch.org/whl/cpu"
ARG EXTRAS=all
RUN python -m venv /opt/em-bench \
 && /opt/em-bench/bin/pip install --no-cache-dir ${TORCH} \
 && /opt/em-bench/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11-slim
COPY --from=build /opt/em-bench /opt/em-bench
RUN useradd --create-home em_bench && mkdir -p /work /cache && chown em_bench /work /cache
ENV PATH=/opt/em-bench/bin:$PATH EM_BENCH_CACHE=/cache/em_bench HF_HOME=/cache/huggingface
USER em_bench
WORKDIR /work
ENTRYPOINT ["em-bench"]
CMD ["--help"]
