"""Pub/Sub's API as JSON over HTTP/1.1, on gRPC's port, for curl, gcloud and Terraform.

    server       Rest: serves one connection: request, method, answer
    http1        requests and responses of HTTP/1.1
    transcoding  JSON to requests of methods, answers and errors to JSON
    routes       which URL is which method, as the API's ``google.api.http`` rules say

Each may import those below it. It calls the same methods as gRPC, so that what they do is said in
``services`` alone.
"""
