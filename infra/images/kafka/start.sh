#!/bin/sh
# KAFKA_ADVERTISED  host:port that clients are sent to, whatever address they asked first
# KAFKA_CLUSTER_ID  id of a new cluster; random when absent
# KAFKA_HEAP        largest heap
set -eu
cd /var/lib/kafka
{
    cat /opt/kafka/server.properties
    echo "advertised.listeners=BROKER://${KAFKA_ADVERTISED:-localhost:9092}"
} > server.properties
set -- /opt/java/bin/java -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true \
    -Dlog4j2.configurationFile=/opt/kafka/log4j2.properties \
    --enable-native-access=ALL-UNNAMED -cp '/opt/kafka/libs/*'
if [ ! -e data/meta.properties ]; then
    # 16 bytes in base64url, the first one fixed: an id may not begin like an option.
    random=$({ printf G; head -c 15 /dev/urandom; } | base64 | tr '+/' '-_' | tr -d '=')
    id=${KAFKA_CLUSTER_ID:-$random}
    "$@" -Xmx128m kafka.tools.StorageTool format --cluster-id "$id" --config server.properties
fi
# exec: the broker has to be process 1 to be told to stop.
exec "$@" -Xms256m "-Xmx${KAFKA_HEAP:-768m}" kafka.Kafka server.properties
