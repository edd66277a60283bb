"""An S3-compatible bucket of archives, by boto3 (the extra `s3`).

boto3 is the library of S3's own makers: it splits uploads into parts as they come, so that an archive of any size takes
the memory of one part, tries again what was lost, and finds credentials where every other tool of S3 does (a file, the
environment, the machine's role). They never stand in the configuration. It is loaded when the first backup is made, in
the backup's own thread, because that takes half a second. Blocks.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from metasrv.backup.places import DRAFT_AGE_SECONDS_MAX, in_order, parse_name
from metasrv.config.sections import BackupConfig
from metasrv.model.errors import BackupError
from metasrv.node.backups import ArchiveName

PART_SIZE_BYTES = 8 * 1024 * 1024
"""10,000 parts, the most that S3 takes, make 78 GiB."""
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 3


class BucketPlace:
    """A bucket and the prefix of the names in it."""

    def __init__(self, config: BackupConfig) -> None:
        self._config = config
        self._client: Any = None
        where = f" at {config.endpoint}" if config.endpoint else ""
        self.text = f"the bucket {config.bucket}{where}"

    def archives(self, cluster_id: str) -> list[ArchiveName]:
        with self._faults("be listed"):
            return in_order(
                parse_name(name, cluster_id, entry["Size"]) for name, entry in self._entries(f"metasrv-{cluster_id}-")
            )

    def sweep(self, cluster_id: str, node_id: int) -> None:
        with self._faults("be listed"):
            begins = f".metasrv-{cluster_id}-"
            for name, entry in self._entries(begins):
                if _is_left_over(name, entry["LastModified"].timestamp(), node_id):
                    self._delete(name)
            pages = self._s3().get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._config.bucket, Prefix=self._config.prefix + begins):
                for upload in page.get("Uploads", ()):
                    if _is_left_over(upload["Key"], upload["Initiated"].timestamp(), node_id):
                        self._s3().abort_multipart_upload(
                            Bucket=self._config.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )

    def store(self, draft: str, chunks: Iterable[bytes]) -> int:
        source = _Readable(chunks)
        with self._faults("be written"):
            self._s3().upload_fileobj(source, self._config.bucket, self._key(draft), Config=_transfer())
        return source.size_bytes

    @contextlib.contextmanager
    def open(self, draft: str) -> Iterator[BinaryIO]:
        with self._faults("be read"):
            body = self._s3().get_object(Bucket=self._config.bucket, Key=self._key(draft))["Body"]
            with contextlib.closing(body):
                yield io.BufferedReader(_Body(body), 1024 * 1024)

    def put_in_place(self, draft: str, name: str) -> None:
        bucket = self._config.bucket
        with self._faults("be written"):
            self._s3().copy({"Bucket": bucket, "Key": self._key(draft)}, bucket, self._key(name), Config=_transfer())
            self._delete(draft)

    def discard(self, draft: str) -> None:
        with self._faults("be written"):
            self._delete(draft)

    def remove(self, name: str) -> None:
        with self._faults("be written"):
            self._delete(name)

    # ------------------------------------------------------------------------- parts

    def _entries(self, begins: str) -> Iterator[tuple[str, Any]]:
        """Names without the prefix, and what S3 says of each."""
        pages = self._s3().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._config.bucket, Prefix=self._config.prefix + begins):
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(self._config.prefix), entry

    def _delete(self, name: str) -> None:
        self._s3().delete_object(Bucket=self._config.bucket, Key=self._key(name))

    def _key(self, name: str) -> str:
        return self._config.prefix + name

    def _s3(self) -> Any:
        if self._client is None:
            import boto3
            import botocore.session
            from botocore.config import Config

            config = self._config
            session = botocore.session.Session()
            if config.credentials_file:
                session.set_config_variable("credentials_file", config.credentials_file)
            self._client = boto3.Session(botocore_session=session).client(
                "s3",
                endpoint_url=config.endpoint or None,
                region_name=config.region or session.get_config_variable("region") or "us-east-1",
                config=Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
                    # Newer checksums are not known to all servers that speak S3; an archive has its own.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        return self._client

    @contextlib.contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        try:
            yield
        except BackupError:
            raise
        except Exception as error:
            import boto3.exceptions
            import botocore.exceptions
            import urllib3.exceptions

            known = (
                boto3.exceptions.Boto3Error,
                botocore.exceptions.BotoCoreError,
                botocore.exceptions.ClientError,
                urllib3.exceptions.HTTPError,
                OSError,
            )
            if not isinstance(error, known):
                raise
            self._client = None  # credentials may have changed, and are looked for anew
            raise BackupError(f"{self.text} cannot {what}: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    """What went wrong; S3's own errors name the operation, and never a credential."""
    text = " ".join(str(error).split())
    if "InvalidAccessKeyId" in text or "SignatureDoesNotMatch" in text or "AccessDenied" in text or "(403)" in text:
        return f"its server does not take the credentials: {text}"
    if "Unable to locate credentials" in text:
        return "no credentials were found: set `backup.credentials_file`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return text


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=PART_SIZE_BYTES, multipart_chunksize=PART_SIZE_BYTES, use_threads=False, io_chunksize=1024**2
    )


def _is_left_over(name: str, at_seconds: float, node_id: int) -> bool:
    own = name.endswith(f".node{node_id}.part")
    return own or (name.endswith(".part") and time.time() - at_seconds > DRAFT_AGE_SECONDS_MAX)


class _Readable:
    """The chunks as a file that can only be read; boto3 takes a part at a time."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._waiting = bytearray()
        self.size_bytes = 0

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._waiting) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._waiting += chunk
        taken = bytes(self._waiting[: len(self._waiting) if size < 0 else size])
        del self._waiting[: len(taken)]
        self.size_bytes += len(taken)
        return taken


class _Body(io.RawIOBase):
    """The body of a response."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
