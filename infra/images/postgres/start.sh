#!/bin/sh
# POSTGRES_PASSWORD_FILE  file with the superuser's password, read when the cluster is made
set -eu
cd /var/lib/postgres
if [ ! -e data/PG_VERSION ]; then
    rm -rf partial
    initdb -D partial -U postgres --auth scram-sha-256 \
        --pwfile "${POSTGRES_PASSWORD_FILE:-/run/secrets/postgres-password}" \
        --encoding UTF8 --locale C.UTF-8 --no-instructions
    # initdb lets loopback in only, and from outside a container nothing comes from there.
    echo 'host all all all scram-sha-256' >> partial/pg_hba.conf
    # Only a complete cluster gets the name that is started.
    mv partial data
fi
# What a failed query held belongs to the audit history alone, masked; not to this log.
exec postgres -D data -c 'listen_addresses=*' -c unix_socket_directories= \
    -c max_connections=300 -c log_min_messages=log -c log_min_error_statement=panic \
    -c log_error_verbosity=terse -c logging_collector=off "$@"
