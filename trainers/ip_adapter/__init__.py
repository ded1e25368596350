"""IP-Adapter: a second cross-attention that reads a picture; the model itself stays as it is."""

from trainers.ip_adapter.config import IpAdapter

__all__ = ["IpAdapter"]
