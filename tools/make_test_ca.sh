#!/bin/bash
# Makes certificates for the thrift transport's tls://, to try it and to test it: an
# authority of one's own, and for each worker a certificate with the worker's name.
# For real use see docs/security.md: there the authority's key lies elsewhere.
#
#   make_test_ca.sh FOLDER NAME...           the authority, if it is not there yet, and
#                                            for each name NAME.pem and NAME.key
#   make_test_ca.sh FOLDER --expired NAME    one that was valid until yesterday
#   make_test_ca.sh FOLDER --revoke NAME     takes a certificate back: writes crl.pem
#
# The authority's certificate is ca.pem in that folder.
set -euo pipefail

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $# -ge 2 ]] || usage
mkdir -p "$1"
cd "$1"
shift
umask 077
log=$(mktemp)
trap 'rm -f "$log"' EXIT

quietly() { "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }; }
new_key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

if [[ ! -e ca.pem ]]; then
    cat >ca.cnf <<'END'
[ca]
default_ca = authority
[authority]
database = index.txt
serial = serial
new_certs_dir = issued
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
END
    mkdir -p issued
    : >index.txt
    new_key ca.key
    quietly openssl req -new -x509 -config ca.cnf -key ca.key -days 30 -subj "/CN=Gradferry test authority" \
        -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign -out ca.pem
fi

# certify NAME [ARGUMENTS of openssl ca]
certify() {
    local name=$1
    shift
    new_key "$name.key"
    quietly openssl req -new -config ca.cnf -key "$name.key" -subj "/CN=$name" -out "$name.csr"
    cat >"$name.ext" <<END
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
subjectAltName = DNS:$name
END
    quietly openssl ca -batch -config ca.cnf -rand_serial -notext -extfile "$name.ext" -in "$name.csr" \
        -out "$name.pem" "$@"
    rm "$name.csr" "$name.ext"
}

case $1 in
--expired)
    [[ $# == 2 ]] || usage
    certify "$2" -startdate 20200101000000Z -enddate "$(date -u -d yesterday +%Y%m%d%H%M%SZ)"
    ;;
--revoke)
    [[ $# == 2 ]] || usage
    quietly openssl ca -config ca.cnf -revoke "$2.pem"
    quietly openssl ca -config ca.cnf -gencrl -out crl.pem
    ;;
-*) usage ;;
*) for name in "$@"; do certify "$name"; done ;;
esac
