# One image for the Prefect server and the worker of compose.yaml, so that their versions are one.
FROM python:3.11-slim
WORKDIR /app
COPY requirements.lock ./
# torch's own index has builds without CUDA; for a GPU build with --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --extra-index-url $TORCH_INDEX --requirement requirements.lock
COPY . .
# channels/ is mounted there by compose.yaml; the watch reads channels.yaml
RUN pip install --no-cache-dir --no-deps --editable . \
 && mkdir -p channels && ln -sf channels/channels.yaml channels.yaml \
 && useradd --create-home --home-dir /data thumbtune && chown thumbtune /data
USER thumbtune
# The workspace (~/.thumbtune), Prefect's results and downloaded models: mount a volume here.
ENV HOME=/data PREFECT_HOME=/data/prefect PREFECT_SERVER_ANALYTICS_ENABLED=false
