"""Which paths are anybody's, and which are the operator's. Everything else is inference."""

# Probes carry no key and are answered while the server is being stopped.
PROBES = frozenset({"/livez", "/readyz", "/healthz", "/health", "/v2/health/live", "/v2/health/ready"})
_ADMIN = (
    "/admin/",
    "/jobs",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v2/repository/models/",
)


def wants_admin(path: str) -> bool:
    """Whether a path changes what is served, or the machine."""
    return path.startswith(_ADMIN)
