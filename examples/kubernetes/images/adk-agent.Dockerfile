# docker build -t ghcr.io/agentic-access/adk-agent:0.1.0 -f examples/kubernetes/images/adk-agent.Dockerfile .
FROM python:3.12-slim
WORKDIR /agents
COPY examples/adk-agent/requirements.txt .
RUN pip install --no-cache-dir --require-hashes -r requirements.txt && rm requirements.txt
COPY examples/adk-agent/mcp_agent mcp_agent
ENV HOME=/tmp GOOGLE_API_USE_CLIENT_CERTIFICATE=false
USER 65532:65532
EXPOSE 8081
ENTRYPOINT ["adk"]
CMD ["web", "--host", "0.0.0.0", "--port", "8081", "--session_service_uri", "memory://", "."]
