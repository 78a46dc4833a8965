"""Object storage in S3 and what speaks its protocol; needs conditional writes, which `probe` checks."""

from marway.objects.s3.client import Access
from marway.objects.s3.store import S3Store

__all__ = ["Access", "S3Store"]
