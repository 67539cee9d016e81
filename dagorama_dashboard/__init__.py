"""The web pages on which people see and manage what a broker knows: `dagorama dashboard`.

A process of its own: it asks the broker over gRPC with the token of the person who looks, and reads no values.
"""
