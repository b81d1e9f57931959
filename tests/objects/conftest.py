"""Buckets for tests of objects."""

from tests.objects.servers import s3, s3_server

__all__ = ["s3", "s3_server"]
