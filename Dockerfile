# docker build -t attend . && docker run --rm -v "$PWD/outputs:/attend/outputs" attend train domain=vision
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /attend
COPY . .
RUN make install
ENV PATH=/attend/.venv/bin:$PATH
ENTRYPOINT ["attend"]
