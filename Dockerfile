# The two commands of the README in a container:
#   docker build -t csi-feedback-zoo . && docker run --rm -v "$PWD/demo:/app/demo" csi-feedback-zoo        (make demo)
#   docker run --rm csi-feedback-zoo make test
#   docker run --rm -v "$PWD:/data" csi-feedback-zoo .venv/bin/datagen cdl --out /data/store.zarr
FROM python:3.11-slim

RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /app

# PyTorch's CPU wheels are a tenth of the size: --build-arg PIP_EXTRA_INDEX_URL=<index of CPU wheels>
ARG PIP_EXTRA_INDEX_URL
COPY pyproject.toml constraints.txt Makefile README.md LICENSE ./
COPY datagen datagen
COPY zoo zoo
RUN make .venv/.installed .venv/.installed-dev
COPY . .

CMD ["make", "demo"]
