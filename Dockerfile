# The service of docs/serving.md. Research use only, not a medical device.
#   docker build -t crossray .
#   docker compose up
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/crossray
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src ./src
# wheels of torch without CUDA; for a GPU leave the index out
RUN /opt/crossray/bin/pip install --no-cache-dir -c constraints.txt \
    --extra-index-url https://download.pytorch.org/whl/cpu torch ".[serve,hospital,postgres]"

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin crossray \
    && install -d -o crossray -g crossray -m 0700 /data
COPY --from=build /opt/crossray /opt/crossray
ENV PATH=/opt/crossray/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HOME=/tmp
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000 11112
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["crossray", "serve", "--host", "0.0.0.0", "--store", "sqlite:////data/crossray.db"]
CMD ["--model", "/model", "--keys", "/keys/keys.json", "--keep", "7"]
