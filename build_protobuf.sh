#!/usr/bin/env bash
# Regenerates dagorama/api from proto/. With an argument, writes the same tree below that folder instead.
# PYTHON names an interpreter that has the package's dev extra; `make proto` passes the environment's own.
set -euo pipefail
cd "$(dirname "$0")"

python="${PYTHON:-python3}"
out="${1:-.}"
if ! "$python" -c 'import grpc_tools, mypy_protobuf' 2>/dev/null; then
  echo "build_protobuf.sh: $python has no grpcio-tools or no mypy-protobuf; run 'make proto', which installs them." >&2
  exit 1
fi

# protoc looks for the mypy plugins on PATH.
PATH="$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH"
mkdir -p "$out"
"$python" -m grpc_tools.protoc --proto_path=proto \
  --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" \
  proto/dagorama/api/*.proto
