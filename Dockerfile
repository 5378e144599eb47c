# syntax=docker/dockerfile:1
# LLaVA Inspect in a container, for CPUs or for NVIDIA GPUs; docs/install.md says how to run it.
#
#   docker build --tag llava-inspect .
#   docker build --tag llava-inspect:cuda --build-arg DEVICE=cuda --build-arg EXTRAS=serve,web,quant .
#
# scripts/check_image.py runs these steps without a container engine, and knows the instructions used here and no others.

FROM python:3.12-slim-trixie AS libraries
# cpu or cuda, and the extras of pyproject.toml
ARG DEVICE=cpu
ARG EXTRAS=serve,web
# Mirrors: of PyTorch's wheels for the device, and of PyPI.
ARG TORCH_INDEX_URL
ARG PIP_INDEX_URL
WORKDIR /build
RUN python3 -m venv /opt/llava-inspect
ENV PATH=/opt/llava-inspect/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt pyproject.toml ./
# PyPI's torch for Linux brings CUDA's libraries with it; the one for CPUs is a tenth of that, and on an index of its own.
RUN --mount=type=cache,target=/root/.cache/pip \
    case "$DEVICE" in \
        cpu) index=https://download.pytorch.org/whl/cpu ;; \
        cuda) index="${PIP_INDEX_URL:-https://pypi.org/simple}" ;; \
        *) echo "error: DEVICE=$DEVICE: say cpu or cuda" >&2; exit 2 ;; \
    esac \
    && pip install --no-deps --index-url "${TORCH_INDEX_URL:-$index}" --constraint constraints.txt torch
# What the project needs, without the project: a change of its code leaves this large layer as it is.
RUN --mount=type=cache,target=/root/.cache/pip \
    touch README.md LICENSE \
    && pip install --constraint constraints.txt ".[$EXTRAS]" \
    && pip uninstall --yes llava-inspect

FROM libraries AS wheel
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --no-deps --wheel-dir /wheel .

FROM python:3.12-slim-trixie
LABEL org.opencontainers.image.title="LLaVA Inspect" \
      org.opencontainers.image.description="Annotated inspection photos in, a LoRA-tuned LLaVA and honest scores out" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=libraries /opt/llava-inspect /opt/llava-inspect
# Any user may run it (docker run --user): what is written is below folders that all may write to, and the name of a user
# whom the container does not know is not looked up.
ENV PATH=/opt/llava-inspect/bin:$PATH HOME=/cache HF_HOME=/cache/huggingface USER=inspect
COPY scripts/container_health.py /opt/llava-inspect/
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-deps --no-index --no-cache-dir /wheel/*.whl \
    && mkdir /data /cache \
    && chmod 1777 /data /cache
USER 1000:1000
WORKDIR /data
VOLUME /cache
EXPOSE 8000 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=10m \
    CMD ["python3", "/opt/llava-inspect/container_health.py"]
ENTRYPOINT ["llava-inspect"]
CMD ["--help"]
