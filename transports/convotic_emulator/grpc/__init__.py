"""A gRPC server on asyncio alone: HTTP/2, and the little of it that gRPC needs.

    server.GrpcServer      listens, knows the methods, stops with grace
    connection.Connection  one HTTP/2 connection: frames, settings, windows
    call.Call              one call, as its method sees it: read(), write(), time_remaining()
    eager.EagerCoroutine   runs a method to its first await without a task
    messages, headers, frames, status    bytes to values and back, without I/O

It knows nothing about Pub/Sub. Why it exists: a call to a server of ``grpc.aio`` changes threads
three times before a handler has it, and each change wakes a sleeping thread; here the thread that
reads the socket runs the handler. benchmarks/DIARY.md has the figures, beside those of grpclib.

Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK, by the library ``hpack``),
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (gRPC).
"""
