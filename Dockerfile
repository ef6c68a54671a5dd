FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE manage.py ./
COPY requirements requirements
COPY auditweb auditweb
COPY sessions_app sessions_app
COPY status_app status_app
COPY templates templates
COPY static static
COPY clients clients
RUN python -m venv /app && /app/bin/pip install --no-cache-dir -c requirements/constraints.txt ".[postgres]"

FROM python:3.13-slim
RUN useradd --uid 1000 --create-home auditweb && install -d -o auditweb -g auditweb -m 0700 /data
COPY --from=build /app /app
USER auditweb
WORKDIR /home/auditweb
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 AUDITWEB_DATA=/data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["auditweb", "serve", "--host", "0.0.0.0"]
