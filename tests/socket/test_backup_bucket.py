"""Backups in an S3-compatible bucket, with boto3 against moto's server: whole, in parts, and when it goes wrong."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import tracemalloc
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.config import Config as BotoConfig

from metasrv.backup.bucket import PART_SIZE_BYTES, BucketPlace
from metasrv.backup.places import archive_name, draft_name
from metasrv.config.sections import BackupConfig
from metasrv.model.errors import BackupError
from metasrv.testing.ports import PortReservation
from tests.support.waiting import wait_for_port

CLUSTER = "c0ffee"
NAME = archive_name(CLUSTER, 1_700_000_000_123, 42)
DRAFT = draft_name(NAME, 1)
CREDENTIALS = "[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = the-secret-of-the-bucket\n"


class Server(NamedTuple):
    """A server of S3 and what a node would be configured with."""

    endpoint: str
    credentials: Path
    process: subprocess.Popen[bytes]

    def config(self, **changes: Any) -> BackupConfig:
        given = {"every_seconds": 1, "bucket": "backups", "endpoint": self.endpoint, "prefix": "meta/"}
        return BackupConfig.model_validate({**given, "credentials_file": str(self.credentials), **changes})

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="y",
            config=BotoConfig(retries={"total_max_attempts": 1}),
        )

    def keys(self) -> list[str]:
        return [entry["Key"] for entry in self.client().list_objects_v2(Bucket="backups").get("Contents", ())]


def post(url: str, text: str) -> None:
    request = urllib.request.Request(url, text.encode(), {"Content-Type": "text/plain"}, method="POST")
    with urllib.request.urlopen(request):
        pass


def ask_for_credentials(server: Server, after_requests: str) -> None:
    """Let the server look at credentials from its so many-th request on."""
    post(f"{server.endpoint}/moto-api/reset-auth", after_requests)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("s3")
    credentials = folder / "credentials"
    credentials.write_text(CREDENTIALS)
    ports = PortReservation()
    port = ports.take()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield Server(f"http://127.0.0.1:{port}", credentials, process)
    finally:
        process.kill()
        process.wait()
        ports.release()


@pytest.fixture
def server(running: Server) -> Server:
    """With an empty bucket."""
    post(f"{running.endpoint}/moto-api/reset", "")
    running.client().create_bucket(Bucket="backups")
    return running


def test_an_archive_is_stored_read_listed_and_removed(server: Server) -> None:
    place = BucketPlace(server.config())
    other = archive_name("beef", 1_700_000_000_123, 9)
    server.client().put_object(Bucket="backups", Key=f"meta/{other}", Body=b"another cluster's")
    assert place.archives(CLUSTER) == []
    assert place.store(DRAFT, [b"line 1\n", b"", b"line 2\n"]) == 14
    assert place.archives(CLUSTER) == [], "a draft is no archive"
    with place.open(DRAFT) as file:
        assert [file.readline(), file.read(), file.read(1)] == [b"line 1\n", b"line 2\n", b""]
    place.put_in_place(DRAFT, NAME)
    assert server.keys() == sorted([f"meta/{other}", f"meta/{NAME}"])
    (found,) = place.archives(CLUSTER)
    assert (found.name, found.saved_at_ms, found.log_index, found.size_bytes) == (NAME, 1_700_000_000_123, 42, 14)
    place.remove(NAME)
    place.discard(DRAFT)  # it is not there
    assert server.keys() == [f"meta/{other}"]


def test_a_large_archive_goes_in_parts_and_takes_the_memory_of_a_few(server: Server) -> None:
    place = BucketPlace(server.config())
    place.archives(CLUSTER)  # boto3 is loaded
    chunk, parts = bytes(1024 * 1024), 5
    tracemalloc.start()
    size_bytes = place.store(DRAFT, (chunk for _ in range(parts * PART_SIZE_BYTES // len(chunk) + 1)))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size_bytes == parts * PART_SIZE_BYTES + len(chunk)
    assert peak_bytes < 5 * PART_SIZE_BYTES
    head = server.client().head_object(Bucket="backups", Key=f"meta/{DRAFT}")
    assert head["ContentLength"] == size_bytes
    assert head["ETag"].endswith(f'-{parts + 1}"'), "as many parts"
    place.put_in_place(DRAFT, NAME)
    assert place.archives(CLUSTER)[0].size_bytes == size_bytes


def test_what_a_crash_left_is_swept_and_what_is_others_stays(server: Server) -> None:
    place, client = BucketPlace(server.config()), server.client()
    others = draft_name(NAME, 2)
    for key in (DRAFT, others, NAME):
        client.put_object(Bucket="backups", Key=f"meta/{key}", Body=b"half")
    for key in (DRAFT, others):
        client.create_multipart_upload(Bucket="backups", Key=f"meta/{key}")
    place.sweep(CLUSTER, 1)
    assert server.keys() == sorted([f"meta/{others}", f"meta/{NAME}"])
    # Every upload is from 2010 for this server, and so old enough to be swept, whoever began it.
    assert "Uploads" not in client.list_multipart_uploads(Bucket="backups")


def test_an_upload_that_breaks_off_leaves_nothing(server: Server) -> None:
    def breaks_off() -> Iterator[bytes]:
        yield bytes(2 * PART_SIZE_BYTES)
        raise BackupError("this node no longer leads")

    with pytest.raises(BackupError, match=r"^this node no longer leads$"):
        BucketPlace(server.config()).store(DRAFT, breaks_off())
    assert server.keys() == []
    assert "Uploads" not in server.client().list_multipart_uploads(Bucket="backups")


def test_what_goes_wrong_is_a_sentence_without_a_credential(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"the bucket none at http.* cannot be listed: .*NoSuchBucket"):
        BucketPlace(server.config(bucket="none")).archives(CLUSTER)
    ask_for_credentials(server, after_requests="0")
    try:
        with pytest.raises(
            BackupError, match=r"its server does not take the credentials: .*InvalidAccessKeyId"
        ) as caught:
            BucketPlace(server.config()).archives(CLUSTER)
    finally:
        ask_for_credentials(server, after_requests="inf")
    assert "the-secret-of-the-bucket" not in str(caught.value)
    empty = tmp_path / "empty"
    empty.write_text("")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(BackupError, match=r"no credentials were found: set `backup.credentials_file`"):
            BucketPlace(server.config(credentials_file=str(empty))).archives(CLUSTER)


def test_a_connection_that_is_lost_in_the_middle_is_a_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.backup.bucket.ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take_a_little() -> None:
            with contextlib.suppress(OSError):  # the second may not come before the test ends
                for _ in range(2):  # the upload of a part, and that it is given up
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1000)

        thread = threading.Thread(target=take_a_little, daemon=True)
        thread.start()
        broken = server.config(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(BackupError, match=r"the bucket backups at .* cannot be written: Connection"):
            BucketPlace(broken).store(DRAFT, [bytes(1000)])


def test_a_server_that_goes_away_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("metasrv.backup.bucket.ATTEMPTS", 1)
    credentials = tmp_path / "credentials"
    credentials.write_text(CREDENTIALS)
    ports = PortReservation()
    try:
        nobody = Server(f"http://127.0.0.1:{ports.take()}", credentials, None)  # type: ignore[arg-type]
        with pytest.raises(BackupError, match="cannot be written: Could not connect to the endpoint URL"):
            BucketPlace(nobody.config()).store(DRAFT, [b"data"])
    finally:
        ports.release()
