"""The arguments of a promise, under the import path that dagorama 0.1.10 has."""

from dagorama.models.promise import DAGArguments as DAGArguments
