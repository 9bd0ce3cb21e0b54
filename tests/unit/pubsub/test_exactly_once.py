"""Exactly-once delivery: an answer that names ack ids says what became of each."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # no stubs

from convotic_pubsub.consume.acks import AckBatcher


def answer(failures: dict[str, str]) -> grpc.aio.AioRpcError:
    """Return the error by which the service refuses some ack ids."""
    info = error_details_pb2.ErrorInfo(reason="EXACTLY_ONCE_ACKID_FAILURE", metadata=failures)
    status = status_pb2.Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0])
    status.details.add().Pack(info)
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    code = grpc.StatusCode.INVALID_ARGUMENT
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "invalid ids", None)


async def test_each_ack_id_has_its_own_outcome(caplog: pytest.LogCaptureFixture) -> None:
    """Named: refused for good, or sent again; not named: it took effect and is not sent again."""
    sent: list[list[str]] = []
    answers = [
        answer(
            {
                "lost": "PERMANENT_FAILURE_INVALID_ACK_ID",
                "later": "TRANSIENT_FAILURE_OTHER",
                "foreign": "PERMANENT_FAILURE_INVALID_ACK_ID",
            }
        )
    ]

    class Rpc:
        async def acknowledge(self, _path: str, ids: list[str]) -> None:
            sent.append(ids)
            if answers:
                raise answers.pop()

    batcher = AckBatcher(Rpc, "projects/p/subscriptions/s")  # type: ignore[arg-type]
    confirmed: dict[str, list[bool]] = {name: [] for name in ("done", "lost", "later", "too")}
    for name, outcomes in confirmed.items():
        batcher.ack(name, outcomes.append, is_urgent=True)
    await batcher.wait_idle()

    assert sent == [["done", "lost", "later", "too"], ["later"]]
    assert confirmed == {"done": [True], "lost": [False], "later": [True], "too": [True]}
    (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert record.__dict__["count"] == 1


async def test_acks_to_a_deleted_subscription_worry_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It redelivers nothing; a worker's control subscription is deleted with acks under way."""

    class Rpc:
        async def acknowledge(self, _path: str, _ids: list[str]) -> None:
            metadata = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, metadata, metadata, "gone", None)

    batcher = AckBatcher(Rpc, "projects/p/subscriptions/s")  # type: ignore[arg-type]
    confirmed: list[bool] = []
    batcher.ack("one", confirmed.append, is_urgent=True)
    await batcher.wait_idle()

    assert confirmed == [False]
    assert [each for each in caplog.records if each.levelname == "WARNING"] == []
