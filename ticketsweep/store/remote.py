"""Object stores: what a URI may say, how long a request is tried, and what a refusal means."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from ticketsweep.errors import StorageError

# A server that is down is given up after 10 s, one that takes a connection and says nothing after
# 20 s; left to themselves the clients take 6 s and 100 s (S3) or 15 minutes (Google).
_ATTEMPTS = 5
_CONNECT_SECONDS = 3.0
_GCS_SECONDS = 10

_PARAMETERS = {
    "s3": ("endpoint_override", "region", "scheme"),
    "gs": ("endpoint_override", "project_id", "scheme"),
}
_ANONYMOUS = "anonymous"
_CREDENTIALS = {
    "s3": "$AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, or ~/.aws",
    "gs": "the file that $GOOGLE_APPLICATION_CREDENTIALS names",
}

_SERVICE = re.compile(
    r"AWS Error (?!NO_SUCH_KEY|RESOURCE_NOT_FOUND)[A-Z_]+|google::cloud::Status\((?!NOT_FOUND)"
)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|Bucket '[^']*' not found|bucket does not exist")
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|_TOKEN"
    r"|HTTP status 40[13]|UNAUTHENTICATED|PERMISSION_DENIED|OAuth2"
)
_UNREACHED = re.compile(r"NETWORK_CONNECTION|curlCode|CURL error|UNAVAILABLE|SLOW_DOWN")
_REQUEST_ID = re.compile(r" \(Request ID: [^)]*\)")
_OF_GOOGLE = re.compile(
    r"google::cloud::Status\((?P<code>\w+): (?P<what>.*?)(?: error_info=.*)?$", re.DOTALL
)


def is_remote(uri: str) -> bool:
    """Whether a storage's URI is of an object store."""
    return uri.lower().startswith(("s3://", "gs://", "gcs://"))


def open_remote(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system and the path (`BUCKET/PREFIX`) that an `s3://` or `gs://` URI stands for.

    Credentials come from where the provider's own tools take them, never from the URI, which is
    shown, stored and handed to other processes. An S3 endpoint other than Amazon's is named by
    `$AWS_ENDPOINT_URL` or by `?endpoint_override=HOST:PORT&scheme=http`. `gs://anonymous@BUCKET`
    is read without credentials.

    Raises StorageError for a URI with credentials (which the message leaves out), another
    parameter, or no bucket.
    """
    shown = shown_uri(uri)
    try:
        parts = urlsplit(uri)
    except ValueError:  # whose message quotes what may be a secret
        raise StorageError(f"storage {shown} is not a URI") from None
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    kind = "s3" if parts.scheme == "s3" else "gs"
    user, _, bucket = parts.netloc.rpartition("@")
    anonymous = kind == "gs" and user == _ANONYMOUS
    # A slash in a secret (Amazon's have them) ends what a URI takes for its user.
    if (user and not anonymous) or ":" in bucket or "@" in parts.path:
        raise StorageError(
            f"storage {shown} must be given without credentials, which would be shown and stored "
            f"along with it (they belong into {_CREDENTIALS[kind]})"
        )
    for name in given.keys() - set(_PARAMETERS[kind]):
        raise StorageError(
            f"storage {shown} has the unknown parameter {name!r} "
            f"(known: {', '.join(_PARAMETERS[kind])})"
        )
    endpoint = given.get("endpoint_override") or (_endpoint_variable() if kind == "s3" else None)
    if endpoint is not None and "@" in endpoint:
        raise StorageError(
            f"the endpoint of storage {shown} must be given without credentials "
            f"(they belong into {_CREDENTIALS[kind]})"
        )
    if not bucket or parts.fragment:
        raise StorageError(f"storage {shown} must be {kind}://BUCKET/PREFIX")
    root = f"{bucket}/{parts.path.strip('/')}".rstrip("/")
    if kind == "gs":
        return _google(given, anonymous=anonymous), root
    return _amazon(bucket, given, endpoint, shown=shown), root


def shown_uri(uri: str) -> str:
    """The URI as a message may show it: without credentials and parameters."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    place = re.split("[?#]", rest.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}://{place}"


def is_service_fault(error: BaseException) -> bool:
    """Whether an error is the network's or the service's, so that it says nothing of a file."""
    return _SERVICE.search(str(error)) is not None


def is_permanent(error: BaseException | None) -> bool:
    """Whether a storage has refused for a reason that does not pass: no permission, no bucket."""
    if isinstance(error, PermissionError):
        return True
    text = str(error)
    return bool(_NO_BUCKET.search(text) or (_SERVICE.search(text) and _REFUSED.search(text)))


def remedy(error: BaseException) -> str | None:
    """What to do about an error of an object store; None if it is not one that is known."""
    text = str(error)
    if _NO_BUCKET.search(text):
        return "make the bucket first, or name another storage"
    if not is_service_fault(error):
        return None
    kind = "gs" if _OF_GOOGLE.search(text) else "s3"
    if _REFUSED.search(text):
        return f"check the credentials: {_CREDENTIALS[kind]}"
    if _UNREACHED.search(text):
        names = "?endpoint_override=HOST:PORT&scheme=http in the URI names it"
        variable = "$AWS_ENDPOINT_URL or " if kind == "s3" else ""
        return f"check the network and the endpoint: {variable}{names}"
    return None


def without_noise(text: str) -> str:
    """An object store's error, in one line, without what only its operator can use."""
    text = _REQUEST_ID.sub("", text)
    text = text.replace(" To create buckets, enable the allow_bucket_creation option.", "")
    return _OF_GOOGLE.sub(r"\g<code>: \g<what>", text)


def _endpoint_variable() -> str | None:
    # As the AWS SDK reads them: the service's own name comes first.
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _amazon(
    bucket: str, given: dict[str, str], endpoint: str | None, *, shown: str
) -> pafs.S3FileSystem:
    region = given.get("region")
    if region is None and endpoint is None:
        try:
            region = pafs.resolve_s3_region(bucket)
        except (pa.ArrowException, OSError) as error:
            hint = remedy(error) or "name its region by ?region=… in the URI"
            said = without_noise(" ".join(str(error).split()))
            raise StorageError(f"storage {shown} cannot be opened: {said} ({hint})") from error
    scheme = given.get("scheme")
    if endpoint is not None and "://" in endpoint:
        scheme, endpoint = endpoint.split("://", 1)
    return pafs.S3FileSystem(
        region=region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        scheme=scheme,
        endpoint_override=None if endpoint is None else endpoint.rstrip("/"),
        connect_timeout=_CONNECT_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


def _google(given: dict[str, str], *, anonymous: bool) -> pafs.GcsFileSystem:
    return pafs.GcsFileSystem(
        anonymous=anonymous,
        scheme=given.get("scheme"),
        endpoint_override=given.get("endpoint_override"),
        project_id=given.get("project_id"),
        retry_time_limit=timedelta(seconds=_GCS_SECONDS),
    )
