"""The channels of one session, and the credentials that they need.

All but ``publish_blocking`` belongs to the I/O thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from convotic_pubsub.client.rpc import Rpc, pb
from convotic_pubsub.errors import AccessDenied
from convotic_pubsub.names import routing_header

if TYPE_CHECKING:
    from convotic_pubsub.options import TransportOptions

__all__ = ["STREAMS_PER_CHANNEL", "ChannelPool", "PullChannel", "account_name", "make_credentials"]

_CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"

#: HTTP/2 servers allow about 100 concurrent streams on a connection; stay below.
STREAMS_PER_CHANNEL: Final = 80

#: No unary call has a longer timeout.
_LONGEST_CALL_SECONDS: Final = 30.0

_OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Without an answer for so long, also to data that was sent, the connection is closed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Distinct channels share one connection otherwise, and with it its stream limit.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # How long an attempt to connect may take; 20 s if it is not said.
    ("grpc.min_reconnect_backoff_ms", 4_000),
]


class ChannelPool:
    """The channels of one session: for calls, for acknowledgements, and as many as pulls need.

    Acknowledgements never wait for the streams of a connection that is full of other calls.
    """

    def __init__(self, options: TransportOptions, emulator_host: str | None) -> None:
        self._address = emulator_host or options.endpoint
        #: None: an emulator, which takes none.
        self._credentials = None if emulator_host else _channel_credentials(options)
        self._channels: list[grpc.aio.Channel] = []
        self._pulls: list[PullChannel] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._blocking: grpc.Channel | None = None
        self._publish_method: Any = None
        self.unary = Rpc(self._open())
        self.acks = Rpc(self._open())

    def _open(self) -> grpc.aio.Channel:
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        else:
            channel = grpc.aio.secure_channel(self._address, self._credentials, options=_OPTIONS)
        self._channels.append(channel)
        return channel

    @property
    def streams(self) -> int:
        """Streams and Pulls that are open."""
        return sum(channel.users for channel in self._pulls)

    def take_pull_channel(self) -> PullChannel:
        """Return a channel with room for one more stream or Pull, to be released at its end."""
        for channel in self._pulls:
            if channel.users < STREAMS_PER_CHANNEL:
                break
        else:
            channel = PullChannel(Rpc(self._open()))
            self._pulls.append(channel)
        channel.users += 1
        return channel

    def replace(self, rpc: Rpc) -> None:
        """Replace a connection on which an answer did not come in time.

        gRPC takes minutes to notice that a connection is dead, if bytes vanish without an error.
        Calls that are still under way on it have their own timeouts to end.
        """
        if rpc is self.unary:
            self.unary = Rpc(self._open())
        elif rpc is self.acks:
            self.acks = Rpc(self._open())
        else:
            self._pulls = [channel for channel in self._pulls if channel.rpc is not rpc]
        channel = rpc.channel
        if channel in self._channels:
            self._channels.remove(channel)
            task = asyncio.get_running_loop().create_task(channel.close(_LONGEST_CALL_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def replace_direct(self) -> None:
        """Do what :meth:`replace` does, for publishing from other threads.

        A call that another thread begins on the old channel raises ValueError.
        """
        old, self._blocking, self._publish_method = self._blocking, None, None
        if old is not None:
            old.close()

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Close all channels; calls that are under way after ``grace_seconds`` are cancelled."""
        await asyncio.gather(*(channel.close(grace_seconds) for channel in self._channels))
        if self._blocking is not None:
            self._blocking.close()

    def publish_blocking(self, request: Any, timeout: float) -> Any:
        """Publish in the calling thread, one thread at a time: no other thread has to wake up.

        Raises:
            grpc.RpcError: as the server answered.
            ValueError: the pool has been closed.
        """
        metadata = [routing_header("topic", request.topic)]
        return self._publish(request, timeout=timeout, metadata=metadata)

    @property
    def _publish(self) -> Any:
        """The method on a channel for other threads: those of grpc.aio belong to a loop."""
        if self._publish_method is None:
            if self._credentials is None:
                channel = grpc.insecure_channel(self._address, options=_OPTIONS)
            else:
                channel = grpc.secure_channel(self._address, self._credentials, options=_OPTIONS)
            self._blocking = channel
            self._publish_method = channel.unary_unary(
                "/google.pubsub.v1.Publisher/Publish",
                request_serializer=pb.PublishRequest.SerializeToString,
                response_deserializer=pb.PublishResponse.FromString,
            )
        return self._publish_method


@dataclass(slots=True)
class PullChannel:
    """A channel and how many streams or Pulls are on it."""

    rpc: Rpc
    users: int = 0

    def release(self) -> None:
        """One stream or Pull has ended."""
        self.users -= 1


def make_credentials(options: TransportOptions, scope: str) -> Any:
    """Return the credentials that the options name; None for application default credentials.

    Raises:
        AccessDenied: the key file can't be read.
    """
    import google.auth  # noqa: PLC0415  not needed on an emulator
    from google.auth import exceptions, impersonated_credentials  # noqa: PLC0415

    credentials = options.credentials
    try:
        if options.credentials_file:
            credentials, _ = google.auth.load_credentials_from_file(  # type: ignore[no-untyped-call]
                options.credentials_file, scopes=[scope]
            )
        if options.impersonate_service_account:
            source = credentials or google.auth.default([_CLOUD_PLATFORM])[0]
            credentials = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
                source, options.impersonate_service_account, [scope]
            )
    except (OSError, exceptions.GoogleAuthError) as error:
        raise AccessDenied(f"the credentials can't be used: {error}") from error
    return credentials


def account_name(options: TransportOptions) -> str:
    """Return the e-mail address that the credentials stand for; "" where they don't say. Blocks.

    Raises:
        AccessDenied: there are none, or they are refused.
    """
    import google.auth  # noqa: PLC0415  as above
    from google.auth import exceptions  # noqa: PLC0415
    from google.auth.transport.requests import Request  # noqa: PLC0415

    try:
        credentials = make_credentials(options, _CLOUD_PLATFORM)
        credentials = credentials or google.auth.default([_CLOUD_PLATFORM])[0]
        credentials.refresh(Request())
    except exceptions.GoogleAuthError as error:
        raise AccessDenied(f"the credentials are refused: {error}") from error
    return str(getattr(credentials, "service_account_email", "") or "")


class _Tokens(grpc.AuthMetadataPlugin):
    """Google's plugin, but an error is the call's: gRPC would log each with a traceback."""

    def __init__(self, plugin: Any) -> None:
        self._plugin = plugin

    def __call__(self, context: Any, callback: Any) -> None:
        from google.auth import exceptions  # noqa: PLC0415  as above

        try:
            self._plugin(context, callback)
        except exceptions.GoogleAuthError as error:
            callback((), error)


def _channel_credentials(options: TransportOptions) -> grpc.ChannelCredentials:
    """Return what channels to the service need, with the credentials that the options name."""
    import google.auth  # noqa: PLC0415  0.2 s, not needed on an emulator
    from google.auth import exceptions  # noqa: PLC0415
    from google.auth.credentials import with_scopes_if_required  # noqa: PLC0415
    from google.auth.transport.grpc import AuthMetadataPlugin  # noqa: PLC0415
    from google.auth.transport.requests import Request  # noqa: PLC0415

    scopes = ["https://www.googleapis.com/auth/pubsub"]
    try:
        credentials = make_credentials(options, scopes[0]) or google.auth.default(scopes)[0]
    except exceptions.GoogleAuthError as error:
        raise AccessDenied(
            f"no credentials for {options.endpoint}: {error} "
            "(on a developer's machine: gcloud auth application-default login)"
        ) from error
    credentials = with_scopes_if_required(credentials, scopes)  # type: ignore[no-untyped-call]
    plugin = AuthMetadataPlugin(credentials, Request())  # type: ignore[no-untyped-call]
    return grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(), grpc.metadata_call_credentials(_Tokens(plugin))
    )
