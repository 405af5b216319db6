allowed_repos := [
  "kubernetes-sigs/kube-agentic-networking",
  "kubernetes-sigs/gateway-api"
]
repo := input.metadata.filter_metadata.mcp_proxy.params.arguments.repoName
allow { repo == allowed_repos[_] }
