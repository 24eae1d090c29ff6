"""An S3 on this machine: moto's server, reached by http as any other."""

import logging
import threading
import uuid
from collections import Counter
from typing import Any

import boto3
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else it prints each request

ONE_WRITE = threading.Lock()
put_object = S3Response.put_object


def put_object_in_turn(self: S3Response) -> Any:
    """S3 looks and writes at once where a write is to be the first; moto one after the other, so
    two writers may both be told that they were."""
    with ONE_WRITE:
        return put_object(self)


S3Response.put_object = put_object_in_turn


class S3Server:
    """A server, and a way past s3fs to look into its buckets."""

    def __init__(self) -> None:
        self.server = ThreadedMotoServer(port=0, verbose=False)
        self.server.start()
        _, port = self.server.get_host_and_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": "moto-key",
            "AWS_SECRET_ACCESS_KEY": "moto-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="moto-key",
            aws_secret_access_key="moto-secret",
        )

    def new_bucket(self, keeps_versions: bool = False) -> str:
        """A bucket of its own.

        Args:
            keeps_versions: of its objects, so that each write can be seen. moto goes on to list the
                folders of objects that were deleted from such a bucket; S3 does not.
        """
        name = f"bucket-{uuid.uuid4().hex[:8]}"
        self.client.create_bucket(Bucket=name)
        if keeps_versions:
            enabled = {"Status": "Enabled"}
            self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration=enabled)
        return name

    def writes(self, bucket: str) -> Counter[str]:
        """Key → how often it was written."""
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=bucket)
        return Counter(item["Key"] for page in pages for item in page.get("Versions", []))
