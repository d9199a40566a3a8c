# simcse-bench on a CPU.
#   docker build -t simcse-bench --build-arg TORCH_CPU_INDEX=... .
#     (PyTorch's index of CPU builds, pytorch.org shows it; without it pip brings gigabytes of CUDA)
#   docker run --rm -v simcse-bench-cache:/cache simcse-bench eval --model mini
# Results go to /work. With real data of your own:
#   docker run --rm -v "$PWD:/work" -v /path/to/data:/data:ro -e SIMCSE_BENCH_DATA=/data simcse-bench eval --model ...
FROM python:3.12-slim

WORKDIR /source
COPY constraints.txt ./
# torch, in a layer of its own
ARG TORCH_CPU_INDEX=
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_CPU_INDEX:+--extra-index-url "$TORCH_CPU_INDEX"} torch
COPY . .
RUN pip install --no-cache-dir -c constraints.txt . && rm -rf /source/*

RUN useradd --create-home user && mkdir /cache /data /work && chown user /cache /data /work
USER user
WORKDIR /work
# what is downloaded and made stays in /cache
ENV SIMCSE_BENCH_CACHE=/cache/simcse-bench HF_HOME=/cache/huggingface
VOLUME ["/cache", "/data", "/work"]
ENTRYPOINT ["simcse-bench"]
