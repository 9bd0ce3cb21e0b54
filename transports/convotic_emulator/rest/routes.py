"""Which URL calls which method: the ``google.api.http`` rules of google.pubsub.v1, as a table.

Source: https://github.com/googleapis/googleapis/blob/master/google/pubsub/v1/pubsub.proto and
schema.proto; https://cloud.google.com/pubsub/docs/reference/rest shows them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

from convotic_protos import iam, pubsub

__all__ = ["Match", "Route", "find", "routes_of"]


@dataclass(frozen=True, slots=True)
class Route:
    """One rule.

    ``name`` is the request's field that the URL's resource fills. ``body`` is the field that the
    body fills: "*" for the whole request, "" for none.
    """

    verb: str
    pattern: re.Pattern[str]
    name: str
    body: str
    #: As gRPC names it.
    method: str
    #: The protobuf class.
    request: Any


class Match(NamedTuple):
    """A route that fits a URL, and the resource in it."""

    route: Route
    resource: str


#: Verb, template, method, and the field that the body fills. ``T`` is ``projects/*/topics/*``; so
#: are ``S`` a subscription, ``N`` a snapshot, ``D`` a schema and ``P`` the project.
_PUBLISHER = """
PUT    {name=T}                         CreateTopic *
PATCH  {topic.name=T}                   UpdateTopic *
GET    {topic=T}                        GetTopic
DELETE {topic=T}                        DeleteTopic
POST   {topic=T}:publish                Publish *
GET    {project=P}/topics               ListTopics
GET    {topic=T}/subscriptions          ListTopicSubscriptions
GET    {topic=T}/snapshots              ListTopicSnapshots
POST   {subscription=S}:detach          DetachSubscription
"""
_SUBSCRIBER = """
PUT    {name=S}                         CreateSubscription *
PATCH  {subscription.name=S}            UpdateSubscription *
GET    {subscription=S}                 GetSubscription
DELETE {subscription=S}                 DeleteSubscription
GET    {project=P}/subscriptions        ListSubscriptions
POST   {subscription=S}:pull            Pull *
POST   {subscription=S}:acknowledge     Acknowledge *
POST   {subscription=S}:modifyAckDeadline ModifyAckDeadline *
POST   {subscription=S}:modifyPushConfig ModifyPushConfig *
POST   {subscription=S}:seek            Seek *
PUT    {name=N}                         CreateSnapshot *
PATCH  {snapshot.name=N}                UpdateSnapshot *
GET    {snapshot=N}                     GetSnapshot
DELETE {snapshot=N}                     DeleteSnapshot
GET    {project=P}/snapshots            ListSnapshots
"""
_SCHEMA_SERVICE = """
POST   {parent=P}/schemas               CreateSchema schema
GET    {name=D}                         GetSchema
DELETE {name=D}                         DeleteSchema
GET    {parent=P}/schemas               ListSchemas
GET    {name=D}:listRevisions           ListSchemaRevisions
POST   {name=D}:commit                  CommitSchema *
POST   {name=D}:rollback                RollbackSchema *
DELETE {name=D}:deleteRevision          DeleteSchemaRevision
POST   {parent=P}/schemas:validate      ValidateSchema *
POST   {parent=P}/schemas:validateMessage ValidateMessage *
"""
_IAM_POLICY = "".join(
    f"""
GET    {{resource={letter}}}:getIamPolicy       GetIamPolicy
POST   {{resource={letter}}}:setIamPolicy       SetIamPolicy *
POST   {{resource={letter}}}:testIamPermissions TestIamPermissions *
"""
    for letter in "TSND"
)
_ID = "[^/:]+"
#: Projects of a domain have a colon: example.com:project.
_RESOURCES = {
    "P": "projects/[^/]+?",
    "T": f"projects/[^/]+/topics/{_ID}",
    "S": f"projects/[^/]+/subscriptions/{_ID}",
    "N": f"projects/[^/]+/snapshots/{_ID}",
    "D": f"projects/[^/]+/schemas/{_ID}",
}
#: Requests that are not named as their methods are.
_REQUESTS = {"CreateTopic": pubsub.Topic, "CreateSubscription": pubsub.Subscription}
_TEMPLATE = re.compile(r"\{([\w.]+)=(\w)\}(\S*)")


def _routes(service: str, rules: str, types: Any) -> list[Route]:
    routes = []
    for rule in rules.split("\n"):
        if rule:
            verb, template, method, *body = rule.split()
            match = _TEMPLATE.fullmatch(template)
            assert match is not None, template
            name, letter, suffix = match.groups()
            request = _REQUESTS.get(method) or getattr(types, f"{method}Request")
            routes.append(
                Route(
                    verb,
                    re.compile(f"/v1/({_RESOURCES[letter]}){re.escape(suffix)}"),
                    name,
                    "".join(body),
                    f"/{service}/{method}",
                    request,
                )
            )
    return routes


_ROUTES = [
    *_routes("google.pubsub.v1.Publisher", _PUBLISHER, pubsub),
    *_routes("google.pubsub.v1.Subscriber", _SUBSCRIBER, pubsub),
    *_routes("google.pubsub.v1.SchemaService", _SCHEMA_SERVICE, pubsub),
    *_routes("google.iam.v1.IAMPolicy", _IAM_POLICY, iam),
]


def find(verb: str, path: str) -> Match | None:
    """Return the route of a URL's path (still percent-encoded), None if there is none."""
    path = unquote(path)
    for route in _ROUTES:
        if route.verb == verb and (match := route.pattern.fullmatch(path)) is not None:
            return Match(route, match[1])
    return None


def routes_of(method: str) -> list[Route]:
    """Return the routes that call a method, ``/package.Service/Method``."""
    return [route for route in _ROUTES if route.method == method]
