#!/bin/sh
# The first-start job of compose.yaml: creates the authority, the certificates, the tokens and the signing key, each in
# the volume of the services that may read it. Later runs only renew certificates that expire within 30 days; restart
# the broker and the dashboard then.
#
#   first-start.sh [FOLDER]     FOLDER has the volumes as folders; it is /secrets in the container.
set -eu
umask 077
secrets=${1:-/secrets}

certificate() { # NAME FOLDER ALTERNATIVE-NAMES
  key="$2/$1.key" cert="$2/$1.pem"
  if [ -f "$cert" ] && openssl x509 -in "$cert" -noout -checkend 2592000 >/dev/null; then
    return
  fi
  printf 'subjectAltName=%s\n' "$3" >"$cert.names"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$key.new" -out "$cert.request" \
    -subj "/CN=$1"
  openssl x509 -req -in "$cert.request" -CA "$secrets/trust/ca.pem" -CAkey "$secrets/authority/ca.key" \
    -set_serial "0x$(openssl rand -hex 16)" -days 398 -extfile "$cert.names" -out "$cert.new"
  mv "$key.new" "$key"
  mv "$cert.new" "$cert" # last: without it, or with the old one, the next run begins again
  rm "$cert.request" "$cert.names"
  echo "created the certificate $cert"
}

if [ ! -f "$secrets/authority/ca.key" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=dagorama authority" \
    -keyout "$secrets/authority/ca.key.new" -out "$secrets/trust/ca.pem"
  mv "$secrets/authority/ca.key.new" "$secrets/authority/ca.key"
  echo "created the authority $secrets/trust/ca.pem"
fi
certificate broker "$secrets/broker" "DNS:broker,DNS:localhost,IP:127.0.0.1"
certificate dashboard "$secrets/dashboard" "DNS:dashboard,DNS:localhost,IP:127.0.0.1"

# The mark is set last, so that a run that was interrupted begins again.
if [ ! -f "$secrets/broker/created" ]; then
  tokens="$secrets/broker/tokens.toml"
  rm -f "$tokens"
  dagorama tokens new --role worker --name workers --file "$tokens" >"$secrets/worker/token"
  dagorama tokens new --role client --name clients --file "$tokens" >"$secrets/client/token"
  dagorama tokens new --role admin --name admin --file "$tokens" >"$secrets/client/admin-token"
  dagorama keys new >"$secrets/worker/signing.key"
  cp "$secrets/worker/signing.key" "$secrets/client/signing.key"
  touch "$secrets/broker/created"
fi
