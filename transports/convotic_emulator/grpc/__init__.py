"""A gRPC server on asyncio alone: HTTP/2, and the part of it that gRPC needs.

    server      GrpcServer: listens, stops gracefully
    connection  Connection: one socket; slices of time, bounds for what waits
    http2       Http2: one connection's streams and settings, without a socket
    sending     Sender, its sending half: windows, and calls that wait for room
    call        Call: one call as its method sees it: read(), write(), time_remaining()
    rules       which frames are allowed when, as tables
    eager       EagerCoroutine: runs a method to its first wait without a task
    frames, headers, messages, windows, status    bytes and values, without I/O

Each may import those below it. It knows nothing about Pub/Sub. Why it exists: a call to a server
of ``grpc.aio`` changes threads three times before a handler has it, and each change wakes a
sleeping thread; here the thread that reads the socket runs the handler. docs/performance.md has
the figures.

Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK, by the library ``hpack``),
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (gRPC).
"""
