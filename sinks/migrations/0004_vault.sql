-- Originals, sealed: each event that has a box, as the gateway wrote it. What is in a box opens
-- with a data key, and a data key with an auditor's private key; the history has neither.
CREATE TABLE IF NOT EXISTS vault_boxes (
    event_id UUID COMMENT 'UUIDv7 of the event',
    session_id UUID COMMENT 'session',
    statement_id UUID COMMENT 'statement; zeros when the event concerns none',
    key_id UUID COMMENT 'data key its box is sealed with',
    kind LowCardinality(String) COMMENT 'kind of event',
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'wall clock of the gateway',
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1)) COMMENT 'when this row was written',
    stream LowCardinality(String) COMMENT 'chain of the event',
    seq UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'place in the chain',
    prev_hash FixedString(32) CODEC(NONE) COMMENT 'event_hash of seq - 1',
    event_hash FixedString(32) CODEC(NONE) COMMENT 'hash of the event',
    schema_sha256 FixedString(32) CODEC(ZSTD(1)) COMMENT 'schema of the payload',
    payload String CODEC(ZSTD(1)) COMMENT 'the event in Avro binary, its box inside',
    INDEX ix_event event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ix_statement statement_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ix_session session_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (ts, event_id)
TTL toDateTime(ingested_at) + INTERVAL 7 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1,
    fsync_after_insert = 1, fsync_part_directory = 1;
-- Data keys, each wrapped to whoever may open it. A gateway may wrap one again: the newest counts.
CREATE TABLE IF NOT EXISTS vault_wraps (
    key_id UUID COMMENT 'data key',
    recipient LowCardinality(String) COMMENT 'whose private key opens it',
    ciphertext String CODEC(NONE) COMMENT 'the data key, encrypted to the recipient',
    version UInt64 COMMENT 'offset of its record in gatebook.keys',
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (key_id, recipient)
TTL toDateTime(ingested_at) + INTERVAL 7 YEAR
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
