"""What all parts of a configuration share, and the part about scheduled backups. Pure; runs anywhere."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

BACKUP_EVERY_SECONDS_MAX = 366 * 24 * 3600


class ConfigModel(BaseModel):
    """What all parts of a configuration share: immutable, no unknown keys, no guessing of types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class BackupConfig(ConfigModel):
    """`[backup]`: archives that the leader makes by itself, in a directory or a bucket."""

    every_seconds: int = Field(
        default=0, ge=0, le=BACKUP_EVERY_SECONDS_MAX, description="Seconds between backups of the cluster; 0 for none."
    )
    keep: int = Field(default=24, ge=1, le=1_000_000, description="Number of archives of this cluster to keep.")
    directory: str = Field(
        default="", description="Directory of the archives, which has to exist; the same, shared one on all nodes."
    )
    bucket: str = Field(default="", description="S3-compatible bucket of the archives, instead of a directory.")
    endpoint: str = Field(default="", description="URL of the bucket's server; empty for that of AWS.")
    region: str = Field(default="", description="Region of the bucket; empty for that of the environment.")
    prefix: str = Field(default="", description="What the names of the archives in the bucket begin with.")
    credentials_file: str = Field(
        default="",
        description="File with the bucket's credentials, in the form of ~/.aws/credentials; empty: the environment.",
    )
    without_secrets: bool = Field(
        default=False, description="Leave the key that signs tokens, and users with their passwords, out of the archives."
    )
    encrypt_with: str = Field(
        default="", description="File with the key that the archives are encrypted with: 32 bytes, or a passphrase."
    )
