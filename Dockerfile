# For a machine with an NVIDIA GPU and its container toolkit:
#   docker build --tag lora_detox .
#   docker run --gpus all --volume "$PWD/runs:/home/user/runs" lora_detox task=flan_summary
# Without a GPU: --build-arg BASE=ubuntu:24.04
ARG BASE=nvidia/cuda:12.8.1-base-ubuntu24.04
FROM ${BASE}

ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv gcc python3-dev \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH HF_HOME=/home/user/cache/huggingface LORA_DETOX_CACHE=/home/user/cache/lora_detox

WORKDIR /opt/lora_detox
# PyTorch first and alone: this layer is large and changes least
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY conf conf
COPY lora_detox lora_detox
COPY hydra_plugins hydra_plugins
RUN pip install --no-cache-dir --constraint constraints.txt .

RUN useradd --create-home user && mkdir --parents /home/user/runs /home/user/cache && chown --recursive user:user /home/user
USER user
WORKDIR /home/user
VOLUME ["/home/user/runs", "/home/user/cache"]
ENTRYPOINT ["lora-detox"]
CMD ["task=flan_summary"]
