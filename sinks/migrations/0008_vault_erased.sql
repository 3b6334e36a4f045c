-- Data keys that were destroyed. What is read again from an earlier offset, or restored from an
-- older gatebook.keys, must not bring their wraps back, not even until its tombstone is read.
CREATE TABLE IF NOT EXISTS vault_erased (
    key_id UUID COMMENT 'data key',
    version UInt64 COMMENT 'offset of its tombstone in gatebook.keys',
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key_id
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
