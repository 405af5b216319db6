# docker build -t ghcr.io/agentic-access/mcp-everything:0.1.0 -f examples/kubernetes/images/mcp-everything.Dockerfile .
FROM node:22-slim
RUN npm install --global @modelcontextprotocol/server-everything@2026.8.31
ENV PORT=3001
USER node
EXPOSE 3001
ENTRYPOINT ["mcp-server-everything"]
CMD ["streamableHttp"]
