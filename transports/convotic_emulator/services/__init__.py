"""What clients talk to: the gRPC services, push delivery, and the page for a browser.

``publisher``, ``subscriber`` (with ``snapshots`` and ``streaming``), ``schemas`` (with ``avro`` and
``avro_compatibility``), ``iam`` (with ``permissions``) and ``status`` are services; ``checks``,
``changes``, ``paging`` and ``reply`` are what they share. ``rpc`` makes gRPC methods of them, and
alone knows ``grpc``. ``faults`` has methods go wrong for tests; ``resources`` come from a YAML
file. ``push`` (``push_config``, ``oidc``) and ``page`` (``page_html``) speak HTTP.

Imports the engine and its storage. Only the server imports services.
"""
