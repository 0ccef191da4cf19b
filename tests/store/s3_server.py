"""An S3 server for the tests, on loopback, from a package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

KEY, SECRET, BUCKET = "tester", "hidden/secret", "results"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Give the query that leads to a server with one bucket, for ``s3://results/…?<query>``."""
    moto = pytest.importorskip("moto.server", reason="no S3 server: pip install 'moto[server]'")
    from pyarrow import fs

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    query = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    try:
        made, _ = fs.FileSystem.from_uri(
            f"s3://{KEY}:hidden%2Fsecret@{BUCKET}?{query}&allow_bucket_creation=true"
        )
        made.create_dir(BUCKET)
        yield query
    finally:
        server.stop()
